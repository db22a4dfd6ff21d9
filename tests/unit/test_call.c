/* A call and what it was given: at most once, whose data, which tensors. */
#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support_session.h"

/* ---- at most once ---------------------------------------------------------------------------------------------- */

struct seen {
    uint64_t request_id;
    unsigned char client_id[MESSAGE_CLIENT_ID_SIZE];
    uint32_t deadline_ms;
    int count, same;
    unsigned char data[32];
};

/* The first backward gets no answer; a repeated one does. */
static void answer_repeated(void *context, struct router_request *request)
{
    struct seen *seen = context;
    const Expertd__RequestHeader *header = router_header(request);
    if (header->method == EXPERTD__METHOD__BACKWARD) {
        ck_assert_uint_eq(header->client_id.len, MESSAGE_CLIENT_ID_SIZE);
        if (seen->count++ == 0) {
            seen->request_id = header->request_id;
            memcpy(seen->client_id, header->client_id.data, MESSAGE_CLIENT_ID_SIZE);
            memcpy(seen->data, zmq_msg_data(&request->frames[2]), sizeof seen->data);
            return;
        }
        seen->same += seen->request_id == header->request_id &&
                      memcmp(seen->client_id, header->client_id.data, MESSAGE_CLIENT_ID_SIZE) == 0 &&
                      memcmp(seen->data, zmq_msg_data(&request->frames[2]), sizeof seen->data) == 0;
        seen->deadline_ms = header->deadline_ms;
    }
    router_nop(NULL, request);
}

START_TEST(a_retried_backward_is_the_same_request)
{
    struct seen seen = {0};
    session_start(answer_repeated, &seen);
    session_ping();
    session_backward(SESSION_SHORT_MS, &session.call);
    ck_assert_int_eq(expertd_call_retry(session.call, 0), -EINVAL);
    session_finish_as(session.call, EXPERTD_DEADLINE_EXCEEDED);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(expertd_call_retry(session.call, SESSION_LONG_MS + 1), 0);
        ck_assert(!expertd_call_done(session.call));
        ck_assert_uint_eq(expertd_call_output_count(session.call), 0);
        session_finish_as(session.call, EXPERTD_OK);
        ck_assert_mem_eq(expertd_call_output(session.call, 0)->data, session_floats, 32);
    }
    session_ping();
    ck_assert_int_eq(seen.same, 2);
    ck_assert_uint_eq(seen.deadline_ms, SESSION_LONG_MS + 1);
}
END_TEST

START_TEST(a_retried_call_is_counted_when_it_ends_again)
{
    struct expertd_call *other;
    session_start(router_nop, NULL);
    session_backward(SESSION_LONG_MS, &session.call);
    session_ping(); /* answers come in order: the backward has ended, and nobody was told */
    ck_assert(expertd_call_done(session.call));
    ck_assert_int_eq(expertd_call_retry(session.call, SESSION_LONG_MS), 0);
    ck_assert_int_eq(expertd_poll(session.client, -1), 1);
    ck_assert_ptr_eq(expertd_next_done(session.client), session.call);
    ck_assert_int_eq(expertd_poll(session.client, 0), 0);
    /* One that poll has counted does not, when it is reported, take the end of another away. */
    ck_assert_int_eq(expertd_call_retry(session.call, SESSION_LONG_MS), 0);
    ck_assert_int_eq(expertd_poll(session.client, -1), 1);
    session_forward(1, SESSION_LONG_MS, &other);
    session_ping();
    ck_assert(expertd_call_done(other));
    expertd_call_release(&session.call);
    ck_assert_int_eq(expertd_poll(session.client, 0), 1);
    expertd_call_release(&other);
}
END_TEST

START_TEST(only_a_backward_can_be_retried)
{
    session_start(router_nop, NULL);
    session_forward(1, SESSION_LONG_MS, &session.call);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_int_eq(expertd_call_retry(session.call, 0), -EINVAL);
}
END_TEST

START_TEST(two_clients_have_different_ids)
{
    struct seen seen[2] = {0};
    for (int i = 0; i < 2; i++) {
        session_start(answer_repeated, &seen[i]);
        session_backward(SESSION_LONG_MS, &session.call);
        session_ping();
        session_close();
    }
    ck_assert_mem_ne(seen[0].client_id, seen[1].client_id, MESSAGE_CLIENT_ID_SIZE);
}
END_TEST

/* ---- what programs give ---------------------------------------------------------------------------------------- */

static atomic_int freed;
static void count_free(void *data, void *hint)
{
    ck_assert_ptr_eq(hint, &freed);
    free(data);
    freed++;
}

static struct expertd_tensor borrowed(uint64_t rows)
{
    struct expertd_tensor tensor = session_rows_of_4(rows);
    float *copy = malloc(tensor.bytes);
    memcpy(copy, tensor.data, tensor.bytes);
    tensor.data = copy;
    tensor.free_fn = count_free;
    tensor.hint = &freed;
    return tensor;
}

