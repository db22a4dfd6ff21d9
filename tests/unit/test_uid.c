#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/uid.h"

static const char *const good_uids[] = {
    "ffn.0",
    "ffn.4.17",
    "a.4294967295",
    "ffn_1-b.10.0.3",
    "\xc3\xa4xperte.5",
    "a/b.1",
    "[.1",
    "x.1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16",
};

static const char *const bad_uids[] = {
    "",
    "ffn",    /* no coordinate */
    ".1",     /* no prefix */
    "ffn.",   /* an empty coordinate */
    "ffn..1", /* and another */
    "ffn.1.",
    "ffn.01", /* a leading zero */
    "ffn.-1",
    "ffn.+1",
    "ffn.1x",
    "ffn.x",
    "ffn.1 ",
    "ffn.4294967296", /* 2^32 */
    "ffn.99999999999999999999999999",
    "f n.1", /* white space */
    "f\tn.1",
    "f\nn.1",
    "f\xc2\xa0n.1",     /* no-break space */
    "f\xe2\x80\xaen.1", /* right-to-left override */
    "f\x7fn.1",
    "f\x1b[2Jn.1",
    "f\xffn.1",                                    /* no UTF-8 */
    "f\xc0\xafn.1",                                /* overlong */
    "f\xed\xa0\x80n.1",                            /* a surrogate */
    "f\xf4\x90\x80\x80n.1",                        /* above U+10FFFF */
    "f\xc3.1",                                     /* cut off */
    "x.1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17", /* too many coordinates */
    "ffn.[0:4]",                                   /* a pattern */
};

START_TEST(valid_uids_are_accepted)
{
    ck_assert_msg(uid_valid(good_uids[_i]), "%s", good_uids[_i]);
}
END_TEST

START_TEST(invalid_uids_are_refused)
{
    size_t prefix;
    uint32_t coordinates[UID_MAX_DIMS];
    ck_assert_msg(!uid_valid(bad_uids[_i]), "%s", bad_uids[_i]);
    ck_assert_int_eq(uid_split(bad_uids[_i], &prefix, coordinates), -EINVAL);
}
END_TEST

START_TEST(a_uid_splits_into_prefix_and_coordinates)
{
    size_t prefix;
    uint32_t coordinates[UID_MAX_DIMS];
    ck_assert_int_eq(uid_split("ffn.4.17", &prefix, coordinates), 2);
    ck_assert_uint_eq(prefix, 3);
    ck_assert_uint_eq(coordinates[0], 4);
    ck_assert_uint_eq(coordinates[1], 17);
}
END_TEST

START_TEST(a_uid_has_at_most_127_bytes)
{
    char uid[UID_SIZE + 1];
    memset(uid, 'a', sizeof uid);
    memcpy(uid + UID_SIZE - 3, ".1", 3);
    ck_assert(uid_valid(uid));
    memset(uid, 'a', sizeof uid);
    memcpy(uid + UID_SIZE - 2, ".1", 3);
    ck_assert(!uid_valid(uid));
}
END_TEST

static void parse(struct uid_pattern *pattern, const char *text)
{
    char error[256] = "";
    ck_assert_msg(uid_pattern_parse(pattern, text, error, sizeof error) == 0, "%s: %s", text, error);
}

static void expect_nth(const struct uid_pattern *pattern, uint64_t index, const char *expected)
{
    char uid[UID_SIZE];
    uid_pattern_nth(pattern, index, uid);
    ck_assert_str_eq(uid, expected);
    ck_assert(uid_valid(uid));
}

START_TEST(a_pattern_names_a_grid_with_the_last_coordinate_fastest)
{
    struct uid_pattern pattern;
    parse(&pattern, "ffn.[0:4].3.[10:26]");
    ck_assert_uint_eq(uid_pattern_count(&pattern), 64);
    expect_nth(&pattern, 0, "ffn.0.3.10");
    expect_nth(&pattern, 1, "ffn.0.3.11");
    expect_nth(&pattern, 16, "ffn.1.3.10");
    expect_nth(&pattern, 63, "ffn.3.3.25");
}
END_TEST

START_TEST(a_plain_uid_is_a_pattern_of_one)
{
    struct uid_pattern pattern;
    parse(&pattern, "ffn.4.17");
    ck_assert_uint_eq(uid_pattern_count(&pattern), 1);
    expect_nth(&pattern, 0, "ffn.4.17");
}
END_TEST

START_TEST(the_largest_coordinate_is_part_of_patterns)
{
    struct uid_pattern pattern;
    parse(&pattern, "ffn.4294967295");
    ck_assert_uint_eq(uid_pattern_count(&pattern), 1);
    expect_nth(&pattern, 0, "ffn.4294967295");
    parse(&pattern, "ffn.[4294967290:4294967296]");
    ck_assert_uint_eq(uid_pattern_count(&pattern), 6);
    expect_nth(&pattern, 5, "ffn.4294967295");
}
END_TEST

static const char *const bad_patterns[] = {
    "",
    "ffn",
    "ffn.[0:4",
    "ffn.[0-4]",
    "ffn.[0:]",
    "ffn.[:4]",
    "ffn.[4:4]",
    "ffn.[5:4]",
    "ffn.[0:4]x",
    "ffn.[00:4]",
    "ffn.[0:4294967297]",
    "ffn.[0:4294967296]",
    "ffn.[0:4][0:4]",
    "f n.[0:4]",
    "ffn.[1:4294967296].[1:4294967296].[0:4]",
    "x.1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17",
};

