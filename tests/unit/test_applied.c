/* At most once: the index over the shared records. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pools/applied.h"
#include "support_pool.h"

enum { TASKS = 64 };

static struct pool_applied_shared *records;
static struct pool_task_shared *tasks;
static _Atomic uint64_t newest;
static struct applied *applied;

static void setup(void)
{
    records = aligned_alloc(POOL_LINE, POOL_APPLIED_RECORDS * sizeof *records);
    tasks = aligned_alloc(POOL_LINE, TASKS * sizeof *tasks);
    memset(records, 0, POOL_APPLIED_RECORDS * sizeof *records);
    memset(tasks, 0, TASKS * sizeof *tasks);
    atomic_store(&newest, 0);
    ck_assert_int_eq(applied_open(&applied, records, &newest, tasks, TASKS), 0);
}

static void teardown(void)
{
    applied_close(&applied);
    ck_assert_ptr_null(applied);
    free(records);
    free(tasks);
}

static void reopen(void)
{
    applied_close(&applied);
    ck_assert_int_eq(applied_open(&applied, records, &newest, tasks, TASKS), 0);
}

static struct applied_key key(uint64_t client, uint64_t request_id)
{
    return (struct applied_key){{client, client * 3}, request_id};
}

/* A task with this key begins in the slot. */
static void begin(uint32_t slot, uint64_t client, uint64_t request_id)
{
    const struct applied_key k = key(client, request_id);
    memcpy(tasks[slot].client, k.client, sizeof k.client);
    tasks[slot].request_id = request_id;
    applied_begin(applied, slot, &k);
}

static bool done(uint64_t client, uint64_t request_id)
{
    const struct applied_key k = key(client, request_id);
    return applied_done(applied, &k);
}

static bool running(uint64_t client, uint64_t request_id)
{
    const struct applied_key k = key(client, request_id);
    return applied_running(applied, &k);
}

START_TEST(a_task_runs_and_is_applied)
{
    ck_assert(!done(1, 1) && !running(1, 1));
    begin(5, 1, 1);
    ck_assert(!done(1, 1) && running(1, 1) && !running(1, 2) && !running(2, 1));
    applied_record(applied, 5);
    ck_assert(done(1, 1) && !running(1, 1));
    applied_record(applied, 5); /* no longer runs: nothing */
    ck_assert_uint_eq(atomic_load(&newest), 1);
    ck_assert_uint_eq(atomic_load(&records[1].sequence), 1);
}
END_TEST

START_TEST(a_task_that_is_forgotten_may_come_again)
{
    begin(5, 1, 1);
    applied_forget(applied, 5);
    applied_forget(applied, 5);
    ck_assert(!done(1, 1) && !running(1, 1));
    begin(5, 1, 1);
    ck_assert(running(1, 1));
}
END_TEST

START_TEST(the_window_slides)
{
    for (uint64_t i = 0; i < 3 * POOL_APPLIED_RECORDS; i++) {
        begin(i % TASKS, 1 + i % 7, i);
        applied_record(applied, i % TASKS);
        ck_assert(done(1 + i % 7, i));
        if (i >= POOL_APPLIED_RECORDS) {
            const uint64_t old = i - POOL_APPLIED_RECORDS;
            ck_assert(!done(1 + old % 7, old));
            ck_assert(done(1 + (old + 1) % 7, old + 1));
        }
    }
}
END_TEST

START_TEST(the_records_outlive_the_index)
{
    for (uint64_t i = 0; i < POOL_APPLIED_RECORDS + 100; i++) {
        begin(0, 9, i);
        applied_record(applied, 0);
    }
    begin(1, 9, 5000);
    reopen();
    ck_assert(!running(9, 5000)); /* what ran, ran in a process that is dead */
    for (uint64_t i = 0; i < POOL_APPLIED_RECORDS + 100; i++)
        ck_assert_int_eq(done(9, i), i >= 100);
    begin(0, 9, 6000);
    applied_record(applied, 0);
    ck_assert(done(9, 6000) && !done(9, 100) && done(9, 101));
}
END_TEST

START_TEST(a_record_that_was_finished_just_before_death_counts)
{
    begin(0, 1, 1);
    applied_record(applied, 0);
    begin(0, 1, 2);
    applied_record(applied, 0);
    atomic_store(&newest, 1);
    reopen();
    ck_assert(done(1, 1) && done(1, 2));
    begin(0, 1, 3);
    applied_record(applied, 0);
    ck_assert_uint_eq(atomic_load(&newest), 3); /* it did not take the second one's place */
    ck_assert(done(1, 2) && done(1, 3));
}
END_TEST

