/* The provider that has CLBlast make the products, and fuses nothing into them: a yardstick, and a way out on a device
 * that CLBlast's authors tuned it for. It wants matrices row-major, so a panel is as wide as its matrix here, and all
 * other kernels are the GPU's, built for that.
 *
 * The program is compiled with CLBlast's header (Debian's libclblast-dev) where that is installed, and opens the
 * library itself only when it is asked to: without either it does everything else. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/providers.h"
#include "runtime/compute/trial.h"
#include "runtime/device/device_private.h"

#if !defined EXPERTD_NO_CLBLAST && defined __has_include
#if __has_include(<clblast_c.h>)
#define HAVE_CLBLAST 1
#include <clblast_c.h>
#endif
#endif

static const char *const sources[] = {"common",      "linear_clblast", "rows_gpu",      "rms_norm_gpu",
                                      "batched_gpu", "attention_gpu",  "optimizer_gpu", NULL};

static void clblast_shape(const struct device_info *info, struct kernel_shape *shape)
{
    (void)info;
    *shape = (struct kernel_shape){.vec = 1, .panel = 0, .tile_rows = 1};
}

#ifdef HAVE_CLBLAST

enum {
    GROUP = 256,     /* work-items of every group */
    MAX_ROWS = 1024, /* of a grid; a work-item takes more of them with its stride */
    MAX_SIZES = 64,
};

struct clblast {
    __typeof__(&CLBlastSgemm) gemm;
    __typeof__(&CLBlastClearCache) clear_cache;
    struct linear_size ready[MAX_SIZES];
    unsigned count;
};

static int clblast_check(struct device *device)
{
    const struct config_device *config = device->config;
    if (strcmp(config->precision, "fp32") != 0)
        return device_complain(device, -EINVAL,
                               "linear_kernel clblast takes fp32 alone: set precision: fp32, or choose another");
    /* Never closed: it keeps OpenCL objects until the process ends. */
    void *library = dlopen("libclblast.so.1", RTLD_NOW | RTLD_NODELETE);
    if (library == NULL)
        return device_complain(device, -EINVAL, "linear_kernel clblast needs the library CLBlast: install %s (%s)",
                               "libclblast1, or choose another", dlerror());
    struct clblast *clblast = device->compute->clblast = calloc(1, sizeof *clblast);
    if (clblast == NULL)
        return -ENOMEM;
    clblast->gemm = (__typeof__(clblast->gemm))dlsym(library, "CLBlastSgemm");
    clblast->clear_cache = (__typeof__(clblast->clear_cache))dlsym(library, "CLBlastClearCache");
    return clblast->gemm != NULL && clblast->clear_cache != NULL
               ? 0
               : device_complain(device, -EINVAL, "the library CLBlast that is installed has not its C interface");
}

/* What it compiled belongs to the context, which goes now. */
static void clblast_close(struct device *device)
{
    if (device->compute->clblast == NULL)
        return;
    if (device->compute->clblast->clear_cache != NULL)
        device->compute->clblast->clear_cache();
    free(device->compute->clblast);
    device->compute->clblast = NULL;
}

static void clblast_grid(const struct device *device, enum kernel kernel, uint64_t rows, uint64_t n, uint64_t k,
                         struct kernel_grid *grid)
{
    if (kernel != KERNEL_LINEAR) {
        provider_gpu.grid(device, kernel, rows, n, k, grid);
        return;
    }
    *grid = (struct kernel_grid){
        .dims = 2,
        .global = {(n + GROUP - 1) / GROUP * GROUP, rows < MAX_ROWS ? rows : MAX_ROWS},
        .local = {GROUP, 1},
    };
}

/* Its codes up to -1000 are OpenCL's own. */
static int gemm_result(struct device *device, CLBlastStatusCode status)
{
    if (status == CLBlastSuccess)
        return 0;
    return status > -1000 ? device_fail(device, (cl_int)status, "CLBlast")
                          : device_complain(device, -EIO, "CLBlast: status %d", (int)status);
}

/* CLBlast takes no events to wait for: what a batch's next kernel waits for comes before it in the queue. */
static int wait_for_rows(struct device *device)
{
    cl_uint count = 0;
    const cl_event *events = NULL;
    cl_event *event = NULL;
    if (device->lost)
        return -ENODEV;
    const int result = device->current != NULL ? device_staging_launch(device, &count, &events, &event) : 0;
    if (result != 0 || (count == 0 && event == NULL))
        return result;
    const cl_int error = clEnqueueBarrierWithWaitList(device->queue, count, events, event);
    return error == CL_SUCCESS ? 0 : device_fail(device, error, "a batch's rows");
}

