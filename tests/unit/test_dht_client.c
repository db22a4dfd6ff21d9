#include <check.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "client/dht_client.h"
#include "tests/unit/support_endless.h"
#include "tests/unit/support_router.h"

enum { LONG_MS = 500000, SHORT_MS = 50 };

static struct router *router;
static struct dht_client *client;
static const Expertd__Dht__Reply *reply;
static char message[DHT_CLIENT_MESSAGE];
static Expertd__Dht__Request request;
static char uid0[] = "ffn.0.1", uid1[] = "ffn.2.3";
static char *uids[] = {uid0, uid1};

static void setup(void)
{
    router = NULL;
    client = NULL;
    expertd__dht__request__init(&request);
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.uids = uids;
    request.n_uids = 2;
}

static void teardown(void)
{
    dht_client_destroy(&client);
    router_stop(&router);
}

static void start(router_handler *handler, void *context)
{
    router = router_start(NULL, handler, context);
    ck_assert_int_eq(dht_client_new(&client, router_endpoint(router), NULL, NULL), 0);
}

static void send_reply(struct router_request *to, Expertd__Dht__Reply *answer)
{
    const size_t size = expertd__dht__reply__get_packed_size(answer);
    unsigned char *buffer = malloc(size + 1);
    expertd__dht__reply__pack(answer, buffer);
    router_send(to, &(struct router_frame){buffer, size}, 1);
    free(buffer);
}

static Expertd__Dht__Request *decode(struct router_request *from)
{
    return expertd__dht__request__unpack(NULL, zmq_msg_size(&from->frames[0]), zmq_msg_data(&from->frames[0]));
}

/* The first uid has two replicas, the others none. context: the status. */
static void answer(void *context, struct router_request *from)
{
    Expertd__Dht__Request *asked = decode(from);
    Expertd__Dht__Reply out = EXPERTD__DHT__REPLY__INIT;
    Expertd__Dht__Replica replica[2], *replicas[2] = {&replica[0], &replica[1]};
    Expertd__Dht__Resolved resolved[8], *pointers[8];
    char endpoint[] = "tcp://127.0.0.1:1", text[] = "because";
    for (size_t i = 0; i < 2; i++) {
        expertd__dht__replica__init(&replica[i]);
        replica[i].endpoint = endpoint;
    }
    for (size_t i = 0; i < asked->n_uids; i++) {
        pointers[i] = &resolved[i];
        expertd__dht__resolved__init(&resolved[i]);
        resolved[i].uid = asked->uids[i];
    }
    resolved[0].n_replicas = 2;
    resolved[0].replicas = replicas;
    out.version = 1;
    out.request_id = asked->request_id;
    out.status = context ? *(const uint32_t *)context : 0;
    if (out.status)
        out.message = text;
    out.n_resolved = asked->n_uids;
    out.resolved = pointers;
    send_reply(from, &out);
    expertd__dht__request__free_unpacked(asked, NULL);
}

START_TEST(a_question_is_answered)
{
    start(answer, NULL);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(dht_client_ask(client, &request, LONG_MS, &reply, message), EXPERTD_OK);
        ck_assert_uint_eq(reply->n_resolved, 2);
        ck_assert_uint_eq(reply->resolved[0]->n_replicas, 2);
        ck_assert_str_eq(reply->resolved[1]->uid, "ffn.2.3");
        ck_assert_str_eq(message, "");
    }
}
END_TEST

START_TEST(a_status_comes_with_its_message)
{
    uint32_t status = EXPERTD_RESOURCE_EXHAUSTED;
    start(answer, &status);
    ck_assert_int_eq(dht_client_ask(client, &request, LONG_MS, &reply, message), EXPERTD_RESOURCE_EXHAUSTED);
    ck_assert_str_eq(message, "because");
    ck_assert_ptr_null(reply);
    status = 1000;
    ck_assert_int_eq(dht_client_ask(client, &request, LONG_MS, &reply, message), EXPERTD_INTERNAL);
}
END_TEST

