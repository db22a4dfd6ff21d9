/* How fast the kernels are beside what the device can do: its multiply-add peak, by an OpenCL kernel, in the same run.
 *
 *     build/bench/kernels [--hidden 1024] [--kernel auto|cpu|gpu|clblast] [--rows N] [--seconds 0.5] [--json FILE]
 *                         [--only NAME] [--cpu-time] [--staged] [--device OPTIONS] [--block NAME] [--expert OPTIONS]
 *                         [--turns N]
 *
 * OPTIONS are more of an entry of the configuration's `devices`: "platform: nvidia, precision: tf32", or
 * "tune: force, tune_time: 600"; those of --expert of the expert's: "optimizer: none, arguments: {intermediate_size:
 * 768}". --staged treats the device as one with memory of its own.
 *
 * --only measures the figures whose name contains NAME. --cpu-time counts the processor time of this process over its
 * cores instead of the time on the wall: for a CPU device on a machine that is busy with other things. It does not see
 * what idles at a kernel's end.
 *
 * --block measures another block than ffn, whole: transformer (of 128 tokens and 16 heads; --rows 8, if not given),
 * det_dropout or perceptron (--rows 256), and attention alone for the first. Operations are those of products: of a
 * forward, and of a backward that computes the forward again.
 *
 * The peak is measured before and after each repetition, as clocks change from one millisecond to the next: a figure's
 * ratio is the median over the repetitions that fit the time, its GFLOP/s are those of the best one. All figures are
 * measured in ROUNDS, a part of the time in each, as a shared machine has slow seconds, which cost a kernel that reads
 * memory more than the peak; how much shows in the quartiles. A forward counts 16 h^2 operations a row (two products),
 * a backward, which computes the forward again, with the optimizer's step 48 h^2 (six). "On the device" is without the
 * copies of rows to a device with memory of its own and back; "two in flight" is with them, as the server does it:
 * PIPELINE batches, of which one computes while another one is copied.
 *
 * --turns is for tests/bench/duel, which compares two builds: each figure is repeated N times, each time when a byte
 * has come by standard input, and each time a line with the figure's name, the nanoseconds and the ratio is said. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/support_peak.h"
#include "bench/support_slab.h"
#include "runtime/compute/compute.h"
#include "runtime/compute/provider.h"
#include "common/clock.h"
#include "common/config.h"
#include "runtime/device/device_private.h"
#include "runtime/blocks/expert.h"
#include "runtime/blocks/engine.h"
#include "runtime/compute/linear.h"
#include "runtime/layers/attention.h"
#include "runtime/train/optimizer_step.h"

enum {
    MAX_ROWS = 1024,
    EXPERT_ROWS = 4096,
    MAX_FIGURES = 96,
    MAX_REPEATS = 4096,
    ROUNDS = 5,
    PIPELINE = 8,
    BLOCK_SLABS = 4, /* of a batch each way */
    TOKENS = 128,    /* of a transformer's row */
    HEADS = 16,
};
static const unsigned row_counts[] = {1, 2, 4, 8, 16, 32, 64, 256, 1024};

struct bench;

struct work {
    void (*run)(struct bench *bench, const struct work *work);
    double operations;
    unsigned rows, n, k;
    bool rows_in, rows_out;
};

struct figure {
    char name[64];
    struct work work;
    double best_ns;
    double *ratios; /* of the repetitions, to the peak */
    unsigned repeats;
};

struct bench {
    struct config config;
    struct device *device;
    struct expert *expert;
    struct device_slab inputs[BLOCK_SLABS], outputs[BLOCK_SLABS];
    struct peak *floor;
    cl_mem rows_buffer; /* on a staged device */
    double peak, seconds;
    struct figure figures[MAX_FIGURES];
    unsigned count;
    unsigned hidden, rows; /* rows 0: all of row_counts */
    unsigned turns;        /* 0: alone */
    const char *only;      /* "": all figures */
    const char *block;     /* ffn: the products, too */
    bool cpu_time, staged;
};

static double now_ns(const void *context)
{
    const struct bench *bench = context;
    struct timespec t;
    if (!bench->cpu_time)
        return (double)clock_now_ns();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return ((double)t.tv_sec * 1e9 + (double)t.tv_nsec) / bench->device->info.compute_units;
}