START_TEST(what_is_no_pattern_is_refused_with_a_sentence)
{
    char error[256] = "";
    struct uid_pattern pattern;
    ck_assert_int_eq(uid_pattern_parse(&pattern, bad_patterns[_i], error, sizeof error), -EINVAL);
    ck_assert_msg(strstr(error, "is no uid or pattern of uids"), "%s", error);
}
END_TEST

START_TEST(a_pattern_whose_longest_uid_is_too_long_is_refused)
{
    char text[160];
    char error[8];
    struct uid_pattern pattern;
    memset(text, 'a', sizeof text);
    strcpy(text + UID_SIZE - 3, ".[0:10]");
    parse(&pattern, text);
    strcpy(text + UID_SIZE - 3, ".[0:11]");
    ck_assert_int_eq(uid_pattern_parse(&pattern, text, error, sizeof error), -EINVAL);
    ck_assert_uint_eq(strlen(error), sizeof error - 1);
}
END_TEST

START_TEST(a_draw_is_distinct_ascending_and_the_same_for_the_same_seed)
{
    enum { COUNT = 5000 };
    static uint64_t first[COUNT], again[COUNT], other[COUNT];
    struct uid_pattern pattern;
    parse(&pattern, "ffn.[0:100].[0:100]");
    ck_assert_int_eq(uid_pattern_draw(&pattern, COUNT, 7, first), 0);
    ck_assert_int_eq(uid_pattern_draw(&pattern, COUNT, 7, again), 0);
    ck_assert_int_eq(uid_pattern_draw(&pattern, COUNT, 8, other), 0);
    ck_assert_mem_eq(first, again, sizeof first);
    ck_assert(memcmp(first, other, sizeof first) != 0);
    for (int i = 0; i < COUNT; i++)
        ck_assert(first[i] < 10000 && (i == 0 || first[i] > first[i - 1]));
}
END_TEST

START_TEST(a_draw_of_all_is_all)
{
    uint64_t indices[64];
    struct uid_pattern pattern;
    parse(&pattern, "ffn.[0:4].[0:16]");
    ck_assert_int_eq(uid_pattern_draw(&pattern, 64, 3, indices), 0);
    for (uint64_t i = 0; i < 64; i++)
        ck_assert_uint_eq(indices[i], i);
    ck_assert_int_eq(uid_pattern_draw(&pattern, 65, 3, indices), -EINVAL);
    ck_assert_int_eq(uid_pattern_draw(&pattern, 0, 3, indices), 0);
}
END_TEST

START_TEST(a_draw_from_an_enormous_grid_costs_only_its_count)
{
    uint64_t indices[100];
    struct uid_pattern pattern;
    parse(&pattern, "ffn.[0:2147483648].[0:2147483648].[0:2]");
    ck_assert_uint_eq(uid_pattern_count(&pattern), UINT64_C(1) << 63);
    ck_assert_int_eq(uid_pattern_draw(&pattern, 100, 1, indices), 0);
    for (int i = 1; i < 100; i++)
        ck_assert(indices[i] > indices[i - 1]);
    ck_assert_uint_gt(indices[99], UINT64_C(1) << 60);
}
END_TEST

/* 3 of 10, 20,000 times: each index is expected 6,000 times, with a standard deviation of 65. */
START_TEST(a_draw_favours_no_index)
{
    uint64_t indices[3];
    unsigned hits[10] = {0};
    struct uid_pattern pattern;
    parse(&pattern, "ffn.[0:10]");
    for (uint64_t seed = 0; seed < 20000; seed++) {
        ck_assert_int_eq(uid_pattern_draw(&pattern, 3, seed, indices), 0);
        for (int i = 0; i < 3; i++)
            hits[indices[i]]++;
    }
    for (int i = 0; i < 10; i++)
        ck_assert_msg(hits[i] > 5600 && hits[i] < 6400, "index %d was drawn %u times", i, hits[i]);
}
END_TEST

START_TEST(the_hash_is_fnv_1a)
{
    ck_assert_uint_eq(uid_hash("", 0), UINT64_C(0xcbf29ce484222325));
    ck_assert_uint_eq(uid_hash("a", 1), UINT64_C(0xaf63dc4c8601ec8c));
    ck_assert_uint_eq(uid_hash("foobar", 6), UINT64_C(0x85944171f73967e8));
}
END_TEST

#define COUNT_OF(array) (int)(sizeof(array) / sizeof(array)[0])

int main(void)
{
    Suite *suite = suite_create("uid");
    TCase *tcase = tcase_create("uid");
    tcase_add_loop_test(tcase, valid_uids_are_accepted, 0, COUNT_OF(good_uids));
    tcase_add_loop_test(tcase, invalid_uids_are_refused, 0, COUNT_OF(bad_uids));
    tcase_add_test(tcase, a_uid_splits_into_prefix_and_coordinates);
    tcase_add_test(tcase, a_uid_has_at_most_127_bytes);
    tcase_add_test(tcase, a_pattern_names_a_grid_with_the_last_coordinate_fastest);
    tcase_add_test(tcase, a_plain_uid_is_a_pattern_of_one);
    tcase_add_test(tcase, the_largest_coordinate_is_part_of_patterns);
    tcase_add_loop_test(tcase, what_is_no_pattern_is_refused_with_a_sentence, 0, COUNT_OF(bad_patterns));
    tcase_add_test(tcase, a_pattern_whose_longest_uid_is_too_long_is_refused);
    tcase_add_test(tcase, a_draw_is_distinct_ascending_and_the_same_for_the_same_seed);
    tcase_add_test(tcase, a_draw_of_all_is_all);
    tcase_add_test(tcase, a_draw_from_an_enormous_grid_costs_only_its_count);
    tcase_add_test(tcase, a_draw_favours_no_index);
    tcase_add_test(tcase, the_hash_is_fnv_1a);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
