#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/certificate.h"
#include "common/clock.h"
#include "common/keyring.h"

static char folder[64];
static struct keyring *keyring;
static uint64_t now_ns;

static void setup(void)
{
    strcpy(folder, "/tmp/expertd-keyring.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    now_ns = NS_PER_S;
}

static void teardown(void)
{
    char command[128];
    keyring_destroy(&keyring);
    keyring_destroy(&keyring);
    snprintf(command, sizeof command, "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}

/* 40 characters, another one for each number. */
static const char *key(int number)
{
    static char text[4][CERTIFICATE_KEY_SIZE];
    static int next;
    char *to = text[next++ % 4];
    snprintf(to, CERTIFICATE_KEY_SIZE, "%040d", number);
    return to;
}

static void put(const char *name, int number, const char *role)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    if (role)
        fprintf(file, "metadata\n    role = \"%s\"\n", role);
    fprintf(file, "curve\n    public-key = \"%s\"\n", key(number));
    fclose(file);
}

static void create(enum role strangers)
{
    const struct keyring_settings settings = {.folder = folder, .strangers = strangers, .operator_key = key(1000)};
    static char own[CERTIFICATE_KEY_SIZE];
    struct keyring_settings with = settings;
    strcpy(own, key(1000));
    with.operator_key = own;
    ck_assert_int_eq(keyring_create(&keyring, &with), 0);
}

static void look(void)
{
    now_ns += NS_PER_S;
    keyring_look(keyring, now_ns);
}

START_TEST(each_certificate_has_its_role)
{
    put("a", 1, "reader");
    put("b.txt", 2, "trainer");
    put("c", 3, "operator");
    put("d", 4, NULL);
    put("e", 5, "king");           /* left out */
    put("f_secret", 6, "trainer"); /* somebody's secret is no list of clients */
    put(".g", 7, "trainer");
    create(ROLE_NONE);
    ck_assert_int_eq(keyring_role(keyring, key(1)), ROLE_READER);
    ck_assert_int_eq(keyring_role(keyring, key(2)), ROLE_TRAINER);
    ck_assert_int_eq(keyring_role(keyring, key(3)), ROLE_OPERATOR);
    ck_assert_int_eq(keyring_role(keyring, key(4)), ROLE_READER);
    for (int i = 5; i < 9; i++)
        ck_assert_int_eq(keyring_role(keyring, key(i)), ROLE_NONE);
    ck_assert_int_eq(keyring_role(keyring, key(1000)), ROLE_OPERATOR);
    ck_assert_uint_eq(keyring_count(keyring), 4);
}
END_TEST

START_TEST(a_key_in_two_files_has_the_lesser_role)
{
    put("a", 1, "operator");
    put("b", 1, "reader");
    put("c", 1, "trainer");
    create(ROLE_NONE);
    ck_assert_int_eq(keyring_role(keyring, key(1)), ROLE_READER);
}
END_TEST

START_TEST(strangers_have_the_role_that_is_configured)
{
    put("a", 1, "trainer");
    create(ROLE_READER);
    ck_assert_int_eq(keyring_role(keyring, key(1)), ROLE_TRAINER);
    ck_assert_int_eq(keyring_role(keyring, key(2)), ROLE_READER);
}
END_TEST

START_TEST(what_comes_changes_and_goes_counts)
{
    create(ROLE_NONE);
    const uint64_t first = keyring_generation(keyring);
    look();
    ck_assert_uint_eq(keyring_generation(keyring), first);
    put("a", 1, "reader");
    look();
    ck_assert_uint_eq(keyring_generation(keyring), first + 1);
    ck_assert_int_eq(keyring_role(keyring, key(1)), ROLE_READER);
    put("a", 1, "trainer"); /* another size, too, so that a coarse clock does not hide it */
    look();
    ck_assert_int_eq(keyring_role(keyring, key(1)), ROLE_TRAINER);
    char path[128];
    snprintf(path, sizeof path, "%s/a", folder);
    unlink(path);
    look();
    ck_assert_int_eq(keyring_role(keyring, key(1)), ROLE_NONE);
    ck_assert_uint_eq(keyring_generation(keyring), first + 3);
}
END_TEST

START_TEST(what_was_known_stays_when_the_folder_cannot_be_read)
{
    char moved[80];
    put("a", 1, "reader");
    create(ROLE_NONE);
    snprintf(moved, sizeof moved, "%s.moved", folder);
    ck_assert_int_eq(rename(folder, moved), 0);
    look();
    ck_assert_int_eq(keyring_role(keyring, key(1)), ROLE_READER);
    ck_assert_int_eq(rename(moved, folder), 0);
}
END_TEST

START_TEST(a_folder_that_is_not_there_is_an_error)
{
    const struct keyring_settings settings = {.folder = "/nowhere/at/all", .operator_key = ""};
    ck_assert_int_lt(keyring_create(&keyring, &settings), 0);
    ck_assert_ptr_null(keyring);
}
END_TEST

START_TEST(roles_have_names)
{
    enum role role;
    ck_assert_int_eq(role_of_name("operator", &role), 0);
    ck_assert_int_eq(role, ROLE_OPERATOR);
    ck_assert_int_lt(role_of_name("Operator", &role), 0);
    ck_assert_str_eq(role_name(ROLE_TRAINER), "trainer");
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("keyring");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, each_certificate_has_its_role);
    tcase_add_test(all, a_key_in_two_files_has_the_lesser_role);
    tcase_add_test(all, strangers_have_the_role_that_is_configured);
    tcase_add_test(all, what_comes_changes_and_goes_counts);
    tcase_add_test(all, what_was_known_stays_when_the_folder_cannot_be_read);
    tcase_add_test(all, a_folder_that_is_not_there_is_an_error);
    tcase_add_test(all, roles_have_names);
    Suite *suite = suite_create("keyring");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
