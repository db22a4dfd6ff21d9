#include "dht/servers.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zmq.h>

#include "common/log.h"
#include "dht/frames.h"

enum {
    PROOFS_AT_ONCE = 4,
    BURST = 64,
    DEAD_LOOKS = 64,
    WINDOW_MESSAGES = 2000,
    WINDOW_BYTES = 32 << 20,
    STATES = SERVER_RESTING + 1
};

static const uint64_t step_ns = 5 * NS_PER_MS;     /* of the loop's thread, at once */
static const uint64_t use_ns = NS_PER_S;           /* since it was of use: it is in use; */
static const uint64_t named_use_ns = 3 * NS_PER_S; /* and so one that an answer has named */
static const uint64_t proof_ns = 20 * NS_PER_MS;   /* after its introduction a server's proof is checked */
static const uint64_t first_rest_ns = 500 * NS_PER_MS;
static const uint64_t longest_rest_ns = 300 * NS_PER_S;
static const uint64_t longest_known_rest_ns = 5 * NS_PER_S; /* of one that was a server once */
static const uint64_t liar_rest_ns = 60 * NS_PER_S;

/* Those that wait: for the first time, or that were servers once; and those that are as good as dead, which must not
 * keep the others from being asked. */
enum { FIRST, AGAIN, TURNS };

LIST_HEAD(server_list, server);

/* An IP, with its servers that wait to be asked. */
struct servers_source {
    uint8_t ip[CONTACT_IP_SIZE];
    size_t servers, asked;
    struct servers_turn {
        struct servers_source *source;
        struct server_list waiting;
        TAILQ_ENTRY(servers_turn) entry; /* in the ring, with waiting ones */
    } turns[TURNS];
};

struct servers {
    void *socket, *monitor;
    struct world *world;
    struct servers_options options;
    struct table by_contact, by_route, sources;
    struct server_list lists[STATES];         /* all but the waiting ones */
    TAILQ_HEAD(server_proofs, server) proofs; /* to be checked */
    size_t counts[STATES];
    struct servers_ring {
        TAILQ_HEAD(servers_turns, servers_turn) turns;
        size_t asked;
    } rings[TURNS];
    uint64_t next_ns; /* no server is due before */
    size_t hand;      /* in by_contact: where the next is looked for that makes room */
    uint64_t last_route;
    struct servers_counters counters;
};

const char *server_state_name(enum server_state state)
{
    static const char *const names[] = {"waiting", "asked", "live", "resting"};
    return names[state];
}

/* ---- sockets -------------------------------------------------------------------------------------------------------
 */

static int open_sockets(struct servers *servers, void *context)
{
    /* No two of a process have one name: ZeroMQ frees it some time after the socket. */
    static atomic_uint last_name;
    const int none = 0, one = 1, water = 8, never = -1;
    const int64_t frame_max = DIALOGUE_FRAME_MAX;
    char name[48];
    snprintf(name, sizeof name, "inproc://expertd-dht-servers-%u", atomic_fetch_add(&last_name, 1));
    servers->socket = zmq_socket(context, ZMQ_ROUTER);
    servers->monitor = zmq_socket(context, ZMQ_PAIR);
    const int events = ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    if (servers->socket && servers->monitor && zmq_setsockopt(servers->socket, ZMQ_LINGER, &none, sizeof none) == 0 &&
        zmq_setsockopt(servers->socket, ZMQ_ROUTER_MANDATORY, &one, sizeof one) == 0 &&
        zmq_setsockopt(servers->socket, ZMQ_RECONNECT_IVL, &never, sizeof never) == 0 &&
        zmq_setsockopt(servers->socket, ZMQ_RCVHWM, &water, sizeof water) == 0 &&
        zmq_setsockopt(servers->socket, ZMQ_SNDHWM, &water, sizeof water) == 0 &&
        zmq_setsockopt(servers->socket, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max) == 0 &&
        zmq_setsockopt(servers->monitor, ZMQ_LINGER, &none, sizeof none) == 0 &&
        zmq_setsockopt(servers->monitor, ZMQ_RCVHWM, &none, sizeof none) == 0 &&
        zmq_socket_monitor(servers->socket, name, events) == 0 && zmq_connect(servers->monitor, name) == 0)
        return 0;
    const int error = zmq_errno();
    log_error("cannot make sockets to other servers: %s", zmq_strerror(error));
    return -error;
}

