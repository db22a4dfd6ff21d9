#include "client/away.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "client/call_cut.h"
#include "client/call_join.h"
#include "client/call_parts.h"
#include "client/switchboard.h"
#include "common/address.h"
#include "common/clock.h"
#include "common/uid.h"

enum { LEGS_MAX = SIBLINGS_MAX + 1 /* and the client itself */, ROOM_SPARE = EXPERTD_MAX_TENSORS * 64 };
/* For the second connection: some times what a handshake takes on a bad link. And half of a call's time at most. */
static const uint64_t bulk_patience_ns = 2 * NS_PER_S, bulk_again_ns = NS_PER_S / 10;
enum { LARGE_BYTES = 256 << 10 };

/* A part of a call for many experts. */
struct part {
    uint64_t row, uid_hash;
    uint32_t rows;
    struct expertd_client *at; /* where it was asked last; NULL: it does not go on */
    bool turned;               /* the frontend that the call was made at has said where it is: it is believed once */
};

struct leg {
    struct expertd_call *call; /* NULL: it has been taken in */
    uint32_t *numbers;         /* of the call's parts, ascending; NULL: all of the call */
    size_t count;
};

/* One allocation. Of a call for one expert the one leg has its whole request. */
struct away {
    struct leg legs[LEGS_MAX];
    size_t count, open;
    size_t n_parts;
    uint32_t *numbers; /* behind the parts: the legs', one behind the other, as each part is in one */
    struct part parts[];
};

/* ---- legs ---------------------------------------------------------------------------------------------------------
 */

/* Before it has legs: one of them may be here, with its id. */
static void go_away(struct expertd_call *call)
{
    struct expertd_client *client = call->client;
    client->stirred = true;
    call->not_applied = call->method != EXPERTD__METHOD__BACKWARD;
    key_table_remove(&client->table, &call->by_id);
    switchboard_move(call, CALL_AWAY);
}

static struct away *away_of(struct expertd_call *call)
{
    const size_t part_bytes = sizeof call->away->parts[0] + sizeof call->away->numbers[0];
    call->away = calloc(1, sizeof *call->away + call->n_parts * part_bytes);
    if (call->away)
        call->away->numbers = (uint32_t *)(void *)&call->away->parts[call->n_parts];
    return call->away;
}

static void forget(struct expertd_call *call)
{
    free(call->away);
    call->away = NULL;
}

void away_release(struct expertd_call *call)
{
    for (size_t i = 0; call->away && i < call->away->count; i++)
        if (call->away->legs[i].call)
            away_release(call->away->legs[i].call);
    forget(call);
    switchboard_release(call);
}

bool away_connected(const struct expertd_call *call)
{
    for (size_t i = 0; i < call->away->count; i++) {
        const struct expertd_call *leg = call->away->legs[i].call;
        if (!leg || leg->client->connection.up || (leg->client->is_bulk && call->client->connection.up))
            return true;
    }
    return false;
}

static void copy_request(struct expertd_call *to, const struct expertd_call *from)
{
    for (; to->n_request < from->n_request; to->n_request++) {
        zmq_msg_init(&to->request[to->n_request]);
        zmq_msg_copy(&to->request[to->n_request], (zmq_msg_t *)(uintptr_t)&from->request[to->n_request]);
    }
    to->request_id = from->request_id;
    to->rows = from->rows;
    to->uid_hash = from->uid_hash;
    to->n_gradients = from->n_gradients;
    to->n_parts = from->n_parts;
}

/* A share of the call's room, and some for what its tensors begin at. */
static uint64_t room_of(const struct expertd_call *call, uint64_t rows)
{
    if (call->room_bytes == CONNECTION_NOT_LOCAL || rows == call->rows)
        return call->room_bytes;
    return call->room_bytes / call->rows * rows + ROOM_SPARE;
}

/* A leg at that client without a request; NULL: there is no time, or no memory. */
static struct expertd_call *new_leg(const struct expertd_call *call, struct expertd_client *at)
{
    return clock_now_ns() < call->deadline_ns ? switchboard_new_call(at, call->method) : NULL;
}

