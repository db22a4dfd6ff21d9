/* bench: how many calls a second one expert answers, and how long each takes, with more and more of them in flight. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertctl/expertctl.h"
#include "client/expertctl/rates.h"
#include "client/expertctl/sweep.h"
#include "client/expertctl/window.h"
#include "common/clock.h"

static const double default_timeout_s = 30;
/* A level's figures are those of so many windows, once they are alike. */
enum { ALIKE = 3 };

struct bench {
    struct expertctl *ctl;
    struct expertd_client *client;
    const char *uid;
    char device[64];
    struct expertd_tensor inputs[EXPERTD_MAX_TENSORS], grad_outputs[EXPERTD_MAX_TENSORS];
    size_t n_inputs, n_grad_outputs; /* no grad_outputs: forward */
    uint64_t rows;
    struct json json;
};

/* A call in flight, whose user pointer it is. */
struct slot {
    struct expertd_call *call;
    uint64_t started_ns;
};

/* One number of calls in flight. */
struct level {
    struct bench *bench;
    uint32_t concurrency;
    struct slot *slots;
    struct window windows[ALIKE], now;
    size_t count;               /* windows that are full */
    struct expertd_call *asked; /* for the device's figures, with which a window begins and ends */
    uint64_t failures_in_row;
    struct window_sum queue, compute, batch_rows; /* at the window's start */
    uint64_t start_ns;                            /* of the window; 0: its figures have not come */
    bool stable;
    enum exit_code code;
};

/* ---- what is sent ------------------------------------------------------------------------------------------------ */

/* Numbers that any block can do with: floats in [-1, 1), index 0, and false, as which a mask leaves nothing out. */
static void fill(struct expertd_tensor *tensor, void *data)
{
    const size_t count = tensor->bytes / expertd_dtype_size(tensor->dtype);
    uint64_t state = 0x9e3779b97f4a7c15;
    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        const double value = (double)(state >> 11) * 0x1p-52 - 1;
        const float single = (float)value;
        uint32_t bits;
        memcpy(&bits, &single, sizeof bits);
        if (tensor->dtype == EXPERTD_FLOAT32)
            ((float *)data)[i] = single;
        else if (tensor->dtype == EXPERTD_FLOAT64)
            ((double *)data)[i] = value;
        else if (tensor->dtype == EXPERTD_BFLOAT16)
            ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
        else if (tensor->dtype == EXPERTD_FLOAT16) /* 1, 1/2, 1/4 or 1/8 */
            ((uint16_t *)data)[i] = (uint16_t)((state >> 63 << 15) | (uint64_t)(0x3c00 - (state >> 61 & 3) * 0x400));
    }
}

static int make_tensor(struct expertd_tensor *tensor, const struct expertd_field *field, uint64_t rows)
{
    size_t bytes = (size_t)rows * expertd_dtype_size(field->dtype);
    *tensor = (struct expertd_tensor){.dtype = field->dtype, .ndim = field->ndim + 1, .shape = {rows}};
    for (uint32_t d = 0; d < field->ndim; d++) {
        tensor->shape[d + 1] = field->row_shape[d];
        if (__builtin_mul_overflow(bytes, field->row_shape[d], &bytes))
            return -ENOMEM;
    }
    void *data = calloc(1, bytes ? bytes : 1);
    if (!data)
        return -ENOMEM;
    tensor->data = data;
    tensor->bytes = bytes;
    fill(tensor, data);
    return 0;
}

static enum exit_code make_tensors(struct bench *bench, const struct expertd_info *info)
{
    const struct expertd_schema *schema = bench->ctl->backward ? &info->backward_schema : &info->forward_schema;
    const size_t n_inputs = info->forward_schema.count;
    for (size_t i = 0; i < schema->count; i++) {
        const bool input = i < n_inputs;
        struct expertd_tensor *tensor = input ? &bench->inputs[i] : &bench->grad_outputs[i - n_inputs];
        if (make_tensor(tensor, &schema->fields[i], bench->rows) < 0)
            return expertctl_fail_here(bench->ctl, strerror(ENOMEM));
        *(input ? &bench->n_inputs : &bench->n_grad_outputs) += 1;
    }
    return EXIT_OK;
}