int servers_create(struct servers **servers, void *context, struct world *world, const struct servers_options *options)
{
    struct servers *made = calloc(1, sizeof *made);
    *servers = NULL;
    if (!made)
        return -ENOMEM;
    made->world = world;
    made->options = *options;
    TAILQ_INIT(&made->proofs);
    for (int turn = 0; turn < TURNS; turn++)
        TAILQ_INIT(&made->rings[turn].turns);
    const int rc = context ? open_sockets(made, context) : 0;
    if (rc != 0)
        servers_destroy(&made);
    *servers = made;
    return rc;
}

void servers_destroy(struct servers **servers)
{
    struct servers *old = *servers;
    *servers = NULL;
    if (!old)
        return;
    struct server *server;
    for (size_t at = 0; (server = table_next(&old->by_contact, &at));) {
        world_remove(old->world, &server->resident);
        free(server);
    }
    struct servers_source *source;
    for (size_t at = 0; (source = table_next(&old->sources, &at));)
        free(source);
    table_destroy(&old->by_contact);
    table_destroy(&old->by_route);
    table_destroy(&old->sources);
    if (old->socket) {
        zmq_socket_monitor(old->socket, NULL, 0);
        zmq_close(old->socket);
    }
    if (old->monitor)
        zmq_close(old->monitor);
    free(old);
}

void *servers_socket(const struct servers *servers)
{
    return servers->socket;
}

void *servers_monitor(const struct servers *servers)
{
    return servers->monitor;
}

static void endpoint_of(const struct server *server, char text[CONTACT_TEXT + 6])
{
    char contact[CONTACT_TEXT];
    snprintf(text, CONTACT_TEXT + 6, "tcp://%s", contact_format(&server->contact, contact));
}

static void disconnect(struct servers *servers, struct server *server)
{
    char endpoint[CONTACT_TEXT + 6];
    if (!server->route[0])
        return;
    table_remove(&servers->by_route, server->route, sizeof server->route);
    server->route[0] = 0;
    endpoint_of(server, endpoint);
    /* It may have ended by itself. */
    if (servers->socket && zmq_disconnect(servers->socket, endpoint) != 0 && zmq_errno() != ENOENT)
        log_debug("cannot disconnect from %s: %s", endpoint, zmq_strerror(zmq_errno()));
}