START_TEST(what_was_found_in_time_is_there)
{
    uint32_t status = EXPERTD_DEADLINE_EXCEEDED;
    start(answer, &status);
    ck_assert_int_eq(dht_client_ask(client, &request, LONG_MS, &reply, message), EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_ptr_nonnull(reply);
    ck_assert_uint_eq(reply->resolved[0]->n_replicas, 2);
}
END_TEST

static void ignore(void *context, struct router_request *from)
{
    (void)context;
    (void)from;
}

START_TEST(silence_and_absence_end_in_time)
{
    char endpoint[256];
    int status = EXPERTD_UNAVAILABLE; /* as long as the connection is being made, on a busy machine */
    start(ignore, NULL);
    for (int i = 0; i < 10 && status == EXPERTD_UNAVAILABLE; i++)
        status = dht_client_ask(client, &request, LONG_MS / 100, &reply, message);
    ck_assert_int_eq(status, EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_ptr_null(reply);
    strcpy(endpoint, router_endpoint(router));
    teardown();
    ck_assert_int_eq(dht_client_new(&client, endpoint, NULL, NULL), 0);
    ck_assert_int_eq(dht_client_ask(client, &request, SHORT_MS, &reply, message), EXPERTD_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(message, "expertd-dht"));
    dht_client_destroy(&client);
    ck_assert_int_eq(dht_client_new(&client, "nowhere", NULL, NULL), -EINVAL);
}
END_TEST

/* Its own bound is more than the test is to send, and does not matter for empty frames. */
START_TEST(a_directory_that_sends_without_end_is_left)
{
    static struct endless directory = {.frame = endless_empty_frame, .frame_bytes = sizeof endless_empty_frame};
    endless_start(&directory);
    ck_assert_int_eq(dht_client_new(&client, directory.endpoint, NULL, NULL), 0);
    ck_assert_int_eq(dht_client_ask(client, &request, LONG_MS, &reply, message), EXPERTD_UNAVAILABLE);
    ck_assert_msg(strstr(message, "a message that does not end") != NULL, "%s", message);
    ck_assert_ptr_null(reply);
    ck_assert_int_eq(dht_client_ask(client, &request, 1, &reply, message), EXPERTD_UNAVAILABLE); /* in the pause */
    ck_assert_msg(strstr(message, "a message that does not end") != NULL, "%s", message);
    dht_client_destroy(&client);
    endless_stop(&directory);
    ck_assert_uint_eq(directory.closed, 1);
}
END_TEST

/* Stays silent at first, then answers the old question before the new one. */
static void answer_late(void *context, struct router_request *from)
{
    static uint64_t first;
    Expertd__Dht__Request *asked = decode(from);
    (void)context;
    if (!first) {
        first = asked->request_id;
    } else {
        Expertd__Dht__Reply late = EXPERTD__DHT__REPLY__INIT;
        late.version = 1;
        late.request_id = first;
        send_reply(from, &late);
        router_send(from, &(struct router_frame){"\xff\xff\xff", 3}, 1);
        answer(NULL, from);
    }
    expertd__dht__request__free_unpacked(asked, NULL);
}

START_TEST(late_answers_and_garbage_are_passed_over)
{
    start(answer_late, NULL);
    ck_assert_int_eq(dht_client_ask(client, &request, LONG_MS / 100, &reply, message), EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_int_eq(dht_client_ask(client, &request, LONG_MS, &reply, message), EXPERTD_OK);
    ck_assert_uint_eq(reply->n_resolved, 2);
}
END_TEST

/* ---- checks ---------------------------------------------------------------------------------------------------- */

START_TEST(resolved_entries_must_mirror_the_question)
{
    Expertd__Dht__Reply bad = EXPERTD__DHT__REPLY__INIT;
    Expertd__Dht__Replica replica = EXPERTD__DHT__REPLICA__INIT, *replicas[] = {&replica};
    Expertd__Dht__Resolved resolved[2] = {EXPERTD__DHT__RESOLVED__INIT, EXPERTD__DHT__RESOLVED__INIT},
                           *pointers[2] = {&resolved[0], &resolved[1]};
    char endpoint[300] = "tcp://127.0.0.1:1";
    ck_assert_ptr_nonnull(dht_client_check(&request, &bad)); /* no version */
    bad.version = 1;
    bad.resolved = pointers;
    ck_assert_ptr_nonnull(dht_client_check(&request, &bad));
    bad.n_resolved = 2;
    ck_assert_ptr_nonnull(dht_client_check(&request, &bad));
    resolved[0].uid = uid0;
    resolved[1].uid = uid1;
    ck_assert_ptr_null(dht_client_check(&request, &bad));
    resolved[1].replicas = replicas;
    resolved[1].n_replicas = 1;
    ck_assert_ptr_nonnull(dht_client_check(&request, &bad));
    replica.endpoint = endpoint;
    ck_assert_ptr_null(dht_client_check(&request, &bad));
    endpoint[3] = '\n';
    ck_assert_ptr_nonnull(dht_client_check(&request, &bad));
    memset(endpoint, 'a', sizeof endpoint - 1);
    ck_assert_ptr_nonnull(dht_client_check(&request, &bad));
}
END_TEST

START_TEST(a_beam_must_fit_the_scores_and_name_its_experts)
{
    float scores[10] = {0};
    uint32_t grid[2] = {2, 3}, experts[2] = {0, 0};
    float row_scores[2] = {1, 0};
    Expertd__Dht__BeamQuery query = EXPERTD__DHT__BEAM_QUERY__INIT;
    Expertd__Dht__BeamResult beam = EXPERTD__DHT__BEAM_RESULT__INIT;
    Expertd__Dht__BeamResult__Row row = EXPERTD__DHT__BEAM_RESULT__ROW__INIT, *rows[2] = {&row, &row};
    Expertd__Dht__Resolved resolved = EXPERTD__DHT__RESOLVED__INIT, *pointers[] = {&resolved};
    Expertd__Dht__Reply out = EXPERTD__DHT__REPLY__INIT;
    out.version = 1;
    request.method = EXPERTD__DHT__METHOD__BEAM_SEARCH;
    request.beam = &query;
    query.scores = scores;
    query.n_scores = 10;
    query.grid_size = grid;
    query.n_grid_size = 2;
    query.beam_size = 2;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
    out.beam = &beam;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
    beam.n_rows = 2;
    beam.rows = rows;
    ck_assert_ptr_null(dht_client_check(&request, &out));
    row.n_experts = row.n_scores = 1;
    row.experts = experts;
    row.scores = row_scores;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
    beam.n_experts = 1;
    beam.experts = pointers;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out)); /* a uid that is none */
    resolved.uid = uid0;
    ck_assert_ptr_null(dht_client_check(&request, &out));
    row_scores[0] = NAN;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
    row_scores[0] = 0;
    row.n_scores = 0;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
    row.n_experts = row.n_scores = 3;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
}
END_TEST

START_TEST(ranges_must_ascend_and_stay_in_bounds)
{
    char prefix[] = "ffn.", *prefixes[] = {prefix};
    Expertd__Dht__Range range[2] = {EXPERTD__DHT__RANGE__INIT, EXPERTD__DHT__RANGE__INIT},
                        *ranges[] = {&range[0], &range[1]};
    Expertd__Dht__PrefixContent content = EXPERTD__DHT__PREFIX_CONTENT__INIT, *contents[] = {&content};
    Expertd__Dht__Reply out = EXPERTD__DHT__REPLY__INIT;
    out.version = 1;
    out.prefixes = contents;
    out.n_prefixes = 1;
    request.method = EXPERTD__DHT__METHOD__PREFIX;
    request.prefixes = prefixes;
    request.n_prefixes = 1;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
    content.prefix = prefix;
    ck_assert_ptr_null(dht_client_check(&request, &out));
    content.branches = ranges;
    content.n_branches = 2;
    range[0].count = range[1].count = 1;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out)); /* 0, 0 */
    range[1].first = UINT32_MAX;
    ck_assert_ptr_null(dht_client_check(&request, &out));
    range[1].count = 2;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
    range[1].count = UINT64_MAX;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
    range[1].count = 0;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
}
END_TEST