static int finish_product(struct device *device, const struct linear_call *call)
{
    struct kernel_grid grid;
    const cl_int flags = (cl_int)call->flags;
    /* An argument must be some buffer, also where the flags say that it is not looked at. */
    const cl_mem bias = call->bias ? call->bias : call->weights;
    const cl_mem second = call->second.buffer ? call->second.buffer : call->weights;
    const cl_mem save = call->save ? call->save : call->weights;
    const cl_float4 gate = {{call->gate.limit, call->gate.alpha, call->gate.shift, 0}};
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),
        KERNEL_ARGUMENT(call->n),
        KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(call->out.buffer),
        KERNEL_ARGUMENT(call->out.offset),
        KERNEL_ARGUMENT(bias),
        KERNEL_ARGUMENT(call->bias_offset),
        KERNEL_ARGUMENT(second),
        KERNEL_ARGUMENT(call->second.offset),
        KERNEL_ARGUMENT(save),
        KERNEL_ARGUMENT(call->save_offset),
        KERNEL_ARGUMENT(gate),
    };
    clblast_grid(device, KERNEL_LINEAR, (uint64_t)call->rows, (uint64_t)call->n, (uint64_t)call->k, &grid);
    return kernel_launch(device, KERNEL_LINEAR, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

static int clblast_forward(struct device *device, const struct linear_call *call)
{
    const size_t rows = (size_t)call->rows, n = (size_t)call->n, k = (size_t)call->k;
    const bool gated = (call->flags & LINEAR_GATED) != 0;
    int result = wait_for_rows(device);
    if (result != 0)
        return result;
    result = gemm_result(
        device, device->compute->clblast->gemm(CLBlastLayoutRowMajor, CLBlastTransposeNo, CLBlastTransposeNo, rows, n,
                                               k, 1.0f, call->a.buffer, call->a.offset, k, call->weights,
                                               call->weights_offset, n, 0.0f, gated ? call->save : call->out.buffer,
                                               gated ? call->save_offset : call->out.offset, n, &device->queue, NULL));
    return result != 0 || call->flags == 0 ? result : finish_product(device, call);
}

static int clblast_gradient(struct device *device, const struct linear_gradient_call *call)
{
    const size_t rows = (size_t)call->rows, n = (size_t)call->n, k = (size_t)call->k;
    const int result = wait_for_rows(device);
    if (result != 0)
        return result;
    return gemm_result(device, device->compute->clblast->gemm(
                                   CLBlastLayoutRowMajor, CLBlastTransposeYes, CLBlastTransposeNo, k, n, rows, 1.0f,
                                   call->x, call->x_offset, k, call->dy, call->dy_offset, n,
                                   call->accumulate ? 1.0f : 0.0f, call->dw, call->dw_offset, n, &device->queue, NULL));
}

static bool is_ready(const struct clblast *clblast, const struct linear_size *size)
{
    for (unsigned i = 0; i < clblast->count; i++) {
        if (clblast->ready[i].n == size->n && clblast->ready[i].k == size->k)
            return true;
    }
    return false;
}

/* It has kernels for small products and for large ones, and those for sizes that its tiles divide and that they do not;
 * PoCL compiles each when it is first launched. Beyond the first large ones there is nothing new. */
static int make_ready(const struct trial *trial, uint64_t rows, const struct linear_size *size)
{
    static const uint64_t some[] = {1, 16, 61, 64, 253, 256, 1021, 1024};
    static const uint64_t large = (uint64_t)1 << 27; /* multiplications; it has no way to ask */
    unsigned large_ones = 0;
    int result = 0;
    for (unsigned i = 0; i < sizeof some / sizeof some[0] && result == 0 && large_ones < 2; i++) {
        const uint64_t now = some[i] < rows ? some[i] : rows;
        result = trial_launch(trial, false, now, size);
        if (result == 0)
            result = trial_launch(trial, true, now, size);
        if (result == 0)
            result = device_finish(trial->device);
        large_ones += now * size->n * size->k >= large;
        if (now == rows)
            break;
    }
    return result;
}

static int clblast_prepare(struct device *device, uint64_t rows, const struct linear_size *sizes, unsigned count)
{
    struct clblast *clblast = device->compute->clblast;
    struct trial trial;
    bool ready = true;
    for (unsigned i = 0; i < count; i++)
        ready = ready && is_ready(clblast, &sizes[i]);
    if (ready)
        return 0;
    int result = trial_open(&trial, device, rows, sizes, count);
    if (result == -ENOMEM) {
        log_warning("device %s: no memory to try CLBlast out first: its first products will be slow (%s)",
                    device->config->name, device->error);
        return 0;
    }
    for (unsigned i = 0; i < count && result == 0; i++) {
        log_info("device %s: having CLBlast compile for products of %llu to %llu", device->config->name,
                 (unsigned long long)sizes[i].k, (unsigned long long)sizes[i].n);
        result = make_ready(&trial, rows, &sizes[i]);
        if (result == 0 && clblast->count < MAX_SIZES && !is_ready(clblast, &sizes[i]))
            clblast->ready[clblast->count++] = sizes[i];
    }
    trial_close(&trial);
    return result;
}

static const struct linear_products products = {
    .forward = clblast_forward,
    .gradient = clblast_gradient,
    .prepare = clblast_prepare,
};

const struct kernel_provider provider_clblast = {
    .name = "clblast",
    .sources = sources,
    .no_gradient_kernel = true,
    .check = clblast_check,
    .shape = clblast_shape,
    .grid = clblast_grid,
    .close = clblast_close,
    .products = &products,
};

#else

static int clblast_check(struct device *device)
{
    return device_complain(device, -EINVAL,
                           "this program was built without CLBlast: install libclblast-dev and build it again, or "
                           "choose another linear_kernel");
}

const struct kernel_provider provider_clblast = {
    .name = "clblast",
    .sources = sources,
    .check = clblast_check,
    .shape = clblast_shape,
};

#endif
