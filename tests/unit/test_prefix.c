#include "dht/prefix.h"

#include "dht_world.h"

START_TEST(prefixes_end_with_a_dot)
{
    static const char *const good[] = {"ffn.", "ffn.4.", "a.0.1.2.", "\xc3\xa9.4294967295."};
    static const char *const bad[] = {"",     ".", "ffn", "ffn.4", "ffn..", "ffn.04.", "ffn.x.", "ffn.4294967296.",
                                      "a b.", "4"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        ck_assert_msg(prefix_valid(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!prefix_valid(bad[i]), "%s", bad[i]);
    char longest[UID_SIZE + 8];
    memset(longest, 'a', sizeof longest);
    memcpy(longest + UID_SIZE - 3, ".", 2);
    ck_assert(prefix_valid(longest));
    memcpy(longest + UID_SIZE - 3, "a.", 3);
    ck_assert(!prefix_valid(longest));
}
END_TEST

START_TEST(a_uid_is_split_and_put_together)
{
    char prefix[UID_SIZE], back[UID_SIZE];
    uint32_t coordinate;
    ck_assert(prefix_of_uid("ffn.4.17", prefix, &coordinate));
    ck_assert_str_eq(prefix, "ffn.4.");
    ck_assert_uint_eq(coordinate, 17);
    ck_assert(prefix_child(prefix, coordinate, false, back));
    ck_assert_str_eq(back, "ffn.4.17");
    ck_assert(prefix_parent(prefix, prefix, &coordinate));
    ck_assert_str_eq(prefix, "ffn.");
    ck_assert_uint_eq(coordinate, 4);
    ck_assert(prefix_child(prefix, coordinate, true, back));
    ck_assert_str_eq(back, "ffn.4.");
    ck_assert(!prefix_parent(prefix, prefix, &coordinate));
    ck_assert(!prefix_of_uid("ffn", prefix, &coordinate));
    ck_assert(!prefix_of_uid("ffn.", prefix, &coordinate));
    ck_assert(prefix_of_uid("a.4294967295", prefix, &coordinate));
    ck_assert_uint_eq(coordinate, 4294967295);
}
END_TEST

START_TEST(what_would_be_too_long_is_none)
{
    char prefix[UID_SIZE], child[UID_SIZE];
    memset(prefix, 'a', sizeof prefix);
    memcpy(prefix + UID_SIZE - 3, ".", 2);
    ck_assert(prefix_child(prefix, 9, false, child));
    ck_assert(!prefix_child(prefix, 9, true, child));
    ck_assert(!prefix_child(prefix, 10, false, child));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("prefix");
    tcase_add_test(all, prefixes_end_with_a_dot);
    tcase_add_test(all, a_uid_is_split_and_put_together);
    tcase_add_test(all, what_would_be_too_long_is_none);
    return world_run(all, "prefix");
}