static void must(const struct bench *bench, int result)
{
    if (result == 0)
        return;
    fprintf(stderr, "kernels: %s\n", bench->device != NULL ? device_error(bench->device) : "no device");
    exit(1);
}

/* --- figures ---------------------------------------------------------------------------------------------------------
 */

static void add_figure(struct bench *bench, const char *name, const struct work *work)
{
    struct figure *figure = &bench->figures[bench->count];
    if (strstr(name, bench->only) == NULL)
        return;
    *figure = (struct figure){.work = *work, .best_ns = 1e30, .ratios = calloc(MAX_REPEATS, sizeof(double))};
    snprintf(figure->name, sizeof figure->name, "%s", name);
    if (figure->ratios == NULL)
        exit(1);
    bench->count++;
}

/* Without counting it: what is compiled or not in a cache yet. */
static void warm_up(struct bench *bench, const struct figure *figure)
{
    figure->work.run(bench, &figure->work);
    must(bench, device_finish(bench->device));
}

/* Once, between two measurements of the peak, of which it is given the first and leaves the second. */
static double repeat(struct bench *bench, struct figure *figure, double *peak)
{
    const double before = *peak, start = now_ns(bench);
    figure->work.run(bench, &figure->work);
    must(bench, device_finish(bench->device));
    const double took = now_ns(bench) - start;
    *peak = peak_fma(bench->floor);
    figure->ratios[figure->repeats++] = figure->work.operations / took / ((before + *peak) / 2);
    figure->best_ns = took < figure->best_ns ? took : figure->best_ns;
    bench->peak = *peak > bench->peak ? *peak : bench->peak;
    return took;
}

static void measure_round(struct bench *bench, struct figure *figure)
{
    const uint64_t deadline = clock_now_ns() + (uint64_t)(bench->seconds / ROUNDS * 1e9);
    warm_up(bench, figure);
    double peak = peak_fma(bench->floor);
    const unsigned before = figure->repeats;
    while (figure->repeats < MAX_REPEATS && (figure->repeats == before || clock_now_ns() < deadline))
        repeat(bench, figure, &peak);
}

