#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/options.h"
#include "common/config.h"

/* Words, and what they become; both joined by '|'. */
static const char *const translations[][2] = {
    {"x|--num_experts|4", "x|--num-experts|4"},
    {"x|--hidden_dim=64", "x|--hidden-dim=64"},
    {"x|-c|a_b.yaml", "x|--config|a_b.yaml"},
    {"x|--config=a_b", "x|--config=a_b"},
    {"x|--update_period|5|--expiration=20", "x|--dht-update-period|5|--dht-expiration=20"},
    {"x|--initial_peers|a:1|b:2|--no_dht", "x|--dht-bootstrap=a:1|--dht-bootstrap=b:2|--no-dht"},
    {"x|--initial-peers", "x"},
    {"x|--initial_peers=/ip4/10.0.0.7/udp/4222/p2p/Qm|/ip6/::1/tcp/5",
     "x|--dht-bootstrap=10.0.0.7:4222|--dht-bootstrap=[::1]:5"},
    {"x|--host_maddrs|/ip4/0.0.0.0/tcp/31330", "x|--frontend-listen=tcp://0.0.0.0:31330"},
    {"x|--host_maddrs|/ip4/127.0.0.1/tcp/0", "x|--frontend-listen=tcp://127.0.0.1:*"},
    {"x|--announce_maddrs|tcp://1.2.3.4:5", "x|--frontend-advertise=tcp://1.2.3.4:5"},
    {"x|--expert_uids|a.1|a.2|--device|cpu", "x|--expert-uids=a.1 a.2|--device=cpu"},
    {"x|--device|a|--no-dht|--device=b", "x|--no-dht|--device=a b"},
    {"x|--expert_uids=a.1|a.2", "x|--expert-uids=a.1 a.2"},
    {"x|--num_handlers|8|--use_auto_relay|--increase_file_limit",
     "x|--ignored=num-handlers|--ignored=use-auto-relay|--ignored=increase-file-limit"},
    {"x|--identity_path|/a/b_c", "x|--dht-identity-file|/a/b_c"},
    {"x|--|--a_b|word", "x|--|--a-b|word"},
    {"x|--server-run_dir=/a_b/=c", "x|--server-run-dir=/a_b/=c"},
};

START_TEST(flags_are_translated)
{
    char words[256], joined[512] = "";
    char *argv[16];
    int argc = 0, count;
    snprintf(words, sizeof words, "%s", translations[_i][0]);
    for (char *word = strtok(words, "|"); word; word = strtok(NULL, "|"))
        argv[argc++] = word;
    char **translated = options_translate(argc, argv, &count);
    ck_assert_ptr_nonnull(translated);
    for (int i = 0; i < count; i++) {
        strcat(joined, i ? "|" : "");
        strcat(joined, translated[i]);
    }
    ck_assert_ptr_null(translated[count]);
    ck_assert_str_eq(joined, translations[_i][1]);
    free(translated);
}
END_TEST

static const struct options_device machine[] = {{.platform = 0, .device = 0, .cpu = true},
                                                {.platform = 1, .device = 0, .gpu = true},
                                                {.platform = 1, .device = 1, .gpu = true}};

static void read_back(struct config *config, const struct options *given, unsigned devices, const char *host)
{
    char *text = options_configuration(given, machine, devices, host);
    ck_assert_ptr_nonnull(text);
    ck_assert_msg(config_parse(config, text, strlen(text), "flags") == 0, "%s", text);
    free(text);
}

START_TEST(numbers_patterns_and_uids_make_experts)
{
    struct config config;
    char **uids, **others;
    uint64_t count;
    const struct options numbered = {.num_experts = "3", .expert_cls = "nop", .hidden_dim = "8"};
    read_back(&config, &numbered, 1, "a");
    ck_assert_str_eq(config.experts[0].uid, "expert.[0:3]");
    ck_assert_str_eq(config.experts[0].block, "nop");
    ck_assert_uint_eq(config.experts[0].hidden_dim, 8);
    config_destroy(&config);
    const struct options drawn = {.num_experts = "4", .expert_pattern = "ffn.[0:64].[0:64]"};
    read_back(&config, &drawn, 1, "box1");
    ck_assert_int_eq(config_expert_uids(&config.experts[0], &uids, &count), 0);
    ck_assert_uint_eq(count, 4);
    config_destroy(&config);
    read_back(&config, &drawn, 1, "box2"); /* another box has others */
    ck_assert_int_eq(config_expert_uids(&config.experts[0], &others, &count), 0);
    ck_assert(strcmp(uids[0], others[0]) != 0 || strcmp(uids[1], others[1]) != 0);
    free(uids);
    free(others);
    config_destroy(&config);
    const struct options named = {.expert_uids = " a.1  b.2 ",
                                  .optimizer = "sgd",
                                  .learning_rate = "0.5",
                                  .scheduler = "linear",
                                  .compression = "MEANSTD_16BIT",
                                  .num_warmup_steps = "2",
                                  .num_training_steps = "9",
                                  .clip_grad_norm = "1.5",
                                  .min_batch_size = "2",
                                  .max_batch_size = "64"};
    read_back(&config, &named, 1, "a");
    ck_assert_uint_eq(config.experts_count, 2);
    ck_assert_str_eq(config.experts[1].uid, "b.2");
    for (int i = 0; i < 2; i++) {
        ck_assert_str_eq(config.experts[i].schedule, "linear");
        ck_assert_uint_eq(config.experts[i].warmup_steps, 2);
        ck_assert_uint_eq(config.experts[i].total_steps, 9);
        ck_assert_double_eq(config.experts[i].clip_norm, 1.5);
        ck_assert_double_eq(config.experts[i].learning_rate, 0.5);
        ck_assert_str_eq(config.experts[i].compression, "meanstd_16bit");
        ck_assert_uint_eq(config.experts[i].min_batch_size, 2);
        ck_assert_uint_eq(config.experts[i].max_batch_size, 64);
    }
    config_destroy(&config);
}
END_TEST

