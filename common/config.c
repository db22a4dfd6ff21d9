#include "common/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/address.h"
#include "common/config_memory.h"
#include "common/numeral.h"

void config_destroy(struct config *config)
{
    config_memory_destroy(&config->memory);
    *config = (struct config){0};
}

void config_free(struct config **config)
{
    if (*config)
        config_destroy(*config);
    free(*config);
    *config = NULL;
}

const struct config_device *config_find_device(const struct config *config, const char *name)
{
    for (unsigned i = 0; i < config->devices_count; i++)
        if (!name[0] || strcmp(config->devices[i].name, name) == 0)
            return &config->devices[i];
    return NULL;
}

bool config_device_quantizes(const struct config_device *device)
{
    static const char *const precisions[] = {"int8", "int4", "fp8", "mxfp4"};
    for (unsigned i = 0; i < sizeof precisions / sizeof *precisions; i++)
        if (strcmp(device->precision, precisions[i]) == 0)
            return true;
    return false;
}

bool config_device_takes(const struct config_device *device, const struct config_device *before,
                         const struct config_expert *expert)
{
    const bool as_files_have = strcmp(device->precision, "fp8") == 0 || strcmp(device->precision, "mxfp4") == 0;
    if (config_device_quantizes(device) && strcmp(expert->optimizer, "none") != 0)
        return false;
    return !as_files_have || !expert->weights[0] || (before && strcmp(before->precision, device->precision) == 0);
}

/* Where a process of this box reaches an endpoint that was bound. */
const char *config_local_endpoint(struct config *config, const char *listen)
{
    const char *port = address_wildcard_port(listen);
    return port ? config_memory_format(&config->memory, "tcp://127.0.0.1:%s", port) : listen;
}

const char *config_frontend_endpoint(struct config *config)
{
    return config_local_endpoint(config, config->frontend.listen.items[0]);
}

int config_metrics_experts(const char *text, uint32_t *count)
{
    static const char top[] = "top ";
    *count = strcmp(text, "all") == 0 ? CONFIG_METRICS_EXPERTS_MAX : 0;
    if (*count > 0 || strcmp(text, "none") == 0)
        return 0;
    if (strncmp(text, top, strlen(top)) != 0)
        return -EINVAL;
    uint64_t number = 0;
    if (numeral_read_whole(text + strlen(top), &number) < 0 || number < 1 || number > CONFIG_METRICS_EXPERTS_MAX)
        return -EINVAL;
    *count = (uint32_t)number;
    return 0;
}