/* What another process computed meanwhile does not count: the peak is measured anew before each repetition. */
static void measure_in_turn(struct bench *bench, struct figure *figure)
{
    warm_up(bench, figure);
    for (unsigned i = 0; i < bench->turns; i++) {
        if (getchar() == EOF)
            exit(1);
        double peak = peak_fma(bench->floor);
        const double took = repeat(bench, figure, &peak);
        printf("%s\t%.0f\t%.4f\n", figure->name, took, figure->ratios[i]);
        fflush(stdout);
    }
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(struct bench *bench)
{
    for (unsigned i = 0; i < bench->count && bench->turns > 0; i++)
        measure_in_turn(bench, &bench->figures[i]);
    for (unsigned round = 0; round < ROUNDS && bench->turns == 0; round++) {
        for (unsigned i = 0; i < bench->count; i++)
            measure_round(bench, &bench->figures[i]);
        fprintf(stderr, "round %u of %d\n", round + 1, ROUNDS);
    }
    for (unsigned i = 0; i < bench->count; i++)
        qsort(bench->figures[i].ratios, bench->figures[i].repeats, sizeof(double), compare_doubles);
}

static void run_linear(struct bench *bench, const struct work *work)
{
    const struct kernel_shape *shape = provider_shape(bench->device);
    const cl_mem memory = bench->device->workspace;
    const uint64_t b = (uint64_t)work->rows * (work->k + shape->panel), c = b + (uint64_t)work->n * work->k;
    const struct linear_call call = {
        .rows = (cl_int)work->rows,
        .n = (cl_int)work->n,
        .k = (cl_int)work->k,
        .a = work->rows_in ? kernel_view_rows(shape, memory, 0, work->k)
                           : kernel_view_packed(shape, memory, 0, work->rows),
        .weights = memory,
        .weights_offset = b * sizeof(float) / shape->weight_bytes,
        .out = work->rows_out ? kernel_view_rows(shape, memory, c, work->n)
                              : kernel_view_packed(shape, memory, c, work->rows),
    };
    must(bench, linear_layer_forward(bench->device, &call));
}

static void run_gradient(struct bench *bench, const struct work *work)
{
    const cl_mem memory = bench->device->workspace;
    const uint64_t dy = (uint64_t)work->rows * work->k, dw = dy + (uint64_t)work->rows * work->n;
    const struct linear_gradient_call call = {
        .rows = (cl_int)work->rows,
        .n = (cl_int)work->n,
        .k = (cl_int)work->k,
        .x = memory,
        .dy = memory,
        .dw = memory,
        .dy_offset = dy,
        .dw_offset = dw,
    };
    must(bench, linear_layer_gradient(bench->device, &call));
}

static void run_forward(struct bench *bench, const struct work *work)
{
    struct expert_batch batch = {.rows = work->rows, .inputs = bench->inputs, .outputs = bench->outputs};
    must(bench, expert_forward(bench->expert, &batch));
    must(bench, expert_finish(bench->expert, &batch));
}

static void run_backward(struct bench *bench, const struct work *work)
{
    struct expert_batch batch = {.rows = work->rows, .inputs = bench->inputs, .outputs = bench->outputs};
    must(bench, expert_backward(bench->expert, &batch));
    must(bench, expert_finish(bench->expert, &batch));
}

static void run_pipeline(struct bench *bench, const struct work *work)
{
    struct expert_batch batches[2];
    for (unsigned i = 0; i < PIPELINE + 1; i++) {
        struct expert_batch *next = &batches[i % 2], *last = &batches[(i + 1) % 2];
        *next = (struct expert_batch){.rows = work->rows, .inputs = bench->inputs, .outputs = bench->outputs};
        if (i < PIPELINE)
            must(bench, expert_forward(bench->expert, next));
        if (i > 0)
            must(bench, expert_finish(bench->expert, last));
    }
}

static void run_train(struct bench *bench, const struct work *work)
{
    run_forward(bench, work);
    run_backward(bench, work);
}

/* Rows where the bench has them on the device: inputs, grad_outputs and results, one behind the other. */
static struct plan_rows resident(const struct bench *bench, const struct work *work, unsigned which)
{
    return (struct plan_rows){bench->rows_buffer, (uint64_t)which * work->rows * bench->hidden * sizeof(float)};
}

static void run_resident_forward(struct bench *bench, const struct work *work)
{
    const struct plan_rows in = resident(bench, work, 0), out = resident(bench, work, 2);
    must(bench, engine_enqueue((struct engine_expert *)bench->expert, false, work->rows, &in, &out));
}

static void run_resident_backward(struct bench *bench, const struct work *work)
{
    struct engine_expert *engine = (struct engine_expert *)bench->expert;
    struct expert_batch batch = {.rows = work->rows, .backward = true};
    const struct trainee trainee = expert_trainee(bench->expert);
    const struct plan_rows in[] = {resident(bench, work, 0), resident(bench, work, 1)};
    const struct plan_rows grad_in = resident(bench, work, 2);
    must(bench, engine_enqueue(engine, true, work->rows, in, &grad_in));
    must(bench, optimizer_step_enqueue(&trainee, &engine->parameters, bench->device->workspace, 0, false));
    must(bench, device_mark(bench->device, &batch.done));
    must(bench, device_wait(bench->device, &batch.done));
    batch.step = optimizer_step_finish(&trainee, &engine->parameters, batch.rows, &batch.grad_norm);
}

static void run_resident_train(struct bench *bench, const struct work *work)
{
    run_resident_forward(bench, work);
    run_resident_backward(bench, work);
}

static void add_products(struct bench *bench)
{
    const unsigned h = bench->hidden;
    const double square = (double)h * h;
    for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
        const unsigned rows = bench->rows != 0 ? bench->rows : row_counts[i];
        if (bench->rows != 0 && i > 0)
            break;
        char name[64];
        const struct work works[] = {
            {run_linear, 8 * square * rows, rows, 4 * h, h, true, false},
            {run_linear, 8 * square * rows, rows, h, 4 * h, false, true},
            {run_gradient, 8 * square * rows, rows, 4 * h, h, false, false},
            {run_forward, 16 * square * rows, rows, 0, 0, false, false},
            {run_backward, 48 * square * rows, rows, 0, 0, false, false},
            {run_train, 64 * square * rows, rows, 0, 0, false, false},
            {run_pipeline, PIPELINE * 16 * square * rows, rows, 0, 0, false, false},
            {run_resident_forward, 16 * square * rows, rows, 0, 0, false, false},
            {run_resident_backward, 48 * square * rows, rows, 0, 0, false, false},
            {run_resident_train, 64 * square * rows, rows, 0, 0, false, false},
        };
        static const char *const names[] = {"linear h to 4h",
                                            "linear 4h to h",
                                            "weight gradient",
                                            "ffn forward",
                                            "ffn backward, adam",
                                            "ffn forward, backward, adam",
                                            "ffn forward, two in flight",
                                            "ffn forward on the device",
                                            "ffn backward, adam on the device",
                                            "ffn forward, backward, adam on the device"};
        for (size_t w = 0; w < sizeof works / sizeof works[0] - (bench->device->staged ? 0 : 3); w++) {
            snprintf(name, sizeof name, "%s, %u rows", names[w], rows);
            add_figure(bench, name, &works[w]);
        }
    }
}

