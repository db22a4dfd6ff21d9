#include "runtime/train/optimizer_step.h"

#include <math.h>

#include "common/failpoint.h"
#include "runtime/device/device_private.h"
#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/provider.h"

/* In the device's control buffer, floats. The open gate lets through, the closed one does not; neither is written. */
enum {
    CONTROL_BATCH = 0,
    CONTROL_SUM = 4,
    CONTROL_RESULTS = 8, /* floats that go to the host */
};
_Static_assert((int)CONTROL_RESULTS == (int)PARAMETERS_RESULTS, "what the host keeps is what the device writes");

static int enqueue_norm(struct device *device, const struct parameters *parameters, cl_mem gradient, cl_ulong offset,
                        double clip_norm, cl_ulong control, cl_ulong gate)
{
    struct kernel_grid grid;
    const cl_ulong count = parameters->trained_floats;
    provider_grid(device, KERNEL_NORM_PARTIALS, 0, count, 0, &grid);
    const struct kernel_argument partials[] = {
        KERNEL_ARGUMENT(count),
        KERNEL_ARGUMENT(gradient),
        KERNEL_ARGUMENT(offset),
        KERNEL_ARGUMENT(device->compute->partials),
    };
    const int result = kernel_launch(device, KERNEL_NORM_PARTIALS, &grid, partials, 4);
    if (result != 0)
        return result;
    const cl_int shares = (cl_int)(grid.global[0] / grid.local[0]);
    const cl_float clip = (cl_float)clip_norm;
    const struct kernel_argument finish[] = {
        KERNEL_ARGUMENT(shares),
        KERNEL_ARGUMENT(clip),
        KERNEL_ARGUMENT(device->compute->partials),
        KERNEL_ARGUMENT(device->compute->control),
        KERNEL_ARGUMENT(control),
        KERNEL_ARGUMENT(gate),
    };
    provider_grid(device, KERNEL_NORM_FINISH, 0, 0, 0, &grid);
    return kernel_launch(device, KERNEL_NORM_FINISH, &grid, finish, 6);
}