START_TEST(a_draw_has_uids_and_no_more_than_asked)
{
    Expertd__Dht__DrawQuery query = EXPERTD__DHT__DRAW_QUERY__INIT;
    Expertd__Dht__DrawResult draw = EXPERTD__DHT__DRAW_RESULT__INIT;
    Expertd__Dht__Reply out = EXPERTD__DHT__REPLY__INIT;
    char bad[] = "ffn..1", *bad_uids[] = {bad};
    out.version = 1;
    query.count = 1;
    request.method = EXPERTD__DHT__METHOD__DRAW;
    request.draw = &query;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
    out.draw = &draw;
    draw.uids = uids;
    draw.n_uids = 2;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
    draw.n_uids = 1;
    ck_assert_ptr_null(dht_client_check(&request, &out));
    draw.uids = bad_uids;
    ck_assert_ptr_nonnull(dht_client_check(&request, &out));
}
END_TEST

/* Holds the first question of two and answers it after the second. */
static void answer_backwards(void *context, struct router_request *from)
{
    static unsigned char held[4096];
    static size_t held_size;
    (void)context;
    if (held_size == 0) {
        held_size = zmq_msg_size(&from->frames[0]);
        ck_assert_uint_le(held_size, sizeof held);
        memcpy(held, zmq_msg_data(&from->frames[0]), held_size);
        return;
    }
    answer(NULL, from);
    zmq_msg_t frame;
    zmq_msg_init_size(&frame, held_size);
    memcpy(zmq_msg_data(&frame), held, held_size);
    struct router_request first = *from;
    first.frames = &frame;
    answer(NULL, &first);
    zmq_msg_close(&frame);
    held_size = 0;
}

