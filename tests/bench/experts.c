/* Experts of a public model's shape, one batch after the other, each of another expert: beside the time in which the
 * machine reads their weights, or multiplies at its peak, whichever is longer. It is what a runtime does without a
 * frontend and clients on its cores: two launches are on the queue at a time, and what goes together goes together.
 *
 *     build/bench/experts [--rows 1,8,64] [--experts 64] [--hidden 2048] [--inner 768] [--seconds 1]
 *                         [--device "precision: bf16"] [--json]
 *
 * Together the experts should be more than the caches hold. Passes over all of them alternate with the floor's; the
 * ratio is the median. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/support_peak.h"
#include "bench/support_slab.h"
#include "common/clock.h"
#include "common/config.h"
#include "runtime/blocks/engine.h"
#include "runtime/blocks/expert.h"
#include "runtime/compute/compute.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"

enum { MAX_REPEATS = 1024, MAX_EXPERTS = 1024, MAX_ROWS = 1024 };

struct bench {
    struct config config;
    struct device *device;
    struct expert *experts[MAX_EXPERTS];
    struct device_slab input, output;
    struct peak *floor;
    double bytes; /* of an expert's weights */
    double seconds;
    unsigned count, hidden, inner;
};

/* A launch on its way: of one expert, or of some together. */
struct launch {
    struct expert_batch batches[EXPERT_GROUP];
    struct expert **experts;
    unsigned count;
};

static void must(const struct bench *bench, int result)
{
    if (result == 0)
        return;
    fprintf(stderr, "experts: %s\n", bench->device != NULL ? device_error(bench->device) : "no device");
    exit(1);
}

static void start(struct bench *bench, struct launch *launch, unsigned first, unsigned rows)
{
    const struct expert_group group = expert_group_of(bench->experts[0]);
    const unsigned most = group.kin != NULL && (uint64_t)rows * group.count <= group.rows ? group.count : 1;
    struct expert_batch *batches[EXPERT_GROUP] = {&launch->batches[0]};
    launch->experts = &bench->experts[first];
    launch->count = bench->count - first < most ? bench->count - first : most;
    for (unsigned i = 0; i < launch->count; i++) {
        batches[i] = &launch->batches[i];
        launch->batches[i] = (struct expert_batch){
            .first_row = (uint64_t)i * rows, .rows = rows, .inputs = &bench->input, .outputs = &bench->output};
    }
    must(bench, launch->count > 1 ? expert_forward_group(launch->experts, batches, launch->count)
                                  : expert_forward(launch->experts[0], batches[0]));
}

static void finish(const struct bench *bench, struct launch *launch)
{
    for (unsigned i = 0; i < launch->count; i++)
        must(bench, expert_finish(launch->experts[i], &launch->batches[i]));
    launch->count = 0;
}