static enum exit_code prepare(struct bench *bench)
{
    struct expertd_call *call;
    char problem[256];
    enum exit_code code = expertctl_finish(
        bench->ctl, expertd_info(bench->client, bench->uid, expertctl_timeout_ms(bench->ctl, default_timeout_s), &call),
        &call);
    if (code != EXIT_OK)
        return code;
    const struct expertd_info *info = expertd_call_info(call);
    snprintf(bench->device, sizeof bench->device, "%s", info->device);
    bench->rows = bench->ctl->rows ? bench->ctl->rows : 1;
    if (bench->rows > info->max_batch_size) {
        snprintf(problem, sizeof problem, "--rows: the expert takes %" PRIu64 " in a call", info->max_batch_size);
        code = expertctl_usage(bench->ctl, problem);
    } else {
        code = make_tensors(bench, info);
    }
    expertd_call_release(&call);
    return code;
}

/* ---- one window after another ------------------------------------------------------------------------------------ */

static void give_up(struct level *level, const struct expertd_call *call)
{
    if (level->code == EXIT_OK)
        level->code = expertctl_fail(level->bench->ctl, expertd_call_status(call), expertd_call_message(call));
}

static void give_up_here(struct level *level, int result)
{
    if (level->code == EXIT_OK)
        level->code = expertctl_fail_here(level->bench->ctl, strerror(-result));
}

static void send_call(struct level *level, struct slot *slot)
{
    struct bench *bench = level->bench;
    const uint32_t timeout_ms = expertctl_timeout_ms(bench->ctl, default_timeout_s);
    slot->started_ns = clock_now_ns();
    const int result =
        bench->n_grad_outputs
            ? expertd_backward(bench->client, bench->uid, bench->inputs, bench->n_inputs, bench->grad_outputs,
                               bench->n_grad_outputs, timeout_ms, &slot->call)
            : expertd_forward(bench->client, bench->uid, bench->inputs, bench->n_inputs, timeout_ms, &slot->call);
    if (result < 0) {
        slot->call = NULL;
        give_up_here(level, result);
    } else {
        expertd_call_set_user(slot->call, slot);
    }
}

static void ask(struct level *level)
{
    const int result =
        expertd_stats(level->bench->client, expertctl_timeout_ms(level->bench->ctl, default_timeout_s), &level->asked);
    if (result < 0) {
        level->asked = NULL;
        give_up_here(level, result);
    }
}

/* The device's histogram of that name, as far as the server has one. */
static struct window_sum find(const struct bench *bench, const struct expertd_stats *stats, const char *rest)
{
    char name[160];
    struct window_sum found = {0};
    snprintf(name, sizeof name, "device.%s.%s.%s", bench->device, bench->n_grad_outputs ? "backward" : "forward", rest);
    const struct expertd_histogram *histogram = rates_find_histogram(stats, name);
    if (!histogram)
        return found;
    found.sum = histogram->sum;
    for (size_t b = 0; b <= histogram->bounds_count; b++)
        found.count += (double)histogram->counts[b];
    return found;
}

static struct window_sum since(struct window_sum *before, struct window_sum now)
{
    const struct window_sum difference = {now.sum - before->sum, now.count - before->count};
    *before = now;
    return difference.count > 0 ? difference : (struct window_sum){0};
}

/* The device's figures have come: one window is at its end, the next one begins. */
static void turn(struct level *level, const struct expertd_stats *stats)
{
    const struct bench *bench = level->bench;
    const uint64_t now_ns = clock_now_ns();
    struct window *now = &level->now;
    now->queue = since(&level->queue, find(bench, stats, "queue_seconds"));
    now->compute = since(&level->compute, find(bench, stats, "compute_seconds"));
    now->batch_rows = since(&level->batch_rows, find(bench, stats, "batch_rows"));
    if (level->start_ns) {
        now->seconds = (double)(now_ns - level->start_ns) / (double)NS_PER_S;
        window_clear(&level->windows[level->count % ALIKE]);
        level->windows[level->count++ % ALIKE] = *now;
        *now = (struct window){0};
    } else {
        window_clear(now); /* of calls that came back before there was a window */
    }
    level->start_ns = now_ns;
}

/* What sending again would not change. */
static bool is_final(enum expertd_status status)
{
    return status != EXPERTD_RESOURCE_EXHAUSTED && status != EXPERTD_DEADLINE_EXCEEDED &&
           status != EXPERTD_UNAVAILABLE && status != EXPERTD_ABORTED;
}

static void take_stats(struct level *level)
{
    if (expertd_call_status(level->asked) == EXPERTD_OK)
        turn(level, expertd_call_stats(level->asked));
    else
        give_up(level, level->asked);
    expertd_call_release(&level->asked);
}

static void take(struct level *level, struct slot *slot)
{
    const enum expertd_status status = expertd_call_status(slot->call);
    if (status == EXPERTD_OK) {
        level->failures_in_row = 0;
        if (window_add(&level->now, clock_now_ns() - slot->started_ns) < 0)
            give_up_here(level, -ENOMEM);
    } else {
        level->now.failed++;
        if (is_final(status) || ++level->failures_in_row > 2 * (uint64_t)level->concurrency + 8)
            give_up(level, slot->call);
    }
    expertd_call_release(&slot->call);
    if (level->code == EXIT_OK)
        send_call(level, slot);
}