/* --- other blocks ------------------------------------------------------------------------------------------------- */

/* In the workspace: q, k and v side by side, what comes out, the gradients of both, the statistics. */
static void run_attention(struct bench *bench, const struct work *work)
{
    const struct kernel_shape *shape = provider_shape(bench->device);
    const uint64_t rows = (uint64_t)work->rows * TOKENS, h = bench->hidden,
                   wide = kernel_packed_floats(shape, rows, 3 * h);
    const uint64_t narrow = kernel_packed_floats(shape, rows, h);
    const cl_int all = (cl_int)(3 * h), one = (cl_int)h;
    const cl_mem memory = bench->device->workspace;
    const struct kernel_view qkv = kernel_view_packed(shape, memory, 0, rows);
    const struct kernel_view grads = kernel_view_packed(shape, memory, wide + 2 * narrow, rows);
    const struct attention_call call = {
        .rows = (cl_int)work->rows,
        .tokens = TOKENS,
        .heads = HEADS,
        .width = one / HEADS,
        .q = {qkv, all, 0},
        .k = {qkv, all, one},
        .v = {qkv, all, 2 * one},
        .out = {kernel_view_packed(shape, memory, wide, rows), one, 0},
        .stats = memory,
        .stats_offset = 2 * wide + 2 * narrow,
    };
    const struct attention_gradients gradients = {
        .out = {kernel_view_packed(shape, memory, wide + narrow, rows), one, 0},
        .q = {grads, all, 0},
        .k = {grads, all, one},
        .v = {grads, all, 2 * one},
    };
    must(bench,
         work->k ? attention_backward(bench->device, &call, &gradients) : attention_forward(bench->device, &call));
}

static void add_block(struct bench *bench)
{
    const double h = bench->hidden, rows = bench->rows;
    const bool transformer = strcmp(bench->block, "transformer") == 0,
               dropout = strcmp(bench->block, "det_dropout") == 0;
    /* Each product of scores and of what they weigh is 2 * TOKENS^2 * h operations a row: 2 of a forward, 5 of a
     * backward. */
    const double scores = transformer ? 2.0 * TOKENS * TOKENS * h * rows : 0;
    const double products = transformer ? 24 * TOKENS * h * h * rows : (dropout ? 8 : 12) * h * h * rows;
    const struct work works[] = {
        {run_attention, 2 * scores, bench->rows, 0, 0, false, false},
        {run_attention, 5 * scores, bench->rows, 0, 1, false, false},
        {run_forward, products + 2 * scores, bench->rows, 0, 0, false, false},
        {run_backward, 3 * products + 7 * scores, bench->rows, 0, 0, false, false},
        {run_train, 4 * products + 9 * scores, bench->rows, 0, 0, false, false},
    };
    static const char *const names[] = {"attention", "attention backward", "forward", "backward, adam",
                                        "forward, backward, adam"};
    for (size_t w = transformer ? 0 : 2; w < sizeof works / sizeof works[0]; w++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s%s, %u rows", w < 2 ? "" : bench->block, w < 2 ? "" : " ", names[w],
                 bench->rows);
        add_figure(bench, name, &works[w]);
    }
}

