#include "http/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/processes.h"

enum { LABELS_SIZE = 512 };

/* A metric, and which of the server's counters it is made of. A counter's name is "frontend.<rest>" or
 * "device.<device>.<rest>"; a rest that ends in '*' matches all that begin so, and what follows is the label's value.
 */
struct source {
    bool device;
    const char *rest;
    const char *label, *value; /* one more label; value NULL: what the '*' stood for; label NULL: none; "a.b": two */
    double scale;              /* 0: 1 */
};
struct metric {
    const char *name, *type, *help;
    struct source sources[5]; /* rest NULL ends */
};

static const struct metric metrics[] = {
    {"expertd_uptime_seconds", "gauge", "Time since the frontend started.", {{false, "uptime_s", 0, 0, 0}}},
    {"expertd_requests_total", "counter", "Requests that came, by method.", {{false, "requests.*", "method", 0, 0}}},
    {"expertd_replies_total",
     "counter",
     "Replies by method and status, sent or not.",
     {{false, "outcomes.*", "method.status", 0, 0}}},
    {"expertd_received_bytes_total", "counter", "Bytes of requests.", {{false, "bytes_in", 0, 0, 0}}},
    {"expertd_sent_bytes_total", "counter", "Bytes of replies.", {{false, "bytes_out", 0, 0, 0}}},
    {"expertd_pending_requests", "gauge", "Requests in the server now.", {{false, "in_flight", 0, 0, 0}}},
    {"expertd_pending_requests_limit",
     "gauge",
     "Requests that the server takes at once.",
     {{false, "max_requests", 0, 0, 0}}},
    {"expertd_dropped_replies_total",
     "counter",
     "Replies that could not be sent: the peer has gone, or does not read.",
     {{false, "peers_vanished", "reason", "vanished", 0}, {false, "replies_dropped", "reason", "not_read", 0}}},
    {"expertd_dropped_results_total",
     "counter",
     "Results that nobody waited for any more.",
     {{false, "results_dropped", 0, 0, 0}}},
    {"expertd_replayed_requests_total",
     "counter",
     "Repeated backwards that were answered without being applied again.",
     {{false, "replay.answered", "how", "kept", 0}, {false, "replay.joined", "how", "joined", 0}}},
    {"expertd_replay_answers", "gauge", "Answers of backwards kept for a repeat.", {{false, "replay.kept", 0, 0, 0}}},
    {"expertd_replay_bytes", "gauge", "Bytes of these answers.", {{false, "replay.kept_bytes", 0, 0, 0}}},
    {"expertd_reply_buffer_bytes",
     "gauge",
     "Memory of replies: all, and what clients have not read yet.",
     {{false, "buffer_bytes", "state", "all", 0}, {false, "unsent_bytes", "state", "unsent", 0}}},
    {"expertd_page_faults_total",
     "counter",
     "Minor page faults; none come in the steady state.",
     {{false, "page_faults", "process", "frontend", 0}, {true, "page_faults", "process", "runtime", 0}}},
    {"expertd_sleeps_total",
     "counter",
     "How often a process went to sleep on its doorbell.",
     {{false, "sleeps", "process", "frontend", 0}, {true, "sleeps", "process", "runtime", 0}}},
    {"expertd_device_up", "gauge", "1: the device's runtime is alive, and does not hang.", {{true, "alive", 0, 0, 0}}},
    {"expertd_device_restarts_total",
     "counter",
     "Times that another runtime came up, since the frontend started.",
     {{true, "restarts", 0, 0, 0}}},
    {"expertd_device_generation",
     "gauge",
     "Grows when a runtime makes its segments anew.",
     {{true, "generation", 0, 0, 0}}},
    {"expertd_device_experts", "gauge", "Experts of the device.", {{true, "experts", 0, 0, 0}}},
    {"expertd_device_pending_requests", "gauge", "Requests that wait for the device.", {{true, "in_flight", 0, 0, 0}}},
    {"expertd_device_oldest_request_seconds",
     "gauge",
     "How long the oldest of them has waited in its pool.",
     {{true, "oldest_s", 0, 0, 0}}},
    {"expertd_device_busy_seconds_total",
     "counter",
     "Time with a batch on the device.",
     {{true, "busy_ns", 0, 0, 1e-9}}},
    {"expertd_device_memory_bytes",
     "gauge",
     "Memory of the device: what experts take, and what they may take.",
     {{true, "memory_used", "state", "used", 0}, {true, "memory_limit", "state", "limit", 0}}},
    {"expertd_batches_total", "counter", "Batches completed.", {{true, "batches", 0, 0, 0}}},
    {"expertd_batches_closed_total",
     "counter",
     "Batches taken, by why: no further task could join, the rows waited for were there, the wait was over, nothing "
     "was waited for, a short wait for clients that had just been answered was over.",
     {{true, "closed_full", "reason", "full", 0},
      {true, "closed_rows", "reason", "rows", 0},
      {true, "closed_timeout", "reason", "timeout", 0},
      {true, "closed_free", "reason", "free_device", 0},
      {true, "closed_pace", "reason", "pace", 0}}},
    {"expertd_tasks_total",
     "counter",
     "Tasks by outcome; skipped: expired, cancelled, or applied before.",
     {{true, "tasks", "outcome", "ok", 0},
      {true, "failed_tasks", "outcome", "failed", 0},
      {true, "skipped_tasks", "outcome", "skipped", 0}}},
    {"expertd_rows_total", "counter", "Rows of tasks that were done.", {{true, "rows", 0, 0, 0}}},
    {"expertd_optimizer_steps_total",
     "counter",
     "Optimizer steps; skipped: the gradients held a NaN or an infinity.",
     {{true, "steps", "outcome", "applied", 0}, {true, "skipped_steps", "outcome", "skipped", 0}}},
    {"expertd_checkpoints_total",
     "counter",
     "Checkpoints of experts, by outcome.",
     {{true, "checkpoints", "outcome", "written", 0}, {true, "checkpoint_errors", "outcome", "failed", 0}}},
};

