#include <errno.h>

#include "dht_world.h"

static struct ranges of(const char *text)
{
    struct ranges set = {0};
    for (const char *at = text; *at;) {
        char *end;
        const uint64_t first = strtoull(at, &end, 10);
        uint64_t last = first;
        if (*end == '-')
            last = strtoull(end + 1, &end, 10);
        ck_assert_int_eq(ranges_append(&set, first, last + 1), 0);
        at = end + (*end == ' ');
    }
    return set;
}

static void check_normal(const char *text, const char *normal)
{
    struct ranges set = of(text);
    ranges_normalize(&set);
    ck_assert_str_eq(world_text(&set), normal);
    ranges_destroy(&set);
}

START_TEST(ranges_are_sorted_and_joined)
{
    check_normal("", "");
    check_normal("5", "5");
    check_normal("1 2 3", "1-3");
    check_normal("3 1 2", "1-3");
    check_normal("7 0-4 2-3 4-5 9", "0-5 7 9");
    check_normal("4294967295 0", "0 4294967295");
    check_normal("0-100 5 6 7", "0-100");
}
END_TEST

static void check_minus(const char *a, const char *b, const char *left)
{
    struct ranges set = of(a), what = of(b);
    ck_assert_int_eq(ranges_subtract(&set, &what), 0);
    ck_assert_str_eq(world_text(&set), left);
    ranges_destroy(&set);
    ranges_destroy(&what);
}

START_TEST(members_are_taken_out)
{
    check_minus("0-9", "", "0-9");
    check_minus("", "0-9", "");
    check_minus("0-9", "0-9", "");
    check_minus("0-9", "3 5-6", "0-2 4 7-9");
    check_minus("2-4 8-9", "0-2 4-8", "3 9");
    check_minus("1 3 5", "0-10", "");
    check_minus("0-4294967295", "7", "0-6 8-4294967295");
    check_minus("5-6 8-20", "0-1 6-9 11 13 30", "5 10 12 14-20");
}
END_TEST

START_TEST(a_random_set_is_what_a_bitmap_says)
{
    enum { SIZE = 200 };
    srand(11);
    for (int round = 0; round < 500; round++) {
        bool in[SIZE] = {false}, out[SIZE] = {false};
        struct ranges a = {0}, b = {0};
        uint64_t members = 0;
        for (int i = 0; i < 12; i++) {
            const int first = rand() % SIZE, end = first + 1 + rand() % (SIZE - first < 20 ? SIZE - first : 20);
            ck_assert_int_eq(ranges_append(i % 3 ? &a : &b, (uint64_t)first, (uint64_t)end), 0);
            for (int c = first; c < end; c++)
                (i % 3 ? in : out)[c] = true;
        }
        ranges_normalize(&a);
        ranges_normalize(&b);
        ck_assert_int_eq(ranges_subtract(&a, &b), 0);
        for (int c = 0; c < SIZE; c++) {
            ck_assert_uint_eq(ranges_members(&a, (uint64_t)c), members);
            ck_assert_int_eq(ranges_contain(&a, (uint64_t)c), in[c] && !out[c]);
            members += in[c] && !out[c];
        }
        ck_assert_uint_eq(ranges_members(&a, UINT64_MAX), members);
        ranges_destroy(&a);
        ranges_destroy(&b);
    }
}
END_TEST

START_TEST(the_wire_gives_back_the_set)
{
    struct ranges set = of("4 7-9 4294967294-4294967295"), back = {0};
    uint64_t pairs[6];
    ranges_encode(&set, pairs);
    ck_assert_uint_eq(pairs[0], 4);
    ck_assert_uint_eq(pairs[1], 1);
    ck_assert_uint_eq(pairs[2], 2);
    ck_assert_uint_eq(pairs[3], 3);
    ck_assert_int_eq(ranges_decode(&back, pairs, 6), 0);
    ck_assert(ranges_equal(&set, &back));
    ranges_destroy(&set);
    ranges_destroy(&back);
}
END_TEST

START_TEST(what_is_no_set_is_refused)
{
    static const struct {
        uint64_t pairs[4];
        size_t count;
    } bad[] = {{{0, 0}, 2},
               {{1}, 1},
               {{0, 1, 0, 1}, 4},
               {{0, RANGES_END_MAX + 1}, 2},
               {{UINT64_MAX, 1}, 2},
               {{1, UINT64_MAX}, 2},
               {{RANGES_END_MAX, 1}, 2},
               {{0, 5, 1, RANGES_END_MAX - 5}, 4}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct ranges set = {0};
        ck_assert_int_eq(ranges_decode(&set, bad[i].pairs, bad[i].count), -EINVAL);
        ranges_destroy(&set);
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("ranges");
    tcase_add_test(all, ranges_are_sorted_and_joined);
    tcase_add_test(all, members_are_taken_out);
    tcase_add_test(all, a_random_set_is_what_a_bitmap_says);
    tcase_add_test(all, the_wire_gives_back_the_set);
    tcase_add_test(all, what_is_no_set_is_refused);
    return world_run(all, "ranges");
}