/* --- the report ------------------------------------------------------------------------------------------------------
 */

static double quantile(const struct figure *figure, double part)
{
    return figure->ratios[(unsigned)(part * (figure->repeats - 1))];
}

static double gflops(const struct figure *figure)
{
    return figure->work.operations / figure->best_ns;
}

static void print_table(const struct bench *bench)
{
    printf("%s, %s kernels, h = %u: multiply-add peak %.1f GFLOP/s\n", bench->device->info.name,
           provider_name(bench->device), bench->hidden, bench->peak);
    for (unsigned i = 0; i < bench->count; i++) {
        const struct figure *figure = &bench->figures[i];
        printf("%-44s %10.1f us %8.1f GFLOP/s %5.1f %% (%.1f-%.1f of %u)\n", figure->name, figure->best_ns / 1000,
               gflops(figure), 100 * quantile(figure, 0.5), 100 * quantile(figure, 0.25), 100 * quantile(figure, 0.75),
               figure->repeats);
    }
}

static void write_json(const struct bench *bench, const char *path)
{
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    fprintf(file, "[\n");
    for (unsigned i = 0; i < bench->count; i++)
        fprintf(file,
                "  {\"name\": \"%s\", \"unit\": \"GFLOP/s\", \"value\": %.2f, \"floor\": %.2f, \"ratio\": %.4f}%s\n",
                bench->figures[i].name, gflops(&bench->figures[i]), bench->peak, quantile(&bench->figures[i], 0.5),
                i + 1 < bench->count ? "," : "");
    fprintf(file, "]\n");
    fclose(file);
}

/* The single products lie in the workspace, all rows at once. */
static void reserve_products(struct bench *bench, uint64_t rows)
{
    const uint64_t narrow = bench->hidden + provider_shape(bench->device)->panel, wide = 4 * narrow;
    must(bench, device_reserve_workspace(bench->device, (rows * (narrow + wide) + narrow * wide) * sizeof(float)));
}

static void open_ffn(struct bench *bench)
{
    const size_t rows = bench->rows > MAX_ROWS ? bench->rows : MAX_ROWS;
    reserve_products(bench, rows);
    for (unsigned i = 0; i < 2; i++)
        bench->inputs[i] = make_slab(rows * bench->hidden);
    bench->outputs[0] = make_slab(rows * bench->hidden);
    if (bench->device->staged)
        must(bench,
             device_allocate(bench->device, 3 * rows * bench->hidden * sizeof(float), "rows", &bench->rows_buffer));
}

/* A batch's tensors as the block has them: nothing is left out by a mask of bools, everything counts by one of numbers.
 */
static struct device_slab block_slab(const struct bench *bench, const struct tensor_desc *tensor)
{
    const size_t bytes = tensor_row_bytes(tensor) * bench->rows;
    struct device_slab slab = make_slab((bytes + sizeof(float) - 1) / sizeof(float));
    if (tensor->dtype != DTYPE_FLOAT32)
        memset(slab.mapping, 0, bytes);
    for (size_t i = 0; tensor->dtype == DTYPE_INT64 && i < bytes / sizeof(int64_t); i++)
        ((int64_t *)slab.mapping)[i] = 1;
    return slab;
}

static void open_block(struct bench *bench)
{
    const struct schema *inputs = &bench->expert->inputs, *outputs = &bench->expert->outputs;
    if (inputs->count + outputs->count > BLOCK_SLABS)
        exit(1);
    for (unsigned i = 0; i < inputs->count; i++)
        bench->inputs[i] = block_slab(bench, &inputs->tensors[i]);
    for (unsigned i = 0; i < outputs->count; i++)
        bench->inputs[inputs->count + i] = block_slab(bench, &outputs->tensors[i]);
    /* What comes out of a forward, or of a backward. */
    for (unsigned i = 0; i < inputs->count || i < outputs->count; i++) {
        const bool input = i < inputs->count && (i >= outputs->count || tensor_row_bytes(&inputs->tensors[i]) >
                                                                            tensor_row_bytes(&outputs->tensors[i]));
        bench->outputs[i] = block_slab(bench, input ? &inputs->tensors[i] : &outputs->tensors[i]);
    }
    if (strcmp(bench->block, "transformer") == 0)
        must(bench, device_reserve_workspace(bench->device, 20 * (size_t)bench->rows * TOKENS *
                                                                (bench->hidden + provider_shape(bench->device)->panel) *
                                                                sizeof(float)));
}

