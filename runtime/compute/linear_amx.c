/* The provider for CPUs with Intel's matrix units: runtime/compute/kernels/linear_amx.cl. */
#include "runtime/compute/linear_amx.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "common/clock.h"
#include "common/log.h"
#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/linear_group.h"
#include "runtime/compute/providers.h"
#include "runtime/compute/trial.h"
#include "runtime/device/device_private.h"

#define FEW_K 8192 /* the longest k of what linear_few multiplies */
#define TEXT_OF_(number) #number
#define TEXT_OF(number) TEXT_OF_(number)

enum {
    TILE_ROWS = 16,
    STEP = 32, /* of what is contracted, in one instruction */
    GROUP_TILES = 16,
    PART_PANELS = 4,
    SHARES_OF_A_CORE = 4,
    PART_STEPS = 8,        /* that a share of split_rows has */
    STACK_BYTES = 2 << 20, /* the kernels' arrays take half of it */
    /* arch_prctl's, of Linux 5.16: leave for this process to have the units' 8 KiB of state in each thread. */
    REQUEST_STATE = 0x1023,
    STATE_TILES = 18,
    CPUID_AMX_BF16 = 1 << 22, /* of leaf 7, edx */
    CPUID_AMX_TILE = 1 << 24,
};

static const char *const sources[] = {"common",           "shares_cpu",    "panels_cpu",    "linear_cpu",
                                      "linear_group_cpu", "linear_amx",    "rows_cpu",      "rms_norm_cpu",
                                      "batched_cpu",      "attention_cpu", "optimizer_cpu", NULL};

static const char *const kernel_names[AMX_KERNELS] = {
    [AMX_LINEAR] = "linear_tiles",   [AMX_WEIGHT_GRADIENT] = "weight_gradient_tiles",
    [AMX_SPLIT_ROWS] = "split_rows", [AMX_SPLIT_COLUMNS] = "split_columns",
    [AMX_FEW] = "linear_few",        [AMX_FEW_GROUP] = "linear_few_group",
};

bool linear_amx_usable(void)
{
#ifdef __x86_64__
    const unsigned needed = CPUID_AMX_BF16 | CPUID_AMX_TILE;
    unsigned eax, ebx, ecx, edx;
    struct rlimit stack;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & needed) != needed)
        return false;
    /* What a thread works on lies on its stack. */
    if (getrlimit(RLIMIT_STACK, &stack) != 0 || stack.rlim_cur < STACK_BYTES)
        return false;
    return syscall(SYS_arch_prctl, REQUEST_STATE, STATE_TILES) == 0;
#else
    return false;
#endif
}

/* From how many rows on the units can be faster. Weights of bfloat16 are what they multiply: nothing has to be split.
 */
static uint64_t fewest_rows(const struct device *device)
{
    return strcmp(device->config->precision, "bf16") == 0 ? AMX_LEAST_BFLOAT_ROWS : AMX_LEAST_ROWS;
}

/* From how many rows on they are used where they are faster at all. */
static uint64_t rule_rows(const struct device *device)
{
    return strcmp(device->config->precision, "bf16") == 0 ? AMX_LEAST_BFLOAT_ROWS : AMX_RULE_ROWS;
}

/* The least of a weight gradient, which contracts rows, and multiplies floats whatever the weights are. */
static uint64_t least_gradient_rows(const struct device *device)
{
    const bool forced = strcmp(device->config->linear_kernel, "amx") == 0;
    const uint64_t least = device->compute->amx->least_rows, floats = forced ? AMX_LEAST_ROWS : AMX_RULE_ROWS;
    return least < floats ? floats : least;
}

static int amx_check(struct device *device)
{
    const struct config_device *config = device->config;
    if (device->info.class != DEVICE_CLASS_CPU)
        return device_complain(device, -EINVAL,
                               "linear_kernel amx is for CPUs, and this device is none: set linear_kernel: auto");
    device->compute->amx = calloc(1, sizeof *device->compute->amx);
    if (device->compute->amx == NULL)
        return -ENOMEM;
    device->compute->amx->emulated = !linear_amx_usable();
    device->compute->amx->least_rows = fewest_rows(device);
    if (strcmp(config->linear_kernel, "auto") == 0) {
        device->compute->amx->undecided = strcmp(config->tune, "off") != 0;
        device->compute->amx->least_rows = rule_rows(device);
    }
    if (device->compute->amx->emulated)
        log_warning("device %s: this processor or system has no AMX: it is emulated, which is for tests and very slow",
                    config->name);
    return 0;
}