struct histogram_metric {
    const char *name, *help;
    bool device;
    const char *rest; /* of "frontend.<method>.<rest>" or "device.<device>.<method>.<rest>" */
};
static const struct histogram_metric histogram_metrics[] = {
    {"expertd_request_duration_seconds", "From a request's arrival to its reply.", false, "request_seconds"},
    {"expertd_queue_duration_seconds", "Of a task, until its batch was taken.", true, "queue_seconds"},
    {"expertd_compute_duration_seconds", "Of a batch, on the device.", true, "compute_seconds"},
    {"expertd_batch_rows", "Rows of a batch.", true, "batch_rows"},
};

/* --- text ------------------------------------------------------------------------------------------------------------
 */

static void add_escaped(struct text *text, const char *value, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (value[i] == '\n')
            text_add_bytes(text, "\\n", 2);
        else if (value[i] == '"' || value[i] == '\\')
            text_add(text, "\\%c", value[i]);
        else
            text_add_bytes(text, &value[i], 1);
    }
}

struct labels {
    struct text text;
};

static void label(struct labels *labels, const char *name, const char *value, size_t length)
{
    text_add(&labels->text, "%s%s=\"", labels->text.length ? "," : "", name);
    add_escaped(&labels->text, value, length);
    text_add_bytes(&labels->text, "\"", 1);
}

static void label_text(struct labels *labels, const char *name, const char *value)
{
    label(labels, name, value, strlen(value));
}