/* A new connection, and the question on it. False: it cannot be. */
static bool ask(struct servers *servers, struct server *server)
{
    char endpoint[CONTACT_TEXT + 6];
    const int v6 = !contact_is_v4(&server->contact);
    struct dialogue_ask question = {.network_id = servers->options.network_id};
    uint8_t *bytes;
    size_t size;
    endpoint_of(server, endpoint);
    /* A name that no connection had before: ZeroMQ aborts on a second. */
    const uint64_t number = ++servers->last_route;
    server->route[0] = 's';
    memcpy(server->route + 1, &number, sizeof number);
    if (getrandom(server->challenge, sizeof server->challenge, 0) != (ssize_t)sizeof server->challenge ||
        table_insert(&servers->by_route, server->route, sizeof server->route, server) != 0) {
        server->route[0] = 0;
        return false;
    }
    memcpy(question.challenge, server->challenge, CHALLENGE_SIZE);
    if (!servers->socket)
        return true;
    if (dialogue_pack_ask(&question, &bytes, &size) != 0)
        return false;
    const bool sent =
        zmq_setsockopt(servers->socket, ZMQ_IPV6, &v6, sizeof v6) == 0 &&
        zmq_setsockopt(servers->socket, ZMQ_CONNECT_ROUTING_ID, server->route, sizeof server->route) == 0 &&
        zmq_connect(servers->socket, endpoint) == 0 &&
        zmq_send(servers->socket, server->route, sizeof server->route, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 &&
        zmq_send(servers->socket, bytes, size, ZMQ_DONTWAIT) >= 0;
    free(bytes);
    return sent;
}

/* ---- states --------------------------------------------------------------------------------------------------------
 */

static int turn_of(const struct server *server)
{
    return server->failures + server->timeouts > 0 && !server->proven ? AGAIN : FIRST;
}

static void unlist(struct servers *servers, struct server *server)
{
    struct servers_turn *turn = &server->source->turns[server->turn];
    LIST_REMOVE(server, entry);
    servers->counts[server->state]--;
    if (server->state == SERVER_ASKED) {
        server->source->asked--;
        servers->rings[server->turn].asked--;
    }
    if (server->state == SERVER_WAITING && LIST_EMPTY(&turn->waiting))
        TAILQ_REMOVE(&servers->rings[server->turn].turns, turn, entry);
}

static void enlist(struct servers *servers, struct server *server, enum server_state state)
{
    server->turn = turn_of(server);
    struct servers_turn *turn = &server->source->turns[server->turn];
    if (state == SERVER_WAITING && LIST_EMPTY(&turn->waiting))
        TAILQ_INSERT_TAIL(&servers->rings[server->turn].turns, turn, entry);
    LIST_INSERT_HEAD(state == SERVER_WAITING ? &turn->waiting : &servers->lists[state], server, entry);
    server->state = state;
    servers->counts[state]++;
    if (state == SERVER_ASKED) {
        server->source->asked++;
        servers->rings[server->turn].asked++;
    }
}

static void notify(struct server *server, bool settled, bool sure)
{
    const bool live = server->state == SERVER_LIVE;
    if (server->settled == settled && server->sure == sure && server->live == live)
        return;
    server->settled = settled;
    server->sure = sure;
    server->live = live;
    for (struct server_link *link = LIST_FIRST(&server->links), *next; link; link = next) {
        next = LIST_NEXT(link, entry);
        link->changed(link, false);
    }
}

static void set_state(struct servers *servers, struct server *server, enum server_state state, struct moment now)
{
    unlist(servers, server);
    enlist(servers, server, state);
    server->since_ns = now.ns;
}

static void set_due(struct servers *servers, struct server *server, uint64_t due_ns)
{
    server->due_ns = due_ns;
    if (due_ns < servers->next_ns)
        servers->next_ns = due_ns;
}

/* With its connection ends all that it said. */
static void forget_said(struct servers *servers, struct server *server)
{
    disconnect(servers, server);
    world_remove(servers->world, &server->resident);
    if (server->resident.prove)
        TAILQ_REMOVE(&servers->proofs, server, by_proof);
    server->resident.prove = NULL;
    server->introduced = false;
}

/* Leaves it alone. */
static void rest(struct servers *servers, struct server *server, uint64_t rest_ns, bool sure, struct moment now)
{
    forget_said(servers, server);
    set_state(servers, server, SERVER_RESTING, now);
    set_due(servers, server, now.ns + rest_ns);
    notify(server, true, sure);
}

/* After one more failure. */
static uint64_t rest_after_failure(struct server *server)
{
    const uint64_t longest = server->proven ? longest_known_rest_ns : longest_rest_ns;
    const unsigned doublings = server->failures < 16 ? server->failures : 16;
    server->failures++;
    const uint64_t pause = first_rest_ns << doublings;
    return pause < longest ? pause : longest;
}

static void call_liar(struct servers *servers, struct server *server, const char *what, struct moment now)
{
    static struct log_burst burst;
    char text[CONTACT_TEXT];
    if (log_burst_allows(&burst, NULL, what))
        log_warning("%s %s: it is left alone", contact_format(&server->contact, text), what);
    servers->counters.liars++;
    server->proven = false;
    const unsigned doublings = server->failures < 6 ? server->failures : 6;
    server->failures++;
    rest(servers, server, liar_rest_ns << doublings, true, now);
}

static void start(struct servers *servers, struct server *server, struct moment now)
{
    set_state(servers, server, SERVER_ASKED, now);
    servers->counters.asked++;
    set_due(servers, server, now.ns + (server->timeouts ? 4 : 1) * SERVERS_ANSWER_MS * NS_PER_MS);
    if (!ask(servers, server))
        rest(servers, server, rest_after_failure(server), true, now);
}

/* Its connection is no more. One that lived is asked once more at once, and until then nobody knows. */
static void break_off(struct servers *servers, struct server *server, struct moment now)
{
    if (server->state == SERVER_LIVE && now.ns - server->since_ns > first_rest_ns) {
        servers->counters.lost++;
        forget_said(servers, server);
        start(servers, server, now);
        if (server->state != SERVER_ASKED)
            return;
        set_due(servers, server, now.ns + SERVERS_AGAIN_MS * NS_PER_MS);
        notify(server, false, false);
        return;
    }
    servers->counters.refused++;
    server->timeouts = 0;
    rest(servers, server, rest_after_failure(server), true, now);
}

/* ---- budgets -------------------------------------------------------------------------------------------------------
 */

static void forget(struct servers *servers, struct server *server)
{
    struct servers_source *source = server->source;
    forget_said(servers, server);
    unlist(servers, server);
    table_remove(&servers->by_contact, &server->contact, sizeof server->contact);
    free(server);
    if (--source->servers == 0) {
        table_remove(&servers->sources, source->ip, sizeof source->ip);
        free(source);
    }
}

static void let_go(struct servers *servers, struct server *server)
{
    for (struct server_link *link; (link = LIST_FIRST(&server->links));) {
        LIST_REMOVE(link, entry);
        link->server = NULL;
        link->changed(link, true);
    }
    servers->counters.let_go++;
    forget(servers, server);
}

/* Room for one more connection: who was of no use for the longest time goes, and first of those that no answer has
 * named, so that who is asked for does not go for strangers; and for what is as good as dead no other goes. */
static bool make_room(struct servers *servers, int turn, struct moment now)
{
    struct server *oldest = NULL;
    if (servers->counts[SERVER_LIVE] + servers->counts[SERVER_ASKED] < servers->options.max_servers)
        return true;
    struct server *server;
    for (server = LIST_FIRST(&servers->lists[SERVER_LIVE]); server; server = LIST_NEXT(server, entry)) {
        /* One that is in use is not let go of: then it is as if there were no room. */
        if (now.ns - server->used_ns < (server->resident.named ? named_use_ns : use_ns) ||
            (server->resident.named && turn == AGAIN))
            continue;
        const bool rather = oldest && server->resident.named != oldest->resident.named
                                ? oldest->resident.named
                                : !oldest || server->used_ns < oldest->used_ns;
        if (rather)
            oldest = server;
    }
    if (!oldest)
        return false;
    let_go(servers, oldest);
    return true;
}

/* Room for one more address, of the source if there is one: one that never was a server goes, once it is left alone.
 * Some are looked at, each time from where the last look ended. */
static bool forget_dead(struct servers *servers, const struct servers_source *source)
{
    for (int i = 0; i < DEAD_LOOKS; i++) {
        struct server *server = table_next(&servers->by_contact, &servers->hand);
        if (!server) {
            servers->hand = 0;
        } else if (server->state == SERVER_RESTING && server->sure && !server->proven &&
                   (!source || server->source == source)) {
            let_go(servers, server);
            return true;
        }
    }
    servers->counters.overflow++;
    return false;
}

/* All catalogs together: the largest goes, which is a stranger's if one is too large. */
static void keep_budget(struct servers *servers, struct moment now)
{
    while (servers->world->bytes > servers->options.max_bytes) {
        struct server *server, *largest = NULL;
        for (enum server_state state = SERVER_ASKED; state <= SERVER_LIVE; state++)
            for (server = LIST_FIRST(&servers->lists[state]); server; server = LIST_NEXT(server, entry))
                if (!largest || server->resident.bytes > largest->resident.bytes)
                    largest = server;
        if (!largest || largest->resident.bytes == 0)
            return;
        servers->counters.overflow++;
        call_liar(servers, largest, "tells more than there is room for (dht.max_catalogs)", now);
    }
}

static bool within_window(struct server *server, size_t size, struct moment now)
{
    if (now.ns - server->window_ns >= NS_PER_S) {
        server->window_ns = now.ns;
        server->window_messages = 0;
        server->window_bytes = 0;
    }
    server->window_messages++;
    server->window_bytes += size;
    return server->window_messages <= WINDOW_MESSAGES && server->window_bytes <= WINDOW_BYTES;
}

/* ---- hearing -------------------------------------------------------------------------------------------------------
 */

/* Another connection with the same id. *same: and of the same process. */
static const struct server *find_double(const struct servers *servers, const struct server *server, bool *same)
{
    const struct server *other;
    for (enum server_state state = SERVER_ASKED; state <= SERVER_LIVE; state++)
        for (other = LIST_FIRST(&servers->lists[state]); other; other = LIST_NEXT(other, entry)) {
            if (other == server || !other->introduced || other->resident.prove ||
                memcmp(other->resident.id, server->resident.id, SERVER_ID_SIZE) != 0)
                continue;
            *same = memcmp(other->instance, server->instance, INSTANCE_SIZE) == 0;
            return other;
        }
    return NULL;
}

/* What was held against it counts no more, once it has told all, and proved who it is. */
static void forgive(struct server *server)
{
    if (server->state == SERVER_LIVE && !server->resident.prove)
        server->failures = 0;
}

static void warn_of_double(const struct server *server, const struct server *other)
{
    static struct log_burst burst;
    char text[2][CONTACT_TEXT];
    if (log_burst_allows(&burst, NULL, NULL))
        log_warning("%s and %s have the same identity: was a dht.identity_file copied? They are two servers here",
                    contact_format(&server->contact, text[0]), contact_format(&other->contact, text[1]));
}

static bool refuse(struct servers *servers, struct server *server, enum refusal refused)
{
    server->refused = refused;
    server->prove_ns = 0;
    TAILQ_REMOVE(&servers->proofs, server, by_proof);
    TAILQ_INSERT_HEAD(&servers->proofs, server, by_proof);
    return false;
}

/* Checks what is still to be checked. False: it is refused, which end_refused goes on with. */
static bool prove(struct resident *resident)
{
    struct server *server = (struct server *)resident;
    struct servers *servers = server->servers;
    struct dialogue_ask question = {.network_id = servers->options.network_id};
    struct dialogue_introduction introduction = {.started_ms = server->started_ms, .curve_key = resident->curve_key};
    bool same = false;
    if (server->refused)
        return false;
    memcpy(question.challenge, server->challenge, CHALLENGE_SIZE);
    memcpy(introduction.server_id, resident->id, SERVER_ID_SIZE);
    memcpy(introduction.instance, server->instance, INSTANCE_SIZE);
    memcpy(introduction.endpoint, resident->endpoint, ENDPOINT_SIZE);
    memcpy(introduction.signature, server->signature, SIGNATURE_SIZE);
    if (!dialogue_proven(&introduction, &question))
        return refuse(servers, server, REFUSED_LIE);
    const struct server *other = find_double(servers, server, &same);
    if (other && same)
        return refuse(servers, server, REFUSED_DOUBLE);
    if (other) {
        servers->counters.doubles++;
        warn_of_double(server, other);
    }
    TAILQ_REMOVE(&servers->proofs, server, by_proof);
    resident->prove = NULL;
    server->proven = true;
    forgive(server);
    return true;
}

static void end_refused(struct servers *servers, struct server *server, struct moment now)
{
    if (server->refused == REFUSED_LIE)
        call_liar(servers, server, "does not prove that it is who it says", now);
    else
        rest(servers, server, liar_rest_ns, true, now);
}

/* What is still to be checked is checked, also before it is left alone for another reason: true: it is refused, and
 * rests for that. */
static bool is_refused(struct servers *servers, struct server *server, struct moment now)
{
    if (!server->resident.prove || prove(&server->resident))
        return false;
    end_refused(servers, server, now);
    return true;
}

/* Returns when the next is due. */
static uint64_t check_proofs(struct servers *servers, struct moment now)
{
    struct server *server;
    for (int i = 0; (server = TAILQ_FIRST(&servers->proofs)) && server->prove_ns <= now.ns; i++) {
        if (i == PROOFS_AT_ONCE)
            return now.ns;
        is_refused(servers, server, now);
    }
    return server ? server->prove_ns : UINT64_MAX;
}

/* False: it rests, or is called a liar. */
static bool introduce(struct servers *servers, struct server *server, const struct dialogue_tell *tell,
                      struct moment now)
{
    const struct dialogue_introduction *introduction = &tell->introduction;
    world_remove(servers->world, &server->resident);
    memcpy(server->resident.id, introduction->server_id, SERVER_ID_SIZE);
    memcpy(server->resident.endpoint, introduction->endpoint, ENDPOINT_SIZE);
    memcpy(server->signature, introduction->signature, SIGNATURE_SIZE);
    server->resident.curve_key = introduction->curve_key;
    server->voucher = introduction->voucher;
    server->vouched = introduction->vouched && servers->options.trust &&
                      voucher_holds(&introduction->voucher, introduction->server_id);
    memcpy(server->instance, introduction->instance, INSTANCE_SIZE);
    server->started_ms = introduction->started_ms;
    server->introduced = true;
    server->refused = REFUSED_NOT;
    if (!server->resident.prove) {
        server->resident.prove = prove;
        server->prove_ns = now.ns + proof_ns;
        TAILQ_INSERT_TAIL(&servers->proofs, server, by_proof);
    }
    if (memcmp(server->instance, servers->options.own_instance, INSTANCE_SIZE) == 0) {
        /* This process itself. */
        rest(servers, server, liar_rest_ns, true, now);
        return false;
    }
    /* Whom to believe about what depends on who it is. */
    return !servers->options.trust || !is_refused(servers, server, now);
}

/* Whether it may say what is under the prefix. What it may not counts as not said. */
static bool is_believed(struct servers *servers, const struct server *server, const char *prefix)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    const struct trust *trust = servers->options.trust;
    char text[SERVER_ID_TEXT];
    if (!trust || trust_allows(trust, prefix, server->resident.id, server->vouched ? &server->voucher : NULL))
        return true;
    servers->counters.untrusted++;
    if (log_burst_allows(&burst, &left_out, NULL))
        log_warning("server %s is not believed about %s (dht.trusted; %u more like it)",
                    server_id_format(server->resident.id, text), prefix, left_out);
    return false;
}