/* Puts a leg on its way that has a request. numbers: its parts', of away->numbers; NULL: it is all of the call. False:
 * it cannot be, and there is no leg. */
static bool launch_leg(struct expertd_call *call, struct expertd_call *leg, uint32_t *numbers, size_t count)
{
    struct away *away = call->away;
    struct expertd_client *at = leg->client;
    leg->room_bytes = room_of(call, leg->rows);
    leg->deadline_ns = call->deadline_ns;
    leg->deadline_ms = call->deadline_ms;
    leg->leg_of = call;
    at->own_legs += at == call->client;
    if (switchboard_set_time_left(leg, clock_now_ns()) < 0 || away_launch(leg, call->deadline_ns) < 0) {
        at->own_legs -= at == call->client;
        call_drop_request(leg);
        return false;
    }
    away->legs[away->count++] = (struct leg){leg, numbers, count};
    away->open++;
    return true;
}

/* The client of the frontend that an answer names, made where there is none; NULL. */
static struct expertd_client *sibling_of(struct expertd_client *client, const char *endpoint)
{
    struct epoll_event event = {.events = EPOLLIN};
    struct expertd_client *sibling = siblings_at(&client->siblings, endpoint);
    if (sibling || !siblings_may_add(&client->siblings, client->endpoint, endpoint))
        return sibling;
    client->siblings.options.zmq_context = client->connection.context;
    if (expertd_client_new(&sibling, endpoint, &client->siblings.options) < 0)
        return NULL;
    siblings_add(&client->siblings, sibling, sibling->endpoint);
    sibling->is_sibling = true;
    sibling->home = client;
    /* Its end takes it out again. Not watched, it would be found by the next look at the clock. */
    (void)epoll_ctl(client->connection.fd, EPOLL_CTL_ADD, sibling->connection.fd, &event);
    return sibling;
}

/* Likewise, of another frontend than the one that says so: what is not here is not by the second connection to here. */
static struct expertd_client *named_sibling(struct expertd_client *client, const char *endpoint)
{
    const bool another = endpoint && endpoint[0] && strcmp(endpoint, client->endpoint) != 0;
    return another ? sibling_of(client, endpoint) : NULL;
}

struct expertd_client *expertd_client_frontend(struct expertd_client *client, const char *endpoint)
{
    return client->is_sibling ? NULL : sibling_of(client, endpoint);
}

/* ---- whole requests -----------------------------------------------------------------------------------------------
 */

/* Gives the call's request to the sibling: whoever sent it here has done nothing with it. False: it cannot be, and the
 * call, which is in no table, has no legs. */
static bool send_whole(struct expertd_call *call, struct expertd_client *sibling)
{
    const bool not_applied = call->not_applied;
    if (!away_of(call))
        return false;
    go_away(call);
    struct expertd_call *leg = new_leg(call, sibling);
    if (leg)
        copy_request(leg, call);
    if (leg && launch_leg(call, leg, NULL, 0))
        return true;
    call->not_applied = not_applied;
    forget(call);
    return false;
}

static bool follow_whole(struct expertd_call *call, const char *endpoint)
{
    struct expertd_client *client = call->client;
    if (call->status != EXPERTD_NOT_FOUND || call->followed)
        return false;
    struct expertd_client *sibling = named_sibling(client, endpoint);
    if (!sibling || !send_whole(call, sibling))
        return false;
    call->followed = true;
    client->counters.followed++;
    call_drop_answer(call);
    if (call_has_tensors(call->method) && call->n_parts == 0)
        siblings_learn(&client->siblings, call->uid_hash, sibling);
    return true;
}

static void take_metadata(struct expertd_call *call, const struct expertd_call *leg)
{
    call->metadata_bytes = leg->metadata_bytes;
    memcpy(call->metadata, leg->metadata, leg->metadata_bytes);
}

