#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "examples/digits/remote.h"
#include "unit/support_router.h"

enum { ROWS = 2, WIDTH = 3, MAX_SEEN = 8 };

/* A server that answers with these statuses in turn, and then like a nop expert. Written before it starts; `seen` is
 * read after it stopped, or between two calls. */
struct script {
    Expertd__Status statuses[MAX_SEEN];
    size_t count, seen;
    uint64_t request_ids[MAX_SEEN];
};

static void answer(void *context, struct router_request *request)
{
    struct script *script = context;
    const Expertd__RequestHeader *header = router_header(request);
    size_t at = script->seen++;
    ck_assert_uint_lt(at, MAX_SEEN);
    script->request_ids[at] = header->request_id;
    if (at < script->count) {
        router_reply_status(request, header, script->statuses[at], "says the test");
    } else {
        router_nop(context, request);
    }
}

static struct router *router;
static struct expertd_client *client;
static struct script script;
static const float x[ROWS * WIDTH] = {1, 2, 3, 4, 5, 6}, grad_y[ROWS * WIDTH] = {6, 5, 4, 3, 2, 1};
static float result[ROWS * WIDTH];

static void start(size_t count, Expertd__Status first, Expertd__Status second)
{
    memset(result, 0, sizeof result);
    script = (struct script){.statuses = {first, second}, .count = count};
    router = router_start(NULL, answer, &script);
    ck_assert_int_eq(expertd_client_new(&client, router_endpoint(router), NULL), 0);
}

static void stop(void)
{
    expertd_client_destroy(&client);
    router_stop(&router);
}

START_TEST(a_forward_is_tried_again_while_the_server_is_not_ready)
{
    start(2, EXPERTD__STATUS__UNAVAILABLE, EXPERTD__STATUS__RESOURCE_EXHAUSTED);
    ck_assert_int_eq(remote_forward(client, "nop.0", x, ROWS, WIDTH, result), 0);
    ck_assert_mem_eq(result, x, sizeof x);
    stop();
    ck_assert_uint_eq(script.seen, 3);
}
END_TEST

START_TEST(what_will_not_get_better_is_not_tried_again)
{
    start(1, EXPERTD__STATUS__NOT_FOUND, 0);
    ck_assert_int_eq(remote_forward(client, "nop.7", x, ROWS, WIDTH, result), -EIO);
    stop();
    ck_assert_uint_eq(script.seen, 1);
    start(1, EXPERTD__STATUS__INVALID_ARGUMENT, 0);
    ck_assert_int_eq(remote_backward(client, "nop.0", x, grad_y, ROWS, WIDTH, result), -EIO);
    stop();
    ck_assert_uint_eq(script.seen, 1);
}
END_TEST

START_TEST(a_backward_is_repeated_under_its_request_id)
{
    start(2, EXPERTD__STATUS__UNAVAILABLE, EXPERTD__STATUS__DEADLINE_EXCEEDED);
    ck_assert_int_eq(remote_backward(client, "nop.0", x, grad_y, ROWS, WIDTH, result), 0);
    stop();
    ck_assert_uint_eq(script.seen, 3);
    ck_assert_uint_eq(script.request_ids[1], script.request_ids[0]);
    ck_assert_uint_eq(script.request_ids[2], script.request_ids[0]);
}
END_TEST

START_TEST(a_backward_without_an_answer_is_lost_but_no_failure)
{
    start(2, EXPERTD__STATUS__UNAVAILABLE, EXPERTD__STATUS__ALREADY_EXISTS);
    ck_assert_int_eq(remote_backward(client, "nop.0", x, grad_y, ROWS, WIDTH, result), REMOTE_LOST);
    stop();
    start(1, EXPERTD__STATUS__ABORTED, 0);
    ck_assert_int_eq(remote_backward(client, "nop.0", x, grad_y, ROWS, WIDTH, result), REMOTE_LOST);
    stop();
    ck_assert_float_eq(result[0], 0);
}
END_TEST

START_TEST(an_answer_of_another_shape_is_refused)
{
    struct expertd_call *call;
    struct expertd_tensor input = expertd_tensor_f32(x, ROWS, WIDTH);
    start(0, 0, 0);
    ck_assert_int_eq(expertd_forward(client, "nop.0", &input, 1, 10000, &call), 0);
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    ck_assert_ptr_nonnull(remote_output(call, "nop.0", ROWS, WIDTH));
    ck_assert_ptr_null(remote_output(call, "nop.0", WIDTH, ROWS));
    ck_assert_ptr_null(remote_output(call, "nop.0", ROWS, WIDTH + 1));
    expertd_call_release(&call);
    stop();
}
END_TEST

START_TEST(a_checkpoint_that_fails_is_an_error)
{
    start(1, EXPERTD__STATUS__INTERNAL, 0);
    ck_assert_int_eq(remote_checkpoint(client, "nop.0"), -EIO);
    stop();
    start(1, EXPERTD__STATUS__OK, 0);
    ck_assert_int_eq(remote_checkpoint(client, "nop.0"), 0);
    stop();
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("remote");
    tcase_add_test(all, a_forward_is_tried_again_while_the_server_is_not_ready);
    tcase_add_test(all, what_will_not_get_better_is_not_tried_again);
    tcase_add_test(all, a_backward_is_repeated_under_its_request_id);
    tcase_add_test(all, a_backward_without_an_answer_is_lost_but_no_failure);
    tcase_add_test(all, an_answer_of_another_shape_is_refused);
    tcase_add_test(all, a_checkpoint_that_fails_is_an_error);
    Suite *suite = suite_create("remote");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