static int enqueue_accumulate(struct device *device, const struct parameters *parameters, cl_mem gradient,
                              cl_ulong offset, bool first)
{
    struct kernel_grid grid;
    const cl_ulong count = parameters->trained_floats, control = CONTROL_BATCH;
    const cl_int overwrite = first;
    provider_grid(device, KERNEL_ACCUMULATE, 0, count, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(count),
        KERNEL_ARGUMENT(overwrite),
        KERNEL_ARGUMENT(gradient),
        KERNEL_ARGUMENT(offset),
        KERNEL_ARGUMENT(parameters->gradient),
        KERNEL_ARGUMENT(device->compute->control),
        KERNEL_ARGUMENT(control),
    };
    return kernel_launch(device, KERNEL_ACCUMULATE, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

/* A matrix, or all vectors that train at once as one panel. */
struct step {
    const struct trainee *trainee;
    const struct parameters *parameters;
    cl_int k, n;
    cl_ulong offset, transposed;
    cl_mem gradient;
    cl_ulong gradient_offset, control;
};

/* What kernels read of a matrix, to be written along. An argument must be some buffer, also where the offset says that
 * it is not looked at. */
static cl_mem matrices_of(const struct step *step)
{
    return step->parameters->matrices ? step->parameters->matrices : step->parameters->masters;
}
static cl_mem transposed_of(const struct step *step)
{
    return step->parameters->transposed ? step->parameters->transposed : step->parameters->masters;
}

static int enqueue_adam(struct device *device, const struct step *step)
{
    const struct optimizer_settings *settings = step->trainee->optimizer;
    const uint64_t updates = step->trainee->counters->updates;
    const double correction1 = 1 - pow(settings->beta1, (double)(updates + 1));
    const double correction2 = 1 - pow(settings->beta2, (double)(updates + 1));
    const cl_float beta1 = (cl_float)settings->beta1, beta2 = (cl_float)settings->beta2;
    const cl_float rest1 = (cl_float)(1 - settings->beta1), rest2 = (cl_float)(1 - settings->beta2);
    const cl_float size = (cl_float)(optimizer_rate(settings, updates) / correction1);
    const cl_float inverse = (cl_float)(1 / sqrt(correction2)), epsilon = (cl_float)settings->epsilon;
    const bool decoupled = settings->kind == OPTIMIZER_ADAMW;
    const cl_float decay = decoupled ? 0 : (cl_float)settings->weight_decay;
    const cl_float shrink = decoupled ? (cl_float)(optimizer_rate(settings, updates) * settings->weight_decay) : 0;
    const cl_int keeps_greatest = settings->amsgrad;
    const cl_mem *moment = step->parameters->moment;
    const cl_mem greatest = keeps_greatest ? moment[2] : moment[1];
    const cl_mem matrices = matrices_of(step), transposed = transposed_of(step);
    struct kernel_grid grid;
    provider_grid(device, KERNEL_STEP_ADAM, 0, (uint64_t)step->n, (uint64_t)step->k, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(step->k),
        KERNEL_ARGUMENT(step->n),
        KERNEL_ARGUMENT(beta1),
        KERNEL_ARGUMENT(beta2),
        KERNEL_ARGUMENT(rest1),
        KERNEL_ARGUMENT(rest2),
        KERNEL_ARGUMENT(size),
        KERNEL_ARGUMENT(inverse),
        KERNEL_ARGUMENT(epsilon),
        KERNEL_ARGUMENT(decay),
        KERNEL_ARGUMENT(shrink),
        KERNEL_ARGUMENT(keeps_greatest),
        KERNEL_ARGUMENT(step->parameters->masters),
        KERNEL_ARGUMENT(step->offset),
        KERNEL_ARGUMENT(matrices),
        KERNEL_ARGUMENT(transposed),
        KERNEL_ARGUMENT(step->transposed),
        KERNEL_ARGUMENT(step->gradient),
        KERNEL_ARGUMENT(step->gradient_offset),
        KERNEL_ARGUMENT(moment[0]),
        KERNEL_ARGUMENT(moment[1]),
        KERNEL_ARGUMENT(greatest),
        KERNEL_ARGUMENT(device->compute->control),
        KERNEL_ARGUMENT(step->control),
    };
    return kernel_launch(device, KERNEL_STEP_ADAM, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

static int enqueue_sgd(struct device *device, const struct step *step)
{
    const struct optimizer_settings *settings = step->trainee->optimizer;
    const cl_float momentum = (cl_float)settings->momentum, decay = (cl_float)settings->weight_decay;
    const cl_float rate = (cl_float)optimizer_rate(settings, step->trainee->counters->updates);
    /* An argument must be some buffer, also where momentum 0 says that it is not looked at. */
    const cl_mem moment = step->parameters->moment[0] ? step->parameters->moment[0] : step->parameters->masters;
    const cl_mem matrices = matrices_of(step), transposed = transposed_of(step);
    struct kernel_grid grid;
    provider_grid(device, KERNEL_STEP_SGD, 0, (uint64_t)step->n, (uint64_t)step->k, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(step->k),        KERNEL_ARGUMENT(step->n),
        KERNEL_ARGUMENT(momentum),       KERNEL_ARGUMENT(rate),
        KERNEL_ARGUMENT(decay),          KERNEL_ARGUMENT(step->parameters->masters),
        KERNEL_ARGUMENT(step->offset),   KERNEL_ARGUMENT(matrices),
        KERNEL_ARGUMENT(transposed),     KERNEL_ARGUMENT(step->transposed),
        KERNEL_ARGUMENT(step->gradient), KERNEL_ARGUMENT(step->gradient_offset),
        KERNEL_ARGUMENT(moment),         KERNEL_ARGUMENT(device->compute->control),
        KERNEL_ARGUMENT(step->control),
    };
    return kernel_launch(device, KERNEL_STEP_SGD, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

static int enqueue_steps(struct device *device, struct step *step)
{
    const struct parameters *parameters = step->parameters;
    int (*const enqueue)(struct device *, const struct step *) =
        optimizer_is_adam(step->trainee->optimizer) ? enqueue_adam : enqueue_sgd;
    int result = 0;
    for (unsigned i = 0; i < parameters->count && result == 0; i++) {
        const struct parameter *item = &parameters->items[i];
        if (item->in == 0 || (item->paired && item->lane == 1))
            continue;
        step->k = (cl_int)item->in;
        step->n = (cl_int)parameters_columns(&parameters->shape, item);
        step->offset = item->offset;
        step->transposed = item->transposed;
        result = enqueue(device, step);
    }
    const uint64_t vectors_floats = parameters->trained_floats - parameters->vectors_offset;
    if (result != 0 || vectors_floats == 0)
        return result;
    step->n = (cl_int)kernel_panel_width(&parameters->shape, vectors_floats);
    step->k = (cl_int)(vectors_floats / (uint64_t)step->n);
    step->offset = parameters->vectors_offset;
    step->transposed = ~(cl_ulong)0;
    return enqueue(device, step);
}

int optimizer_step_enqueue(const struct trainee *trainee, struct parameters *parameters, cl_mem gradient,
                           cl_ulong gradient_offset, bool dry)
{
    struct device *device = parameters->device;
    const struct optimizer_settings *settings = trainee->optimizer;
    const cl_ulong gate = dry ? PROVIDER_CONTROL_CLOSED : PROVIDER_CONTROL_OPEN;
    struct step step = {
        .trainee = trainee,
        .parameters = parameters,
        .gradient = gradient,
        .gradient_offset = gradient_offset,
        .control = CONTROL_BATCH,
    };
    int result = !dry && FAILPOINT("optimizer.step") ? CL_OUT_OF_HOST_MEMORY : device_gate(device);
    if (result == 0)
        result = enqueue_norm(device, parameters, gradient, gradient_offset, settings->clip_norm, CONTROL_BATCH, gate);
    if (result == 0 && parameters->accumulates)
        result = enqueue_accumulate(device, parameters, gradient, gradient_offset, *trainee->accumulated == 0);
    if (result == 0 && parameters->accumulates) {
        step.gradient = parameters->gradient;
        step.gradient_offset = 0;
        step.control = CONTROL_SUM;
        result =
            enqueue_norm(device, parameters, parameters->gradient, 0, settings->clip_norm, CONTROL_SUM, CONTROL_BATCH);
    }
    if (result == 0 && (dry || *trainee->accumulated + 1 >= settings->grad_accumulation))
        result = enqueue_steps(device, &step);
    return result == 0
               ? device_fetch(device, device->compute->control, 0, parameters->results, sizeof parameters->results)
               : result;
}

enum expert_step optimizer_step_finish(const struct trainee *trainee, const struct parameters *parameters,
                                       uint64_t rows, double *grad_norm)
{
    const struct optimizer_settings *settings = trainee->optimizer;
    const unsigned control = parameters->accumulates ? CONTROL_SUM : CONTROL_BATCH;
    if (parameters->results[CONTROL_BATCH + 2] == 0) {
        *grad_norm = (double)parameters->results[CONTROL_BATCH];
        trainee->counters->skipped++;
        return EXPERT_STEP_SKIPPED;
    }
    trainee->counters->examples += rows;
    if (*trainee->accumulated + 1 < settings->grad_accumulation) {
        ++*trainee->accumulated;
        return EXPERT_STEP_ACCUMULATED;
    }
    /* The sum of finite gradients can still overflow; then all of them are dropped, as nothing can be made of them. */
    const bool applied = parameters->results[control + 2] != 0;
    *grad_norm = (double)parameters->results[control];
    *trainee->accumulated = 0;
    trainee->counters->updates += applied;
    trainee->counters->skipped += !applied;
    return applied ? EXPERT_STEP_APPLIED : EXPERT_STEP_SKIPPED;
}