static void take(struct servers *servers, struct server *server, const struct dialogue_tell *tell, struct moment now)
{
    int rc = 0;
    for (size_t i = 0; i < tell->contents_count && rc == 0; i++)
        if (is_believed(servers, server, tell->contents[i].prefix))
            rc = world_put(servers->world, &server->resident, &tell->contents[i]);
    /* Pages of a catalog are branched once, at its end. */
    if (rc == 0 && (tell->whole || (server->state == SERVER_LIVE && tell->contents_count > 0)))
        rc = world_branch(servers->world, &server->resident);
    if (rc != 0 || server->resident.bytes > SERVERS_BYTES_MAX) {
        servers->counters.overflow++;
        call_liar(servers, server, rc != 0 ? "tells more than there is memory for" : "has too large a catalog", now);
        return;
    }
    if (tell->whole && server->state == SERVER_ASKED) {
        set_state(servers, server, SERVER_LIVE, now);
        /* Not when it introduced itself: who then falls silent, each time, is no reason to wait for ever. */
        server->timeouts = 0;
        forgive(server);
        server->used_ns = now.ns;
    }
    if (server->state == SERVER_LIVE)
        set_due(servers, server, now.ns + tell->expiration_ms * NS_PER_MS);
    else if (server->since_ns + SERVERS_WHOLE_MS * NS_PER_MS > now.ns + SERVERS_ANSWER_MS * NS_PER_MS)
        set_due(servers, server, now.ns + SERVERS_ANSWER_MS * NS_PER_MS);
    if (server->state == SERVER_LIVE)
        notify(server, true, true);
    keep_budget(servers, now);
}