/* What has come of the leg is the call's. */
static void take_whole(struct expertd_call *call, struct expertd_call *leg)
{
    call->status = leg->status;
    call->not_applied = leg->not_applied;
    call->unanswered |= leg->unanswered;
    call->retry_after_ms = leg->retry_after_ms;
    call->answer = leg->answer;
    leg->answer = NULL;
    take_metadata(call, leg);
    memcpy(call->message, leg->message, sizeof call->message);
    call_join_all(call, leg);
}

/* ---- parts --------------------------------------------------------------------------------------------------------
 */

/* A request of one's own, decoded; `memory` is to be freed, also where it is NULL for want of that. */
static Expertd__RequestHeader *decode(const struct expertd_call *call, void **memory)
{
    struct message_arena arena;
    Expertd__RequestHeader *header = NULL;
    const char *why;
    zmq_msg_t *frame = (zmq_msg_t *)(uintptr_t)&call->request[0];
    *memory = malloc(MESSAGE_REQUEST_ARENA);
    if (!*memory)
        return NULL;
    message_arena_init(&arena, *memory, MESSAGE_REQUEST_ARENA);
    if (message_decode_request(&arena, zmq_msg_data(frame), zmq_msg_size(frame), &header, &why) < 0)
        return NULL;
    return header->n_parts == call->n_parts && call_cut_possible(call, header) ? header : NULL;
}

/* The parts, all of them here. False: no memory. */
static bool begin_parts(struct expertd_call *call, const Expertd__RequestHeader *header)
{
    struct away *away = away_of(call);
    uint64_t row = 0;
    if (!away)
        return false;
    away->n_parts = call->n_parts;
    for (size_t p = 0; p < call->n_parts; p++) {
        const Expertd__RequestHeader__Part *part = header->parts[p];
        away->parts[p] = (struct part){
            .row = row, .rows = part->rows, .uid_hash = uid_hash(part->uid, strlen(part->uid)), .at = call->client};
        row += part->rows;
    }
    return true;
}

/* Says of parts what is not an answer's. */
static void say(struct expertd_call *call, const uint32_t *numbers, size_t count, struct call_part what)
{
    struct call_part parts[MESSAGE_MAX_PARTS];
    for (size_t i = 0; i < count; i++)
        parts[i] = what;
    call_parts_say(&call->answer, numbers, parts, count);
}

/* With an id of its own: a late answer under the call's may be to other parts. */
static bool cut_leg(struct expertd_call *leg, struct expertd_call *call, const Expertd__RequestHeader *header,
                    const uint32_t *numbers, size_t count)
{
    leg->request_id = client_next_id(call->client);
    return call_cut(leg, call, header, numbers, count, connection_heap(&leg->client->connection));
}

/* A leg for each client at which parts that go on (parts[].at) are. How many there are. */
static size_t start_legs(struct expertd_call *call, const Expertd__RequestHeader *header)
{
    struct away *away = call->away;
    bool started[MESSAGE_MAX_PARTS] = {false};
    const bool not_applied = call->not_applied;
    uint32_t *numbers = away->numbers;
    away->count = away->open = 0;
    go_away(call);
    for (size_t first = 0; first < away->n_parts && away->count < LEGS_MAX; first++) {
        struct expertd_client *at = away->parts[first].at;
        size_t count = 0;
        if (!at || started[first])
            continue;
        for (size_t p = first; p < away->n_parts; p++) {
            if (away->parts[p].at != at)
                continue;
            started[p] = true;
            numbers[count++] = (uint32_t)p;
        }
        struct expertd_call *leg = new_leg(call, at);
        bool made = leg != NULL;
        if (made && count == away->n_parts)
            copy_request(leg, call);
        else if (made)
            made = cut_leg(leg, call, header, numbers, count);
        if (made)
            (void)launch_leg(call, leg, numbers, count);
        numbers += count;
    }
    if (away->count == 0)
        call->not_applied = not_applied;
    return away->count;
}