static const char *amx_options(const struct device *device)
{
    return device->compute->amx->emulated ? "-DFEW_K=" TEXT_OF(FEW_K) " -DAMX_EMULATED" : "-DFEW_K=" TEXT_OF(FEW_K);
}

static void amx_shape(const struct device_info *info, struct kernel_shape *shape)
{
    struct device_info wide = *info;
    wide.vector_width = AMX_VECTOR_WIDTH; /* also where the units are emulated */
    provider_cpu.shape(&wide, shape);
}

/* --- what the products work on -------------------------------------------------------------------------------- */

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

/* Of a matrix of `rows` by `k`, whole tiles of three planes. */
static uint64_t planes_bytes(uint64_t rows, uint64_t k)
{
    return divide_up(rows, TILE_ROWS) * TILE_ROWS * divide_up(k, STEP) * STEP * 3 * sizeof(cl_ushort);
}

/* The same of what a weight gradient contracts: `rows` by `k`, transposed, whole panels of k. */
static uint64_t transposed_planes_bytes(const struct device *device, uint64_t rows, uint64_t k)
{
    return planes_bytes(kernel_panels(provider_shape(device), k) * provider_shape(device)->panel, rows);
}

static uint64_t amx_memory(const struct device *device, uint64_t rows, const struct linear_size *sizes, unsigned count)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < count && rows >= device->compute->amx->least_rows; i++) {
        const uint64_t forward = planes_bytes(rows, sizes[i].k);
        const uint64_t gradient = transposed_planes_bytes(device, rows, sizes[i].k);
        most = forward > most ? forward : most;
        most = gradient > most ? gradient : most;
    }
    return most;
}

static int reserve(struct device *device, uint64_t bytes)
{
    return device_reserve(device, bytes, "split operands", &device->compute->amx->planes,
                          &device->compute->amx->planes_bytes);
}

/* --- products ------------------------------------------------------------------------------------------------- */

/* Groups of row tiles by parts of panels. A share is as large as its operands fit a core's cache, so that they come
 * from memory seldom, but no larger than leaves each core some. */
static void amx_shares(const struct device *device, uint64_t rows, uint64_t n, struct kernel_grid *grid)
{
    const uint64_t tiles = divide_up(rows, TILE_ROWS), panels = kernel_panels(provider_shape(device), n);
    const uint64_t wanted = SHARES_OF_A_CORE * (uint64_t)device->info.compute_units;
    uint64_t groups = divide_up(tiles, GROUP_TILES), of_part = groups * panels / wanted;
    of_part = of_part < 1 || tiles == 1 ? 1 : of_part > PART_PANELS ? PART_PANELS : of_part;
    const uint64_t parts = divide_up(panels, of_part);
    if (groups * parts < wanted && divide_up(wanted, parts) <= tiles / 2)
        groups = divide_up(wanted, parts);
    grid->global[0] = groups;
    grid->global[1] = parts;
    grid->group = (cl_int)(groups < device->info.compute_units ? groups : device->info.compute_units);
}

/* Whether a core splits the rows itself: one tile of them, and weights that are not split. */
static bool is_few(const struct device *device, uint64_t rows, uint64_t k)
{
    return device->compute->amx->kernels[AMX_FEW] != NULL && rows <= TILE_ROWS && k <= FEW_K;
}

static void amx_grid(const struct device *device, enum kernel kernel, uint64_t rows, uint64_t n, uint64_t k,
                     struct kernel_grid *grid)
{
    provider_cpu.grid(device, kernel, rows, n, k, grid);
    if (kernel == KERNEL_LINEAR && rows >= device->compute->amx->least_rows && is_few(device, rows, k)) {
        grid->object = device->compute->amx->kernels[AMX_FEW];
    } else if (kernel == KERNEL_LINEAR && rows >= device->compute->amx->least_rows) {
        amx_shares(device, rows, n, grid);
        grid->object = device->compute->amx->kernels[AMX_LINEAR];
    } else if (kernel == KERNEL_WEIGHT_GRADIENT && rows >= least_gradient_rows(device)) {
        amx_shares(device, k, n, grid);
        grid->object = device->compute->amx->kernels[AMX_WEIGHT_GRADIENT];
    }
}

