#include <check.h>
#include <string.h>

#include "proto/gate.h"

static const unsigned char greeting[64] = {0xff, [9] = 0x7f, [10] = 3};
static const unsigned char part[] = {1, 3, 'a', 'b', 'c'}, last[] = {0, 0};

static uint64_t unfinished(int fd)
{
    uint64_t bytes;
    (void)gate_unfinished(fd, &bytes);
    return bytes;
}

START_TEST(without_limits_all_passes)
{
    gate_opened(5);
    ck_assert(gate_read(5, "no ZMTP", 7));
}
END_TEST

START_TEST(a_connection_is_counted_until_its_message_is_whole)
{
    gate_set(3, 100, false, 0);
    gate_opened(5);
    ck_assert(gate_read(5, greeting, sizeof greeting));
    ck_assert_uint_eq(unfinished(5), 0);
    ck_assert(gate_read(5, part, sizeof part));
    ck_assert_uint_eq(unfinished(5), 3 + 64);
    ck_assert_uint_eq(unfinished(6), 0);
    ck_assert(gate_read(5, last, sizeof last));
    ck_assert_uint_eq(unfinished(5), 0);
    ck_assert_uint_eq(gate_ended(), 0);
}
END_TEST

START_TEST(one_that_is_too_large_is_ended_and_the_next_with_its_descriptor_is_not)
{
    gate_set(3, 100, false, 0);
    gate_opened(5);
    ck_assert(gate_read(5, greeting, sizeof greeting));
    for (int i = 0; i < 3; i++)
        ck_assert(gate_read(5, part, sizeof part));
    ck_assert(!gate_read(5, part, sizeof part));
    ck_assert_uint_eq(gate_ended(), 1);
    ck_assert_uint_eq(unfinished(5), 0);
    gate_opened(5);
    ck_assert(gate_read(5, greeting, sizeof greeting));
    ck_assert(gate_read(5, part, sizeof part));
    ck_assert_uint_eq(gate_ended(), 1);
}
END_TEST

/* The process's other descriptors, and those beyond the table. */
START_TEST(what_was_not_opened_is_not_looked_at)
{
    gate_set(3, 100, false, 0);
    gate_opened(-1);
    gate_opened(1 << 20);
    ck_assert(gate_read(7, "anything", 8));
    ck_assert(gate_read(-1, "anything", 8));
    ck_assert(gate_read(1 << 20, "anything", 8));
    ck_assert_uint_eq(unfinished(1 << 20), 0);
}
END_TEST

/* Each frame looks like a message. */
START_TEST(what_is_encrypted_is_unfinished_until_a_whole_message_was_heard)
{
    unsigned char sealed[2 + 40] = {0, 40};
    gate_set(3, 100, true, 0);
    gate_opened(5);
    ck_assert(gate_read(5, greeting, sizeof greeting));
    gate_heard(5);
    for (unsigned i = 1; i <= 3; i++) {
        ck_assert(gate_read(5, sealed, sizeof sealed));
        ck_assert_uint_eq(unfinished(5), i * (sizeof sealed + 64));
    }
    gate_heard(5);
    ck_assert_uint_eq(unfinished(5), 0);
    ck_assert(gate_read(5, sealed, sizeof sealed));
    gate_heard(6);
    ck_assert_uint_eq(unfinished(5), sizeof sealed + 64);
    ck_assert_uint_eq(gate_ended(), 0);
}
END_TEST

START_TEST(what_is_encrypted_and_never_heard_is_ended_where_that_has_a_bound)
{
    unsigned char sealed[2 + 40] = {0, 40};
    const unsigned each = sizeof sealed + 64, most = 4;
    gate_set(3, 100, true, sizeof greeting + most * each);
    gate_opened(5);
    ck_assert(gate_read(5, greeting, sizeof greeting));
    for (unsigned turn = 0; turn < 3; turn++) {
        for (unsigned i = 0; i < most; i++)
            ck_assert(gate_read(5, sealed, sizeof sealed));
        gate_heard(5);
    }
    for (unsigned i = 0; i < most; i++)
        ck_assert(gate_read(5, sealed, sizeof sealed));
    ck_assert_uint_eq(gate_ended(), 0);
    ck_assert(!gate_read(5, sealed, sizeof sealed));
    ck_assert_uint_eq(gate_ended(), 1);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("gate");
    tcase_add_test(all, what_is_encrypted_and_never_heard_is_ended_where_that_has_a_bound);
    tcase_add_test(all, without_limits_all_passes);
    tcase_add_test(all, a_connection_is_counted_until_its_message_is_whole);
    tcase_add_test(all, one_that_is_too_large_is_ended_and_the_next_with_its_descriptor_is_not);
    tcase_add_test(all, what_was_not_opened_is_not_looked_at);
    tcase_add_test(all, what_is_encrypted_is_unfinished_until_a_whole_message_was_heard);
    Suite *suite = suite_create("gate");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
