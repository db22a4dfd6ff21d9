#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support_session.h"

/* ---- answers --------------------------------------------------------------------------------------------------- */

START_TEST(every_method_is_answered)
{
    session_start(router_nop, NULL);
    ck_assert_int_eq(expertd_ping(session.client, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_str_eq(expertd_call_pong(session.call)->server, "fake");
    ck_assert_uint_eq(expertd_call_pong(session.call)->experts_alive, 1);
    ck_assert_ptr_null(expertd_call_list(session.call));
    expertd_call_release(&session.call);
    ck_assert_ptr_null(session.call);

    ck_assert_int_eq(expertd_list(session.client, "nop", 0, 0, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_list(session.call)->count, 1);
    ck_assert_uint_eq(expertd_call_list(session.call)->generation, 7);
    ck_assert_str_eq(expertd_call_list(session.call)->entries[0].uid, "nop.0");
    ck_assert(expertd_call_list(session.call)->entries[0].alive);
    expertd_call_release(&session.call);

    ck_assert_int_eq(expertd_info(session.client, "nop.0", SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_OK);
    const struct expertd_info *info = expertd_call_info(session.call);
    ck_assert_str_eq(info->uid, "nop.0");
    ck_assert_uint_eq(info->forward_schema.count, 1);
    ck_assert_str_eq(info->forward_schema.fields[0].name, "x");
    ck_assert_uint_eq(info->outputs_schema.fields[0].row_shape[0], 4);
    ck_assert_uint_eq(info->backward_schema.count, 2);
    ck_assert_str_eq(info->backward_schema.fields[1].name, "grad_x");
    ck_assert_uint_eq(info->update_count, 3);
    expertd_call_release(&session.call);

    ck_assert_int_eq(expertd_stats(session.client, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_str_eq(expertd_call_stats(session.call)->counters[0].name, "frontend.requests.ping");
    ck_assert_double_eq(expertd_call_stats(session.call)->counters[0].value, 5);
    expertd_call_release(&session.call);

    ck_assert_int_eq(expertd_checkpoint(session.client, NULL, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_OK);
    expertd_call_release(&session.call);
}
END_TEST

START_TEST(a_forward_gives_the_outputs)
{
    session_start(router_nop, NULL);
    session_forward(3, SESSION_LONG_MS, &session.call);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_output_count(session.call), 1);
    const struct expertd_tensor *output = expertd_call_output(session.call, 0);
    ck_assert_int_eq(output->dtype, EXPERTD_FLOAT32);
    ck_assert_uint_eq(output->ndim, 2);
    ck_assert_uint_eq(output->shape[0], 3);
    ck_assert_uint_eq(output->shape[1], 4);
    ck_assert_uint_eq(output->bytes, 48);
    ck_assert_mem_eq(output->data, session_floats, 48);
    ck_assert_ptr_null(expertd_call_output(session.call, 1));
    ck_assert(expertd_call_not_applied(session.call));
}
END_TEST

START_TEST(outputs_are_aligned_wherever_they_came_to_lie)
{
    session_start(router_nop, NULL);
    for (uint64_t bytes = 1; bytes < 300; bytes += 7) {
        double numbers[3] = {1, 2, 3};
        struct expertd_tensor inputs[2] = {
            {.dtype = EXPERTD_INT8,
             .ndim = 2,
             .shape = {1, bytes},
             .data = memset(malloc(bytes), 1, bytes),
             .bytes = bytes},
            {.dtype = EXPERTD_FLOAT64, .ndim = 2, .shape = {1, 3}, .data = numbers, .bytes = sizeof numbers}};
        ck_assert_int_eq(expertd_forward(session.client, "nop.0", inputs, 2, SESSION_LONG_MS, &session.call), 0);
        free((void *)(uintptr_t)inputs[0].data);
        session_finish_as(session.call, EXPERTD_OK);
        const struct expertd_tensor *output = expertd_call_output(session.call, 1);
        ck_assert_uint_eq((uintptr_t)output->data % 8, 0);
        ck_assert_double_eq(((const double *)output->data)[2], 3);
        expertd_call_release(&session.call);
    }
}
END_TEST

START_TEST(a_backward_gives_one_gradient_for_each_input)
{
    session_start(router_nop, NULL);
    session_backward(SESSION_LONG_MS, &session.call);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_output_count(session.call), 1);
    ck_assert(!expertd_call_not_applied(session.call));
}
END_TEST

static void refuse(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    router_reply_status(request, header, *(const Expertd__Status *)context, "no\033[31m way");
}

START_TEST(the_servers_status_and_printable_message_arrive)
{
    static const struct {
        int sent;
        enum expertd_status status;
        bool not_applied;
    } cases[] = {{3, EXPERTD_INVALID_ARGUMENT, true},   {4, EXPERTD_DEADLINE_EXCEEDED, false},
                 {5, EXPERTD_NOT_FOUND, true},          {6, EXPERTD_ALREADY_EXISTS, false},
                 {8, EXPERTD_RESOURCE_EXHAUSTED, true}, {10, EXPERTD_ABORTED, true},
                 {12, EXPERTD_UNIMPLEMENTED, true},     {13, EXPERTD_INTERNAL, true},
                 {14, EXPERTD_UNAVAILABLE, false},      {99, EXPERTD_INTERNAL, false}};
    Expertd__Status status = EXPERTD__STATUS__OK;
    session_start(refuse, &status);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        status = (Expertd__Status)cases[i].sent;
        session_backward(SESSION_LONG_MS, &session.call);
        session_finish_as(session.call, cases[i].status);
        ck_assert_ptr_nonnull(strstr(expertd_call_message(session.call), "no?[31m way"));
        ck_assert_int_eq(expertd_call_not_applied(session.call), cases[i].not_applied);
        ck_assert_uint_eq(expertd_call_output_count(session.call), 0);
        expertd_call_release(&session.call);
    }
}
END_TEST

/* Is full until so many have come; then it answers. */
struct full {
    unsigned refusals, came;
    uint64_t first_id;
    uint32_t retry_after_ms, first_deadline_ms, last_deadline_ms;
};

static void refuse_some(void *context, struct router_request *request)
{
    struct full *full = context;
    const Expertd__RequestHeader *header = router_header(request);
    if (full->came++ == 0) {
        full->first_id = header->request_id;
        full->first_deadline_ms = header->deadline_ms;
    }
    ck_assert_uint_eq(header->request_id, full->first_id);
    full->last_deadline_ms = header->deadline_ms;
    if (full->came > full->refusals) {
        router_nop(NULL, request);
        return;
    }
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    reply.status = EXPERTD__STATUS__RESOURCE_EXHAUSTED;
    char text[] = "full";
    reply.message = text;
    reply.retry_after_ms = full->retry_after_ms;
    router_reply(request, header, &reply, NULL, 0);
}

START_TEST(a_full_server_is_asked_again_when_it_says_so)
{
    for (int backward = 0; backward < 2; backward++) {
        struct full full = {.refusals = 4, .retry_after_ms = 3};
        session_start(refuse_some, &full);
        if (backward)
            session_backward(SESSION_LONG_MS, &session.call);
        else
            session_forward(2, SESSION_LONG_MS, &session.call);
        session_finish_as(session.call, EXPERTD_OK);
        ck_assert_float_eq(((const float *)expertd_call_output(session.call, 0)->data)[5], 5);
        ck_assert_uint_eq(full.came, 5);
        ck_assert_uint_eq(expertd_call_retry_after_ms(session.call), 0);
        /* What is left of the deadline travels along. */
        ck_assert_uint_eq(full.first_deadline_ms, SESSION_LONG_MS);
        ck_assert_uint_lt(full.last_deadline_ms, full.first_deadline_ms);
        struct expertd_client_counters counters;
        expertd_client_counters(session.client, &counters);
        ck_assert_uint_eq(counters.resent, 4);
        ck_assert_uint_eq(counters.in_flight, 0);
        expertd_call_release(&session.call);
        expertd_client_destroy(&session.client);
        router_stop(&session.router);
    }
}
END_TEST

START_TEST(a_hint_beyond_the_deadline_ends_the_call_with_the_refusal)
{
    struct full full = {.refusals = 100, .retry_after_ms = SESSION_LONG_MS};
    session_start(refuse_some, &full);
    session_forward(2, SESSION_LONG_MS, &session.call);
    session_finish_as(session.call, EXPERTD_RESOURCE_EXHAUSTED);
    ck_assert_str_eq(expertd_call_message(session.call), "full");
    ck_assert_uint_eq(expertd_call_retry_after_ms(session.call), SESSION_LONG_MS);
    ck_assert_uint_eq(full.came, 1);
}
END_TEST

START_TEST(an_impatient_client_is_told_at_once)
{
    struct full full = {.refusals = 100, .retry_after_ms = 3};
    struct expertd_client_options options = {.size = sizeof options, .impatient = true};
    session.router = router_start(NULL, refuse_some, &full);
    ck_assert_int_eq(expertd_client_new(&session.client, router_endpoint(session.router), &options), 0);
    session_backward(SESSION_LONG_MS, &session.call);
    session_finish_as(session.call, EXPERTD_RESOURCE_EXHAUSTED);
    ck_assert_uint_eq(expertd_call_retry_after_ms(session.call), 3);
    ck_assert_uint_eq(full.came, 1);
}
END_TEST

START_TEST(a_paused_call_can_be_given_up)
{
    struct full full = {.refusals = 100, .retry_after_ms = SESSION_LONG_MS / 10};
    session_start(refuse_some, &full);
    session_forward(2, SESSION_LONG_MS, &session.call);
    struct expertd_client_counters counters = {0};
    while (counters.resent == 0) {
        expertd_poll(session.client, 10);
        expertd_client_counters(session.client, &counters);
    }
    ck_assert_int_ne(expertd_client_timeout_ms(session.client), -1);
    expertd_call_release(&session.call);
    ck_assert_int_eq(expertd_client_timeout_ms(session.client), -1);
}
END_TEST

enum { LOST, REFUSED, FULL_OF_PARTS = 2 };

/* Refuses both parts for want of room; then is silent, or refuses the whole. */
static void refuse_parts(void *context, struct router_request *request)
{
    atomic_int *came = context;
    const Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ReplyHeader__PartResult results[FULL_OF_PARTS], *pointers[FULL_OF_PARTS];
    const int before = atomic_load(came);
    ck_assert_uint_eq(header->n_parts, FULL_OF_PARTS);
    reply.status = EXPERTD__STATUS__RESOURCE_EXHAUSTED;
    reply.message = (char *)(uintptr_t) "full";
    reply.retry_after_ms = 1;
    for (int p = 0; p < FULL_OF_PARTS; p++) {
        expertd__reply_header__part_result__init(&results[p]);
        results[p].status = EXPERTD__STATUS__RESOURCE_EXHAUSTED;
        results[p].retry_after_ms = 1;
        pointers[p] = &results[p];
    }
    reply.parts = pointers;
    reply.n_parts = FULL_OF_PARTS;
    if (before % 2 == 0)
        router_reply(request, header, &reply, NULL, 0);
    else if (before == 1 + 2 * REFUSED)
        router_reply_status(request, header, EXPERTD__STATUS__UNAVAILABLE, "its runtime has gone");
    atomic_store(came, before + 1);
}

START_TEST(after_a_pause_parts_say_what_became_of_them_then)
{
    static const struct expertd_part parts[] = {{"nop.0", 1, 0}, {"nop.1", 1, 0}};
    const struct expertd_tensor input = session_rows_of_4(FULL_OF_PARTS);
    atomic_int came = 2 * _i;
    session_start(refuse_parts, &came);
    ck_assert_int_eq(expertd_backward_parts(session.client, parts, FULL_OF_PARTS, &input, 1, &input, 1, SESSION_LONG_MS,
                                            &session.call),
                     0);
    while (atomic_load(&came) < 2 * _i + 2)
        ck_assert_int_ge(expertd_poll(session.client, 1), 0);
    if (_i == LOST)
        router_stop(&session.router);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
    for (size_t p = 0; p < FULL_OF_PARTS; p++) {
        ck_assert_int_eq(expertd_call_part_status(session.call, p), EXPERTD_UNAVAILABLE);
        ck_assert_str_eq(expertd_call_part_message(session.call, p), expertd_call_message(session.call));
        ck_assert_uint_eq(expertd_call_part_retry_after_ms(session.call, p), 0);
        ck_assert(!expertd_call_part_not_applied(session.call, p));
    }
}
END_TEST

/* ---- many in flight -------------------------------------------------------------------------------------------- */

struct reverse {
    size_t count;
    uint64_t ids[100];
};

/* Holds a hundred requests and answers them backwards, each with its id as the output. */
static void answer_backwards(void *context, struct router_request *request)
{
    struct reverse *held = context;
    Expertd__RequestHeader *header = router_header(request);
    held->ids[held->count++] = header->request_id;
    if (held->count < 100)
        return;
    while (held->count > 0) {
        Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
        float value[4] = {(float)held->ids[--held->count]};
        header->request_id = held->ids[held->count];
        reply.n_tensors = 1;
        reply.tensors = header->tensors;
        router_reply(request, header, &reply, &(struct router_frame){value, sizeof value}, 1);
    }
}

START_TEST(answers_find_their_calls_in_any_order)
{
    struct reverse held = {0};
    struct expertd_call *calls[100];
    session_start(answer_backwards, &held);
    for (size_t i = 0; i < 100; i++) {
        session_forward(1, SESSION_LONG_MS, &calls[i]);
        expertd_call_set_user(calls[i], &calls[i]);
    }
    size_t ended = 0;
    while (ended < 100) {
        const int n = expertd_poll(session.client, -1);
        ck_assert_int_gt(n, 0);
        ended += (size_t)n;
    }
    for (size_t i = 0; i < 100; i++) {
        struct expertd_call *done = expertd_next_done(session.client);
        ck_assert_ptr_eq(done, calls[99 - i]);
        ck_assert_ptr_eq(expertd_call_user(done), &calls[99 - i]);
        ck_assert_float_eq(*(const float *)expertd_call_output(done, 0)->data, (float)(100 - i));
    }
    ck_assert_ptr_null(expertd_next_done(session.client));
    ck_assert_int_eq(expertd_poll(session.client, -1), 0);
}
END_TEST

START_TEST(the_descriptor_tells_when_to_poll)
{
    session_start(router_nop, NULL);
    session_forward(1, SESSION_LONG_MS, &session.call);
    while (expertd_poll(session.client, 0) == 0) {
        struct pollfd fd = {.fd = expertd_client_fd(session.client), .events = POLLIN};
        ck_assert_int_ge(expertd_client_timeout_ms(session.client), 0);
        ck_assert_int_eq(poll(&fd, 1, -1), 1);
    }
    ck_assert_ptr_eq(expertd_next_done(session.client), session.call);
    ck_assert_int_eq(expertd_client_timeout_ms(session.client), -1);
}
END_TEST

START_TEST(thousands_in_flight_are_all_answered)
{
    enum { CALLS = 4000 };
    static struct expertd_call *calls[CALLS];
    struct expertd_client_options options = {.size = sizeof options, .queue_limit = CALLS};
    session.router = router_start(NULL, router_nop, NULL);
    ck_assert_int_eq(expertd_client_new(&session.client, router_endpoint(session.router), &options), 0);
    for (size_t i = 0; i < CALLS; i++)
        session_forward(1, SESSION_LONG_MS, &calls[i]);
    for (size_t i = 0; i < CALLS; i++) {
        session_finish_as(calls[i], EXPERTD_OK);
        expertd_call_release(&calls[i]);
    }
}
END_TEST

START_TEST(an_endpoint_that_is_none_is_refused)
{
    static const char *const endpoints[] = {"", "127.0.0.1:1", "tcp://", "tcp://127.0.0.1", "ftp://a:1"};
    for (size_t i = 0; i < sizeof endpoints / sizeof endpoints[0]; i++) {
        ck_assert_msg(expertd_client_new(&session.client, endpoints[i], NULL) == -EINVAL, "%s", endpoints[i]);
        ck_assert_ptr_null(session.client);
    }
}
END_TEST

START_TEST(names_are_those_of_the_protocol)
{
    ck_assert_str_eq(expertd_status_name(EXPERTD_UNAVAILABLE), "UNAVAILABLE");
    ck_assert_str_eq(expertd_status_name((enum expertd_status)99), "UNKNOWN");
    ck_assert_str_eq(expertd_dtype_name(EXPERTD_BFLOAT16), "bfloat16");
    ck_assert_uint_eq(expertd_dtype_size(EXPERTD_INT64), 8);
    ck_assert_uint_eq(expertd_dtype_size((enum expertd_dtype)99), 0);
    expertd_tune_allocator();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client");
    TCase *tests = tcase_create("client");
    tcase_add_checked_fixture(tests, session_open, session_close);
    tcase_add_test(tests, every_method_is_answered);
    tcase_add_test(tests, a_forward_gives_the_outputs);
    tcase_add_test(tests, outputs_are_aligned_wherever_they_came_to_lie);
    tcase_add_test(tests, a_backward_gives_one_gradient_for_each_input);
    tcase_add_test(tests, the_servers_status_and_printable_message_arrive);
    tcase_add_test(tests, a_full_server_is_asked_again_when_it_says_so);
    tcase_add_test(tests, a_hint_beyond_the_deadline_ends_the_call_with_the_refusal);
    tcase_add_test(tests, an_impatient_client_is_told_at_once);
    tcase_add_test(tests, a_paused_call_can_be_given_up);
    tcase_add_loop_test(tests, after_a_pause_parts_say_what_became_of_them_then, LOST, REFUSED + 1);
    tcase_add_test(tests, answers_find_their_calls_in_any_order);
    tcase_add_test(tests, the_descriptor_tells_when_to_poll);
    tcase_add_test(tests, thousands_in_flight_are_all_answered);
    tcase_add_test(tests, an_endpoint_that_is_none_is_refused);
    tcase_add_test(tests, names_are_those_of_the_protocol);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