static struct dht_question *order[4];
static size_t ended;

static void note(struct dht_question *question, enum expertd_status status, const Expertd__Dht__Reply *found,
                 const char *text)
{
    ck_assert_int_eq(status, EXPERTD_OK);
    ck_assert_str_eq(text, "");
    ck_assert_str_eq(found->resolved[0]->uid, question->request->uids[0]);
    order[ended++] = question;
}

static void progress(size_t until)
{
    while (ended < until) {
        struct pollfd fd = {.fd = dht_client_fd(client), .events = POLLIN};
        if (!dht_client_progress(client))
            poll(&fd, 1, 10);
    }
}

START_TEST(questions_on_their_way_are_answered_in_any_order)
{
    struct dht_question first, second;
    Expertd__Dht__Request other = EXPERTD__DHT__REQUEST__INIT;
    other.method = EXPERTD__DHT__METHOD__RESOLVE;
    other.uids = uids + 1;
    other.n_uids = 1;
    ended = 0;
    start(answer_backwards, NULL);
    ck_assert(dht_client_idle(client));
    ck_assert_uint_eq(dht_client_next_ns(client), UINT64_MAX);
    dht_client_start(client, &first, &request, LONG_MS, note);
    dht_client_start(client, &second, &other, LONG_MS, note);
    ck_assert(!dht_client_idle(client));
    ck_assert_uint_le(dht_client_next_ns(client), first.end_ns);
    progress(2);
    ck_assert_ptr_eq(order[0], &second);
    ck_assert_ptr_eq(order[1], &first);
    ck_assert(dht_client_idle(client));
}
END_TEST

START_TEST(a_dropped_question_is_told_nothing)
{
    struct dht_question dropped, kept;
    Expertd__Dht__Request other = request;
    ended = 0;
    start(answer, NULL);
    dht_client_start(client, &dropped, &other, LONG_MS, note);
    dht_client_start(client, &kept, &request, LONG_MS, note);
    dht_client_progress(client);
    dht_client_drop(client, &dropped);
    progress(1);
    ck_assert_ptr_eq(order[0], &kept);
    ck_assert_uint_eq(ended, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dht_client");
    TCase *tests = tcase_create("dht_client");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_question_is_answered);
    tcase_add_test(tests, a_status_comes_with_its_message);
    tcase_add_test(tests, what_was_found_in_time_is_there);
    tcase_add_test(tests, questions_on_their_way_are_answered_in_any_order);
    tcase_add_test(tests, a_dropped_question_is_told_nothing);
    tcase_add_test(tests, silence_and_absence_end_in_time);
    tcase_add_test(tests, a_directory_that_sends_without_end_is_left);
    tcase_add_test(tests, late_answers_and_garbage_are_passed_over);
    tcase_add_test(tests, resolved_entries_must_mirror_the_question);
    tcase_add_test(tests, a_beam_must_fit_the_scores_and_name_its_experts);
    tcase_add_test(tests, ranges_must_ascend_and_stay_in_bounds);
    tcase_add_test(tests, a_draw_has_uids_and_no_more_than_asked);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
