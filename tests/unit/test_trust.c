#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/uid.h"
#include "dht/trust.h"

static struct identity *one, *two, *signer;
static struct trust *trust;
static char text[4][VOUCHER_TEXT + UID_SIZE];

static void setup(void)
{
    ck_assert_int_eq(identity_create(&one, ""), 0);
    ck_assert_int_eq(identity_create(&two, ""), 0);
    ck_assert_int_eq(identity_create(&signer, ""), 0);
}

static void teardown(void)
{
    trust_destroy(&trust);
    identity_destroy(&one);
    identity_destroy(&two);
    identity_destroy(&signer);
}

/* An entry; the prefix may be "". */
static const char *entry(int number, const char *prefix, const struct identity *key)
{
    char id[SERVER_ID_TEXT];
    snprintf(text[number], sizeof text[number], "%s%s%s", prefix, prefix[0] ? " " : "",
             server_id_format(identity_id(key), id));
    return text[number];
}

static int create(const char *a, const char *b)
{
    const char *items[] = {a, b};
    const struct config_strings entries = {items, b ? 2 : a ? 1 : 0};
    trust_destroy(&trust);
    return trust_create(&trust, &entries);
}

static bool allows(const char *prefix, const struct identity *who)
{
    return trust_allows(trust, prefix, identity_id(who), NULL);
}

START_TEST(without_entries_everybody_is_believed)
{
    ck_assert_int_eq(create(NULL, NULL), 0);
    ck_assert(allows("ffn.", one) && allows("ffn.3.", two));
}
END_TEST

START_TEST(a_key_alone_is_for_every_prefix)
{
    ck_assert_int_eq(create(entry(0, "", one), NULL), 0);
    ck_assert(allows("ffn.", one) && !allows("ffn.", two) && !allows("a.1.", two));
}
END_TEST

START_TEST(an_entry_covers_its_prefix_and_what_is_below)
{
    ck_assert_int_eq(create(entry(0, "ffn.", one), NULL), 0);
    ck_assert(allows("ffn.", one) && allows("ffn.3.", one));
    ck_assert(!allows("ffn.", two) && !allows("ffn.3.", two));
    ck_assert(allows("ffnx.", two) && allows("a.", two)); /* open */
}
END_TEST

START_TEST(of_entries_those_with_the_longest_prefix_count)
{
    for (int order = 0; order < 2; order++) {
        const char *all = entry(0, "", one), *some = entry(1, "ffn.3.", two);
        ck_assert_int_eq(order ? create(some, all) : create(all, some), 0);
        ck_assert(allows("ffn.", one) && !allows("ffn.", two));
        ck_assert(allows("ffn.3.", two) && !allows("ffn.3.", one));
        ck_assert(allows("ffn.3.1.", two) && allows("ffn.33.", one));
    }
    ck_assert_int_eq(create(entry(0, "ffn.", one), entry(1, "ffn.", two)), 0);
    ck_assert(allows("ffn.", one) && allows("ffn.", two) && !allows("ffn.", signer));
}
END_TEST

START_TEST(a_key_vouches_for_others)
{
    struct voucher voucher, parsed;
    char hex[VOUCHER_TEXT];
    ck_assert_int_eq(create(entry(0, "", signer), NULL), 0);
    ck_assert_int_eq(voucher_make(&voucher, signer, identity_id(one)), 0);
    ck_assert(voucher_holds(&voucher, identity_id(one)) && !voucher_holds(&voucher, identity_id(two)));
    ck_assert(trust_allows(trust, "ffn.", identity_id(one), &voucher) && !allows("ffn.", one));
    ck_assert_int_eq(voucher_parse(&parsed, voucher_format(&voucher, hex)), 0);
    ck_assert_mem_eq(&parsed, &voucher, sizeof voucher);
    parsed.signer[0] ^= 1;
    ck_assert(!voucher_holds(&parsed, identity_id(one)));
    hex[VOUCHER_TEXT - 2] = 'g';
    ck_assert_int_eq(voucher_parse(&parsed, hex), -EINVAL);
    hex[VOUCHER_TEXT - 2] = 0;
    ck_assert_int_eq(voucher_parse(&parsed, hex), -EINVAL);
}
END_TEST

START_TEST(what_is_no_entry_is_refused)
{
    static const char *const bad[] = {"",
                                      "ffn.",
                                      "ffn. 00",
                                      " 00",
                                      "ffn 0000000000000000000000000000000000000000000000000000000000000000",
                                      "ffn.  0000000000000000000000000000000000000000000000000000000000000000",
                                      "x000000000000000000000000000000000000000000000000000000000000000"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(create(bad[i], NULL) == -EINVAL, "%s", bad[i]);
    ck_assert_int_eq(create("ffn. 00000000000000000000000000000000000000000000000000000000000000fF", NULL), 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("trust");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, without_entries_everybody_is_believed);
    tcase_add_test(all, a_key_alone_is_for_every_prefix);
    tcase_add_test(all, an_entry_covers_its_prefix_and_what_is_below);
    tcase_add_test(all, of_entries_those_with_the_longest_prefix_count);
    tcase_add_test(all, a_key_vouches_for_others);
    tcase_add_test(all, what_is_no_entry_is_refused);
    Suite *suite = suite_create("trust");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