static int launch(struct device *device, enum amx_kernel kernel, const struct kernel_grid *grid,
                  const struct kernel_argument *arguments, unsigned count)
{
    return kernel_launch_shares(device, device->compute->amx->kernels[kernel], kernel_names[kernel], grid, arguments,
                                count);
}

static int split_rows(struct device *device, const struct linear_call *call)
{
    const uint64_t steps = divide_up((uint64_t)call->k, STEP);
    const struct kernel_grid grid = {
        .dims = 2,
        .global = {divide_up(steps, PART_STEPS), divide_up((uint64_t)call->rows, TILE_ROWS)},
    };
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),
        KERNEL_ARGUMENT(call->k),
        KERNEL_ARGUMENT(call->a.buffer),
        KERNEL_ARGUMENT(call->a.offset),
        KERNEL_ARGUMENT(call->a.row_stride),
        KERNEL_ARGUMENT(call->a.panel_stride),
        KERNEL_ARGUMENT(device->compute->amx->planes),
    };
    return launch(device, AMX_SPLIT_ROWS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

static int amx_forward(struct device *device, const struct linear_call *call)
{
    struct linear_call of_planes = *call;
    if ((uint64_t)call->rows < device->compute->amx->least_rows ||
        is_few(device, (uint64_t)call->rows, (uint64_t)call->k))
        return linear_launch_forward(device, call);
    int result = reserve(device, planes_bytes((uint64_t)call->rows, (uint64_t)call->k));
    if (result == 0)
        result = split_rows(device, call);
    of_planes.a = (struct kernel_view){.buffer = device->compute->amx->planes};
    return result == 0 ? linear_launch_forward(device, &of_planes) : result;
}

/* Those that are too small for the units go together, and those of a tile. */
static int amx_group(struct device *device, const struct linear_call *calls, unsigned count)
{
    struct linear_call small[LINEAR_GROUP], few[LINEAR_GROUP];
    unsigned smalls = 0, fews = 0;
    int result = 0;
    for (unsigned i = 0; i < count && result == 0; i++) {
        if ((uint64_t)calls[i].rows < device->compute->amx->least_rows)
            small[smalls++] = calls[i];
        else if (is_few(device, (uint64_t)calls[i].rows, (uint64_t)calls[i].k))
            few[fews++] = calls[i];
        else
            result = amx_forward(device, &calls[i]);
    }
    if (result == 0 && smalls > 0)
        result = linear_group_launch(device, NULL, small, smalls);
    return result == 0 && fews > 0
               ? linear_group_launch(device, device->compute->amx->kernels[AMX_FEW_GROUP], few, fews)
               : result;
}

static int amx_gradient(struct device *device, const struct linear_gradient_call *call)
{
    struct linear_gradient_call of_planes = *call;
    if ((uint64_t)call->rows < least_gradient_rows(device))
        return linear_launch_gradient(device, call);
    int result = reserve(device, transposed_planes_bytes(device, (uint64_t)call->rows, (uint64_t)call->k));
    const struct kernel_grid grid = {
        .dims = 2,
        .global = {divide_up((uint64_t)call->rows, STEP), kernel_panels(provider_shape(device), (uint64_t)call->k)},
    };
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),
        KERNEL_ARGUMENT(call->k),
        KERNEL_ARGUMENT(call->x),
        KERNEL_ARGUMENT(call->x_offset),
        KERNEL_ARGUMENT(device->compute->amx->planes),
    };
    if (result == 0)
        result = launch(device, AMX_SPLIT_COLUMNS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
    of_planes.x = device->compute->amx->planes;
    of_planes.x_offset = 0;
    return result == 0 ? linear_launch_gradient(device, &of_planes) : result;
}

/* --- which of the two ----------------------------------------------------------------------------------------- */

enum { TRIALS = 15, TRIAL_WIDTH = 1024 };

static int time_product(const struct trial *trial, uint64_t rows, uint64_t least_rows, uint64_t *took_ns)
{
    const struct linear_size size = {.n = TRIAL_WIDTH, .k = TRIAL_WIDTH};
    trial->device->compute->amx->least_rows = least_rows;
    const uint64_t start_ns = clock_now_ns();
    int result = trial_launch(trial, false, rows, &size);
    if (result == 0)
        result = device_finish(trial->device);
    *took_ns = clock_now_ns() - start_ns;
    return result;
}

