#include "http/status.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "http/processes.h"
#include "http/snapshot.h"

static void write_number(struct text *text, double value)
{
    if (isfinite(value))
        text_add(text, "%.15g", value);
    else
        text_add(text, "null");
}

static void write_counters(struct text *text, const struct expertd_stats *stats)
{
    text_add(text, ",\"counters\":{");
    for (size_t i = 0; i < stats->count; i++) {
        text_add(text, "%s", i ? "," : "");
        text_add_json(text, stats->counters[i].name);
        text_add(text, ":");
        write_number(text, stats->counters[i].value);
    }
    text_add(text, "}");
}

static void write_histogram(struct text *text, const struct expertd_histogram *histogram)
{
    text_add(text, "{\"name\":");
    text_add_json(text, histogram->name);
    text_add(text, ",\"sum\":");
    write_number(text, histogram->sum);
    text_add(text, ",\"bounds\":[");
    for (size_t b = 0; b < histogram->bounds_count; b++) {
        text_add(text, "%s", b ? "," : "");
        write_number(text, histogram->bounds[b]);
    }
    text_add(text, "],\"counts\":[");
    for (size_t c = 0; c <= histogram->bounds_count; c++)
        text_add(text, "%s%" PRIu64, c ? "," : "", histogram->counts[c]);
    text_add(text, "]}");
}

static void write_expert(struct text *text, const struct expertd_expert_stats *expert)
{
    text_add(text, "{\"uid\":");
    text_add_json(text, expert->uid);
    text_add(text, ",\"device\":");
    text_add_json(text, expert->device);
    text_add(text,
             ",\"forward_tasks\":%" PRIu64 ",\"forward_rows\":%" PRIu64 ",\"backward_tasks\":%" PRIu64
             ",\"backward_rows\":%" PRIu64 ",\"pending\":%" PRIu32 ",\"update_count\":%" PRIu64
             ",\"skipped_steps\":%" PRIu64 ",\"oldest_seconds\":",
             expert->forward_tasks, expert->forward_rows, expert->backward_tasks, expert->backward_rows,
             expert->pending, expert->update_count, expert->skipped_steps);
    write_number(text, expert->oldest_seconds);
    text_add(text, "}");
}

struct dht_list {
    struct text *text;
    bool begun;
};

static void write_dht_counter(void *context, const char *name, double value)
{
    struct dht_list *list = context;
    text_add(list->text, "%s", list->begun ? "," : ",\"dht\":{");
    list->begun = true;
    text_add_json(list->text, name);
    text_add(list->text, ":");
    write_number(list->text, value);
}

static void write_dht(struct text *text, struct history *history)
{
    struct dht_list list = {text, false};
    text_add(text, history_dht(history, write_dht_counter, &list) ? "}" : ",\"dht\":null");
}

static void write_process(struct text *text, const struct listed_process *process)
{
    text_add(text, "{\"program\":");
    text_add_json(text, process->program);
    text_add(text, ",\"device\":");
    text_add_json(text, process->device);
    text_add(text, ",\"frontend\":");
    text_add_json(text, process->frontend);
    text_add(text, ",\"pid\":%ld,\"cpu_seconds\":", process->pid);
    write_number(text, process->usage.cpu_seconds);
    text_add(text, ",\"start_time_seconds\":");
    write_number(text, process->usage.start_time_seconds);
    text_add(text, ",\"resident_bytes\":%" PRIu64 ",\"open_fds\":", process->usage.resident_bytes);
    write_number(text, process->usage.open_fds);
    text_add(text, ",\"threads\":");
    write_number(text, process->usage.threads);
    text_add(text, "}");
}

static void write_processes(struct text *text, const struct snapshot *snapshot, struct history *history)
{
    struct listed_process *processes = calloc(PROCESSES_MAX, sizeof *processes);
    const size_t count = processes ? processes_list(processes, snapshot, history) : 0;
    text_add(text, ",\"processes\":[");
    for (size_t i = 0; i < count; i++) {
        text_add(text, "%s", i ? "," : "");
        write_process(text, &processes[i]);
    }
    text_add(text, "]");
    free(processes);
}

/* Where there are several: which they are, and whether they answer. */
static void write_frontends(struct text *text, const struct snapshot *snapshot)
{
    text_add(text, ",\"frontends\":[");
    for (size_t f = 0; f < snapshot->frontends_count; f++) {
        text_add(text, "%s{\"name\":", f ? "," : "");
        text_add_json(text, snapshot->frontends[f].name);
        text_add(text, ",\"up\":%s}", snapshot->frontends[f].stats ? "true" : "false");
    }
    text_add(text, "]");
}

static void write_status(struct text *text, const struct snapshot *snapshot, struct history *history)
{
    const struct expertd_stats *stats = snapshot->stats;
    text_add(text, "{\"time\":%.3f,\"server\":", snapshot->wall_s);
    text_add_json(text, snapshot->pong->server);
    text_add(text, ",\"software\":");
    text_add_json(text, snapshot->pong->software);
    text_add(text,
             ",\"experts_total\":%" PRIu64 ",\"alive\":%" PRIu64 ",\"shm_used\":%" PRIu64 ",\"shm_free\":%" PRIu64,
             snapshot->experts, snapshot->experts_alive, snapshot->shm.used_bytes, snapshot->shm.free_bytes);
    write_frontends(text, snapshot);
    write_counters(text, stats);
    write_dht(text, history);
    write_processes(text, snapshot, history);
    text_add(text, ",\"histograms\":[");
    for (size_t i = 0; i < stats->histograms_count; i++) {
        text_add(text, "%s", i ? "," : "");
        write_histogram(text, &stats->histograms[i]);
    }
    text_add(text, "],\"experts\":[");
    for (size_t i = 0; i < stats->experts_count; i++) {
        text_add(text, "%s", i ? "," : "");
        write_expert(text, &stats->experts[i]);
    }
    text_add(text, "]}");
}

void status_answer(struct response *response, struct upstream *upstream, struct history *history,
                   const struct config *config)
{
    struct snapshot snapshot;
    struct expertd_client *client = upstream_take(upstream);
    snapshot_take(&snapshot, client, config, SNAPSHOT_ALL_EXPERTS, upstream_patience_ms(upstream));
    if (snapshot.stats) {
        response->status = 200;
        response->content_type = "application/json";
        write_status(&response->body, &snapshot, history);
    } else {
        response->status = 503;
        response->content_type = "text/plain; charset=utf-8";
        text_add(&response->body, "the frontend at %s does not answer\n", config->http.frontend);
    }
    snapshot_release(&snapshot);
    upstream_give(upstream, client);
}