static bool is_done(struct level *level)
{
    const struct expertctl *ctl = level->bench->ctl;
    const double tolerance = (ctl->stability > 0 ? ctl->stability : 10) / 100;
    if (level->code != EXIT_OK)
        return true;
    level->stable = level->count >= ALIKE && window_stable(level->windows, ALIKE, tolerance);
    return level->stable || level->count >= (ctl->windows ? ctl->windows : 10);
}

/* A window has its time, and each call's place has had its turn. */
static bool window_is_full(const struct level *level, uint64_t now_ns, uint64_t window_ns)
{
    return now_ns >= level->start_ns + window_ns && level->now.count + level->now.failed >= level->concurrency;
}

static void run_level(struct level *level)
{
    const double window_s = level->bench->ctl->window_s > 0 ? level->bench->ctl->window_s : 1;
    const uint64_t window_ns = (uint64_t)(window_s * (double)NS_PER_S);
    struct expertd_client *client = level->bench->client;
    struct expertd_call *call;
    ask(level);
    for (uint32_t i = 0; i < level->concurrency && level->code == EXIT_OK; i++)
        send_call(level, &level->slots[i]);
    while (!is_done(level)) {
        (void)expertd_poll(client, -1); /* the next answer is never far: there are always calls in flight */
        while (level->code == EXIT_OK && (call = expertd_next_done(client))) {
            if (call == level->asked)
                take_stats(level);
            else
                take(level, expertd_call_user(call));
        }
        if (level->code == EXIT_OK && !level->asked && window_is_full(level, clock_now_ns(), window_ns))
            ask(level);
    }
}

/* What is in flight is waited for, so that it is nothing to the next level; after a failure it is given up. */
static void end_level(struct level *level)
{
    for (uint32_t i = 0; i < level->concurrency; i++) {
        while (level->code == EXIT_OK && level->slots[i].call && expertd_call_wait(level->slots[i].call, -1) == -EINTR)
            ;
        expertd_call_release(&level->slots[i].call);
    }
    expertd_call_release(&level->asked);
    for (size_t i = 0; i < ALIKE; i++)
        window_clear(&level->windows[i]);
    window_clear(&level->now);
    free(level->slots);
}

/* ---- what is said ------------------------------------------------------------------------------------------------ */

static double per(struct window_sum sum)
{
    return sum.count > 0 ? sum.sum / sum.count : 0;
}

static void say_head(struct bench *bench)
{
    struct json *json = &bench->json;
    if (bench->ctl->json) {
        json_open(json, NULL, '{');
        json_string(json, "status", "OK");
        json_string(json, "uid", bench->uid);
        json_string(json, "method", bench->n_grad_outputs ? "backward" : "forward");
        json_string(json, "device", bench->device);
        json_unsigned(json, "rows", bench->rows);
        json_open(json, "levels", '[');
    } else if (bench->ctl->csv)
        puts("concurrency,calls_per_second,rows_per_second,mean_ms,p50_ms,p90_ms,p95_ms,p99_ms,max_ms,queue_ms,"
             "compute_ms,batch_rows,failed,windows,stable");
    else
        printf("%s of %s, %" PRIu64 " row%s a call; times in ms; queue (until a task's batch was taken), compute (of a "
               "batch) and rows\nof a batch are means of the device %s\n"
               "%11s %9s %9s %8s %8s %8s %8s %8s %8s %8s %6s %6s\n",
               bench->n_grad_outputs ? "backward" : "forward", bench->uid, bench->rows, bench->rows == 1 ? "" : "s",
               bench->device, "concurrency", "calls/s", "rows/s", "p50", "p90", "p95", "p99", "max", "queue", "compute",
               "batch", "failed");
}

static void say_json(struct json *json, const struct level *level, const struct window *all, const double *ms)
{
    static const char *const names[] = {"p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"};
    json_open(json, NULL, '{');
    json_unsigned(json, "concurrency", level->concurrency);
    json_number(json, "calls_per_second", window_rate(all));
    json_number(json, "rows_per_second", window_rate(all) * (double)level->bench->rows);
    json_number(json, "mean_ms", window_mean_ns(all) / 1e6);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        json_number(json, names[i], ms[i]);
    json_number(json, "queue_ms", per(all->queue) * 1e3);
    json_number(json, "compute_ms", per(all->compute) * 1e3);
    json_number(json, "batch_rows", per(all->batch_rows));
    json_unsigned(json, "failed", all->failed);
    json_unsigned(json, "windows", level->count);
    json_bool(json, "stable", level->stable);
    json_close(json, '}');
}

