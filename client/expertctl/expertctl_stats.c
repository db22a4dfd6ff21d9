/* stats: a server's counters, once or again and again. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/expertctl/expertctl.h"
#include "client/expertctl/rates.h"
#include "common/clock.h"

static const double default_timeout_s = 10, default_interval_s = 1;

static void json_histogram(struct json *json, const struct expertd_histogram *histogram)
{
    json_open(json, NULL, '{');
    json_string(json, "name", histogram->name);
    json_number(json, "sum", histogram->sum);
    json_open(json, "bounds", '[');
    for (size_t b = 0; b < histogram->bounds_count; b++)
        json_number(json, NULL, histogram->bounds[b]);
    json_close(json, ']');
    json_open(json, "counts", '[');
    for (size_t b = 0; b <= histogram->bounds_count; b++)
        json_unsigned(json, NULL, histogram->counts[b]);
    json_close(json, ']');
    json_close(json, '}');
}

static void json_stats(struct json *json, const struct expertd_stats *stats)
{
    json_open(json, "counters", '{');
    for (size_t i = 0; i < stats->count; i++)
        json_number(json, stats->counters[i].name, stats->counters[i].value);
    json_close(json, '}');
    json_open(json, "histograms", '[');
    for (size_t i = 0; i < stats->histograms_count; i++)
        json_histogram(json, &stats->histograms[i]);
    json_close(json, ']');
}

static enum exit_code ask(struct expertctl *ctl, struct expertd_client *client, struct expertd_call **call)
{
    return expertctl_finish(ctl, expertd_stats(client, expertctl_timeout_ms(ctl, default_timeout_s), call), call);
}

/* ---- once -------------------------------------------------------------------------------------------------------- */

static enum exit_code show(struct expertctl *ctl, const struct expertd_stats *stats)
{
    struct json json = {0};
    enum exit_code code = EXIT_OK;
    if (ctl->json) {
        json = expertctl_json_start();
        json_stats(&json, stats);
    }
    for (size_t i = 0; i < stats->count && !ctl->json; i++)
        printf("%s %.15g\n", stats->counters[i].name, stats->counters[i].value);
    if (ctl->dht_given)
        code = expertctl_dht_status(ctl, ctl->json ? &json : NULL);
    if (ctl->json)
        expertctl_json_end(&json);
    return code;
}

/* ---- again and again --------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

/* What has changed since `before`, and by how much a second; all there is where there is no before. */
static void show_changes(const struct expertd_stats *before, const struct expertd_stats *now, double seconds)
{
    const time_t wall = time(NULL);
    struct tm local;
    char text[32];
    localtime_r(&wall, &local);
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
    puts(text);
    for (size_t i = 0; i < now->count; i++) {
        const struct expertd_counter *counter = &now->counters[i];
        double old = 0;
        if (!before)
            printf("  %s %.15g\n", counter->name, counter->value);
        else if (!rates_find(before, counter->name, &old) || old != counter->value)
            printf("  %s %.15g %+.6g/s\n", counter->name, counter->value, (counter->value - old) / seconds);
    }
}

static void show_line(const struct expertd_stats *stats)
{
    struct timespec wall;
    struct json json = expertctl_json_start();
    clock_gettime(CLOCK_REALTIME, &wall);
    json_number(&json, "time", (double)wall.tv_sec + (double)wall.tv_nsec / 1e9);
    json_stats(&json, stats);
    expertctl_json_end(&json);
}

static void pause_until(uint64_t end_ns)
{
    uint64_t now_ns;
    while (!stopped && (now_ns = clock_now_ns()) < end_ns) {
        const uint64_t left_ns = end_ns - now_ns;
        const struct timespec pause = {(time_t)(left_ns / NS_PER_S), (long)(left_ns % NS_PER_S)};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
}

/* A server that does not answer is said, and asked again: its restart is what one may be watching for. */
static enum exit_code watch(struct expertctl *ctl, struct expertd_client *client)
{
    const struct sigaction action = {.sa_handler = stop};
    const double interval_s = ctl->interval_s > 0 ? ctl->interval_s : default_interval_s;
    struct expertd_call *before = NULL, *now;
    uint64_t before_ns = 0, next_ns = clock_now_ns();
    enum exit_code code = EXIT_OK;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    for (uint32_t times = 0; !stopped && (!ctl->count_given || times < ctl->count); times++) {
        code = ask(ctl, client, &now);
        const uint64_t now_ns = clock_now_ns();
        if (code == EXIT_OK) {
            const struct expertd_stats *stats = expertd_call_stats(now);
            if (ctl->json)
                show_line(stats);
            else
                show_changes(before ? expertd_call_stats(before) : NULL, stats, (double)(now_ns - before_ns) / 1e9);
            expertd_call_release(&before);
            before = now;
            before_ns = now_ns;
        }
        if (fflush(stdout) != 0)
            break; /* nobody reads */
        next_ns += (uint64_t)(interval_s * (double)NS_PER_S);
        next_ns = next_ns > now_ns ? next_ns : now_ns;
        if (!ctl->count_given || times + 1 < ctl->count)
            pause_until(next_ns);
    }
    expertd_call_release(&before);
    return stopped ? EXIT_OK : code;
}

enum exit_code expertctl_stats(struct expertctl *ctl)
{
    enum exit_code code = EXIT_OK;
    if (!ctl->watch && (ctl->count_given || ctl->interval_s > 0))
        return expertctl_usage(ctl, "--count and --interval are for stats --watch");
    struct expertd_client *client = expertctl_connect(ctl, &code);
    struct expertd_call *call;
    if (!client)
        return code;
    if (ctl->watch) {
        code = watch(ctl, client);
    } else {
        code = ask(ctl, client, &call);
        if (code == EXIT_OK)
            code = show(ctl, expertd_call_stats(call));
    }
    expertd_client_destroy(&client);
    return code;
}