START_TEST(borrowed_data_is_freed_once)
{
    freed = 0;
    session_start(router_nop, NULL);
    struct expertd_tensor inputs[2] = {borrowed(16), borrowed(16)};
    ck_assert_int_eq(expertd_forward(session.client, "nop.0", inputs, 2, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_mem_eq(expertd_call_output(session.call, 0)->data, session_floats, 256);
    expertd_client_destroy(&session.client);
    ck_assert_int_eq(freed, 2);
}
END_TEST

START_TEST(borrowed_data_of_a_backward_lives_for_its_retry)
{
    struct seen seen = {0};
    freed = 0;
    session_start(answer_repeated, &seen);
    session_ping();
    struct expertd_tensor input = borrowed(16), gradient = borrowed(16);
    ck_assert_int_eq(
        expertd_backward(session.client, "nop.0", &input, 1, &gradient, 1, SESSION_SHORT_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_int_eq(freed, 0);
    ck_assert_int_eq(expertd_call_retry(session.call, SESSION_LONG_MS), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_mem_eq(expertd_call_output(session.call, 0)->data, session_floats, 256);
    ck_assert_int_eq(freed, 0);
    expertd_call_release(&session.call);
    expertd_client_destroy(&session.client);
    ck_assert_int_eq(freed, 2);
}
END_TEST

START_TEST(borrowed_data_is_freed_when_nothing_is_sent)
{
    freed = 0;
    ck_assert_int_eq(expertd_client_new(&session.client, session_free_endpoint(), NULL), 0);
    struct expertd_tensor input = borrowed(16);
    ck_assert_int_eq(expertd_forward(session.client, "nop.0", &input, 1, SESSION_SHORT_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
    ck_assert_int_eq(freed, 1);
    struct expertd_tensor wrong[2] = {borrowed(16), borrowed(1)};
    wrong[1].bytes++;
    expertd_call_release(&session.call);
    ck_assert_int_eq(expertd_forward(session.client, "nop.0", wrong, 2, SESSION_SHORT_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_INVALID_ARGUMENT);
    ck_assert_int_eq(freed, 3);
}
END_TEST

START_TEST(tensors_that_contradict_themselves_are_refused_here)
{
    struct expertd_tensor good = session_rows_of_4(2), tensors[8], many[EXPERTD_MAX_TENSORS + 1];
    for (size_t i = 0; i < 8; i++)
        tensors[i] = good;
    tensors[0].bytes = 31;
    tensors[1].dtype = (enum expertd_dtype)77;
    tensors[2].ndim = 0;
    tensors[3].ndim = EXPERTD_MAX_DIMS + 1;
    tensors[4].shape[0] = UINT64_MAX / 2;
    tensors[5].data = NULL;
    tensors[6].ndim = 100;
    tensors[7].shape[1] = 0;
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++)
        many[i] = good;
    session_start(router_nop, NULL);
    for (size_t i = 0; i < 8; i++) {
        ck_assert_int_eq(expertd_forward(session.client, "nop.0", &tensors[i], 1, SESSION_LONG_MS, &session.call), 0);
        ck_assert(expertd_call_done(session.call));
        session_finish_as(session.call, EXPERTD_INVALID_ARGUMENT);
        expertd_call_release(&session.call);
        ck_assert_int_eq(
            expertd_backward(session.client, "nop.0", &good, 1, &tensors[i], 1, SESSION_LONG_MS, &session.call), 0);
        session_finish_as(session.call, EXPERTD_INVALID_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(expertd_call_message(session.call), "grad_output 0"));
        ck_assert(expertd_call_not_applied(session.call));
        ck_assert_int_eq(expertd_call_retry(session.call, 0), -EINVAL);
        expertd_call_release(&session.call);
    }
    ck_assert_int_eq(
        expertd_forward(session.client, "nop.0", many, EXPERTD_MAX_TENSORS + 1, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_INVALID_ARGUMENT);
    expertd_call_release(&session.call);
    ck_assert_int_eq(
        expertd_backward(session.client, "nop.0", many, EXPERTD_MAX_TENSORS, many, 1, SESSION_LONG_MS, &session.call),
        0);
    session_finish_as(session.call, EXPERTD_INVALID_ARGUMENT);
    expertd_call_release(&session.call);
    char uid[200];
    memset(uid, 'a', sizeof uid);
    uid[199] = 0;
    ck_assert_int_eq(expertd_forward(session.client, uid, &good, 1, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_INVALID_ARGUMENT);
}
END_TEST

START_TEST(the_largest_request_fits_its_header)
{
    struct expertd_tensor most[EXPERTD_MAX_TENSORS];
    char uid[EXPERTD_MAX_UID + 1];
    for (size_t i = 0; i < EXPERTD_MAX_TENSORS; i++)
        most[i] = (struct expertd_tensor){.dtype = EXPERTD_BOOL,
                                          .ndim = EXPERTD_MAX_DIMS,
                                          .shape = {1, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, 0}};
    for (size_t i = 0; i < EXPERTD_MAX_TENSORS; i++)
        most[i].shape[1] = 0; /* so that the rest multiplies to nothing */
    memset(uid, 'a', sizeof uid);
    uid[EXPERTD_MAX_UID] = 0;
    session_start(router_nop, NULL);
    ck_assert_int_eq(expertd_forward(session.client, uid, most, EXPERTD_MAX_TENSORS, SESSION_LONG_MS, &session.call),
                     0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_output_count(session.call), EXPERTD_MAX_TENSORS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("call");
    TCase *tests = tcase_create("call");
    tcase_add_checked_fixture(tests, session_open, session_close);
    tcase_add_test(tests, a_retried_backward_is_the_same_request);
    tcase_add_test(tests, a_retried_call_is_counted_when_it_ends_again);
    tcase_add_test(tests, only_a_backward_can_be_retried);
    tcase_add_test(tests, two_clients_have_different_ids);
    tcase_add_test(tests, borrowed_data_is_freed_once);
    tcase_add_test(tests, borrowed_data_of_a_backward_lives_for_its_retry);
    tcase_add_test(tests, borrowed_data_is_freed_when_nothing_is_sent);
    tcase_add_test(tests, tensors_that_contradict_themselves_are_refused_here);
    tcase_add_test(tests, the_largest_request_fits_its_header);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
