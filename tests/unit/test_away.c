/* Calls at the wrong frontend: two servers, of which one names the other; and calls for many experts, of which each has
 * some. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/support_door.h"
#include "tests/unit/support_session.h"

static struct router *right; /* has nop.0, which the session's server has not */
static atomic_int at_home, at_right, right_has_it;
static uint64_t ids[2]; /* of the last request at home, and at the right one */
static char named[256]; /* the endpoint that home names */

static void answer_right(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    if (header->method != EXPERTD__METHOD__PING) {
        ids[1] = header->request_id;
        atomic_fetch_add(&at_right, 1);
    }
    if (!atomic_load(&right_has_it) && header->method != EXPERTD__METHOD__PING)
        router_reply_status(request, header, EXPERTD__STATUS__NOT_FOUND, "not here any more");
    else
        router_nop(context, request);
}

/* Names the other one, or when nothing is named has the expert itself. */
static void answer_home(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    if (header->method != EXPERTD__METHOD__PING) {
        ids[0] = header->request_id;
        atomic_fetch_add(&at_home, 1);
    }
    if (!named[0] || header->method == EXPERTD__METHOD__PING) {
        router_nop(context, request);
        return;
    }
    reply.status = EXPERTD__STATUS__NOT_FOUND;
    reply.message = (char *)(uintptr_t) "it is at another frontend";
    reply.endpoint = named;
    router_reply(request, header, &reply, NULL, 0);
}

static void set_up(void)
{
    session_open();
    right = router_start(NULL, answer_right, NULL);
    snprintf(named, sizeof named, "%s", router_endpoint(right));
    atomic_store(&at_home, 0);
    atomic_store(&at_right, 0);
    atomic_store(&right_has_it, 1);
    session_start(answer_home, NULL);
}

static void tear_down(void)
{
    session_close();
    router_stop(&right);
}

static void forward_as(enum expertd_status status)
{
    session_forward(3, SESSION_LONG_MS, &session.call);
    session_finish_as(session.call, status);
}

START_TEST(a_call_follows_and_the_next_goes_there_at_once)
{
    for (int i = 1; i <= 3; i++) {
        forward_as(EXPERTD_OK);
        ck_assert_uint_eq(expertd_call_output_count(session.call), 1);
        ck_assert_mem_eq(expertd_call_output(session.call, 0)->data, session_floats, 48);
        expertd_call_release(&session.call);
        ck_assert_int_eq(atomic_load(&at_home), 1);
        ck_assert_int_eq(atomic_load(&at_right), i);
    }
    struct expertd_client_counters counters = {.size = sizeof counters};
    expertd_client_read_counters(session.client, &counters);
    ck_assert_uint_eq(counters.followed, 1);
    ck_assert_uint_eq(counters.in_flight, 0);
    ck_assert_uint_eq(counters.calls, 3);
}
END_TEST

