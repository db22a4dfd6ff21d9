#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "common/clock.h"
#include "runtime/serve/completion.h"
#include "runtime/device/device_private.h"
#include "support_device.h"

static struct support_device support;
static struct doorbell_word bell;
static struct completion completion;
static cl_event event;

static void set_up(void)
{
    cl_int error;
    support_device_open(&support, "cpu", false, "", "hidden_dim: 16");
    completion = (struct completion){.bell = &bell};
    event = clCreateUserEvent(support.device->context, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
}

static void tear_down(void)
{
    clReleaseEvent(event);
    support_device_close(&support);
}

START_TEST(the_end_of_a_batch_rings)
{
    ck_assert_int_eq(completion_watch(&completion, event), 0);
    ck_assert_uint_eq(atomic_load(&completion.pending), 1);
    const uint32_t ticket = doorbell_prepare(&bell);
    const uint64_t bound_ns = clock_now_ns() + 30 * NS_PER_S;
    ck_assert_int_eq(clSetUserEventStatus(event, CL_COMPLETE), CL_SUCCESS);
    doorbell_sleep(&bell, ticket, bound_ns);
    ck_assert_uint_lt(clock_now_ns(), bound_ns);
    ck_assert_int_eq(completion_drain(&completion), 0);
    ck_assert_uint_eq(atomic_load(&completion.pending), 0);
}
END_TEST

START_TEST(a_ring_that_is_owed_is_not_waited_for_for_ever)
{
    ck_assert_int_eq(completion_watch(&completion, event), 0);
    ck_assert_int_eq(completion_drain(&completion), -ETIMEDOUT);
    ck_assert_int_eq(clSetUserEventStatus(event, CL_COMPLETE), CL_SUCCESS);
    ck_assert_int_eq(completion_drain(&completion), 0);
}
END_TEST

START_TEST(what_is_no_event_is_not_watched)
{
    ck_assert_int_eq(completion_watch(&completion, NULL), -EIO);
    ck_assert_int_eq(completion_drain(&completion), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("completion");
    TCase *tests = tcase_create("completion");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, the_end_of_a_batch_rings);
    tcase_add_test(tests, a_ring_that_is_owed_is_not_waited_for_for_ever);
    tcase_add_test(tests, what_is_no_event_is_not_watched);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