/* Whether they are so many halves times as fast. Alternately, and the fastest of each: what else runs on the machine
 * takes time away, and never adds any. The first of each does not count: it may compile. */
static int is_faster(const struct trial *trial, uint64_t rows, unsigned halves, bool *faster)
{
    uint64_t units_ns = UINT64_MAX, vectors_ns = UINT64_MAX, took_ns;
    int result = 0;
    for (unsigned i = 0; i <= TRIALS && result == 0; i++) {
        result = time_product(trial, rows, rows, &took_ns);
        units_ns = i > 0 && took_ns < units_ns ? took_ns : units_ns;
        if (result == 0)
            result = time_product(trial, rows, UINT64_MAX, &took_ns);
        vectors_ns = i > 0 && took_ns < vectors_ns ? took_ns : vectors_ns;
    }
    *faster = units_ns / 2 * halves < vectors_ns;
    return result;
}

/* Whether the units are used is measured, as how much they lose to what else a machine's cores do, other tenants' among
 * it, cannot be known otherwise; from how many rows on is not, as that would be another number at each start. For the
 * same reason they must win by more than chance lets the slower win by: with weights of bfloat16 they took a half to a
 * third of the time where with others they took 0.7 to 1.2 of it. */
static int choose_least_rows(struct device *device)
{
    const struct linear_size size = {.n = TRIAL_WIDTH, .k = TRIAL_WIDTH};
    const uint64_t least_rows = rule_rows(device), rows = least_rows < TILE_ROWS ? TILE_ROWS : least_rows;
    const unsigned halves = provider_shape(device)->bfloat ? 3 : 4; /* 1.5 times, or twice, as fast */
    struct trial trial;
    bool faster = false;
    int result = trial_open(&trial, device, rows, &size, 1);
    if (result == 0)
        result = is_faster(&trial, rows, halves, &faster);
    trial_close(&trial);
    device->compute->amx->least_rows = faster ? least_rows : UINT64_MAX;
    if (result == 0 && !faster)
        log_info("device %s: its matrix units (AMX) are not much faster than its vector units here, and not used",
                 device->config->name);
    else if (result == 0)
        log_info("device %s: products of %u rows and more are made by its matrix units (AMX)", device->config->name,
                 (unsigned)least_rows);
    return result;
}

static int amx_prepare(struct device *device, uint64_t rows, const struct linear_size *sizes, unsigned count)
{
    const int result = device->compute->amx->undecided ? choose_least_rows(device) : 0;
    device->compute->amx->undecided = false;
    return result == 0 ? reserve(device, amx_memory(device, rows, sizes, count)) : result;
}

/* --- the probe ------------------------------------------------------------------------------------------------ */

/* Two tiles, one, a part of one; two panels; two steps and a part. And a part of a tile, in a group of two. */
enum { PROBE_ROWS = 49, PROBE_N = 65, PROBE_K = 70, PROBE_FEW = 13 };

/* In [-1, 1), of 24 bits. */
static float probe_value(unsigned i)
{
    return (float)(i * 2654435761u >> 8) * 0x1p-23f - 1.0f;
}

struct probe {
    float a[PROBE_ROWS][PROBE_K], w[2][PROBE_K][64], out[PROBE_ROWS][PROBE_N];
    uint16_t halves[2][PROBE_K][64]; /* w, where weights are halves */
};

static int compare_probe(struct device *device, const struct probe *probe, unsigned rows)
{
    for (unsigned row = 0; row < rows; row++) {
        for (unsigned column = 0; column < PROBE_N; column++) {
            double sum = 0;
            for (unsigned k = 0; k < PROBE_K; k++)
                sum += (double)probe->a[row][k] * (double)probe->w[column / 64][k][column % 64];
            if (!(fabs(sum - (double)probe->out[row][column]) < PROBE_K * 0x1p-20))
                return device_complain(device, -EINVAL, "AMX computed %g where %g is right",
                                       (double)probe->out[row][column], sum);
        }
    }
    return 0;
}

static struct linear_call probe_call(const struct device *device, cl_mem memory, unsigned first_row, unsigned rows)
{
    const struct kernel_shape *shape = provider_shape(device);
    const cl_ulong out = offsetof(struct probe, out) / sizeof(float);
    return (struct linear_call){
        .rows = (cl_int)rows,
        .n = PROBE_N,
        .k = PROBE_K,
        .a = kernel_view_rows(shape, memory, first_row * PROBE_K, PROBE_K),
        .weights = memory,
        .weights_offset = shape->weight_bytes == sizeof(float) ? offsetof(struct probe, w) / sizeof(float)
                                                               : offsetof(struct probe, halves) / sizeof(uint16_t),
        .out = kernel_view_rows(shape, memory, out + first_row * PROBE_N, PROBE_N),
    };
}