/* Whether parts are known to be at other frontends, and are asked there from now on. */
static bool begin_at_siblings(struct expertd_call *call)
{
    void *memory;
    bool elsewhere = false;
    struct expertd_client *client = call->client;
    const Expertd__RequestHeader *header = decode(call, &memory);
    if (header && begin_parts(call, header)) {
        for (size_t p = 0; p < call->n_parts; p++) {
            struct expertd_client *at = siblings_find(&client->siblings, call->away->parts[p].uid_hash);
            call->away->parts[p].at = at ? at : client;
            elsewhere |= at != NULL;
        }
        elsewhere = elsewhere && call_parts_begin(&call->answer, call->n_parts) && start_legs(call, header) > 0;
    }
    free(memory);
    if (!elsewhere) {
        call_drop_answer(call);
        forget(call);
    }
    return elsewhere;
}

/* Where a part goes on after what was said of it; NULL: it has ended. */
static struct expertd_client *next_of(struct expertd_call *call, size_t p)
{
    struct expertd_client *client = call->client;
    struct part *part = &call->away->parts[p];
    const struct call_part *said = &((const struct call_parts *)call->answer)->parts[p];
    if (!part->at)
        return NULL;
    const bool lost = said->status == EXPERTD_NOT_FOUND || said->status == EXPERTD_UNAVAILABLE;
    if (part->at != client && lost)
        siblings_learn(&client->siblings, part->uid_hash, NULL);
    if (said->status != EXPERTD_NOT_FOUND || part->turned)
        return NULL;
    if (part->at != client)
        return client; /* where it was looked for it is not any more */
    struct expertd_client *sibling = named_sibling(client, said->endpoint);
    if (sibling) {
        part->turned = true;
        siblings_learn(&client->siblings, part->uid_hash, sibling);
    }
    return sibling;
}

/* Whether parts go on, once there is an answer for each. */
static bool go_on(struct expertd_call *call)
{
    void *memory = NULL;
    size_t count = 0, turned = 0;
    if (clock_now_ns() >= call->deadline_ns)
        return false;
    const Expertd__RequestHeader *header = call->away ? NULL : decode(call, &memory);
    if (!call->away && (!header || !begin_parts(call, header))) {
        free(memory);
        return false;
    }
    for (size_t p = 0; p < call->n_parts; p++) {
        const bool before = call->away->parts[p].turned;
        call->away->parts[p].at = next_of(call, p);
        count += call->away->parts[p].at != NULL;
        turned += call->away->parts[p].turned && !before;
    }
    if (count > 0 && !header)
        header = decode(call, &memory);
    count = count > 0 && header ? start_legs(call, header) : 0;
    free(memory);
    call->client->counters.followed += count > 0 && turned > 0;
    return count > 0;
}

/* What the leg's answer says of its parts is said of the call's. */
static void take_leg(struct expertd_call *call, struct expertd_call *leg, const struct leg *of)
{
    struct call_join_rows rows[MESSAGE_MAX_PARTS];
    const struct call_parts *said = leg->answer;
    for (size_t p = 0; p < of->count; p++) {
        const struct part *part = &call->away->parts[of->numbers[p]];
        rows[p] = (struct call_join_rows){part->row, part->rows};
    }
    const char *problem = call_join_parts(call, leg, rows, of->count);
    call->unanswered |= leg->unanswered && leg->request_id == call->request_id;
    take_metadata(call, leg);
    if (problem || !said || said->count != of->count)
        say(call, of->numbers, of->count,
            (struct call_part){.status = problem ? EXPERTD_INTERNAL : leg->status,
                               .retry_after_ms = problem ? 0 : leg->retry_after_ms,
                               .not_applied = leg->not_applied,
                               .message = problem ? problem : leg->message,
                               .endpoint = ""});
    else
        call_parts_say(&call->answer, of->numbers, said->parts, of->count);
}

static void leg_of_parts_ended(struct expertd_call *call, struct expertd_call *leg)
{
    struct away *away = call->away;
    for (size_t i = 0; i < away->count; i++) {
        if (away->legs[i].call != leg)
            continue;
        take_leg(call, leg, &away->legs[i]);
        away->legs[i].call = NULL;
        away->open--;
    }
    if (away->open > 0 || go_on(call))
        return;
    call_join_status(call);
    forget(call);
    switchboard_finish(call);
}