void servers_hear(struct servers *servers, struct server *server, const uint8_t *bytes, size_t size, struct moment now)
{
    struct dialogue_tell tell;
    if (!within_window(server, size, now)) {
        call_liar(servers, server, "talks too much", now);
        return;
    }
    if (dialogue_unpack_tell(&tell, bytes, size) != 0) {
        call_liar(servers, server, "does not speak as an expertd-dht does", now);
        return;
    }
    if (tell.network_id != servers->options.network_id) {
        call_liar(servers, server, "is of another network (dht.network_id)", now);
    } else if (tell.introduced && server->state == SERVER_LIVE) {
        /* All of it once more. What it told before counts until then. */
        set_state(servers, server, SERVER_ASKED, now);
        if (introduce(servers, server, &tell, now))
            take(servers, server, &tell, now);
    } else if (tell.introduced ? introduce(servers, server, &tell, now) : server->introduced) {
        if (tell.expiration_ms != 0) {
            take(servers, server, &tell, now);
        } else if (!is_refused(servers, server, now)) {
            servers->counters.farewells++;
            rest(servers, server, first_rest_ns, true, now);
        }
    } else if (server->state == SERVER_ASKED || server->state == SERVER_LIVE) {
        call_liar(servers, server, "does not introduce itself", now);
    }
    dialogue_tell_destroy(&tell);
}