static int run_probe(struct device *device, struct probe *probe, cl_mem memory, unsigned rows, unsigned members)
{
    const struct linear_call calls[] = {probe_call(device, memory, 0, rows), probe_call(device, memory, rows, rows)};
    memset(probe->out, 0, sizeof probe->out);
    int result = device_write(device, memory, 0, probe, sizeof *probe);
    if (result == 0)
        result = members > 1 ? amx_group(device, calls, members) : amx_forward(device, calls);
    if (result == 0)
        result = device_read(device, memory, offsetof(struct probe, out), probe->out, sizeof probe->out);
    return result == 0 ? compare_probe(device, probe, members * rows) : result;
}

/* One product by each kernel: whether the driver's compiler makes of the instructions what the kernels rely on. */
static int amx_probe(struct device *device)
{
    cl_mem memory = NULL;
    struct probe *probe = calloc(1, sizeof *probe);
    if (probe == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < PROBE_ROWS * PROBE_K; i++)
        probe->a[i / PROBE_K][i % PROBE_K] = probe_value(i + 1);
    for (unsigned i = 0; i < PROBE_N * PROBE_K; i++) {
        const unsigned column = i % PROBE_N;
        float *value = &probe->w[column / 64][i / PROBE_N][column % 64];
        uint16_t *half = &probe->halves[column / 64][i / PROBE_N][column % 64];
        *value = probe_value(3 * i + 7);
        *half = kernel_weight_from_float(provider_shape(device), *value);
        if (provider_shape(device)->weight_bytes == sizeof *half)
            *value = kernel_weight_to_float(provider_shape(device), *half);
    }
    int result = device_allocate(device, sizeof *probe, "a probe", &memory);
    if (result == 0)
        result = run_probe(device, probe, memory, PROBE_ROWS, 1);
    if (result == 0 && is_few(device, PROBE_FEW, PROBE_K))
        result = run_probe(device, probe, memory, PROBE_FEW, 1);
    if (result == 0 && is_few(device, PROBE_FEW, PROBE_K) && device->compute->groups)
        result = run_probe(device, probe, memory, PROBE_FEW, 2);
    device_release(device, &memory);
    free(probe);
    return result;
}

static int make_kernels(struct device *device)
{
    const unsigned count = provider_shape(device)->bfloat ? AMX_KERNELS : AMX_FEW;
    for (unsigned i = 0; i < count; i++) {
        cl_int error;
        device->compute->amx->kernels[i] = clCreateKernel(device->compute->program, kernel_names[i], &error);
        if (device->compute->amx->kernels[i] == NULL)
            return device_fail(device, error, kernel_names[i]);
    }
    return 0;
}

/* The probes are of the one units and of the other, whatever products are worth it. */
static int amx_open(struct device *device)
{
    struct amx *amx = device->compute->amx;
    const uint64_t least_rows = amx->least_rows;
    int result = make_kernels(device);
    amx->least_rows = UINT64_MAX;
    if (result == 0)
        result = linear_group_open(device);
    amx->least_rows = 1;
    if (result == 0)
        result = amx_probe(device);
    amx->least_rows = least_rows;
    return result;
}

static void amx_close(struct device *device)
{
    struct amx *amx = device->compute->amx;
    if (amx == NULL)
        return;
    for (unsigned i = 0; i < AMX_KERNELS; i++) {
        if (amx->kernels[i] != NULL)
            clReleaseKernel(amx->kernels[i]);
    }
    device_release(device, &amx->planes);
    free(amx);
    device->compute->amx = NULL;
}

static const struct linear_products products = {
    .memory = amx_memory,
    .forward = amx_forward,
    .group = amx_group,
    .gradient = amx_gradient,
    .prepare = amx_prepare,
};

const struct kernel_provider provider_amx = {
    .name = "amx",
    .shares = true,
    .groups = true,
    .sources = sources,
    .check = amx_check,
    .options = amx_options,
    .shape = amx_shape,
    .grid = amx_grid,
    .open = amx_open,
    .close = amx_close,
    .products = &products,
};