/* Oldest first. */
static void expect_listed(uint64_t first, uint32_t count)
{
    static struct applied_key keys[POOL_APPLIED_RECORDS];
    ck_assert_uint_eq(applied_list(applied, keys), count);
    for (uint32_t i = 0; i < count; i++)
        ck_assert_uint_eq(keys[i].request_id, first + i);
}

START_TEST(what_was_applied_travels_to_a_table_without_its_records)
{
    static struct applied_key keys[POOL_APPLIED_RECORDS];
    expect_listed(0, 0);
    for (uint64_t i = 1; i <= 1000; i++) {
        begin(0, 9, i);
        applied_record(applied, 0);
    }
    expect_listed(1, 1000);
    const uint32_t count = applied_list(applied, keys);
    begin(3, 9, 5000); /* runs: not applied */
    expect_listed(1, 1000);
    /* Another segment. */
    memset(records, 0, POOL_APPLIED_RECORDS * sizeof *records);
    atomic_store(&newest, 0);
    reopen();
    ck_assert(!done(9, 1));
    ck_assert_int_eq(applied_restore(applied, keys, count), 0);
    ck_assert(done(9, 1) && done(9, 1000) && !done(9, 1001) && !running(9, 1));
    expect_listed(1, 1000);
    for (uint64_t i = 1001; i <= 1100; i++) {
        begin(0, 9, i);
        applied_record(applied, 0);
    }
    expect_listed(1100 - POOL_APPLIED_RECORDS + 1, POOL_APPLIED_RECORDS);
    ck_assert(done(9, 1000) && done(9, 1100));
    /* And what is in records as well as in what is restored is there once. */
    reopen();
    ck_assert_int_eq(applied_restore(applied, (struct applied_key[]){key(9, 1000), key(9, 1001), key(0, 7)}, 3), 0);
    expect_listed(1000, 101);
}
END_TEST

START_TEST(a_record_that_was_half_written_does_not_count)
{
    begin(0, 1, 1);
    applied_record(applied, 0);
    atomic_store(&records[1].sequence, 0);
    reopen();
    ck_assert(!done(1, 1));
}
END_TEST

START_TEST(records_of_no_sense_are_ignored)
{
    memset(records, 0xff, POOL_APPLIED_RECORDS * sizeof *records);
    for (uint64_t i = 0; i < POOL_APPLIED_RECORDS; i++)
        atomic_store(&records[i].sequence, i * 7919);
    atomic_store(&newest, _i == 0 ? UINT64_MAX : 12345);
    reopen();
    begin(3, 4, 4);
    applied_record(applied, 3);
    ck_assert(done(4, 4));
}
END_TEST

START_TEST(a_record_of_nobody_stands_for_no_request)
{
    begin(0, 1, 1);
    applied_record(applied, 0);
    memset(records[1].client, 0, sizeof records[1].client);
    reopen();
    ck_assert(!done(0, 1));
}
END_TEST

START_TEST(keys_that_change_under_the_index_do_no_harm)
{
    for (uint32_t slot = 0; slot < TASKS; slot++)
        begin(slot, 1, slot);
    memset(tasks, 0x77, TASKS * sizeof *tasks);
    for (uint32_t slot = 0; slot < TASKS; slot += 2)
        applied_forget(applied, slot);
    for (uint32_t slot = 1; slot < TASKS; slot += 2)
        applied_record(applied, slot);
    memset(records, 0x33, POOL_APPLIED_RECORDS * sizeof *records);
    for (uint64_t i = 0; i < 2 * POOL_APPLIED_RECORDS; i++) {
        begin(0, 2, i);
        applied_record(applied, 0);
    }
    for (uint32_t slot = 0; slot < TASKS; slot++)
        ck_assert(!running(1, slot));
    ck_assert(done(2, 2 * POOL_APPLIED_RECORDS - 1));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("applied");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_task_runs_and_is_applied);
    tcase_add_test(all, a_task_that_is_forgotten_may_come_again);
    tcase_add_test(all, the_window_slides);
    tcase_add_test(all, the_records_outlive_the_index);
    tcase_add_test(all, a_record_that_was_finished_just_before_death_counts);
    tcase_add_test(all, what_was_applied_travels_to_a_table_without_its_records);
    tcase_add_test(all, a_record_that_was_half_written_does_not_count);
    tcase_add_test(all, a_record_of_nobody_stands_for_no_request);
    tcase_add_loop_test(all, records_of_no_sense_are_ignored, 0, 2);
    tcase_add_test(all, keys_that_change_under_the_index_do_no_harm);
    Suite *suite = suite_create("applied");
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
