/* Options that would have no effect beside the others: who writes one expects that it has. */
#include <string.h>

#include "common/config_check.h"
#include "common/config_value.h"

/* For which values of another option, "a|b", an option means something. */
struct use {
    const char *option, *of, *values;
};

static const struct use expert_uses[] = {
    {"learning_rate", "optimizer", "adam|adamw|sgd"},
    {"beta1", "optimizer", "adam|adamw"},
    {"beta2", "optimizer", "adam|adamw"},
    {"epsilon", "optimizer", "adam|adamw"},
    {"amsgrad", "optimizer", "adam|adamw"},
    {"momentum", "optimizer", "sgd"},
    {"weight_decay", "optimizer", "adam|adamw|sgd"},
    {"clip_norm", "optimizer", "adam|adamw|sgd"},
    {"grad_accumulation", "optimizer", "adam|adamw|sgd"},
    {"schedule", "optimizer", "adam|adamw|sgd"},
    {"warmup_steps", "schedule", "linear|cosine"},
    {"total_steps", "schedule", "linear|cosine"},
    {NULL, NULL, NULL},
};

static const struct use device_uses[] = {
    {"tune_time", "tune", "auto|force"},
    {"copy_threads", "slabs", "auto|staged"},
    {NULL, NULL, NULL},
};

static const struct config_option *find_option(const struct config_section *section, const char *name)
{
    for (unsigned i = 0; i < section->count; i++)
        if (strcmp(section->options[i].name, name) == 0)
            return &section->options[i];
    return NULL;
}

/* A configuration that was printed has every option, so only another value than the default says something. */
static int check_record(const struct config_source *source, const char *name, int index, const void *record,
                        const struct use *uses)
{
    const struct config_section *section = config_section_find(name);
    for (; uses->option; uses++) {
        const struct config_option *option = find_option(section, uses->option), *of = find_option(section, uses->of);
        const char *value = *(const char *const *)(const void *)((const char *)record + of->offset);
        if (config_value_is_choice(uses->values, value) || config_value_is_default(option, record))
            continue;
        return config_source_error(source, (struct config_place){name, index, uses->option},
                                   "has no effect with %s: %s: leave it out, or choose %s: %s", uses->of, value,
                                   uses->of, uses->values);
    }
    return 0;
}

/* What says how checkpoints are written, and where none are. An interval of 0 says nothing else. */
static int check_checkpoints(const struct config *config, const struct config_source *source)
{
    const struct config_section *section = config_section_find("checkpoint");
    for (unsigned i = 0; !config->checkpoint.dir[0] && i < section->count; i++)
        if (!config_value_is_default(&section->options[i], &config->checkpoint) &&
            !(strcmp(section->options[i].name, "interval") == 0 && config->checkpoint.interval == 0))
            return config_source_error(source, (struct config_place){"checkpoint", -1, section->options[i].name},
                                       "has no effect without checkpoint.dir: nothing would be saved");
    return 0;
}

int config_idle_check(const struct config *config, const struct config_source *source)
{
    int rc = check_checkpoints(config, source);
    for (unsigned i = 0; rc == 0 && i < config->devices_count; i++)
        rc = check_record(source, "devices", (int)i, &config->devices[i], device_uses);
    for (unsigned i = 0; rc == 0 && i < config->experts_count; i++)
        rc = check_record(source, "experts", (int)i, &config->experts[i], expert_uses);
    return rc;
}
