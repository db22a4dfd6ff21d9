/* A snapshot as Prometheus' text: each name has its head once, samples of a name lie together, buckets add up, and what
 * a server says cannot break the lines. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/metrics.h"

static struct text text;

static void write_stats(const struct expertd_stats *stats)
{
    static const struct expertd_pong pong = {
        .server = "box1", .software = "expertd 9", .experts = 4, .experts_alive = 3};
    const struct snapshot snapshot = {.pong = stats ? &pong : NULL,
                                      .stats = stats,
                                      .experts = stats ? 4 : 0,
                                      .experts_alive = stats ? 3 : 0,
                                      .wall_s = 1000,
                                      .shm = {.used_bytes = 4096, .free_bytes = 1}};
    text_free(&text);
    metrics_write(&text, &snapshot);
    ck_assert(!text.failed);
}

static bool has(const char *line)
{
    const size_t length = strlen(line);
    for (const char *at = text.data; (at = strstr(at, line)); at += length)
        if ((at == text.data || at[-1] == '\n') && at[length] == '\n')
            return true;
    return false;
}

START_TEST(counters_have_names_units_and_labels)
{
    const struct expertd_counter counters[] = {
        {"frontend.requests.forward", 7},  {"frontend.outcomes.forward.NOT_FOUND", 2},
        {"device.gpu-0.busy_ns", 2.5e9},   {"device.gpu-0.skipped_steps", 2},
        {"device.gpu-0.steps", 3},         {"device.cpu.steps", 4},
        {"frontend.uptime_s", 0.25},       {"device.gpu-0.checkpoint_time", 940},
        {"device.cpu.checkpoint_time", 0},
    };
    write_stats(&(struct expertd_stats){.counters = counters, .count = 9});
    ck_assert(has("expertd_replies_total{method=\"forward\",status=\"NOT_FOUND\"} 2"));
    ck_assert(has("expertd_up 1"));
    ck_assert(has("expertd_experts_alive 3"));
    ck_assert(has("expertd_shm_used_bytes 4096"));
    ck_assert(has("expertd_requests_total{method=\"forward\"} 7"));
    ck_assert(has("expertd_device_busy_seconds_total{device=\"gpu-0\"} 2.5"));
    ck_assert(has("expertd_optimizer_steps_total{device=\"gpu-0\",outcome=\"skipped\"} 2"));
    ck_assert(has("expertd_optimizer_steps_total{device=\"cpu\",outcome=\"applied\"} 4"));
    ck_assert(has("expertd_uptime_seconds 0.25"));
    ck_assert(has("expertd_checkpoint_age_seconds{device=\"gpu-0\"} 60"));
    ck_assert_ptr_null(strstr(text.data, "age_seconds{device=\"cpu\"}")); /* there is none yet */
}
END_TEST

START_TEST(a_server_that_does_not_answer_is_down_and_nothing_more)
{
    write_stats(NULL);
    ck_assert(has("expertd_up 0"));
    ck_assert_ptr_null(strstr(text.data, "expertd_experts"));
    ck_assert_ptr_null(strstr(text.data, "expertd_requests_total"));
}
END_TEST

START_TEST(counters_that_nobody_knows_are_left_out)
{
    const struct expertd_counter counters[] = {{"frontend.news", 1}, {"device.x", 1}, {"device.", 1},      {"", 1},
                                               {"frontend.", 1},     {"other.y", 1},  {"device..steps", 1}};
    write_stats(&(struct expertd_stats){.counters = counters, .count = 7});
    ck_assert_ptr_null(strstr(text.data, "news"));
    ck_assert_ptr_null(strstr(text.data, "other"));
}
END_TEST