static void say(struct level *level, const struct window *all)
{
    static const double percents[] = {50, 90, 95, 99, 100};
    enum { PERCENTS = sizeof percents / sizeof percents[0] };
    double ms[PERCENTS] = {0};
    const double rate = window_rate(all), rows = rate * (double)level->bench->rows;
    for (size_t i = 0; i < PERCENTS && all->count > 0; i++)
        ms[i] = (double)window_percentile(all, percents[i]) / 1e6;
    if (level->bench->ctl->json)
        say_json(&level->bench->json, level, all, ms);
    else if (level->bench->ctl->csv)
        printf("%" PRIu32 ",%.2f,%.2f,%.4f,%.4f,%.4f,%.4f,%.4f,%.4f,%.4f,%.4f,%.2f,%" PRIu64 ",%zu,%d\n",
               level->concurrency, rate, rows, window_mean_ns(all) / 1e6, ms[0], ms[1], ms[2], ms[3], ms[4],
               per(all->queue) * 1e3, per(all->compute) * 1e3, per(all->batch_rows), all->failed, level->count,
               level->stable);
    else
        printf("%11" PRIu32 " %9.1f %9.1f %8.3f %8.3f %8.3f %8.3f %8.3f %8.3f %8.3f %6.1f %6" PRIu64 "%s\n",
               level->concurrency, rate, rows, ms[0], ms[1], ms[2], ms[3], ms[4], per(all->queue) * 1e3,
               per(all->compute) * 1e3, per(all->batch_rows), all->failed,
               level->stable ? "" : "  (did not become stable)");
    fflush(stdout);
}

static enum exit_code measure(struct bench *bench, uint32_t concurrency)
{
    struct window all = {0};
    struct level level = {
        .bench = bench, .concurrency = concurrency, .slots = calloc(concurrency, sizeof *level.slots)};
    if (!level.slots)
        return expertctl_fail_here(bench->ctl, strerror(ENOMEM));
    run_level(&level);
    for (size_t i = 0; i < ALIKE && level.code == EXIT_OK; i++)
        if (window_merge(&all, &level.windows[i]) < 0)
            give_up_here(&level, -ENOMEM);
    if (level.code == EXIT_OK) {
        window_sort(&all);
        say(&level, &all);
    }
    window_clear(&all);
    end_level(&level);
    return level.code;
}

static enum exit_code measure_all(struct bench *bench, const struct sweep *sweep)
{
    enum exit_code code = prepare(bench);
    if (code != EXIT_OK)
        return code;
    say_head(bench);
    for (size_t i = 0; i < sweep->count && code == EXIT_OK; i++)
        code = measure(bench, sweep->levels[i]);
    if (bench->ctl->json) {
        json_close(&bench->json, ']');
        expertctl_json_end(&bench->json);
    }
    return code;
}

enum exit_code expertctl_bench(struct expertctl *ctl)
{
    enum exit_code code = EXIT_OK;
    struct bench bench = {.ctl = ctl, .uid = ctl->arguments[0]};
    struct sweep sweep;
    char *levels = NULL; /* --json: one object when all is measured, or one of a failure */
    size_t length = 0;
    if (sweep_parse(&sweep, ctl->concurrency ? ctl->concurrency : "1:16") < 0)
        return expertctl_usage(ctl, "--concurrency is written 4, 1,2,8, 1:16 (doubled) or 4:20:8 (first, last, step), "
                                    "of numbers from 1 to 1000");
    if (ctl->csv && ctl->json)
        return expertctl_usage(ctl, "--csv or --json, not both");
    bench.json.stream = ctl->json ? open_memstream(&levels, &length) : NULL;
    if (ctl->json && !bench.json.stream)
        return expertctl_fail_here(ctl, strerror(ENOMEM));
    bench.client = expertctl_connect(ctl, &code);
    if (bench.client)
        code = measure_all(&bench, &sweep);
    if (bench.json.stream && fclose(bench.json.stream) != 0 && code == EXIT_OK)
        code = expertctl_fail_here(ctl, strerror(ENOMEM));
    if (code == EXIT_OK && ctl->json)
        fputs(levels, stdout);
    expertd_client_destroy(&bench.client);
    for (size_t i = 0; i < EXPERTD_MAX_TENSORS; i++) {
        free((void *)(uintptr_t)bench.inputs[i].data);
        free((void *)(uintptr_t)bench.grad_outputs[i].data);
    }
    free(levels);
    return code;
}
