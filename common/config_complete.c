#include "common/config_complete.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "common/config_blocks.h"
#include "common/config_memory.h"
#include "common/config_table.h"
#include "common/config_value.h"
#include "common/run_dir.h"

const char config_default_listen[] = "tcp://127.0.0.1:31330";
static const char default_device[] = "device0";

static const char *environment_folder(const char *variable)
{
    const char *value = getenv(variable);
    return value && value[0] == '/' ? value : NULL;
}

static const char *run_dir(struct config_memory **memory)
{
    char path[PATH_MAX];
    return run_dir_default(path, sizeof path) == 0 ? config_memory_copy(memory, path) : NULL;
}

static const char *cache_dir_default(struct config *config)
{
    const char *cache_home = environment_folder("XDG_CACHE_HOME");
    const char *home = environment_folder("HOME");
    if (cache_home)
        return config_memory_format(&config->memory, "%s/expertd", cache_home);
    if (home)
        return config_memory_format(&config->memory, "%s/.cache/expertd", home);
    return config_memory_format(&config->memory, "%s/cache", config->server.run_dir);
}

/* The first one's endpoints are also those of `frontend`: for who asks any of them. */
static void complete_frontends(struct config *config)
{
    for (unsigned i = 0; i < config->frontends_count; i++) {
        struct config_frontend_entry *entry = &config->frontends[i];
        if (!entry->advertise[0] && entry->listen.count)
            entry->advertise = entry->listen.items[0];
    }
    if (config->frontends_count == 0 || config->frontends[0].listen.count == 0)
        return;
    if (config->frontend.listen.count == 0)
        config->frontend.listen = config->frontends[0].listen;
    if (!config->frontend.advertise[0])
        config->frontend.advertise = config->frontends[0].advertise;
}

static int complete_devices(struct config *config)
{
    if (config->devices_count == 0) {
        struct config_device *device = config_memory_alloc(&config->memory, sizeof *device);
        if (!device)
            return -ENOMEM;
        config_value_defaults(config_section_find("devices"), device);
        device->name = default_device;
        config->devices = device;
        config->devices_count = 1;
    }
    for (unsigned i = 0; i < config->devices_count; i++) {
        struct config_device *device = &config->devices[i];
        if (!device->cache_dir[0])
            device->cache_dir = cache_dir_default(config);
        if (!device->cache_dir)
            return -ENOMEM;
    }
    return 0;
}

int config_complete(struct config *config)
{
    struct config_memory **memory = &config->memory;
    if (!config->server.run_dir[0])
        config->server.run_dir = run_dir(memory);
    if (!config->server.run_dir)
        return -ENOMEM;
    complete_frontends(config);
    if (config->frontend.listen.count == 0) {
        config->frontend.listen.items = config_memory_alloc(memory, sizeof(char *));
        if (!config->frontend.listen.items)
            return -ENOMEM;
        config->frontend.listen.items[0] = config_default_listen;
        config->frontend.listen.count = 1;
    }
    if (!config->frontend.advertise[0])
        config->frontend.advertise = config->frontend.listen.items[0];
    if (!config->dht.frontend[0])
        config->dht.frontend = config_frontend_endpoint(config);
    if (!config->http.frontend[0])
        config->http.frontend = config_local_endpoint(config, config->frontend.listen.items[0]);
    if (!config->http.dht[0])
        config->http.dht = config_local_endpoint(config, config->dht.listen);
    if (!config->dht.frontend || !config->http.frontend || !config->http.dht)
        return -ENOMEM;
    if (config->dht.expiration == 0)
        config->dht.expiration = 2 * config->dht.update_period > 3 ? 2 * config->dht.update_period : 3;
    const int rc = complete_devices(config);
    for (unsigned i = 0; rc == 0 && i < config->experts_count; i++) {
        struct config_expert *expert = &config->experts[i];
        if (!expert->device[0])
            expert->device = config->devices[0].name;
        if (expert->queue_rows == 0)
            expert->queue_rows = 2 * expert->max_batch_size;
        expert->declared = config_value_is_path(expert->block) ? NULL : config_blocks_find(config, expert->block);
    }
    return rc;
}
