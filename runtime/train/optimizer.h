/* The optimizer's settings and its schedule. The step itself runs on the device, in one pass over the parameters. */
#ifndef EXPERTD_RUNTIME_OPTIMIZER_H
#define EXPERTD_RUNTIME_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"

enum optimizer_kind {
    OPTIMIZER_NONE, /* parameters are frozen: no parameter gradient is computed */
    OPTIMIZER_SGD,  /* PyTorch's: buffer = momentum * buffer + g; w -= rate * buffer */
    OPTIMIZER_ADAM, /* PyTorch's: with bias correction, and epsilon outside of the square root */
    OPTIMIZER_ADAMW /* the same, after w -= rate * weight_decay * w; with the others g is g + weight_decay * w */
};

enum optimizer_schedule { OPTIMIZER_SCHEDULE_NONE, OPTIMIZER_SCHEDULE_LINEAR, OPTIMIZER_SCHEDULE_COSINE };

struct optimizer_settings {
    enum optimizer_kind kind;
    enum optimizer_schedule schedule;
    double learning_rate, beta1, beta2, epsilon, momentum, weight_decay;
    bool amsgrad;     /* adam, adamw: the greatest second moment so far is what divides */
    double clip_norm; /* 0: never */
    uint64_t warmup_steps, total_steps;
    unsigned grad_accumulation;
};

/* From an expert's entry of the configuration. -EINVAL with a logged message for an unknown optimizer or schedule. */
int optimizer_settings_parse(struct optimizer_settings *settings, const struct config_expert *config);

enum { OPTIMIZER_MOMENTS_MAX = 3 };
/* Copies of the parameters' size that the optimizer keeps: 2 for adam and adamw, 3 with amsgrad, 1 for sgd with
 * momentum, else 0. */
unsigned optimizer_moments(const struct optimizer_settings *settings);
/* What PyTorch's state dict calls the copy: exp_avg, exp_avg_sq, max_exp_avg_sq; momentum_buffer. */
const char *optimizer_moment_name(const struct optimizer_settings *settings, unsigned moment);
/* Whether it is one of the adams. */
static inline bool optimizer_is_adam(const struct optimizer_settings *settings)
{
    return settings->kind == OPTIMIZER_ADAM || settings->kind == OPTIMIZER_ADAMW;
}

/* The rate of the step that follows `updates` applied ones, as PyTorch's LambdaLR gives it when scheduler.step()
 * follows optimizer.step(): learning_rate * lambda(updates), so that with a warm-up the first step has the rate 0.
 * linear: updates / max(1, warmup), then max(0, (total - updates) / max(1, total - warmup)). cosine: the same warm-up,
 * then (1 + cos(pi * (updates - warmup) / max(1, total - warmup))) / 2, and 0 from `total` on. */
double optimizer_rate(const struct optimizer_settings *settings, uint64_t updates);

/* "adam lr=0.001 betas=0.9,0.999 eps=1e-08 ..." for INFO; always terminated. Returns text. */
const char *optimizer_describe(const struct optimizer_settings *settings, char *text, size_t size);

#endif