static bool receive(struct servers *servers, struct moment now)
{
    struct frames frames;
    if (!frames_receive(&frames, servers->socket))
        return false;
    struct server *server =
        table_find(&servers->by_route, zmq_msg_data(&frames.items[0]), zmq_msg_size(&frames.items[0]));
    if (server && frames.count == 2)
        servers_hear(servers, server, zmq_msg_data(&frames.items[1]), zmq_msg_size(&frames.items[1]), now);
    else if (server)
        call_liar(servers, server, "does not speak as an expertd-dht does", now);
    frames_close(&frames);
    return true;
}

/* One event: a connection that ended, or did not come to be. */
static bool receive_event(struct servers *servers, struct moment now)
{
    static const char scheme[] = "tcp://";
    char text[CONTACT_TEXT + sizeof scheme];
    struct frames frames;
    struct contact contact;
    if (!frames_receive(&frames, servers->monitor))
        return false;
    const size_t size = frames.count == 2 ? zmq_msg_size(&frames.items[1]) : sizeof text;
    const bool fits = size < sizeof text;
    memcpy(text, fits ? zmq_msg_data(&frames.items[1]) : "", fits ? size : 0);
    text[fits ? size : 0] = '\0';
    frames_close(&frames);
    if (strncmp(text, scheme, sizeof scheme - 1) != 0 || !contact_parse(&contact, text + sizeof scheme - 1))
        return true;
    struct server *server = table_find(&servers->by_contact, &contact, sizeof contact);
    if (server && (server->state == SERVER_ASKED || server->state == SERVER_LIVE) && !is_refused(servers, server, now))
        break_off(servers, server, now);
    return true;
}