/* ---- what becomes of either ---------------------------------------------------------------------------------------
 */

/* After its answer, whether the call goes on where that says that its expert, or some of its parts', are. endpoint: the
 * answer's; "". Only once is a frontend believed. */
static bool follow(struct expertd_call *call, const char *endpoint)
{
    if (call->client->is_sibling || call->n_request == 0)
        return false;
    if (call->n_parts == 0 || !call->answer)
        return follow_whole(call, endpoint);
    if (!call_parts_any_named(call->answer) || !go_on(call)) {
        forget(call);
        return false;
    }
    return true;
}

/* What was looked for where it is not any more goes on at home. */
static void whole_ended(struct expertd_call *call, struct expertd_call *leg)
{
    struct expertd_client *client = call->client;
    const uint64_t now_ns = clock_now_ns();
    const bool bulk = leg->client->is_bulk; /* it was at home */
    const bool remembered = !bulk && !call->followed && leg->status == EXPERTD_NOT_FOUND;
    const bool lost = leg->status == EXPERTD_UNAVAILABLE || leg->status == EXPERTD_NOT_FOUND;
    if (lost)
        siblings_learn(&client->siblings, call->uid_hash, NULL);
    if (remembered && call->deadline_ns > now_ns && switchboard_set_time_left(call, now_ns) == 0 &&
        call_table_insert(&client->table, call) == 0) {
        client->stirred = true;
        switchboard_queue(call);
        return;
    }
    take_whole(call, leg);
    if (!bulk || !follow(call, leg->named))
        switchboard_finish(call);
}

/* ---- what is large -------------------------------------------------------------------------------------------------
 */

/* On a connection to another host what is sent waits for all that was sent before: a second one is for large requests,
 * and those whose answers are, so that others and the server's pings wait behind none. */
static bool is_large(const struct expertd_call *call)
{
    uint64_t bytes = call->room_bytes == CONNECTION_NOT_LOCAL ? 0 : call->room_bytes;
    for (size_t i = 1; i < call->n_request && bytes < LARGE_BYTES; i++)
        bytes += zmq_msg_size((zmq_msg_t *)(uintptr_t)&call->request[i]);
    return bytes >= LARGE_BYTES;
}

static bool send_large(struct expertd_call *call)
{
    struct expertd_client *client = call->client;
    if (client->is_bulk || !is_large(call) || address_endpoint_is_local(client->endpoint))
        return false;
    struct expertd_client *bulk = sibling_of(client, client->endpoint);
    if (!bulk)
        return false;
    bulk->is_bulk = true;
    if (bulk->kept_out && !bulk->connection.up)
        return false;
    if (!send_whole(call, bulk))
        return false;
    const uint64_t now_ns = clock_now_ns();
    const uint64_t left_ns = call->deadline_ns > now_ns ? call->deadline_ns - now_ns : 0;
    const uint64_t until_ns = now_ns + (left_ns / 2 < bulk_patience_ns ? left_ns / 2 : bulk_patience_ns);
    if (!bulk->connection.up && until_ns < bulk->patient_until_ns)
        bulk->patient_until_ns = until_ns;
    return true;
}

/* Of a leg that was never sent: the call goes by the first connection, and stays there. */
static void go_home(struct expertd_call *call, struct expertd_call *leg)
{
    key_table_remove(&leg->client->table, &leg->by_id);
    forget(call);
    switchboard_keep(leg);
    call->not_applied = true;
    if (switchboard_set_time_left(call, clock_now_ns()) < 0 || call_table_insert(&call->client->table, call) < 0) {
        call_set_status(call, EXPERTD_RESOURCE_EXHAUSTED, "no memory for the call");
        switchboard_finish(call);
        return;
    }
    call->client->stirred = true;
    switchboard_queue(call);
}