/* Nanoseconds of one pass over all experts. */
static double pass(struct bench *bench, unsigned rows)
{
    static struct launch launches[EXPERT_IN_FLIGHT];
    const uint64_t start_ns = clock_now_ns();
    unsigned n = 0;
    for (unsigned first = 0; first < bench->count; n++) {
        struct launch *launch = &launches[n % EXPERT_IN_FLIGHT];
        finish(bench, launch);
        start(bench, launch, first, rows);
        first += launch->count;
    }
    for (unsigned i = 0; i < EXPERT_IN_FLIGHT; i++)
        finish(bench, &launches[(n + i) % EXPERT_IN_FLIGHT]);
    return (double)(clock_now_ns() - start_ns);
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static void measure(struct bench *bench, unsigned rows, bool json)
{
    static double ratios[MAX_REPEATS], took[MAX_REPEATS], floors[MAX_REPEATS];
    const double operations = 6.0 * bench->hidden * bench->inner * rows;
    unsigned repeats = 0;
    pass(bench, rows);
    const uint64_t end_ns = clock_now_ns() + (uint64_t)(bench->seconds * 1e9);
    double before = peak_read(bench->floor);
    const double fma = larger(peak_fma(bench->floor), peak_fma(bench->floor));
    while (repeats < MAX_REPEATS && (repeats < 3 || clock_now_ns() < end_ns)) {
        const double ns = pass(bench, rows) / bench->count, after = peak_read(bench->floor);
        const double floor_ns = larger(bench->bytes / larger(before, after), operations / fma);
        took[repeats] = ns;
        floors[repeats] = floor_ns;
        ratios[repeats++] = floor_ns / ns;
        before = after;
    }
    qsort(ratios, repeats, sizeof ratios[0], compare_doubles);
    qsort(took, repeats, sizeof took[0], compare_doubles);
    qsort(floors, repeats, sizeof floors[0], compare_doubles);
    const double ns = took[repeats / 2];
    printf(json ? "{\"rows\": %u, \"us\": %.2f, \"floor_us\": %.2f, \"ratio\": %.4f, \"read_gbytes\": %.2f, "
                  "\"gflops\": %.1f}\n"
                : "%4u rows %10.1f us, floor %8.1f us: %.2f; %.1f GB/s, %.1f GFLOP/s\n",
           rows, ns / 1000, floors[repeats / 2] / 1000, ratios[repeats / 2], bench->bytes / ns, operations / ns);
    fflush(stdout);
}

static void bench_open(struct bench *bench, const char *device)
{
    char text[2048];
    const int length =
        snprintf(text, sizeof text,
                 "devices:\n  - {name: bench%s%s}\n"
                 "experts:\n  - {uid: 'expert.[0:%u]', block: swiglu, hidden_dim: %u, max_batch_size: "
                 "%d, optimizer: none, backward: false, arguments: {intermediate_size: %u}}\n",
                 device[0] != '\0' ? ", " : "", device, bench->count, bench->hidden, MAX_ROWS, bench->inner);
    if (length < 0 || (size_t)length >= sizeof text ||
        config_parse(&bench->config, text, strlen(text), "experts") != 0 ||
        device_open(&bench->device, &bench->config.devices[0]) != 0 || compute_open(bench->device) != 0)
        exit(1);
    for (unsigned i = 0; i < bench->count; i++)
        must(bench, expert_create(&bench->experts[i], bench->device, &bench->config.experts[0], i + 1));
    bench->bytes = (double)parameters_bytes(&((struct engine_expert *)bench->experts[0])->parameters);
    bench->input = make_slab((size_t)EXPERT_GROUP * MAX_ROWS * bench->hidden);
    bench->output = make_slab((size_t)EXPERT_GROUP * MAX_ROWS * bench->hidden);
    if (peak_open(&bench->floor, bench->device) != 0)
        exit(1);
    peak_read(bench->floor); /* compiles */
    peak_fma(bench->floor);
}

static void bench_close(struct bench *bench)
{
    drop_slab(&bench->input);
    drop_slab(&bench->output);
    peak_close(&bench->floor);
    for (unsigned i = 0; i < bench->count; i++)
        expert_destroy(&bench->experts[i]);
    compute_close(bench->device);
    device_destroy(&bench->device);
    config_destroy(&bench->config);
}

static unsigned number(const char *text, unsigned most)
{
    char *end;
    const unsigned long value = strtoul(text, &end, 10);
    if (end == text || (*end != '\0' && *end != ',') || value == 0 || value > most) {
        fprintf(stderr, "experts: '%s' is no number from 1 to %u\n", text, most);
        exit(2);
    }
    return (unsigned)value;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"rows", required_argument, NULL, 'r'},    {"experts", required_argument, NULL, 'e'},
        {"hidden", required_argument, NULL, 'h'},  {"inner", required_argument, NULL, 'i'},
        {"seconds", required_argument, NULL, 's'}, {"device", required_argument, NULL, 'd'},
        {"json", no_argument, NULL, 'j'},          {0}};
    struct bench bench = {.seconds = 1, .count = 64, .hidden = 2048, .inner = 768};
    const char *rows = "1,8,64", *device = "precision: bf16";
    bool json = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'r')
            rows = optarg;
        else if (option == 'e')
            bench.count = number(optarg, MAX_EXPERTS);
        else if (option == 'h')
            bench.hidden = number(optarg, 1 << 16);
        else if (option == 'i')
            bench.inner = number(optarg, 1 << 16);
        else if (option == 's')
            bench.seconds = strtod(optarg, NULL);
        else if (option == 'd')
            device = optarg;
        else if (option == 'j')
            json = true;
        else
            return 2;
    }
    bench_open(&bench, device);
    for (const char *next = rows; next != NULL; next = strchr(next, ',') != NULL ? strchr(next, ',') + 1 : NULL)
        measure(&bench, number(next, MAX_ROWS), json);
    bench_close(&bench);
    return 0;
}
