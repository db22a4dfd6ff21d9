#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "runtime/serve/completion.h"
#include "runtime/device/device_private.h"
#include "support_device.h"

static struct support_device support;
static struct doorbell_word *bell; /* a page of its own, as in the control segment */
static struct completion *completion;
static cl_event event;

static void set_up(void)
{
    cl_int error;
    support_device_open(&support, "cpu", false, "", "hidden_dim: 16");
    bell = mmap(NULL, sizeof *bell, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(bell, MAP_FAILED);
    ck_assert_int_eq(completion_create(&completion, bell), 0);
    event = clCreateUserEvent(support.device->context, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
}

static void tear_down(void)
{
    clReleaseEvent(event);
    completion_destroy(&completion);
    support_device_close(&support);
}

/* Another callback of the same event, which says that the driver has come to callbacks at all. */
static void CL_CALLBACK count(cl_event which, cl_int status, void *context)
{
    (void)which, (void)status;
    atomic_fetch_add((atomic_uint *)context, 1);
}

START_TEST(the_end_of_a_batch_rings)
{
    ck_assert_int_eq(completion_watch(completion, event), 0);
    const uint32_t ticket = doorbell_prepare(bell);
    const uint64_t bound_ns = clock_now_ns() + 300 * NS_PER_S;
    ck_assert_int_eq(clSetUserEventStatus(event, CL_COMPLETE), CL_SUCCESS);
    doorbell_sleep(bell, ticket, bound_ns);
    ck_assert_uint_lt(clock_now_ns(), bound_ns);
}
END_TEST

/* Of two rings that are owed, however late they come: the page of the bell has gone. */
START_TEST(a_ring_that_comes_late_touches_nothing)
{
    cl_int error;
    atomic_uint called = 0;
    cl_event other = clCreateUserEvent(support.device->context, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
    ck_assert_int_eq(completion_watch(completion, event), 0);
    ck_assert_int_eq(completion_watch(completion, other), 0);
    completion_destroy(&completion);
    ck_assert_ptr_null(completion);
    ck_assert_int_eq(munmap(bell, sizeof *bell), 0);
    ck_assert_int_eq(clSetEventCallback(event, CL_COMPLETE, count, &called), CL_SUCCESS);
    ck_assert_int_eq(clSetEventCallback(other, CL_COMPLETE, count, &called), CL_SUCCESS);
    ck_assert_int_eq(clSetUserEventStatus(event, CL_COMPLETE), CL_SUCCESS);
    ck_assert_int_eq(clSetUserEventStatus(other, CL_COMPLETE), CL_SUCCESS);
    while (atomic_load(&called) < 2)
        sched_yield();
    clReleaseEvent(other);
}
END_TEST

START_TEST(what_is_no_event_is_not_watched)
{
    ck_assert_int_eq(completion_watch(completion, NULL), -EIO);
    ck_assert_uint_eq(atomic_load(&bell->bell), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("completion");
    TCase *tests = tcase_create("completion");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, the_end_of_a_batch_rings);
    tcase_add_test(tests, a_ring_that_comes_late_touches_nothing);
    tcase_add_test(tests, what_is_no_event_is_not_watched);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