/* hivemind passes over them in silence. */
START_TEST(flags_without_effect_are_left_out)
{
    struct config config;
    const struct options unscheduled = {.num_experts = "1", .num_warmup_steps = "2", .num_training_steps = "9"};
    const struct options frozen = {.num_experts = "1",
                                   .optimizer = "none",
                                   .learning_rate = "0.5",
                                   .scheduler = "linear",
                                   .num_warmup_steps = "2",
                                   .num_training_steps = "9",
                                   .clip_grad_norm = "1"};
    read_back(&config, &unscheduled, 1, "box");
    ck_assert_uint_eq(config.experts[0].warmup_steps, 0);
    config_destroy(&config);
    read_back(&config, &frozen, 1, "box");
    ck_assert_str_eq(config.experts[0].optimizer, "none");
    ck_assert_str_eq(config.experts[0].schedule, "none");
    config_destroy(&config);
}
END_TEST

static const struct {
    const char *which;
    unsigned devices;
    const char *platform, *device; /* NULL: there is none */
} named_devices[] = {
    {NULL, 3, "1", "0"},     {NULL, 1, "0", "0"},    {"cpu", 3, "0", "0"},      {"gpu", 3, "1", "0"},
    {"cuda:1", 3, "1", "1"}, {"GPU:1", 3, "1", "1"}, {"cuda:2", 3, NULL, NULL}, {"cuda", 1, NULL, NULL},
    {"tpu", 3, NULL, NULL},  {NULL, 0, NULL, NULL},
};

START_TEST(a_device_is_named_as_hivemind_does)
{
    struct config config;
    const struct options given = {.num_experts = "1", .device = named_devices[_i].which};
    if (!named_devices[_i].platform) {
        ck_assert_ptr_null(options_configuration(&given, machine, named_devices[_i].devices, "a"));
        return;
    }
    read_back(&config, &given, named_devices[_i].devices, "a");
    ck_assert_str_eq(config.devices[0].platform, named_devices[_i].platform);
    ck_assert_str_eq(config.devices[0].device, named_devices[_i].device);
    config_destroy(&config);
}
END_TEST

START_TEST(devices_of_a_configuration_are_chosen_by_name)
{
    const struct options all = {0}, some = {.device = "gpu0 gpu10"};
    ck_assert(options_want_device(&all, "gpu0"));
    ck_assert(options_want_device(&some, "gpu0"));
    ck_assert(options_want_device(&some, "gpu10"));
    ck_assert(!options_want_device(&some, "gpu1"));
    ck_assert(!options_want_device(&some, "pu0"));
}
END_TEST

START_TEST(what_does_not_fit_together_is_refused)
{
    const struct options wrong[] = {{.hidden_dim = "8"},
                                    {.num_experts = "2", .expert_uids = "a.1"},
                                    {.num_experts = "2]\", x: [\""},
                                    {.num_experts = "2", .custom_module_path = "a.py"}};
    ck_assert_ptr_null(options_configuration(&wrong[_i], machine, 1, "a"));
    ck_assert(options_describe_experts(&wrong[_i]));
}
END_TEST

START_TEST(values_cannot_break_out_of_their_place)
{
    struct config config;
    const struct options given = {.expert_uids = "a.1\"\nserver: {name: other}\n#", .expert_cls = "ffn"};
    char *text = options_configuration(&given, machine, 1, "a");
    ck_assert_ptr_nonnull(text);
    ck_assert_int_lt(config_parse(&config, text, strlen(text), "flags"), 0); /* no uid, and nothing else */
    ck_assert_ptr_null(strstr(text, "\nserver"));
    free(text);
}
END_TEST

#define COUNT_OF(array) (int)(sizeof(array) / sizeof(array)[0])

int main(void)
{
    Suite *suite = suite_create("options");
    TCase *tcase = tcase_create("options");
    tcase_add_loop_test(tcase, flags_are_translated, 0, COUNT_OF(translations));
    tcase_add_test(tcase, numbers_patterns_and_uids_make_experts);
    tcase_add_test(tcase, flags_without_effect_are_left_out);
    tcase_add_loop_test(tcase, a_device_is_named_as_hivemind_does, 0, COUNT_OF(named_devices));
    tcase_add_test(tcase, devices_of_a_configuration_are_chosen_by_name);
    tcase_add_loop_test(tcase, what_does_not_fit_together_is_refused, 0, 4);
    tcase_add_test(tcase, values_cannot_break_out_of_their_place);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