START_TEST(buckets_add_up_and_end_with_infinity)
{
    const double bounds[] = {0.5, 1};
    const uint64_t counts[] = {3, 0, 2};
    const struct expertd_histogram histograms[] = {
        {"device.gpu0.forward.queue_seconds", bounds, counts, 2, 7.5},
        {"frontend.forward.request_seconds", bounds, counts, 2, 1},
        {"device.gpu0.backward.queue_seconds", bounds, counts, 2, 8},
        {"frontend.news_seconds", bounds, counts, 2, 8},
    };
    write_stats(&(struct expertd_stats){.histograms = histograms, .histograms_count = 4});
    ck_assert(has("expertd_queue_duration_seconds_bucket{device=\"gpu0\",method=\"forward\",le=\"0.5\"} 3"));
    ck_assert(has("expertd_queue_duration_seconds_bucket{device=\"gpu0\",method=\"forward\",le=\"1\"} 3"));
    ck_assert(has("expertd_queue_duration_seconds_bucket{device=\"gpu0\",method=\"forward\",le=\"+Inf\"} 5"));
    ck_assert(has("expertd_queue_duration_seconds_sum{device=\"gpu0\",method=\"forward\"} 7.5"));
    ck_assert(has("expertd_queue_duration_seconds_count{device=\"gpu0\",method=\"backward\"} 5"));
    ck_assert(has("expertd_request_duration_seconds_count{method=\"forward\"} 5"));
    ck_assert_ptr_null(strstr(text.data, "news"));
}
END_TEST

START_TEST(experts_have_labels_of_their_own)
{
    const struct expertd_expert_stats experts[] = {
        {"ffn.1", "gpu0", 1, 2, 3, 4, 5, 1.5, 6, 7, {0}, {0}},
        {"ffn.2", "gpu0", 0, 0, 0, 0, 0, 0, 0, 0, {0}, {0}},
    };
    write_stats(&(struct expertd_stats){.experts = experts, .experts_count = 2});
    ck_assert(has("expertd_expert_rows_total{uid=\"ffn.1\",device=\"gpu0\",method=\"backward\"} 4"));
    ck_assert(has("expertd_expert_pending_requests{uid=\"ffn.1\",device=\"gpu0\"} 5"));
    ck_assert(has("expertd_expert_oldest_request_seconds{uid=\"ffn.1\",device=\"gpu0\"} 1.5"));
    ck_assert(has("expertd_expert_optimizer_steps{uid=\"ffn.1\",device=\"gpu0\",outcome=\"skipped\"} 7"));
    ck_assert(has("expertd_expert_tasks_total{uid=\"ffn.2\",device=\"gpu0\",method=\"forward\"} 0"));
}
END_TEST

START_TEST(what_a_server_says_cannot_break_lines)
{
    const struct expertd_counter counters[] = {{"frontend.requests.a\"} 1\nb\\", 1}};
    write_stats(&(struct expertd_stats){.counters = counters, .count = 1});
    ck_assert(has("expertd_requests_total{method=\"a\\\"} 1\\nb\\\\\"} 1"));
}
END_TEST

START_TEST(each_name_has_one_head_before_all_of_its_samples)
{
    const struct expertd_counter counters[] = {
        {"device.a.steps", 1},       {"frontend.page_faults", 1}, {"device.b.skipped_steps", 1},
        {"device.b.page_faults", 1}, {"device.b.steps", 1},
    };
    write_stats(&(struct expertd_stats){.counters = counters, .count = 5});
    char current[128] = "", seen[64][128];
    unsigned names = 0;
    for (char *line = strtok(text.data, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "# HELP ", 7) == 0) {
            snprintf(current, sizeof current, "%.*s", (int)strcspn(line + 7, " "), line + 7);
            for (unsigned i = 0; i < names; i++)
                ck_assert_str_ne(seen[i], current);
            ck_assert_uint_lt(names, 64);
            strcpy(seen[names++], current);
        } else if (line[0] != '#') {
            ck_assert_msg(strncmp(line, current, strlen(current)) == 0, "%s under %s", line, current);
        }
    }
    text.length = 0;
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("metrics");
    tcase_add_test(all, counters_have_names_units_and_labels);
    tcase_add_test(all, a_server_that_does_not_answer_is_down_and_nothing_more);
    tcase_add_test(all, counters_that_nobody_knows_are_left_out);
    tcase_add_test(all, buckets_add_up_and_end_with_infinity);
    tcase_add_test(all, experts_have_labels_of_their_own);
    tcase_add_test(all, what_a_server_says_cannot_break_lines);
    tcase_add_test(all, each_name_has_one_head_before_all_of_its_samples);
    Suite *suite = suite_create("metrics");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    text_free(&text);
    return failed != 0;
}