START_TEST(a_backward_keeps_its_id_and_can_be_repeated)
{
    session_backward(SESSION_LONG_MS, &session.call);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_uint_eq(ids[0], ids[1]);
    const uint64_t id = ids[1];
    ck_assert_int_eq(expertd_call_retry(session.call, SESSION_LONG_MS), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_uint_eq(ids[1], id);
    ck_assert_int_eq(atomic_load(&at_right), 2);
    ck_assert(!expertd_call_not_applied(session.call));
}
END_TEST

START_TEST(info_and_checkpoint_follow_too)
{
    ck_assert_int_eq(expertd_info(session.client, "nop.0", SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_str_eq(expertd_call_info(session.call)->uid, "nop.0");
    expertd_call_release(&session.call);
    ck_assert_int_eq(expertd_checkpoint(session.client, "nop.0", SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_int_eq(atomic_load(&at_right), 2);
}
END_TEST

START_TEST(what_is_not_there_any_more_is_looked_for_at_home)
{
    forward_as(EXPERTD_OK);
    expertd_call_release(&session.call);
    atomic_store(&right_has_it, 0);
    named[0] = 0;
    forward_as(EXPERTD_OK); /* remembered to be at the right one, which says no, and then at home */
    expertd_call_release(&session.call);
    ck_assert_int_eq(atomic_load(&at_right), 2);
    ck_assert_int_eq(atomic_load(&at_home), 2);
    forward_as(EXPERTD_OK); /* which is remembered */
    ck_assert_int_eq(atomic_load(&at_right), 2);
}
END_TEST

START_TEST(nobody_is_sent_round_in_circles)
{
    atomic_store(&right_has_it, 0);
    forward_as(EXPERTD_NOT_FOUND);
    ck_assert_str_eq(expertd_call_message(session.call), "not here any more");
    ck_assert(expertd_call_not_applied(session.call));
    ck_assert_int_eq(atomic_load(&at_home), 1);
    ck_assert_int_eq(atomic_load(&at_right), 1);
    expertd_call_release(&session.call);
    snprintf(named, sizeof named, "%s", router_endpoint(session.router)); /* itself */
    forward_as(EXPERTD_NOT_FOUND);
    ck_assert_int_eq(atomic_load(&at_home), 2);
}
END_TEST

START_TEST(what_is_no_endpoint_is_not_followed)
{
    static const char *const strange[] = {"tcp://*:1", "inproc://x",  "ipc://", "tcp://h",
                                          "nonsense",  "pgm://a;b:1", "\n"};
    snprintf(named, sizeof named, "%s", strange[_i]);
    forward_as(EXPERTD_NOT_FOUND);
    ck_assert_str_eq(expertd_call_message(session.call), "it is at another frontend");
}
END_TEST

START_TEST(the_other_one_s_silence_ends_with_the_deadline)
{
    uint32_t deadline_ms = 250;
    snprintf(named, sizeof named, "%s", session_free_endpoint());
    do { /* until home has answered in time */
        expertd_call_release(&session.call);
        session_forward(3, deadline_ms *= 4, &session.call);
        session_wait(session.call);
    } while (!strstr(expertd_call_message(session.call), named));
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
}
END_TEST

START_TEST(calls_that_are_away_can_be_given_up)
{
    snprintf(named, sizeof named, "%s", session_free_endpoint());
    for (int i = 0; i < 3; i++) {
        session_forward(3, SESSION_LONG_MS, &session.call);
        while (atomic_load(&at_home) == 0)
            expertd_poll(session.client, 10);
        expertd_poll(session.client, 50);
        expertd_call_release(&session.call);
    }
    session_forward(3, SESSION_LONG_MS, &session.call);
    expertd_client_destroy(&session.client); /* with one of them */
    session.call = NULL;
}
END_TEST

/* The program's own call at the other one, and one of its calls here that goes on there. */
START_TEST(calls_made_at_another_one_are_not_taken_for_those_that_go_there)
{
    struct expertd_call *own;
    const struct expertd_tensor input = session_rows_of_4(3);
    struct expertd_client *sibling = expertd_client_frontend(session.client, named);
    ck_assert_ptr_nonnull(sibling);
    forward_as(EXPERTD_OK); /* from now on it goes there at once */
    expertd_call_release(&session.call);
    ck_assert_int_eq(expertd_forward(sibling, "nop.0", &input, 1, SESSION_LONG_MS, &own), 0); /* as many at each */
    session_finish_as(own, EXPERTD_OK);
    expertd_call_release(&own);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(expertd_forward(sibling, "nop.0", &input, 1, SESSION_LONG_MS, &own), 0);
        session_forward(2, SESSION_LONG_MS, &session.call);
        session_finish_as(session.call, EXPERTD_OK);
        session_finish_as(own, EXPERTD_OK);
        ck_assert_uint_ne(expertd_call_request_id(own), expertd_call_request_id(session.call));
        ck_assert_uint_eq(expertd_call_output(session.call, 0)->shape[0], 2);
        ck_assert_uint_eq(expertd_call_output(own, 0)->shape[0], 3);
        expertd_call_release(&session.call);
        expertd_call_release(&own);
    }
}
END_TEST

START_TEST(many_calls_at_once_all_come_back)
{
    enum { CALLS = 500 };
    static struct expertd_call *calls[CALLS];
    for (int i = 0; i < CALLS; i++)
        session_forward(1 + i % 3, SESSION_LONG_MS, &calls[i]);
    for (int i = 0; i < CALLS; i++) {
        session_finish_as(calls[i], EXPERTD_OK);
        expertd_call_release(&calls[i]);
    }
    ck_assert_int_eq(atomic_load(&at_right), CALLS);
}
END_TEST

/* ---- many experts at once -----------------------------------------------------------------------------------------
 */

enum { ROWS = 12, APPLIED = 512, WIDE = 64 };

/* A frontend that has some experts, and names the other one for the rest. */
struct frontend {
    struct router *router;
    const char *has;              /* "ac": part.a and part.c */
    const char *names;            /* an endpoint, for what it has not; "" */
    const char *own;              /* its endpoint, which it names for part.x; NULL: the same as for the others */
    atomic_bool holds;            /* it answers nothing */
    uint64_t columns;             /* of its answer; 0: as it was asked, 4 */
    atomic_bool keeps;            /* the next one is answered late: just before the one after it */
    uint64_t kept_id;             /* of that one; 0 */
    atomic_int messages;          /* of parts, that came */
    size_t parts;                 /* of the last one */
    uint64_t applied[APPLIED][2]; /* backward: which part's letter, and the id */
    int n_applied;
    unsigned char client_id[MESSAGE_CLIENT_ID_SIZE];
};
static struct frontend here, there;
static float rows[ROWS * 4];

static bool has(const struct frontend *frontend, const Expertd__RequestHeader__Part *part)
{
    return strchr(frontend->has, part->uid[strlen("part.")]) != NULL;
}

/* Its rows doubled, or zeros. */
static void answer_rows(const struct frontend *frontend, const Expertd__RequestHeader *header, const float *from,
                        float *to, uint64_t columns)
{
    for (size_t p = 0; p < header->n_parts; p++) {
        for (uint64_t row = 0; row < header->parts[p]->rows; row++, from += 4, to += columns)
            for (uint64_t c = 0; c < columns; c++)
                to[c] = has(frontend, header->parts[p]) ? 2 * from[c % 4] : 0;
    }
}

static void note_applied(struct frontend *frontend, const Expertd__RequestHeader *header)
{
    for (size_t p = 0; p < header->n_parts; p++) {
        if (!has(frontend, header->parts[p]))
            continue;
        const uint64_t id = header->parts[p]->request_id ? header->parts[p]->request_id : header->request_id;
        frontend->applied[frontend->n_applied][0] = (uint64_t)header->parts[p]->uid[strlen("part.")];
        frontend->applied[frontend->n_applied++][1] = id;
    }
    ck_assert_uint_eq(header->client_id.len, MESSAGE_CLIENT_ID_SIZE);
    memcpy(frontend->client_id, header->client_id.data, MESSAGE_CLIENT_ID_SIZE);
}

/* As if two parts had failed of what was kept. */
static void answer_kept(struct frontend *frontend, struct router_request *request, const Expertd__RequestHeader *header)
{
    Expertd__RequestHeader kept = *header;
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ReplyHeader__PartResult result = EXPERTD__REPLY_HEADER__PART_RESULT__INIT,
                                     *pointers[] = {&result, &result};
    kept.request_id = frontend->kept_id;
    frontend->kept_id = 0;
    reply.status = result.status = EXPERTD__STATUS__ABORTED;
    reply.parts = pointers;
    reply.n_parts = 2;
    router_reply(request, &kept, &reply, NULL, 0);
}

static void answer_parts(void *context, struct router_request *request)
{
    struct frontend *frontend = context;
    const Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ReplyHeader__PartResult results[8], *pointers[8];
    char *endpoints[] = {(char *)(uintptr_t)frontend->names, (char *)(uintptr_t)frontend->own};
    float asked[ROWS * 4], answer[ROWS * WIDE];
    uint64_t shape[] = {0, frontend->columns ? frontend->columns : 4};
    Expertd__Tensor tensor = EXPERTD__TENSOR__INIT, *tensors[] = {&tensor};
    if (header->method == EXPERTD__METHOD__PING) {
        router_nop(NULL, request);
        return;
    }
    while (atomic_load(&frontend->holds))
        usleep(1000);
    if (atomic_exchange(&frontend->keeps, false)) {
        frontend->kept_id = header->request_id;
        frontend->messages++;
        return;
    }
    if (frontend->kept_id)
        answer_kept(frontend, request, header);
    frontend->messages++;
    frontend->parts = header->n_parts;
    reply.status = EXPERTD__STATUS__NOT_FOUND;
    for (size_t p = 0; p < header->n_parts; p++) {
        expertd__reply_header__part_result__init(&results[p]);
        pointers[p] = &results[p];
        shape[0] += header->parts[p]->rows;
        if (has(frontend, header->parts[p])) {
            reply.status = EXPERTD__STATUS__OK;
            continue;
        }
        results[p].status = EXPERTD__STATUS__NOT_FOUND;
        results[p].message = (char *)(uintptr_t) "it is not here";
        results[p].frontend = frontend->names[0] ? 1 : 0;
        if (frontend->own && header->parts[p]->uid[strlen("part.")] == 'x')
            results[p].frontend = 2;
    }
    ck_assert_uint_eq(zmq_msg_size(&request->frames[1]), shape[0] * 4 * sizeof(float));
    if (header->method == EXPERTD__METHOD__BACKWARD)
        note_applied(frontend, header);
    memcpy(asked, zmq_msg_data(&request->frames[1]), zmq_msg_size(&request->frames[1])); /* it may lie anywhere */
    answer_rows(frontend, header, asked, answer, shape[1]);
    reply.parts = pointers;
    reply.n_parts = header->n_parts;
    reply.endpoints = endpoints;
    reply.n_endpoints = frontend->own ? 2 : frontend->names[0] ? 1 : 0;
    tensor.dtype = EXPERTD__DTYPE__FLOAT32;
    tensor.shape = shape;
    tensor.n_shape = 2;
    reply.tensors = tensors;
    reply.n_tensors = reply.status == EXPERTD__STATUS__OK;
    const struct router_frame frame = {answer, shape[0] * shape[1] * sizeof(float)};
    router_reply(request, header, &reply, &frame, reply.n_tensors);
}

static void set_up_parts(void)
{
    session_open();
    there = (struct frontend){.has = "bd", .names = ""};
    there.router = router_start(NULL, answer_parts, &there);
    here = (struct frontend){.has = "ac", .names = router_endpoint(there.router)};
    session_start(answer_parts, &here);
    for (int i = 0; i < ROWS * 4; i++)
        rows[i] = (float)(i + 1);
}

static void tear_down_parts(void)
{
    session_close();
    router_stop(&there.router);
}

static const struct expertd_part four_parts[] = {
    {"part.b", 2, 0}, {"part.a", 1, 0}, {"part.c", 4, 0}, {"part.d", 5, 71}};

static struct expertd_call *ask_parts(const struct expertd_part *parts, size_t count, bool backward)
{
    struct expertd_call *call;
    uint64_t n = 0;
    for (size_t p = 0; p < count; p++)
        n += parts[p].rows;
    const struct expertd_tensor input = expertd_tensor_f32(rows, n, 4);
    if (backward)
        ck_assert_int_eq(
            expertd_backward_parts(session.client, parts, count, &input, 1, &input, 1, SESSION_LONG_MS, &call), 0);
    else
        ck_assert_int_eq(expertd_forward_parts(session.client, parts, count, &input, 1, SESSION_LONG_MS, &call), 0);
    return call;
}

/* All are there, each at its place. */
static void expect_all(struct expertd_call *call, size_t count)
{
    session_finish_as(call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_part_count(call), count);
    for (size_t p = 0; p < count; p++)
        ck_assert_int_eq(expertd_call_part_status(call, p), EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_output_count(call), 1);
    const struct expertd_tensor *output = expertd_call_output(call, 0);
    for (uint64_t i = 0; i < output->shape[0] * 4; i++)
        ck_assert_float_eq(((const float *)output->data)[i], 2 * rows[i]);
}

START_TEST(parts_go_on_where_they_are_said_to_be_and_then_go_there_at_once)
{
    for (int i = 1; i <= 3; i++) {
        struct expertd_call *call = ask_parts(four_parts, 4, false);
        expect_all(call, 4);
        ck_assert_uint_eq(expertd_call_output(call, 0)->shape[0], ROWS);
        expertd_call_release(&call);
        ck_assert_int_eq(here.messages, i);
        ck_assert_int_eq(there.messages, i);
        ck_assert_uint_eq(here.parts, i == 1 ? 4 : 2);
        ck_assert_uint_eq(there.parts, 2);
    }
    struct expertd_client_counters counters = {.size = sizeof counters};
    expertd_client_read_counters(session.client, &counters);
    ck_assert_uint_eq(counters.followed, 1);
    ck_assert_uint_eq(counters.in_flight, 0);
    ck_assert_uint_eq(counters.calls, 3);
}
END_TEST

START_TEST(a_message_whose_parts_are_all_elsewhere_goes_there_whole)
{
    static const struct expertd_part parts[] = {{"part.d", 3, 0}, {"part.b", 2, 0}};
    for (int i = 1; i <= 2; i++) {
        struct expertd_call *call = ask_parts(parts, 2, false);
        expect_all(call, 2);
        expertd_call_release(&call);
        ck_assert_int_eq(here.messages, 1);
        ck_assert_int_eq(there.messages, i);
    }
}
END_TEST

/* The first that is known of a part's id, among what was applied anywhere. */
static uint64_t id_of(char letter, int *times)
{
    uint64_t id = 0;
    *times = 0;
    for (int f = 0; f < 2; f++) {
        const struct frontend *frontend = f ? &there : &here;
        for (int i = 0; i < frontend->n_applied; i++) {
            if (frontend->applied[i][0] != (uint64_t)letter)
                continue;
            ck_assert(*times == 0 || id == frontend->applied[i][1]);
            id = frontend->applied[i][1];
            ++*times;
        }
    }
    return id;
}

START_TEST(parts_of_a_backward_keep_their_ids_wherever_they_go)
{
    int times;
    struct expertd_call *call = ask_parts(four_parts, 4, true);
    const uint64_t id = expertd_call_request_id(call);
    for (int i = 1; i <= 3; i++) { /* the second and third time they are repeats */
        expect_all(call, 4);
        for (const char *letter = "abc"; *letter; letter++) {
            ck_assert_uint_eq(id_of(*letter, &times), id);
            ck_assert_int_eq(times, i);
        }
        ck_assert_uint_eq(id_of('d', &times), 71);
        ck_assert_int_eq(times, i);
        ck_assert_mem_eq(here.client_id, there.client_id, MESSAGE_CLIENT_ID_SIZE);
        for (size_t p = 0; p < 4; p++)
            ck_assert(!expertd_call_part_not_applied(call, p));
        ck_assert_int_eq(expertd_call_retry(call, SESSION_LONG_MS), 0);
    }
    session_finish_as(call, EXPERTD_OK);
    expertd_call_release(&call);
}
END_TEST

START_TEST(parts_that_are_not_there_any_more_are_looked_for_at_home)
{
    struct expertd_call *call = ask_parts(four_parts, 4, false);
    expect_all(call, 4);
    expertd_call_release(&call);
    here.has = "abcd"; /* both sleep: nothing was asked */
    there.has = "d";
    call = ask_parts(four_parts, 4, false);
    expect_all(call, 4);
    expertd_call_release(&call);
    ck_assert_int_eq(there.messages, 2);
    ck_assert_int_eq(here.messages, 3); /* a and c; then b */
    call = ask_parts(four_parts, 4, false);
    expect_all(call, 4);
    expertd_call_release(&call);
    ck_assert_uint_eq(here.parts, 3);
    ck_assert_uint_eq(there.parts, 1);
}
END_TEST

START_TEST(a_part_that_nobody_has_hurts_no_other_and_goes_round_no_circle)
{
    there.has = "d";
    there.names = router_endpoint(session.router);
    struct expertd_call *call = ask_parts(four_parts, 4, false);
    session_finish_as(call, EXPERTD_OK);
    ck_assert_int_eq(expertd_call_part_status(call, 0), EXPERTD_NOT_FOUND);
    ck_assert_str_eq(expertd_call_part_message(call, 0), "it is not here");
    const float *output = expertd_call_output(call, 0)->data;
    for (int i = 0; i < ROWS * 4; i++)
        ck_assert_float_eq(output[i], i < 2 * 4 ? 0 : 2 * rows[i]);
    expertd_call_release(&call);
    ck_assert_int_eq(here.messages, 1);
    ck_assert_int_eq(there.messages, 1);
}
END_TEST

START_TEST(a_frontend_that_is_silent_costs_its_parts_alone)
{
    struct expertd_call *call = NULL;
    uint32_t deadline_ms = 250;
    const struct expertd_tensor input = expertd_tensor_f32(rows, ROWS, 4);
    here.names = session_free_endpoint();
    do { /* until the other one has answered in time */
        expertd_call_release(&call);
        deadline_ms *= 4;
        ck_assert_int_eq(
            expertd_backward_parts(session.client, four_parts, 4, &input, 1, &input, 1, deadline_ms, &call), 0);
        session_wait(call);
    } while (expertd_call_status(call) != EXPERTD_OK);
    for (size_t p = 0; p < 4; p++) {
        ck_assert_int_eq(expertd_call_part_status(call, p), p % 3 ? EXPERTD_OK : EXPERTD_UNAVAILABLE);
        ck_assert(expertd_call_part_not_applied(call, p) == (p == 0)); /* it was never sent; d has an id of before */
    }
    ck_assert_ptr_nonnull(strstr(expertd_call_part_message(call, 3), here.names));
    expertd_call_release(&call);
}
END_TEST

START_TEST(answers_of_other_shapes_are_no_answers)
{
    there.columns = 3;
    struct expertd_call *call = ask_parts(four_parts, 4, false);
    session_finish_as(call, EXPERTD_OK);
    for (size_t p = 0; p < 4; p++)
        ck_assert_int_eq(expertd_call_part_status(call, p), p % 3 ? EXPERTD_OK : EXPERTD_INTERNAL);
    expertd_call_release(&call);
}
END_TEST

/* A backward of two or three parts, whose answer comes when two of them are asked for again in a message of their own.
 */
START_TEST(a_late_answer_is_not_taken_for_one_to_other_parts)
{
    static const struct expertd_part parts[] = {{"part.a", 2, 0}, {"part.b", 1, 0}, {"part.c", 4, 0}};
    const size_t count = _i ? 3 : 2;
    const struct expertd_tensor input = expertd_tensor_f32(rows, count == 3 ? 7 : 3, 4);
    struct expertd_client_counters counters = {.size = sizeof counters};
    struct expertd_call *call, *learning = ask_parts(&parts[0], 1, false);
    expect_all(learning, 1); /* there is a connection */
    expertd_call_release(&learning);
    atomic_store(&here.keeps, true);
    ck_assert_int_eq(expertd_backward_parts(session.client, parts, count, &input, 1, &input, 1, 1000, &call), 0);
    session_finish_as(call, EXPERTD_DEADLINE_EXCEEDED);
    session_ping(); /* it has come */
    ck_assert_int_eq(here.messages, 2);
    /* Before that is answered it becomes known where part.b is. */
    const uint64_t kept_id = here.kept_id;
    ck_assert_uint_eq(kept_id, expertd_call_request_id(call));
    here.kept_id = 0;
    learning = ask_parts(&parts[1], 1, false);
    expect_all(learning, 1);
    expertd_call_release(&learning);
    here.kept_id = kept_id;
    ck_assert_int_eq(expertd_call_retry(call, SESSION_LONG_MS), 0);
    expect_all(call, count);
    ck_assert_uint_eq(here.parts, count - 1);
    expertd_client_read_counters(session.client, &counters);
    ck_assert_uint_eq(counters.late_replies, 1);
    ck_assert_uint_eq(counters.malformed_replies, 0);
    expertd_call_release(&call);
}
END_TEST

/* Each frontend sends some of the rows; memory is taken for all of them. */
START_TEST(rows_that_would_fit_no_frame_together_take_no_memory)
{
    struct expertd_client_options options;
    const uint64_t all_bytes = ROWS * WIDE * sizeof(float);
    expertd_client_options_init(&options);
    for (int fits = 0; fits < 2; fits++) {
        here.columns = there.columns = 0;
        options.max_frame_bytes = fits ? all_bytes : all_bytes - 1;
        expertd_client_destroy(&session.client);
        ck_assert_int_eq(expertd_client_new(&session.client, router_endpoint(session.router), &options), 0);
        struct expertd_call *call = ask_parts(four_parts, 4, false);
        expect_all(call, 4); /* from now on it is known who has what */
        expertd_call_release(&call);
        here.columns = there.columns = WIDE;
        call = ask_parts(four_parts, 4, false);
        session_finish_as(call, fits ? EXPERTD_OK : EXPERTD_INTERNAL);
        ck_assert_uint_eq(expertd_call_output_count(call), (size_t)fits);
        for (size_t p = 0; p < 4; p++)
            ck_assert_int_eq(expertd_call_part_status(call, p), fits ? EXPERTD_OK : EXPERTD_INTERNAL);
        ck_assert(fits || strstr(expertd_call_part_message(call, 0), "a frame"));
        expertd_call_release(&call);
    }
}
END_TEST

START_TEST(parts_that_are_away_can_be_given_up)
{
    here.names = session_free_endpoint();
    for (int i = 0; i < 3; i++) {
        struct expertd_call *call = ask_parts(four_parts, 4, i % 2);
        do
            expertd_poll(session.client, 10);
        while (here.messages <= i);
        expertd_poll(session.client, 10);
        expertd_call_release(&call);
    }
    session.call = ask_parts(four_parts, 4, true);
    expertd_client_destroy(&session.client); /* with one of them */
}
END_TEST

START_TEST(many_messages_at_once_all_come_back)
{
    enum { CALLS = 100 };
    static struct expertd_call *calls[CALLS];
    struct expertd_client_counters counters = {.size = sizeof counters};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < CALLS; i++)
            calls[i] = ask_parts(four_parts, 4, i % 2);
        expertd_client_read_counters(session.client, &counters);
        ck_assert_uint_eq(counters.in_flight, CALLS);
        for (int i = 0; i < CALLS; i++) {
            expect_all(calls[i], 4);
            expertd_call_release(&calls[i]);
        }
        here.n_applied = there.n_applied = 0;
    }
}
END_TEST

/* ---- what is large -------------------------------------------------------------------------------------------------
 */

enum { LARGE_ROWS = 16384 }; /* of 4 floats: 256 KiB */

/* A server at an address that is none of the loopback, as another host's is. */
struct far {
    struct router *router;
    const char *names; /* the endpoint where the expert is; NULL: here */
    struct {
        unsigned char identity[256];
        size_t size;
        uint64_t rows, id;
    } calls[8];
    atomic_int count;
};
static struct far first_far, second_far;
static char far_address[INET_ADDRSTRLEN];
static float *many_rows;

static void answer_far(void *context, struct router_request *request)
{
    struct far *far = context;
    const Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    const int at = atomic_load(&far->count);
    memcpy(far->calls[at].identity, request->identity, request->identity_size);
    far->calls[at].size = request->identity_size;
    far->calls[at].rows = header->tensors[0]->shape[0];
    far->calls[at].id = header->request_id;
    atomic_store(&far->count, at + 1);
    if (!far->names) {
        router_nop(NULL, request);
        return;
    }
    reply.status = EXPERTD__STATUS__NOT_FOUND;
    reply.message = (char *)(uintptr_t) "it is at another frontend";
    reply.endpoint = (char *)(uintptr_t)far->names;
    router_reply(request, header, &reply, NULL, 0);
}

/* Of this machine; false: it has no address but the loopback's. */
static bool own_address(char text[INET_ADDRSTRLEN])
{
    struct ifaddrs *all, *one;
    bool found = false;
    ck_assert_int_eq(getifaddrs(&all), 0);
    for (one = all; one && !found; one = one->ifa_next) {
        if (!one->ifa_addr || one->ifa_addr->sa_family != AF_INET || one->ifa_flags & IFF_LOOPBACK)
            continue;
        const struct sockaddr_in *address = (const struct sockaddr_in *)(const void *)one->ifa_addr;
        found = inet_ntop(AF_INET, &address->sin_addr, text, INET_ADDRSTRLEN) != NULL;
    }
    freeifaddrs(all);
    return found;
}

static bool set_up_far(const char **skipped)
{
    char endpoint[64];
    *skipped = "this machine has no address but the loopback's";
    if (!own_address(far_address))
        return false;
    snprintf(endpoint, sizeof endpoint, "tcp://%s:*", far_address);
    session_open();
    many_rows = calloc(LARGE_ROWS, 4 * sizeof *many_rows);
    first_far = second_far = (struct far){0};
    second_far.router = router_start(endpoint, answer_far, &second_far);
    first_far.router = session.router = router_start(endpoint, answer_far, &first_far);
    ck_assert_int_eq(expertd_client_new(&session.client, router_endpoint(first_far.router), NULL), 0);
    return true;
}

static void tear_down_far(void)
{
    session_close();
    router_stop(&second_far.router);
    free(many_rows);
}

static void ask_rows(uint64_t count, bool backward)
{
    struct expertd_call *call;
    const struct expertd_tensor input = expertd_tensor_f32(many_rows, count, 4);
    if (backward)
        ck_assert_int_eq(expertd_backward(session.client, "nop.0", &input, 1, &input, 1, SESSION_LONG_MS, &call), 0);
    else
        ck_assert_int_eq(expertd_forward(session.client, "nop.0", &input, 1, SESSION_LONG_MS, &call), 0);
    session_finish_as(call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_output(call, 0)->shape[0], count);
    expertd_call_release(&call);
}

static bool same_connection(const struct far *far, int a, int b)
{
    return far->calls[a].size == far->calls[b].size &&
           memcmp(far->calls[a].identity, far->calls[b].identity, far->calls[a].size) == 0;
}

START_TEST(a_server_on_this_host_has_one_connection_for_all_calls)
{
    struct expertd_client_counters counters = {.size = sizeof counters};
    many_rows = calloc(LARGE_ROWS, 4 * sizeof *many_rows);
    named[0] = 0;
    ask_rows(LARGE_ROWS, true);
    expertd_client_read_counters(session.client, &counters);
    ck_assert_uint_eq(counters.connects, 1);
    free(many_rows);
}
END_TEST

START_TEST(large_calls_to_another_host_have_a_connection_of_their_own)
{
    const char *skipped;
    if (!set_up_far(&skipped)) {
        printf("skipped: %s\n", skipped);
        return;
    }
    ask_rows(1, false);
    ask_rows(LARGE_ROWS, false);
    ask_rows(2, true);
    ask_rows(LARGE_ROWS, true);
    ck_assert_int_eq(atomic_load(&first_far.count), 4);
    ck_assert(same_connection(&first_far, 0, 2));
    ck_assert(same_connection(&first_far, 1, 3));
    ck_assert(!same_connection(&first_far, 0, 1));
    for (int i = 1; i < 4; i++)
        ck_assert_uint_eq(first_far.calls[i].id, first_far.calls[i - 1].id + 1);
    struct expertd_client_counters counters = {.size = sizeof counters};
    expertd_client_read_counters(session.client, &counters);
    ck_assert_uint_eq(counters.followed, 0);
    ck_assert_uint_eq(counters.in_flight, 0);
    ck_assert_uint_eq(counters.connects, 2);
    ck_assert_uint_eq(counters.disconnects, 0);
    const struct expertd_client *second =
        expertd_client_frontend(session.client, expertd_client_endpoint(session.client));
    router_stop(&session.router);
    while (expertd_client_connected(session.client) || expertd_client_connected(second))
        ck_assert_int_ge(expertd_poll(session.client, 1), 0);
    expertd_client_read_counters(session.client, &counters);
    ck_assert_uint_eq(counters.disconnects, 2);
    tear_down_far();
}
END_TEST

static uint64_t calls_at(const struct expertd_client *client)
{
    struct expertd_client_counters counters = {.size = sizeof counters};
    expertd_client_read_counters(client, &counters);
    return counters.in_flight;
}

/* A network that lets one connection through alone, and later a second one. */
START_TEST(large_calls_go_by_the_first_connection_where_there_is_no_second)
{
    const char *skipped;
    struct expertd_call *calls[3];
    if (!set_up_far(&skipped)) {
        printf("skipped: %s\n", skipped);
        return;
    }
    struct door *door = door_open(far_address, router_endpoint(first_far.router), _i == 0);
    door_admit(door, 1);
    expertd_client_destroy(&session.client);
    ck_assert_int_eq(expertd_client_new(&session.client, door_endpoint(door), NULL), 0);
    ask_rows(1, false);
    for (int i = 0; i < 3; i++) { /* they have waited for it together */
        const struct expertd_tensor input = expertd_tensor_f32(many_rows, LARGE_ROWS, 4);
        ck_assert_int_eq(
            i % 2 ? expertd_backward(session.client, "nop.0", &input, 1, &input, 1, SESSION_LONG_MS, &calls[i])
                  : expertd_forward(session.client, "nop.0", &input, 1, SESSION_LONG_MS, &calls[i]),
            0);
    }
    const struct expertd_client *second =
        expertd_client_frontend(session.client, expertd_client_endpoint(session.client));
    ck_assert_uint_eq(calls_at(second), 3);
    for (int i = 0; i < 3; i++) {
        session_finish_as(calls[i], EXPERTD_OK);
        ck_assert_uint_eq(expertd_call_output(calls[i], 0)->shape[0], LARGE_ROWS);
        expertd_call_release(&calls[i]);
    }
    ck_assert_int_gt(door_turned_away(door), 0);
    ck_assert_uint_eq(calls_at(second), 0);
    ck_assert_int_eq(atomic_load(&first_far.count), 4);
    for (int i = 1; i < 4; i++)
        ck_assert(same_connection(&first_far, 0, i));
    const struct expertd_tensor input = expertd_tensor_f32(many_rows, LARGE_ROWS, 4);
    session_forward(1, SESSION_LONG_MS, &calls[0]);
    ck_assert_int_eq(expertd_forward(session.client, "nop.0", &input, 1, SESSION_LONG_MS, &calls[1]),
                     0); /* which waits no more */
    ck_assert_uint_eq(calls_at(second), 0);
    for (int i = 0; i < 2; i++) {
        session_finish_as(calls[i], EXPERTD_OK);
        expertd_call_release(&calls[i]);
    }
    door_admit(door, 2);
    while (!expertd_client_connected(second))
        ck_assert_int_ge(expertd_poll(session.client, 10), 0);
    ask_rows(LARGE_ROWS, true);
    ck_assert_int_eq(atomic_load(&first_far.count), 7);
    ck_assert(!same_connection(&first_far, 0, 6));
    /* It was there, and so is waited for when it is lost. */
    router_stop(&session.router);
    while (expertd_client_connected(session.client) || expertd_client_connected(second))
        ck_assert_int_ge(expertd_poll(session.client, 10), 0);
    ck_assert_int_eq(expertd_forward(session.client, "nop.0", &input, 1, SESSION_LONG_MS, &calls[0]), 0);
    ck_assert_uint_eq(calls_at(second), 1);
    expertd_call_release(&calls[0]);
    expertd_client_destroy(&session.client);
    door_close(&door);
    tear_down_far();
}
END_TEST

/* Where there is only a second left, half of that. (One that is away meanwhile sees all of it pass: once more then.) */
START_TEST(a_second_connection_is_waited_for_no_longer_than_leaves_time_for_the_call)
{
    enum { TRIES = 20, LITTLE_MS = 1000 };
    const char *skipped;
    bool in_time = false;
    if (!set_up_far(&skipped)) {
        printf("skipped: %s\n", skipped);
        return;
    }
    for (int i = 0; i < TRIES && !in_time; i++) {
        struct expertd_call *call;
        const struct expertd_tensor input = expertd_tensor_f32(many_rows, LARGE_ROWS, 4);
        struct door *door = door_open(far_address, router_endpoint(first_far.router), true);
        door_admit(door, 1);
        atomic_store(&first_far.count, 0);
        expertd_client_destroy(&session.client);
        ck_assert_int_eq(expertd_client_new(&session.client, door_endpoint(door), NULL), 0);
        ask_rows(1, false);
        ck_assert_int_eq(expertd_forward(session.client, "nop.0", &input, 1, LITTLE_MS, &call), 0);
        ck_assert_int_eq(expertd_call_wait(call, SESSION_LONG_MS), 0);
        in_time = expertd_call_status(call) == EXPERTD_OK;
        expertd_call_release(&call);
        expertd_client_destroy(&session.client);
        door_close(&door);
    }
    ck_assert(in_time);
    tear_down_far();
}
END_TEST

START_TEST(large_calls_follow_as_others_do)
{
    const char *skipped;
    if (!set_up_far(&skipped)) {
        printf("skipped: %s\n", skipped);
        return;
    }
    first_far.names = router_endpoint(second_far.router);
    ask_rows(LARGE_ROWS, true);
    ask_rows(LARGE_ROWS, false);
    ask_rows(1, false);
    ck_assert_int_eq(atomic_load(&first_far.count), 1);
    ck_assert_int_eq(atomic_load(&second_far.count), 3);
    ck_assert_uint_eq(second_far.calls[0].id, first_far.calls[0].id);
    ck_assert(same_connection(&second_far, 0, 1));
    ck_assert(!same_connection(&second_far, 0, 2));
    tear_down_far();
}
END_TEST

/* The client's own endpoint, to which a second connection is not to be had, beside another one that takes its time. */
START_TEST(a_part_that_is_said_to_be_here_goes_by_no_second_connection)
{
    static const struct expertd_part parts[] = {{"part.x", 1, 0}, {"part.b", 2, 0}};
    struct expertd_call *large, *call;
    if (!own_address(far_address)) {
        printf("skipped: this machine has no address but the loopback's\n");
        return;
    }
    many_rows = calloc(LARGE_ROWS, 4 * sizeof *many_rows);
    struct door *door = door_open(far_address, router_endpoint(session.router), true);
    door_admit(door, 1);
    here.own = door_endpoint(door);
    expertd_client_destroy(&session.client);
    ck_assert_int_eq(expertd_client_new(&session.client, door_endpoint(door), NULL), 0);
    while (!expertd_client_connected(session.client))
        ck_assert_int_ge(expertd_poll(session.client, 10), 0);
    const struct expertd_tensor input = expertd_tensor_f32(many_rows, LARGE_ROWS, 4);
    ck_assert_int_eq(expertd_forward(session.client, "part.x", &input, 1, SESSION_LONG_MS, &large), 0);
    expertd_call_release(&large); /* there is a second connection now, which waits to be let through */
    atomic_store(&there.holds, true);
    call = ask_parts(parts, 2, false);
    while (atomic_load(&here.messages) == 0)
        ck_assert_int_ge(expertd_poll(session.client, 1), 0);
    atomic_store(&here.holds, true);
    ck_assert_int_eq(expertd_call_wait(call, 2500), -ETIMEDOUT); /* longer than a second connection is waited for */
    atomic_store(&there.holds, false);
    session_finish_as(call, EXPERTD_OK);
    atomic_store(&here.holds, false);
    ck_assert_int_eq(expertd_call_part_status(call, 0), EXPERTD_NOT_FOUND);
    ck_assert_int_eq(expertd_call_part_status(call, 1), EXPERTD_OK);
    for (int i = 0; i < 12; i++)
        ck_assert_float_eq(((const float *)expertd_call_output(call, 0)->data)[i], i < 4 ? 0 : 2 * rows[i]);
    ck_assert_int_eq(here.messages, 1);
    ck_assert_int_eq(there.messages, 1);
    expertd_call_release(&call);
    expertd_client_destroy(&session.client);
    door_close(&door);
    free(many_rows);
}
END_TEST

/* While neither connection is there, and the program waits at the second one for a call of its own. */
START_TEST(a_connection_that_is_not_to_be_had_is_looked_for_often_and_not_all_the_time)
{
    const char *skipped;
    struct expertd_call *call, *own;
    if (!set_up_far(&skipped)) {
        printf("skipped: %s\n", skipped);
        return;
    }
    struct door *door = door_open(far_address, router_endpoint(first_far.router), true);
    expertd_client_destroy(&session.client);
    ck_assert_int_eq(expertd_client_new(&session.client, door_endpoint(door), NULL), 0);
    const struct expertd_tensor input = expertd_tensor_f32(many_rows, LARGE_ROWS, 4);
    ck_assert_int_eq(expertd_forward(session.client, "nop.0", &input, 1, SESSION_LONG_MS, &call), 0);
    ck_assert_int_eq(expertd_call_wait(call, 2100), -ETIMEDOUT); /* longer than a second connection is waited for */
    ck_assert_int_le(expertd_client_timeout_ms(session.client), 100);
    struct expertd_client *second = expertd_client_frontend(session.client, door_endpoint(door));
    const struct expertd_tensor small = expertd_tensor_f32(many_rows, 1, 4);
    ck_assert_int_eq(expertd_forward(second, "nop.0", &small, 1, SESSION_LONG_MS, &own), 0);
    ck_assert_int_eq(expertd_call_wait(own, 150), -ETIMEDOUT);
    ck_assert_int_gt(expertd_client_timeout_ms(second), 1000);
    expertd_call_release(&own);
    door_admit(door, 2);
    session_finish_as(call, EXPERTD_OK);
    expertd_call_release(&call);
    expertd_client_destroy(&session.client);
    door_close(&door);
    tear_down_far();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("away");
    TCase *tests = tcase_create("away");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, a_call_follows_and_the_next_goes_there_at_once);
    tcase_add_test(tests, a_backward_keeps_its_id_and_can_be_repeated);
    tcase_add_test(tests, info_and_checkpoint_follow_too);
    tcase_add_test(tests, what_is_not_there_any_more_is_looked_for_at_home);
    tcase_add_test(tests, nobody_is_sent_round_in_circles);
    tcase_add_loop_test(tests, what_is_no_endpoint_is_not_followed, 0, 7);
    tcase_add_test(tests, the_other_one_s_silence_ends_with_the_deadline);
    tcase_add_test(tests, calls_that_are_away_can_be_given_up);
    tcase_add_test(tests, calls_made_at_another_one_are_not_taken_for_those_that_go_there);
    tcase_add_test(tests, many_calls_at_once_all_come_back);
    tcase_add_test(tests, a_server_on_this_host_has_one_connection_for_all_calls);
    suite_add_tcase(suite, tests);
    TCase *parts = tcase_create("parts");
    tcase_add_checked_fixture(parts, set_up_parts, tear_down_parts);
    tcase_set_timeout(parts, 600);
    tcase_add_test(parts, parts_go_on_where_they_are_said_to_be_and_then_go_there_at_once);
    tcase_add_test(parts, a_message_whose_parts_are_all_elsewhere_goes_there_whole);
    tcase_add_test(parts, parts_of_a_backward_keep_their_ids_wherever_they_go);
    tcase_add_test(parts, parts_that_are_not_there_any_more_are_looked_for_at_home);
    tcase_add_test(parts, a_part_that_nobody_has_hurts_no_other_and_goes_round_no_circle);
    tcase_add_test(parts, a_frontend_that_is_silent_costs_its_parts_alone);
    tcase_add_test(parts, answers_of_other_shapes_are_no_answers);
    tcase_add_loop_test(parts, a_late_answer_is_not_taken_for_one_to_other_parts, 0, 2);
    tcase_add_test(parts, rows_that_would_fit_no_frame_together_take_no_memory);
    tcase_add_test(parts, parts_that_are_away_can_be_given_up);
    tcase_add_test(parts, many_messages_at_once_all_come_back);
    tcase_add_test(parts, a_part_that_is_said_to_be_here_goes_by_no_second_connection);
    suite_add_tcase(suite, parts);
    TCase *large = tcase_create("large");
    tcase_set_timeout(large, 600);
    tcase_add_test(large, large_calls_to_another_host_have_a_connection_of_their_own);
    tcase_add_loop_test(large, large_calls_go_by_the_first_connection_where_there_is_no_second, 0, 2);
    tcase_add_test(large, a_second_connection_is_waited_for_no_longer_than_leaves_time_for_the_call);
    tcase_add_test(large, large_calls_follow_as_others_do);
    tcase_add_test(large, a_connection_that_is_not_to_be_had_is_looked_for_often_and_not_all_the_time);
    suite_add_tcase(suite, large);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