static void head(struct text *text, const char *name, const char *type, const char *help)
{
    text_add(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void number(struct text *text, double value)
{
    if (isnan(value))
        text_add(text, " NaN\n");
    else if (isinf(value))
        text_add(text, value > 0 ? " +Inf\n" : " -Inf\n");
    else if (value == floor(value) && fabs(value) < 9007199254740992.0) /* 2^53: all digits of a whole number */
        text_add(text, " %.0f\n", value);
    else
        text_add(text, " %.15g\n", value);
}

static void sample(struct text *text, const char *name, const struct labels *labels, double value)
{
    text_add(text, "%s", name);
    if (labels && labels->text.length > 0)
        text_add(text, "{%s}", labels->text.data);
    number(text, value);
}

/* --- counters --------------------------------------------------------------------------------------------------------
 */

/* The rest of a counter's name, and the device's part of it; NULL: neither the frontend's nor a device's. */
static const char *split(const char *name, const char **device, size_t *device_length)
{
    *device = NULL;
    if (strncmp(name, "frontend.", 9) == 0)
        return name + 9;
    if (strncmp(name, "device.", 7) != 0)
        return NULL;
    *device = name + 7;
    const char *dot = strchr(*device, '.'); /* a device's name has none */
    *device_length = dot ? (size_t)(dot - *device) : 0;
    return dot ? dot + 1 : NULL;
}

static bool matches(const struct source *source, const char *rest, bool device, const char **star)
{
    const size_t length = strlen(source->rest);
    *star = NULL;
    if (device != source->device)
        return false;
    if (source->rest[length - 1] != '*')
        return strcmp(rest, source->rest) == 0;
    *star = rest + length - 1;
    return strncmp(rest, source->rest, length - 1) == 0;
}

static void label_source(struct labels *labels, const char *name, const char *value)
{
    const char *second = strchr(name, '.');
    char first[32];
    if (!second) {
        label_text(labels, name, value);
        return;
    }
    const size_t length = strcspn(value, ".");
    snprintf(first, sizeof first, "%.*s", (int)(second - name), name);
    label(labels, first, value, length);
    label_text(labels, second + 1, value[length] ? value + length + 1 : "");
}

/* What has counters of its own: the server, or where there are several each of its frontends, of which what is no
 * device's has a label. */
struct view {
    const char *frontend; /* NULL: there is one alone */
    const struct expertd_stats *stats;
};

static size_t list_views(const struct snapshot *snapshot, struct view views[FRONTENDS_MAX])
{
    size_t count = 0;
    if (snapshot->frontends_count == 0 && snapshot->stats)
        views[count++] = (struct view){NULL, snapshot->stats};
    for (size_t f = 0; f < snapshot->frontends_count; f++)
        if (snapshot->frontends[f].stats)
            views[count++] = (struct view){snapshot->frontends[f].name, snapshot->frontends[f].stats};
    return count;
}

static void write_sample(struct text *text, const struct metric *metric, const struct source *source,
                         const char *frontend, const struct expertd_counter *counter, bool *headed)
{
    const char *device, *star;
    size_t device_length = 0;
    struct labels labels = {0};
    const char *rest = split(counter->name, &device, &device_length);
    if (!rest || !matches(source, rest, device != NULL, &star))
        return;
    if (!*headed)
        head(text, metric->name, metric->type, metric->help);
    *headed = true;
    if (device)
        label(&labels, "device", device, device_length);
    else if (frontend)
        label_text(&labels, "frontend", frontend);
    if (source->label)
        label_source(&labels, source->label, source->value ? source->value : star ? star : "");
    sample(text, metric->name, &labels, counter->value * (source->scale != 0 ? source->scale : 1));
    text_free(&labels.text);
}

static void write_metric(struct text *text, const struct metric *metric, const struct view *views, size_t views_count)
{
    const size_t most = sizeof metric->sources / sizeof metric->sources[0];
    bool headed = false;
    for (size_t s = 0; s < most && metric->sources[s].rest; s++)
        for (size_t v = 0; v < views_count; v++)
            for (size_t i = 0; i < views[v].stats->count; i++)
                write_sample(text, metric, &metric->sources[s], views[v].frontend, &views[v].stats->counters[i],
                             &headed);
}

static void write_checkpoint_ages(struct text *text, const struct snapshot *snapshot)
{
    bool headed = false;
    for (size_t i = 0; i < snapshot->stats->count; i++) {
        const struct expertd_counter *counter = &snapshot->stats->counters[i];
        const char *device;
        size_t length = 0;
        struct labels labels = {0};
        const char *rest = split(counter->name, &device, &length);
        if (!rest || !device || strcmp(rest, "checkpoint_time") != 0 || counter->value <= 0)
            continue;
        if (!headed)
            head(text, "expertd_checkpoint_age_seconds", "gauge", "Time since the newest checkpoint of any expert.");
        headed = true;
        label(&labels, "device", device, length);
        sample(text, "expertd_checkpoint_age_seconds", &labels,
               snapshot->wall_s > counter->value ? snapshot->wall_s - counter->value : 0);
        text_free(&labels.text);
    }
}

/* --- histograms ------------------------------------------------------------------------------------------------------
 */

static void write_buckets(struct text *text, const char *name, const struct labels *labels,
                          const struct expertd_histogram *histogram)
{
    uint64_t sum = 0;
    for (size_t b = 0; b <= histogram->bounds_count; b++) {
        sum += histogram->counts[b];
        text_add(text, "%s_bucket{%s,le=\"", name, labels->text.data);
        if (b < histogram->bounds_count)
            text_add(text, "%.9g", histogram->bounds[b]);
        else
            text_add(text, "+Inf");
        text_add(text, "\"} %" PRIu64 "\n", sum);
    }
    text_add(text, "%s_sum{%s}", name, labels->text.data);
    number(text, histogram->sum);
    text_add(text, "%s_count{%s} %" PRIu64 "\n", name, labels->text.data, sum);
}

static void write_histogram(struct text *text, const struct histogram_metric *metric, const struct view *view,
                            bool *headed)
{
    for (size_t i = 0; i < view->stats->histograms_count; i++) {
        const struct expertd_histogram *histogram = &view->stats->histograms[i];
        const char *device;
        size_t device_length = 0;
        const char *method = split(histogram->name, &device, &device_length);
        const char *dot = method ? strchr(method, '.') : NULL;
        struct labels labels = {0};
        if (!dot || (device != NULL) != metric->device || strcmp(dot + 1, metric->rest) != 0)
            continue;
        if (!*headed)
            head(text, metric->name, "histogram", metric->help);
        *headed = true;
        if (device)
            label(&labels, "device", device, device_length);
        else if (view->frontend)
            label_text(&labels, "frontend", view->frontend);
        label(&labels, "method", method, (size_t)(dot - method));
        if (labels.text.data)
            write_buckets(text, metric->name, &labels, histogram);
        text_free(&labels.text);
    }
}

/* --- experts ---------------------------------------------------------------------------------------------------------
 */

typedef double expert_value(const struct expertd_expert_stats *expert);
static double forward_tasks(const struct expertd_expert_stats *expert)
{
    return (double)expert->forward_tasks;
}
static double backward_tasks(const struct expertd_expert_stats *expert)
{
    return (double)expert->backward_tasks;
}
static double forward_rows(const struct expertd_expert_stats *expert)
{
    return (double)expert->forward_rows;
}
static double backward_rows(const struct expertd_expert_stats *expert)
{
    return (double)expert->backward_rows;
}
static double pending(const struct expertd_expert_stats *expert)
{
    return expert->pending;
}
static double oldest(const struct expertd_expert_stats *expert)
{
    return expert->oldest_seconds;
}
static double updates(const struct expertd_expert_stats *expert)
{
    return (double)expert->update_count;
}
static double skipped(const struct expertd_expert_stats *expert)
{
    return (double)expert->skipped_steps;
}

static const struct expert_metric {
    const char *name, *type, *help;
    const char *label, *values[2];
    expert_value *value[2];
} expert_metrics[] = {
    {"expertd_expert_tasks_total",
     "counter",
     "Tasks done, of the experts that are called most.",
     "method",
     {"forward", "backward"},
     {forward_tasks, backward_tasks}},
    {"expertd_expert_rows_total",
     "counter",
     "Rows done.",
     "method",
     {"forward", "backward"},
     {forward_rows, backward_rows}},
    {"expertd_expert_pending_requests", "gauge", "Requests queued or running.", NULL, {NULL}, {pending}},
    {"expertd_expert_oldest_request_seconds",
     "gauge",
     "How long the oldest of them has waited.",
     NULL,
     {NULL},
     {oldest}},
    {"expertd_expert_optimizer_steps",
     "gauge",
     "Optimizer steps in the expert's life.",
     "outcome",
     {"applied", "skipped"},
     {updates, skipped}},
};

static void write_experts(struct text *text, const struct expertd_stats *stats)
{
    if (stats->experts_count == 0)
        return;
    for (size_t m = 0; m < sizeof expert_metrics / sizeof expert_metrics[0]; m++) {
        const struct expert_metric *metric = &expert_metrics[m];
        head(text, metric->name, metric->type, metric->help);
        for (size_t i = 0; i < stats->experts_count; i++) {
            for (size_t v = 0; v < 2 && metric->value[v]; v++) {
                struct labels labels = {0};
                label_text(&labels, "uid", stats->experts[i].uid);
                label_text(&labels, "device", stats->experts[i].device);
                if (metric->label)
                    label_text(&labels, metric->label, metric->values[v]);
                sample(text, metric->name, &labels, metric->value[v](&stats->experts[i]));
                text_free(&labels.text);
            }
        }
    }
}

/* --- all -------------------------------------------------------------------------------------------------------------
 */

static void one(struct text *text, const char *name, const char *type, const char *help, double value)
{
    head(text, name, type, help);
    sample(text, name, NULL, value);
}

static void write_frontends(struct text *text, const struct snapshot *snapshot)
{
    if (snapshot->frontends_count > 0)
        head(text, "expertd_frontend_up", "gauge", "Of each of several frontends, 1: it answers.");
    for (size_t f = 0; f < snapshot->frontends_count; f++) {
        struct labels labels = {0};
        label_text(&labels, "frontend", snapshot->frontends[f].name);
        sample(text, "expertd_frontend_up", &labels, snapshot->frontends[f].stats != NULL);
        text_free(&labels.text);
    }
}

static void write_server(struct text *text, const struct snapshot *snapshot)
{
    struct labels labels = {0};
    head(text, "expertd_build_info", "gauge", "The versions of the gateway and of the server behind it.");
    label_text(&labels, "version", EXPERTD_VERSION);
    label_text(&labels, "server", snapshot->pong ? snapshot->pong->server : "");
    label_text(&labels, "software", snapshot->pong ? snapshot->pong->software : "");
    sample(text, "expertd_build_info", &labels, 1);
    text_free(&labels.text);
    one(text, "expertd_up", "gauge", "1: the frontend answers.", snapshot->pong != NULL);
    write_frontends(text, snapshot);
    one(text, "expertd_shm_used_bytes", "gauge", "Shared memory that the server's segments take.",
        (double)snapshot->shm.used_bytes);
    one(text, "expertd_shm_free_bytes", "gauge", "What is left of the file system that they are in.",
        (double)snapshot->shm.free_bytes);
    if (!snapshot->pong)
        return;
    one(text, "expertd_experts", "gauge", "Experts of the configuration.", (double)snapshot->experts);
    one(text, "expertd_experts_alive", "gauge", "Those whose runtime is alive.", (double)snapshot->experts_alive);
}

/* --- processes -------------------------------------------------------------------------------------------------------
 */

static double cpu_seconds(const struct usage *usage)
{
    return usage->cpu_seconds;
}
static double resident_bytes(const struct usage *usage)
{
    return (double)usage->resident_bytes;
}
static double virtual_bytes(const struct usage *usage)
{
    return (double)usage->virtual_bytes;
}
static double open_fds(const struct usage *usage)
{
    return usage->open_fds;
}
static double start_time(const struct usage *usage)
{
    return usage->start_time_seconds;
}
static double threads(const struct usage *usage)
{
    return usage->threads;
}

/* The names that Prometheus' own clients have. */
static const struct {
    const char *name, *type, *help;
    double (*value)(const struct usage *usage);
} process_metrics[] = {
    {"process_cpu_seconds_total", "counter", "Time on CPUs, of all threads.", cpu_seconds},
    {"process_resident_memory_bytes", "gauge", "Memory that is in RAM, shared memory too.", resident_bytes},
    {"process_virtual_memory_bytes", "gauge", "Addresses that are mapped.", virtual_bytes},
    {"process_open_fds", "gauge", "Open file descriptors.", open_fds},
    {"process_start_time_seconds", "gauge", "When it was started, in s since 1970.", start_time},
    {"process_threads", "gauge", "Threads.", threads},
};

static void write_process(struct text *text, const char *name, const struct listed_process *process, double value)
{
    struct labels labels = {0};
    label_text(&labels, "program", process->program);
    if (process->device[0])
        label_text(&labels, "device", process->device);
    if (process->frontend[0])
        label_text(&labels, "frontend", process->frontend);
    if (!isnan(value))
        sample(text, name, &labels, value);
    text_free(&labels.text);
}

void metrics_write_processes(struct text *text, const struct snapshot *snapshot, struct history *history)
{
    struct listed_process *processes = calloc(PROCESSES_MAX, sizeof *processes);
    const size_t count = processes ? processes_list(processes, snapshot, history) : 0;
    for (size_t m = 0; m < sizeof process_metrics / sizeof process_metrics[0] && count > 0; m++) {
        head(text, process_metrics[m].name, process_metrics[m].type, process_metrics[m].help);
        for (size_t i = 0; i < count; i++)
            write_process(text, process_metrics[m].name, &processes[i], process_metrics[m].value(&processes[i].usage));
    }
    free(processes);
}

/* --- the directory ---------------------------------------------------------------------------------------------------
 */

static const struct dht_metric {
    const char *counter, *name, *type, *help;
} dht_metrics[] = {
    {"dht.connected", "expertd_dht_connected", "gauge", "1: nodes of the DHT answer."},
    {"dht.nodes", "expertd_dht_nodes", "gauge", "Nodes of the DHT that have answered lately."},
    {"dht.servers_known", "expertd_dht_servers_known", "gauge", "Addresses of servers that were announced."},
    {"dht.servers_alive", "expertd_dht_servers_alive", "gauge", "Servers that told what they host, and live."},
    {"dht.holdings", "expertd_dht_holdings", "gauge", "Prefixes of all their catalogs together."},
    {"dht.catalog_bytes", "expertd_dht_catalog_bytes", "gauge", "Memory of these catalogs."},
    {"dht.subscribers", "expertd_dht_subscribers", "gauge", "Directories that listen to this server's."},
    {"dht.experts_alive", "expertd_dht_experts_published", "gauge", "Experts that are published as alive."},
    {"dht.requests", "expertd_dht_requests_total", "counter", "Questions to the directory."},
    {"dht.announcements", "expertd_dht_announcements_total", "counter", "Announcements that were made."},
    {"dht.announcements_unheard", "expertd_dht_publish_failures_total", "counter",
     "Announcements that no other node took; all, of a directory that is alone."},
    {"dht.servers_lost", "expertd_dht_servers_lost_total", "counter", "Servers whose connection broke."},
    {"dht.untrusted", "expertd_dht_untrusted_total", "counter", "Claims that were not believed (dht.trusted)."},
};

static void write_dht_counter(void *context, const char *name, double value)
{
    for (size_t i = 0; i < sizeof dht_metrics / sizeof dht_metrics[0]; i++)
        if (strcmp(name, dht_metrics[i].counter) == 0)
            one(context, dht_metrics[i].name, dht_metrics[i].type, dht_metrics[i].help, value);
}

void metrics_write_dht(struct text *text, struct history *history)
{
    const bool up = history_dht(history, write_dht_counter, text);
    one(text, "expertd_dht_up", "gauge", "1: expertd-dht (http.dht) answers.", up);
}

void metrics_write(struct text *text, const struct snapshot *snapshot)
{
    struct view views[FRONTENDS_MAX];
    write_server(text, snapshot);
    if (!snapshot->stats)
        return;
    const size_t count = list_views(snapshot, views);
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++)
        write_metric(text, &metrics[i], views, count);
    write_checkpoint_ages(text, snapshot);
    for (size_t i = 0; i < sizeof histogram_metrics / sizeof histogram_metrics[0]; i++) {
        bool headed = false;
        for (size_t v = 0; v < count; v++)
            write_histogram(text, &histogram_metrics[i], &views[v], &headed);
    }
    write_experts(text, snapshot->stats);
}
