#include "runtime/train/optimizer.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"

int optimizer_settings_parse(struct optimizer_settings *settings, const struct config_expert *config)
{
    *settings = (struct optimizer_settings){
        .learning_rate = config->learning_rate,
        .beta1 = config->beta1,
        .beta2 = config->beta2,
        .epsilon = config->epsilon,
        .momentum = config->momentum,
        .weight_decay = config->weight_decay,
        .amsgrad = config->amsgrad,
        .clip_norm = config->clip_norm,
        .warmup_steps = config->warmup_steps,
        .total_steps = config->total_steps,
        .grad_accumulation = (unsigned)config->grad_accumulation,
    };
    if (strcmp(config->optimizer, "adam") == 0)
        settings->kind = OPTIMIZER_ADAM;
    else if (strcmp(config->optimizer, "adamw") == 0)
        settings->kind = OPTIMIZER_ADAMW;
    else if (strcmp(config->optimizer, "sgd") == 0)
        settings->kind = OPTIMIZER_SGD;
    else if (strcmp(config->optimizer, "none") == 0)
        settings->kind = OPTIMIZER_NONE;
    else {
        log_error("experts: uid %s: optimizer \"%s\" is none of adam, adamw, sgd, none", config->uid,
                  config->optimizer);
        return -EINVAL;
    }
    if (strcmp(config->schedule, "linear") == 0)
        settings->schedule = OPTIMIZER_SCHEDULE_LINEAR;
    else if (strcmp(config->schedule, "cosine") == 0)
        settings->schedule = OPTIMIZER_SCHEDULE_COSINE;
    else if (strcmp(config->schedule, "none") == 0)
        settings->schedule = OPTIMIZER_SCHEDULE_NONE;
    else {
        log_error("experts: uid %s: schedule \"%s\" is none of none, linear, cosine", config->uid, config->schedule);
        return -EINVAL;
    }
    return 0;
}

unsigned optimizer_moments(const struct optimizer_settings *settings)
{
    if (optimizer_is_adam(settings))
        return settings->amsgrad ? 3 : 2;
    return settings->kind == OPTIMIZER_SGD && settings->momentum > 0 ? 1 : 0;
}

const char *optimizer_moment_name(const struct optimizer_settings *settings, unsigned moment)
{
    static const char *const of_adam[OPTIMIZER_MOMENTS_MAX] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
    assert(moment < OPTIMIZER_MOMENTS_MAX);
    return optimizer_is_adam(settings) ? of_adam[moment] : "momentum_buffer";
}

static uint64_t at_least_one(uint64_t steps)
{
    return steps > 1 ? steps : 1;
}

double optimizer_rate(const struct optimizer_settings *settings, uint64_t updates)
{
    const uint64_t warmup = settings->warmup_steps, total = settings->total_steps;
    if (settings->schedule == OPTIMIZER_SCHEDULE_NONE)
        return settings->learning_rate;
    if (updates < warmup)
        return settings->learning_rate * (double)updates / (double)at_least_one(warmup);
    if (updates >= total)
        return 0;
    const double span = (double)at_least_one(total > warmup ? total - warmup : 0);
    if (settings->schedule == OPTIMIZER_SCHEDULE_COSINE)
        return settings->learning_rate * (1 + cos(acos(-1) * (double)(updates - warmup) / span)) / 2;
    return settings->learning_rate * (double)(total - updates) / span;
}

const char *optimizer_describe(const struct optimizer_settings *settings, char *text, size_t size)
{
    int length = 0;
    const char *const names[] = {"none", "sgd", "adam", "adamw"}, *const schedules[] = {"none", "linear", "cosine"};
    char kind[128] = "", decay[48] = "", schedule[80] = "";
    if (optimizer_is_adam(settings))
        snprintf(kind, sizeof kind, " lr=%g betas=%g,%g eps=%g%s", settings->learning_rate, settings->beta1,
                 settings->beta2, settings->epsilon, settings->amsgrad ? " amsgrad" : "");
    else if (settings->kind == OPTIMIZER_SGD)
        snprintf(kind, sizeof kind, " lr=%g momentum=%g", settings->learning_rate, settings->momentum);
    if (settings->weight_decay > 0)
        snprintf(decay, sizeof decay, " weight_decay=%g", settings->weight_decay);
    if (settings->schedule != OPTIMIZER_SCHEDULE_NONE)
        snprintf(schedule, sizeof schedule, " schedule=%s warmup=%llu total=%llu", schedules[settings->schedule],
                 (unsigned long long)settings->warmup_steps, (unsigned long long)settings->total_steps);
    length = snprintf(text, size, "%s%s", names[settings->kind], kind);
    if (settings->kind == OPTIMIZER_NONE || length < 0 || (size_t)length >= size)
        return text;
    snprintf(text + length, size - (size_t)length, "%s%s clip=%g accumulation=%u", decay, schedule, settings->clip_norm,
             settings->grad_accumulation);
    return text;
}