static void bench_open(struct bench *bench, const char *kernel, const char *device, const char *expert)
{
    char text[2048];
    snprintf(text, sizeof text,
             "devices:\n  - {name: bench, linear_kernel: %s%s%s%s}\n"
             "experts:\n  - {uid: ffn.0, block: %s, hidden_dim: %u, max_batch_size: %u%s%s}\n",
             kernel, bench->staged ? ", slabs: staged" : "", device[0] != '\0' ? ", " : "", device, bench->block,
             bench->hidden, bench->rows > EXPERT_ROWS ? bench->rows : EXPERT_ROWS, expert[0] != '\0' ? ", " : "",
             expert);
    if (config_parse(&bench->config, text, strlen(text), "kernels") != 0 ||
        device_open(&bench->device, &bench->config.devices[0]) != 0 || compute_open(bench->device) != 0)
        exit(1);
    must(bench, expert_create(&bench->expert, bench->device, &bench->config.experts[0], 1));
    if (strcmp(bench->block, "ffn") != 0)
        open_block(bench);
    else
        open_ffn(bench);
    if (peak_open(&bench->floor, bench->device) != 0)
        exit(1);
    peak_use_clock(bench->floor, now_ns, bench);
    peak_fma(bench->floor); /* compiles */
}

static void bench_close(struct bench *bench)
{
    for (unsigned i = 0; i < bench->count; i++)
        free(bench->figures[i].ratios);
    for (unsigned i = 0; i < BLOCK_SLABS; i++)
        drop_slab(&bench->inputs[i]);
    for (unsigned i = 0; i < BLOCK_SLABS; i++)
        drop_slab(&bench->outputs[i]);
    peak_close(&bench->floor);
    device_release(bench->device, &bench->rows_buffer);
    expert_destroy(&bench->expert);
    compute_close(bench->device);
    device_destroy(&bench->device);
    config_destroy(&bench->config);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"hidden", required_argument, NULL, 'h'},
                                            {"kernel", required_argument, NULL, 'k'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"json", required_argument, NULL, 'j'},
                                            {"cpu-time", no_argument, NULL, 'c'},
                                            {"rows", required_argument, NULL, 'r'},
                                            {"device", required_argument, NULL, 'd'},
                                            {"expert", required_argument, NULL, 'e'},
                                            {"only", required_argument, NULL, 'o'},
                                            {"staged", no_argument, NULL, 'S'},
                                            {"block", required_argument, NULL, 'b'},
                                            {"turns", required_argument, NULL, 't'},
                                            {0}};
    struct bench bench = {.hidden = 1024, .seconds = 0.5, .only = "", .block = "ffn"};
    const char *kernel = "auto", *device = "", *expert = "", *json = NULL;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'h')
            bench.hidden = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'k')
            kernel = optarg;
        else if (option == 'r')
            bench.rows = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'd')
            device = optarg;
        else if (option == 'e')
            expert = optarg;
        else if (option == 's')
            bench.seconds = strtod(optarg, NULL);
        else if (option == 'o')
            bench.only = optarg;
        else if (option == 'b')
            bench.block = optarg;
        else if (option == 't')
            bench.turns = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'j')
            json = optarg;
        else if (option == 'c')
            bench.cpu_time = true;
        else if (option == 'S')
            bench.staged = true;
        else
            return 2;
    }
    if (bench.turns > MAX_REPEATS)
        return 2;
    const bool ffn = strcmp(bench.block, "ffn") == 0;
    if (!ffn && bench.rows == 0)
        bench.rows = strcmp(bench.block, "transformer") == 0 ? 8 : 256;
    bench_open(&bench, kernel, device, expert);
    if (ffn)
        add_products(&bench);
    else
        add_block(&bench);
    measure(&bench);
    if (bench.turns == 0)
        print_table(&bench);
    if (json != NULL)
        write_json(&bench, json);
    bench_close(&bench);
    return 0;
}
