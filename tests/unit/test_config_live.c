#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_live.h"

static char folder[160], path[256];
static struct config file, live;

static void parse(struct config *config, const char *experts)
{
    char text[512];
    snprintf(text, sizeof text, "server: {name: s, run_dir: %s}\nexperts: [%s]\n", folder, experts);
    ck_assert_int_eq(config_parse(config, text, strlen(text), "text"), 0);
}

static char *print(const struct config *config)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    ck_assert_ptr_nonnull(out);
    config_print(out, config);
    ck_assert_int_eq(fclose(out), 0);
    return text;
}

static void set_up(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/live.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/s.live.yaml", folder);
    memset(&live, 0, sizeof live);
    parse(&file, "{uid: a.0, block: nop}");
}

static void tear_down(void)
{
    char proposal[256];
    snprintf(proposal, sizeof proposal, "%s/s.proposal.yaml", folder);
    unlink(proposal);
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0);
    config_destroy(&file);
    config_destroy(&live);
}

static void propose(const struct config *base, const char *experts)
{
    struct config next;
    parse(&next, experts);
    char *text = print(&next);
    ck_assert_int_eq(config_live_propose(&file, base, text), 0);
    free(text);
    config_destroy(&next);
}

START_TEST(a_proposal_counts_when_it_is_accepted)
{
    ck_assert_int_eq(config_live_read(&live, &file), 0);
    propose(&file, "{uid: b.0, block: nop}");
    ck_assert_int_eq(config_live_read(&live, &file), 0);
    ck_assert_int_eq(config_live_read_proposal(&live, &file), 0);
    ck_assert_str_eq(live.experts[0].uid, "b.0");
    config_destroy(&live);
    ck_assert_int_eq(config_live_accept(&file), 0);
    ck_assert_int_eq(config_live_read(&live, &file), 1);
    ck_assert_str_eq(live.experts[0].uid, "b.0");
}
END_TEST

START_TEST(changes_of_another_configuration_do_not_count)
{
    struct config other;
    propose(&file, "{uid: b.0, block: nop}");
    ck_assert_int_eq(config_live_accept(&file), 0);
    parse(&other, "{uid: a.0, block: nop, hidden_dim: 4}");
    ck_assert_int_eq(config_live_read(&live, &other), 0);
    config_destroy(&other);
}
END_TEST

START_TEST(what_is_damaged_or_anothers_counts_as_nothing)
{
    propose(&file, "{uid: b.0, block: nop}");
    ck_assert_int_eq(config_live_accept(&file), 0);
    ck_assert_int_eq(chmod(path, 0622), 0);
    ck_assert_int_eq(config_live_read(&live, &file), 0);
    ck_assert_int_eq(chmod(path, 0600), 0);
    ck_assert_int_eq(config_live_read(&live, &file), 1);
    config_destroy(&live);
    ck_assert_int_eq(truncate(path, 60), 0);
    ck_assert_int_eq(config_live_read(&live, &file), 0);
    ck_assert_int_eq(truncate(path, 10), 0);
    ck_assert_int_eq(config_live_read(&live, &file), 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("config_live");
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, a_proposal_counts_when_it_is_accepted);
    tcase_add_test(all, changes_of_another_configuration_do_not_count);
    tcase_add_test(all, what_is_damaged_or_anothers_counts_as_nothing);
    Suite *suite = suite_create("config_live");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
