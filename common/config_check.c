#include "common/config_check.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_value.h"

static const char default_listen[] = "tcp://127.0.0.1:31330";
static const char default_device[] = "device0";
enum { NAME_MAX_LENGTH = 32 };

/* --- defaults that hang on something
 * ----------------------------------------------------------------------------------- */

static const char *environment_folder(const char *variable)
{
    const char *value = getenv(variable);
    return value && value[0] == '/' ? value : NULL;
}

static const char *run_dir_default(struct config_memory **memory)
{
    const char *runtime_dir = environment_folder("XDG_RUNTIME_DIR");
    if (geteuid() == 0)
        return "/run/expertd";
    if (runtime_dir)
        return config_memory_format(memory, "%s/expertd", runtime_dir);
    return config_memory_format(memory, "/tmp/expertd-%u", (unsigned)geteuid());
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

/* What follows the address of an endpoint that is bound to every address; NULL if it is not such a wildcard. */
static const char *wildcard_port(const char *endpoint)
{
    static const char *const wildcards[] = {"tcp://*:", "tcp://0.0.0.0:", "tcp://[::]:"};
    for (size_t i = 0; i < sizeof wildcards / sizeof wildcards[0]; i++)
        if (strncmp(endpoint, wildcards[i], strlen(wildcards[i])) == 0)
            return endpoint + strlen(wildcards[i]);
    return NULL;
}

/* Where a process of this box reaches an endpoint that was bound. */
static const char *local_endpoint(struct config_memory **memory, const char *listen)
{
    const char *port = wildcard_port(listen);
    return port ? config_memory_format(memory, "tcp://127.0.0.1:%s", port) : listen;
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
        config->server.run_dir = run_dir_default(memory);
    if (!config->server.run_dir)
        return -ENOMEM;
    if (config->frontend.listen.count == 0) {
        config->frontend.listen.items = config_memory_alloc(memory, sizeof(char *));
        if (!config->frontend.listen.items)
            return -ENOMEM;
        config->frontend.listen.items[0] = default_listen;
        config->frontend.listen.count = 1;
    }
    if (!config->frontend.advertise[0])
        config->frontend.advertise = config->frontend.listen.items[0];
    if (!config->dht.frontend[0])
        config->dht.frontend = local_endpoint(memory, config->frontend.listen.items[0]);
    if (!config->dht.frontend)
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
    }
    return rc;
}

/* --- checks
 * --------------------------------------------------------------------------------------------------------------- */

/* A name becomes part of file names and of shared-memory segments' names. */
static int check_name(const struct config_source *source, struct config_place place, const char *name)
{
    const size_t length = strlen(name);
    for (size_t i = 0; i < length; i++)
        if (!isascii(name[i]) || !(isalnum((unsigned char)name[i]) || name[i] == '-' || name[i] == '_'))
            return config_source_error(source, place, "'%.100s' has a character other than A-Z a-z 0-9 - _", name);
    if (length == 0 || length > NAME_MAX_LENGTH)
        return config_source_error(source, place, "'%.100s' is not a name of 1 to %d characters", name,
                                   NAME_MAX_LENGTH);
    return 0;
}

static int check_endpoint(const struct config_source *source, struct config_place place, const char *endpoint)
{
    static const char *const transports[] = {"tcp://", "ipc://", "inproc://"};
    for (size_t i = 0; i < sizeof transports / sizeof transports[0]; i++)
        if (strncmp(endpoint, transports[i], strlen(transports[i])) == 0 && endpoint[strlen(transports[i])])
            return 0;
    return config_source_error(source, place, "'%.100s' is no ZeroMQ endpoint, like tcp://127.0.0.1:31330", endpoint);
}

static int check_frontend(const struct config *config, const struct config_source *source)
{
    const struct config_frontend *frontend = &config->frontend;
    for (unsigned i = 0; i < frontend->listen.count; i++) {
        const int rc =
            check_endpoint(source, (struct config_place){"frontend", -1, "listen"}, frontend->listen.items[i]);
        if (rc < 0)
            return rc;
    }
    /* Clients of other boxes cannot connect to a wildcard, so it must not come to be advertised. */
    if (wildcard_port(frontend->advertise))
        return config_source_error(source, (struct config_place){"frontend", -1, "advertise"},
                                   "'%.100s' is no address that a client could connect to: set it to one that this "
                                   "machine has",
                                   frontend->advertise);
    return check_endpoint(source, (struct config_place){"frontend", -1, "advertise"}, frontend->advertise);
}

static int check_dht(const struct config *config, const struct config_source *source)
{
    const int rc = check_endpoint(source, (struct config_place){"dht", -1, "listen"}, config->dht.listen);
    if (rc < 0 || strcmp(config->dht.frontend, "none") == 0)
        return rc;
    return check_endpoint(source, (struct config_place){"dht", -1, "frontend"}, config->dht.frontend);
}

static int check_devices(const struct config *config, const struct config_source *source)
{
    for (unsigned i = 0; i < config->devices_count; i++) {
        const struct config_place place = {"devices", (int)i, "name"};
        const char *name = config->devices[i].name;
        const int rc = check_name(source, place, name);
        if (rc < 0)
            return rc;
        const struct config_device *first = config_find_device(config, name);
        if (first != &config->devices[i])
            return config_source_error(source, place, "'%s' is the name of devices[%d] already", name,
                                       (int)(first - config->devices));
    }
    return 0;
}

static int check_expert(const struct config *config, const struct config_source *source, int index)
{
    const struct config_expert *expert = &config->experts[index];
    if (!config_find_device(config, expert->device))
        return config_source_error(source, (struct config_place){"experts", index, "device"},
                                   "there is no device called '%.100s' in the list of devices", expert->device);
    if (!expert->block[0])
        return config_source_error(source, (struct config_place){"experts", index, "block"}, "must not be empty");
    if (expert->min_batch_size > expert->max_batch_size)
        return config_source_error(source, (struct config_place){"experts", index, "min_batch_size"},
                                   "%" PRIu64 " is above max_batch_size, which is %" PRIu64, expert->min_batch_size,
                                   expert->max_batch_size);
    if (expert->queue_rows < expert->max_batch_size)
        return config_source_error(source, (struct config_place){"experts", index, "queue_rows"},
                                   "%" PRIu64 " is below max_batch_size, which is %" PRIu64
                                   ": the largest task would never fit",
                                   expert->queue_rows, expert->max_batch_size);
    if (strcmp(expert->schedule, "linear") == 0 && expert->total_steps <= expert->warmup_steps)
        return config_source_error(source, (struct config_place){"experts", index, "total_steps"},
                                   "%" PRIu64 " must be above warmup_steps, which is %" PRIu64
                                   ", with a linear schedule",
                                   expert->total_steps, expert->warmup_steps);
    return 0;
}

int config_check(const struct config *config, const struct config_source *source)
{
    int rc = check_name(source, (struct config_place){"server", -1, "name"}, config->server.name);
    if (rc == 0)
        rc = check_frontend(config, source);
    if (rc == 0)
        rc = check_dht(config, source);
    if (rc == 0)
        rc = check_devices(config, source);
    for (unsigned i = 0; rc == 0 && i < config->experts_count; i++)
        rc = check_expert(config, source, (int)i);
    return rc < 0 ? rc : config_experts_check(config, source);
}
