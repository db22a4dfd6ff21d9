#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/state/checkpoint.h"
#include "runtime/state/checkpoint_queue.h"
#include "unit/support_device.h"

static struct support_device support;
static char dir[128];
static struct expert *expert;
static struct checkpoint_queue *queue;
static atomic_int wakes;
static struct checkpoint_window loaded_window;

static void on_wake(void *context)
{
    ck_assert_ptr_eq(context, &wakes);
    atomic_fetch_add(&wakes, 1);
}

static void set_up(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/queue.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    support_device_open(&support, "cpu", false, "", "block: ffn, hidden_dim: 24");
    expert = support_expert(&support);
    atomic_store(&wakes, 0);
    ck_assert_int_eq(checkpoint_queue_create(&queue, dir, 2, on_wake, &wakes), 0);
}

static void tear_down(void)
{
    char command[sizeof dir + 16];
    checkpoint_queue_destroy(&queue);
    checkpoint_queue_destroy(&queue);
    expert_destroy(&expert);
    support_device_close(&support);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(command), 0);
}

static int put(uint32_t index, const char *uid, uint64_t updates)
{
    expert_set_counters(expert, &(struct expert_counters){.updates = updates}, 0);
    return checkpoint_queue_put(queue, index, expert, uid, NULL);
}

static void expect_result(uint32_t index, int error)
{
    struct checkpoint_result result;
    ck_assert(checkpoint_queue_wait(queue));
    ck_assert(checkpoint_queue_has_result(queue));
    ck_assert_int_eq(checkpoint_queue_fetch(queue, &result), 1);
    ck_assert_uint_eq(result.index, index);
    ck_assert_int_eq(result.error, error);
}

START_TEST(results_come_in_order_and_wake)
{
    struct checkpoint_result result;
    ck_assert_int_eq(checkpoint_queue_fetch(queue, &result), 0);
    ck_assert(!checkpoint_queue_wait(queue)); /* there is nothing to wait for */
    ck_assert_int_eq(put(5, "ffn.5", 1), 0);
    ck_assert_int_eq(put(4, "ffn.4", 2), 0);
    expect_result(5, 0);
    expect_result(4, 0);
    ck_assert(!checkpoint_queue_has_result(queue));
    checkpoint_queue_destroy(&queue); /* the thread is through, so it has woken for both */
    ck_assert_int_eq(atomic_load(&wakes), 2);
}
END_TEST

START_TEST(copies_are_bounded_until_results_are_fetched)
{
    for (uint32_t i = 0; i < CHECKPOINT_QUEUE_SLOTS; i++) {
        ck_assert(checkpoint_queue_has_room(queue));
        ck_assert_int_eq(put(i, "ffn.0", i), 0);
    }
    ck_assert(!checkpoint_queue_has_room(queue));
    ck_assert_int_eq(put(9, "ffn.0", 9), -EAGAIN);
    expect_result(0, 0);
    ck_assert(checkpoint_queue_has_room(queue));
    ck_assert_int_eq(put(9, "ffn.0", 9), 0);
}
END_TEST

START_TEST(what_changes_after_the_copy_is_not_in_the_file)
{
    float before[24], after[24] = {1, 2, 3}, loaded[24];
    const int index = expert_tensor_find(expert, "ffn_output.bias");
    ck_assert_int_ge(index, 0);
    ck_assert_int_eq(expert_tensor_read(expert, (unsigned)index, before), 0);
    ck_assert_int_eq(put(0, "ffn.0", 3), 0);
    ck_assert_int_eq(expert_tensor_write(expert, (unsigned)index, after), 0);
    expert_set_counters(expert, &(struct expert_counters){.updates = 4}, 0);
    expect_result(0, 0);
    ck_assert_int_eq(checkpoint_load(expert, dir, "ffn.0", false, &loaded_window), 1);
    ck_assert_int_eq(expert_tensor_read(expert, (unsigned)index, loaded), 0);
    ck_assert_mem_eq(loaded, before, sizeof before);
    ck_assert_uint_eq(expert->counters.updates, 3);
}
END_TEST

START_TEST(a_file_that_cannot_be_written_is_a_result_too)
{
    char path[sizeof dir + 16];
    snprintf(path, sizeof path, "%s/ffn.0", dir);
    fclose(fopen(path, "w"));
    ck_assert_int_eq(put(0, "ffn.0", 1), 0);
    ck_assert_int_eq(put(1, "ffn.1", 1), 0);
    expect_result(0, -ENOTDIR);
    expect_result(1, 0);
}
END_TEST

START_TEST(the_end_waits_for_what_is_queued)
{
    ck_assert_int_eq(put(0, "ffn.0", 7), 0);
    ck_assert_int_eq(put(1, "ffn.1", 7), 0);
    checkpoint_queue_destroy(&queue);
    expert_set_counters(expert, &(struct expert_counters){0}, 0);
    ck_assert_int_eq(checkpoint_load(expert, dir, "ffn.1", false, &loaded_window), 1);
    ck_assert_uint_eq(expert->counters.updates, 7);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("checkpoint_queue");
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, results_come_in_order_and_wake);
    tcase_add_test(all, copies_are_bounded_until_results_are_fetched);
    tcase_add_test(all, what_changes_after_the_copy_is_not_in_the_file);
    tcase_add_test(all, a_file_that_cannot_be_written_is_a_result_too);
    tcase_add_test(all, the_end_waits_for_what_is_queued);
    Suite *suite = suite_create("checkpoint_queue");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
