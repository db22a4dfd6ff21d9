#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "command/supervisord_file.h"

static struct config config;
static char *text;
static const char *alert;
static const char *source;

static int print(const char *programs, const char *file, const char *folder, bool with_dht)
{
    const char *yaml = source ? source : "devices: [{name: a}, {name: b}]";
    size_t length;
    ck_assert_int_eq(config_parse(&config, yaml, strlen(yaml), "test"), 0);
    FILE *out = open_memstream(&text, &length);
    const int result = supervisord_file_print(out, &config, programs, file, folder, with_dht, alert);
    fclose(out);
    config_destroy(&config);
    return result;
}

START_TEST(each_device_has_a_runtime)
{
    ck_assert_int_eq(print("/bin", "/etc/box.yaml", "/run/box", true), 0);
    ck_assert_ptr_nonnull(strstr(
        text, "[program:expertd-frontend]\ncommand= \"/bin/expertd-frontend\" \"--config\" \"/etc/box.yaml\"\n"));
    ck_assert_ptr_nonnull(strstr(text, "[program:expertd-runtime-a]"));
    ck_assert_ptr_nonnull(strstr(text, "\"--device\" \"b\"\n"));
    ck_assert_ptr_nonnull(strstr(text, "[program:expertd-dht]"));
    ck_assert_ptr_nonnull(strstr(text, "serverurl=unix:///run/box/supervisor.sock\n"));
    free(text);
    ck_assert_int_eq(print("/bin", "/etc/box.yaml", "/run/box", false), 0);
    ck_assert_ptr_null(strstr(text, "expertd-dht"));
    free(text);
}
END_TEST

START_TEST(each_frontend_is_a_program)
{
    source = "devices: [{name: a}, {name: b}]\n"
             "frontends: [{name: left, devices: [a], listen: [\"tcp://127.0.0.1:1\"]},"
             " {name: right, devices: [b], listen: [\"tcp://127.0.0.1:2\"]}]\n";
    alert = "mail root";
    ck_assert_int_eq(print("/bin", "/etc/box.yaml", "/run/box", true), 0);
    ck_assert_ptr_nonnull(strstr(text, "[program:expertd-frontend-right]\ncommand= \"/bin/expertd-frontend\" "
                                       "\"--config\" \"/etc/box.yaml\" \"--frontend\" \"right\"\n"));
    ck_assert_ptr_null(strstr(text, "[program:expertd-frontend]"));
    ck_assert_ptr_nonnull(strstr(text, "programs=expertd-frontend-left,expertd-frontend-right,expertd-runtime-a,"
                                       "expertd-runtime-b,expertd-dht-left,expertd-dht-right\n"));
    ck_assert_ptr_nonnull(strstr(text, "\"/bin/expertd-dht\" \"--config\" \"/etc/box.yaml\" \"--frontend\" \"left\""));
    ck_assert_ptr_null(strstr(text, "[program:expertd-dht]"));
    free(text);
    source = alert = NULL;
}
END_TEST

START_TEST(paths_are_escaped)
{
    ck_assert_int_eq(print("/a b", "/50%/\"x\"\\.yaml", "/run 100%;", true), 0);
    ck_assert_ptr_nonnull(
        strstr(text, "command= \"/a b/expertd-frontend\" \"--config\" \"/50%%/\\\"x\\\"\\\\.yaml\"\n"));
    ck_assert_ptr_nonnull(strstr(text, "childlogdir=/run 100%%;\n"));
    free(text);
}
END_TEST

START_TEST(with_an_alert_the_programs_are_a_group_that_is_listened_to)
{
    alert = "mail -s \"{program} 5%\" root";
    ck_assert_int_eq(print("/bin", "/etc/box.yaml", "/run/box", true), 0);
    ck_assert_ptr_nonnull(
        strstr(text, "[group:expertd]\nprograms=expertd-frontend,expertd-runtime-a,expertd-runtime-b,expertd-dht\n"));
    ck_assert_ptr_nonnull(strstr(text, "[eventlistener:expertd-alert]\ncommand= \"/bin/expertd-alert\" mail -s "
                                       "\"{program} 5%%\" root\nevents=PROCESS_STATE\nbuffer_size=1000\n"));
    free(text);
    ck_assert_int_eq(print("/bin", "/etc/box.yaml", "/run/box", false), 0);
    ck_assert_ptr_null(strstr(text, "expertd-dht"));
    free(text);
    alert = "a\nb";
    ck_assert_int_eq(print("/bin", "/etc/box.yaml", "/run/box", false), -EINVAL);
    free(text);
}
END_TEST

static const char *const impossible[] = {"/a ;b", "/a\nb", "/a\x7f"};

START_TEST(what_supervisord_cannot_be_told_is_refused)
{
    ck_assert_int_eq(print(impossible[_i], "/b", "/c", true), -EINVAL);
    free(text);
    ck_assert_int_eq(print("/a", impossible[_i], "/c", true), -EINVAL);
    free(text);
    ck_assert_int_eq(print("/a", "/b", impossible[_i], true), -EINVAL);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("supervisord_file");
    TCase *tcase = tcase_create("supervisord_file");
    tcase_add_test(tcase, each_device_has_a_runtime);
    tcase_add_test(tcase, each_frontend_is_a_program);
    tcase_add_test(tcase, paths_are_escaped);
    tcase_add_test(tcase, with_an_alert_the_programs_are_a_group_that_is_listened_to);
    tcase_add_loop_test(tcase, what_supervisord_cannot_be_told_is_refused, 0, 3);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
