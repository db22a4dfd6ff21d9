#include "runtime/train/optimizer.h"

#include <errno.h>
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
        .clip_norm = config->clip_norm,
        .warmup_steps = config->warmup_steps,
        .total_steps = config->total_steps,
        .grad_accumulation = (unsigned)config->grad_accumulation,
    };
    if (strcmp(config->optimizer, "adam") == 0)
        settings->kind = OPTIMIZER_ADAM;
    else if (strcmp(config->optimizer, "sgd") == 0)
        settings->kind = OPTIMIZER_SGD;
    else if (strcmp(config->optimizer, "none") == 0)
        settings->kind = OPTIMIZER_NONE;
    else {
        log_error("experts: uid %s: optimizer \"%s\" is none of adam, sgd, none", config->uid, config->optimizer);
        return -EINVAL;
    }
    if (strcmp(config->schedule, "linear") == 0)
        settings->schedule = OPTIMIZER_SCHEDULE_LINEAR;
    else if (strcmp(config->schedule, "none") == 0)
        settings->schedule = OPTIMIZER_SCHEDULE_NONE;
    else {
        log_error("experts: uid %s: schedule \"%s\" is neither none nor linear", config->uid, config->schedule);
        return -EINVAL;
    }
    return 0;
}

unsigned optimizer_moments(const struct optimizer_settings *settings)
{
    if (settings->kind == OPTIMIZER_ADAM)
        return 2;
    return settings->kind == OPTIMIZER_SGD && settings->momentum > 0 ? 1 : 0;
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
    return settings->learning_rate * (double)(total - updates) /
           (double)at_least_one(total > warmup ? total - warmup : 0);
}

const char *optimizer_describe(const struct optimizer_settings *settings, char *text, size_t size)
{
    int length = 0;
    const char *const names[] = {"none", "sgd", "adam"};
    char kind[128] = "", schedule[64] = "";
    if (settings->kind == OPTIMIZER_ADAM)
        snprintf(kind, sizeof kind, " lr=%g betas=%g,%g eps=%g", settings->learning_rate, settings->beta1,
                 settings->beta2, settings->epsilon);
    else if (settings->kind == OPTIMIZER_SGD)
        snprintf(kind, sizeof kind, " lr=%g momentum=%g", settings->learning_rate, settings->momentum);
    if (settings->schedule == OPTIMIZER_SCHEDULE_LINEAR)
        snprintf(schedule, sizeof schedule, " schedule=linear warmup=%llu total=%llu",
                 (unsigned long long)settings->warmup_steps, (unsigned long long)settings->total_steps);
    length = snprintf(text, size, "%s%s", names[settings->kind], kind);
    if (settings->kind == OPTIMIZER_NONE || length < 0 || (size_t)length >= size)
        return text;
    snprintf(text + length, size - (size_t)length, "%s clip=%g accumulation=%u", schedule, settings->clip_norm,
             settings->grad_accumulation);
    return text;
}