/* ---- time ----------------------------------------------------------------------------------------------------------
 */

static void take_time(struct servers *servers, struct server *server, struct moment now)
{
    switch (server->state) {
    case SERVER_ASKED:
        if (is_refused(servers, server, now))
            break;
        /* Also a liar says nothing; one that is only slow is given more time when it is asked again. */
        servers->counters.silent++;
        server->timeouts++;
        rest(servers, server, server->timeouts < 2 ? first_rest_ns : rest_after_failure(server), server->timeouts >= 2,
             now);
        break;
    case SERVER_LIVE:
        if (is_refused(servers, server, now))
            break;
        servers->counters.lost++;
        rest(servers, server, first_rest_ns, true, now);
        break;
    case SERVER_RESTING:
        if (LIST_EMPTY(&server->links))
            forget(servers, server);
        else
            set_state(servers, server, SERVER_WAITING, now);
        break;
    case SERVER_WAITING:
        break;
    }
}

static void tick(struct servers *servers, struct moment now)
{
    if (now.ns < servers->next_ns)
        return;
    servers->next_ns = UINT64_MAX;
    for (enum server_state state = SERVER_ASKED; state <= SERVER_RESTING; state++)
        for (struct server *server = LIST_FIRST(&servers->lists[state]), *next; server; server = next) {
            next = LIST_NEXT(server, entry);
            if (now.ns >= server->due_ns)
                take_time(servers, server, now);
            else
                set_due(servers, server, server->due_ns);
        }
}

/* Those that wait, one of each IP in turn, so that none of many keeps the others from being asked. */
static void ask_waiting(struct servers *servers, int turn, size_t asked_max, struct moment now)
{
    struct servers_ring *ring = &servers->rings[turn];
    struct servers_turn *next, *stop = NULL;
    while ((next = TAILQ_FIRST(&ring->turns)) && next != stop && servers->counts[SERVER_ASKED] < SERVERS_ASKED_MAX &&
           ring->asked < asked_max) {
        const bool too_many = next->source->asked >= SERVERS_ASKED_OF_IP;
        if (!too_many && !make_room(servers, turn, now))
            return;
        TAILQ_REMOVE(&ring->turns, next, entry);
        TAILQ_INSERT_TAIL(&ring->turns, next, entry);
        if (too_many) {
            if (!stop)
                stop = next;
            continue;
        }
        stop = NULL;
        start(servers, LIST_FIRST(&next->waiting), now);
    }
}

