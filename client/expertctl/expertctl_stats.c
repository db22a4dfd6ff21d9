/* stats: a server's counters, of all its frontends, once or again and again. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/expertctl/expertctl.h"
#include "client/expertctl/rates.h"
#include "client/frontends.h"
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

/* What all frontends of the server say. The one that is connected to has to answer; of another one it is said why it
 * does not, and what the others say is shown all the same. EXIT_OK: there is a look. */
static enum exit_code ask(const struct expertctl *ctl, struct frontends *frontends, struct frontends_look *look)
{
    struct expertctl quiet = *ctl;
    enum exit_code code = EXIT_OK;
    const int rc =
        frontends_look(frontends, look, NULL, FRONTENDS_NO_EXPERTS, expertctl_timeout_ms(ctl, default_timeout_s));
    if (rc < 0)
        return expertctl_fail_here(ctl, strerror(-rc));
    quiet.json = false; /* the answer that there is is on stdout */
    for (size_t f = 0; f < look->count && code == EXIT_OK; f++) {
        const struct expertd_call *call = look->stats[f];
        if (expertd_call_status(call) == EXPERTD_OK)
            continue;
        const enum exit_code own =
            expertctl_fail(f ? &quiet : ctl, expertd_call_status(call), expertd_call_message(call));
        code = f ? EXIT_OK : own;
    }
    if (code == EXIT_OK && !frontends_sum(look))
        code = expertctl_fail_here(ctl, strerror(ENOMEM));
    if (code != EXIT_OK)
        frontends_release(look);
    return code;
}

static const char *name_of(const struct frontends_look *look, size_t frontend)
{
    const struct expertd_pong *pong = frontends_pong(look, frontend);
    return pong ? pong->server : "?";
}

/* All together, and where there are several each by itself, too. */
static void json_look(struct json *json, const struct frontends *frontends, struct frontends_look *look)
{
    json_stats(json, frontends_sum(look));
    if (look->count < 2)
        return;
    json_open(json, "frontends", '[');
    for (size_t f = 0; f < look->count; f++) {
        const struct expertd_stats *stats = frontends_stats(look, f);
        json_open(json, NULL, '{');
        json_string(json, "server", name_of(look, f));
        json_string(json, "endpoint", expertd_client_endpoint(frontends->clients[f]));
        json_string(json, "status", expertd_status_name(expertd_call_status(look->stats[f])));
        if (stats)
            json_stats(json, stats);
        json_close(json, '}');
    }
    json_close(json, ']');
}

/* Of several frontends, which one's the lines below are. */
static void show_head(const struct frontends *frontends, const struct frontends_look *look, size_t frontend)
{
    if (look->count > 1)
        printf("# %s at %s\n", name_of(look, frontend), expertd_client_endpoint(frontends->clients[frontend]));
}

/* ---- once -------------------------------------------------------------------------------------------------------- */

static enum exit_code show(struct expertctl *ctl, struct frontends *frontends)
{
    struct json json = {0};
    struct frontends_look look;
    enum exit_code code = ask(ctl, frontends, &look);
    if (code != EXIT_OK)
        return code;
    if (ctl->json) {
        json = expertctl_json_start();
        json_look(&json, frontends, &look);
    }
    for (size_t f = 0; f < look.count && !ctl->json; f++) {
        const struct expertd_stats *stats = frontends_stats(&look, f);
        show_head(frontends, &look, f);
        for (size_t i = 0; stats && i < stats->count; i++)
            printf("%s %.15g\n", stats->counters[i].name, stats->counters[i].value);
    }
    if (ctl->dht_given) {
        code = expertctl_dht_status(ctl, ctl->json ? &json : NULL);
    }
    if (ctl->json)
        expertctl_json_end(&json);
    frontends_release(&look);
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
    for (size_t i = 0; i < now->count; i++) {
        const struct expertd_counter *counter = &now->counters[i];
        double old = 0;
        if (!before)
            printf("  %s %.15g\n", counter->name, counter->value);
        else if (!rates_find(before, counter->name, &old) || old != counter->value)
            printf("  %s %.15g %+.6g/s\n", counter->name, counter->value, (counter->value - old) / seconds);
    }
}

static void show_all_changes(const struct frontends *frontends, const struct frontends_look *before,
                             const struct frontends_look *now, double seconds)
{
    const time_t wall = time(NULL);
    struct tm local;
    char text[32];
    localtime_r(&wall, &local);
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
    puts(text);
    for (size_t f = 0; f < now->count; f++) {
        const struct expertd_stats *stats = frontends_stats(now, f);
        show_head(frontends, now, f);
        if (stats)
            show_changes(frontends_stats(before, f), stats, seconds);
    }
}

static void show_line(const struct frontends *frontends, struct frontends_look *look)
{
    struct timespec wall;
    struct json json = expertctl_json_start();
    clock_gettime(CLOCK_REALTIME, &wall);
    json_number(&json, "time", (double)wall.tv_sec + (double)wall.tv_nsec / 1e9);
    json_look(&json, frontends, look);
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
static enum exit_code watch(struct expertctl *ctl, struct frontends *frontends)
{
    const struct sigaction action = {.sa_handler = stop};
    const double interval_s = ctl->interval_s > 0 ? ctl->interval_s : default_interval_s;
    struct frontends_look before = {0}, now;
    uint64_t before_ns = 0, next_ns = clock_now_ns();
    enum exit_code code = EXIT_OK;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    for (uint32_t times = 0; !stopped && (!ctl->count_given || times < ctl->count); times++) {
        code = ask(ctl, frontends, &now);
        const uint64_t now_ns = clock_now_ns();
        if (code == EXIT_OK) {
            if (ctl->json)
                show_line(frontends, &now);
            else
                show_all_changes(frontends, &before, &now, (double)(now_ns - before_ns) / 1e9);
            frontends_release(&before);
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
    frontends_release(&before);
    return stopped ? EXIT_OK : code;
}

enum exit_code expertctl_stats(struct expertctl *ctl)
{
    enum exit_code code = EXIT_OK;
    if (!ctl->watch && (ctl->count_given || ctl->interval_s > 0))
        return expertctl_usage(ctl, "--count and --interval are for stats --watch");
    struct expertd_client *client = expertctl_connect(ctl, &code);
    struct frontends frontends;
    if (!client)
        return code;
    frontends_begin(&frontends, client);
    code = ctl->watch ? watch(ctl, &frontends) : show(ctl, &frontends);
    expertd_client_destroy(&client);
    return code;
}