/* A network may admit one connection and no second one. What waits for that goes by the one that there is. */
static void mind_bulk(struct expertd_client *client, struct expertd_client *bulk)
{
    if (bulk->connection.up || bulk->count[CALL_UNSENT] == 0) {
        bulk->kept_out &= !bulk->connection.up;
        bulk->patient_until_ns = UINT64_MAX;
        return;
    }
    const uint64_t now_ns = clock_now_ns();
    const bool over = now_ns >= bulk->patient_until_ns;
    if (bulk->patient_until_ns == UINT64_MAX) {
        bulk->patient_until_ns = now_ns + bulk_patience_ns; /* lost while calls waited */
    } else if (over && !client->connection.up) {
        bulk->patient_until_ns = now_ns + bulk_again_ns; /* nothing is to be had now */
    } else if (over) {
        bulk->kept_out = true;
        bulk->patient_until_ns = UINT64_MAX;
        for (struct expertd_call *leg = TAILQ_FIRST(&bulk->calls[CALL_UNSENT]), *next; leg; leg = next) {
            next = TAILQ_NEXT(leg, link);
            /* Else the program's own, made there; or one of several, of which others may be on their way. */
            if (leg->leg_of && leg->leg_of->away->n_parts == 0)
                go_home(leg->leg_of, leg);
        }
    }
}

/* ---- all of them --------------------------------------------------------------------------------------------------
 */

static bool begin_elsewhere(struct expertd_call *call)
{
    struct expertd_client *client = call->client;
    if (call->leg_of || !client->siblings.routes)
        return false;
    if (call->n_parts > 0)
        return begin_at_siblings(call);
    struct expertd_client *sibling = siblings_find(&client->siblings, call->uid_hash);
    return sibling && send_whole(call, sibling);
}

static bool begin_away(struct expertd_call *call)
{
    return call_has_tensors(call->method) && (begin_elsewhere(call) || send_large(call));
}

static void take_ended(struct expertd_client *client)
{
    struct expertd_call *leg;
    while ((leg = TAILQ_FIRST(&client->calls[CALL_LEG_ENDED])) != NULL) {
        struct expertd_call *call = leg->leg_of;
        if (call->away->n_parts > 0) {
            leg_of_parts_ended(call, leg);
        } else {
            forget(call);
            whole_ended(call, leg);
        }
        switchboard_keep(leg);
    }
}

/* Those whose answers name another frontend go on there, or end. Whether there were any. */
static bool follow_named(struct expertd_client *client)
{
    struct expertd_call *call;
    const bool any = client->count[CALL_NAMED] > 0;
    while ((call = TAILQ_FIRST(&client->calls[CALL_NAMED])) != NULL)
        if (!follow(call, call->named))
            switchboard_finish(call);
    return any;
}

/* Takes in what there is of all siblings, and ends the calls whose legs have. Whether anything was put on its way
 * meanwhile: then it is to be looked at all again before sleeping. */
static bool take_back(struct expertd_client *client)
{
    client->stirred = false;
    for (size_t i = 0; i < client->siblings.count; i++) {
        away_progress(client->siblings.clients[i], NULL);
        if (client->siblings.clients[i]->is_bulk)
            mind_bulk(client, client->siblings.clients[i]);
        take_ended(client->siblings.clients[i]);
    }
    take_ended(client);
    return client->stirred;
}

int away_launch(struct expertd_call *call, uint64_t deadline_ns)
{
    call->deadline_ns = deadline_ns;
    if (begin_away(call))
        return 0;
    const int rc = switchboard_launch(call);
    (void)follow_named(call->client);
    return rc;
}

/* If `wanted` has not ended, the last thing that was done to each connection is an attempt to receive that found
 * nothing, as connection_wait() demands: here calls are given to siblings, and those are looked at behind it; what that
 * puts on its way, here or there, is sent, and then it begins anew. */
void away_progress(struct expertd_client *client, const struct expertd_call *wanted)
{
    bool again;
    do {
        switchboard_progress(client, wanted);
        again = follow_named(client);
        if (wanted && !call_in_flight(wanted))
            return;
        again |= client->siblings.count > 0 && take_back(client);
    } while (again);
}