uint64_t servers_step(struct servers *servers, struct moment now)
{
    const uint64_t end_ns = clock_now_ns() + step_ns;
    bool left = true;
    while (receive_event(servers, now)) {
    }
    for (int i = 0; left && (i < BURST || clock_now_ns() < end_ns); i++)
        left = receive(servers, now);
    tick(servers, now);
    /* A few of the dead in any case; else those that were never asked would keep them from being anything but dead. */
    const size_t room =
        servers->options.max_servers < SERVERS_ASKED_MAX ? servers->options.max_servers : SERVERS_ASKED_MAX;
    ask_waiting(servers, AGAIN, room / 4 + 1, now);
    ask_waiting(servers, FIRST, SERVERS_ASKED_MAX, now);
    if (TAILQ_EMPTY(&servers->rings[FIRST].turns))
        ask_waiting(servers, AGAIN, SERVERS_ASKED_MAX, now);
    const uint64_t proofs_ns = check_proofs(servers, now);
    const uint64_t next_ns = proofs_ns < servers->next_ns ? proofs_ns : servers->next_ns;
    return left ? now.ns : next_ns;
}

/* ---- links ---------------------------------------------------------------------------------------------------------
 */

static struct servers_source *source_for(struct servers *servers, const struct contact *contact)
{
    struct servers_source *source = table_find(&servers->sources, contact->ip, sizeof contact->ip);
    if (source)
        return source;
    source = calloc(1, sizeof *source);
    if (!source)
        return NULL;
    memcpy(source->ip, contact->ip, sizeof source->ip);
    for (int turn = 0; turn < TURNS; turn++)
        source->turns[turn].source = source;
    if (table_insert(&servers->sources, source->ip, sizeof source->ip, source) != 0) {
        free(source);
        return NULL;
    }
    return source;
}

static int add(struct servers *servers, const struct contact *contact, struct server **added, struct moment now)
{
    const size_t of_ip = contact_is_loopback(contact) ? SERVERS_OF_LOOPBACK : SERVERS_OF_IP;
    if (servers->by_contact.count >= SERVERS_MAX && !forget_dead(servers, NULL))
        return -ENOSPC;
    struct servers_source *source = source_for(servers, contact);
    if (!source)
        return -ENOMEM;
    if (source->servers >= of_ip && !forget_dead(servers, source))
        return -EDQUOT;
    struct server *server = calloc(1, sizeof *server);
    if (server) {
        server->contact = *contact;
        server->servers = servers;
        server->source = source;
        source->servers++;
        if (table_insert(&servers->by_contact, &server->contact, sizeof server->contact, server) == 0) {
            server->since_ns = server->used_ns = now.ns;
            enlist(servers, server, SERVER_WAITING);
            *added = server;
            return 0;
        }
        source->servers--;
        free(server);
    }
    if (source->servers == 0) {
        table_remove(&servers->sources, source->ip, sizeof source->ip);
        free(source);
    }
    return -ENOMEM;
}

int servers_link(struct servers *servers, const struct contact *contact, struct server_link *link, struct moment now)
{
    struct server *server = table_find(&servers->by_contact, contact, sizeof *contact);
    const int rc = server ? 0 : add(servers, contact, &server, now);
    if (rc != 0)
        return rc;
    link->server = server;
    LIST_INSERT_HEAD(&server->links, link, entry);
    return 0;
}

void servers_unlink(struct servers *servers, struct server_link *link)
{
    struct server *server = link->server;
    if (!server)
        return;
    LIST_REMOVE(link, entry);
    link->server = NULL;
    /* How long it is to be left alone is remembered. */
    if (LIST_EMPTY(&server->links) && server->state != SERVER_RESTING)
        forget(servers, server);
}

const struct server *servers_find(const struct servers *servers, const struct contact *contact)
{
    return table_find(&servers->by_contact, contact, sizeof *contact);
}

const struct server *servers_next(const struct servers *servers, size_t *at)
{
    return table_next(&servers->by_contact, at);
}

size_t servers_count(const struct servers *servers, enum server_state state)
{
    return servers->counts[state];
}

size_t servers_total(const struct servers *servers)
{
    return servers->by_contact.count;
}

const struct servers_counters *servers_counters(const struct servers *servers)
{
    return &servers->counters;
}
