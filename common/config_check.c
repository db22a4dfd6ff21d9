#include "common/config_check.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/address.h"
#include "common/config_blocks.h"
#include "common/config_value.h"
#include "common/run_dir.h"
#include "common/suggest.h"

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

const char *config_frontend_endpoint(struct config *config)
{
    return local_endpoint(&config->memory, config->frontend.listen.items[0]);
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
        config->dht.frontend = config_frontend_endpoint(config);
    if (!config->http.frontend[0])
        config->http.frontend = local_endpoint(memory, config->frontend.listen.items[0]);
    if (!config->http.dht[0])
        config->http.dht = local_endpoint(memory, config->dht.listen);
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

static int check_endpoint(const struct config_source *source, struct config_place place, const char *endpoint,
                          bool for_binding)
{
    const char *problem = address_endpoint_problem(endpoint, for_binding);
    return problem ? config_source_error(source, place, "'%.100s' %s", endpoint, problem) : 0;
}

/* Whether it is what is connected to when nobody has written what, which is where `listen` is reached. */
static bool is_derived(const char *endpoint, const char *listen)
{
    static const char local[] = "tcp://127.0.0.1:";
    const char *port = wildcard_port(listen);
    return strcmp(endpoint, listen) == 0 ||
           (port && strncmp(endpoint, local, strlen(local)) == 0 && strcmp(endpoint + strlen(local), port) == 0);
}

/* What somebody connects to. Of a listener whose port the system chooses nothing is derived that leads there: that is
 * refused only by the programs that need it (config_check_needs). */
static int check_reached(const struct config_source *source, struct config_place place, const char *endpoint,
                         const char *listen)
{
    return check_endpoint(source, place, endpoint, is_derived(endpoint, listen));
}

static int check_listen(const struct config *config, const struct config_source *source)
{
    const struct config_place place = {"frontend", -1, "listen"};
    const struct config_strings *listen = &config->frontend.listen;
    for (unsigned i = 0; i < listen->count; i++) {
        const int rc = check_endpoint(source, place, listen->items[i], true);
        if (rc < 0)
            return rc;
        for (unsigned j = 0; j < i; j++)
            if (strcmp(listen->items[i], listen->items[j]) == 0 && !strstr(listen->items[i], ":*"))
                return config_source_error(source, place, "'%.100s' stands twice", listen->items[i]);
    }
    return 0;
}

static int check_frontend(const struct config *config, const struct config_source *source)
{
    const struct config_frontend *frontend = &config->frontend;
    const int rc = check_listen(config, source);
    if (rc < 0)
        return rc;
    const bool group = strncmp(frontend->local, "group ", 6) == 0;
    if (strcmp(frontend->local, "off") != 0 && strcmp(frontend->local, "same-user") != 0 &&
        !(group && frontend->local[6]))
        return config_source_error(source, (struct config_place){"frontend", -1, "local"},
                                   "'%.100s' is none of: off, same-user, group NAME", frontend->local);
    /* server.run_dir is its owner's alone. */
    if (group && !frontend->local_path[0])
        return config_source_error(source, (struct config_place){"frontend", -1, "local"},
                                   "with 'group', frontend.local_path has to name the socket, in a folder that the "
                                   "group may enter");
    /* Clients of other boxes cannot connect to a wildcard, so it must not come to be advertised. */
    if (wildcard_port(frontend->advertise))
        return config_source_error(source, (struct config_place){"frontend", -1, "advertise"},
                                   "'%.100s' is no address that a client could connect to: set it to one that this "
                                   "machine has",
                                   frontend->advertise);
    const struct config_place advertise = {"frontend", -1, "advertise"};
    if (strcmp(frontend->advertise, frontend->listen.items[0]) != 0 && strncmp(frontend->advertise, "ipc:", 4) == 0)
        return config_source_error(source, advertise,
                                   "'%.100s' is on this machine alone, and this is where those on others find the "
                                   "server: tcp://host:port",
                                   frontend->advertise);
    return check_reached(source, advertise, frontend->advertise, frontend->listen.items[0]);
}

static bool is_hexadecimal(const char *text, size_t length)
{
    return strlen(text) == length && strspn(text, "0123456789abcdefABCDEF") == length;
}

/* Keys of servers, and what one key says of another (dht/trust.h). */
static int check_trust(const struct config_dht *dht, const struct config_source *source)
{
    enum { KEY_DIGITS = 64, VOUCHER_DIGITS = 192 };
    for (unsigned i = 0; i < dht->trusted.count; i++) {
        const char *text = dht->trusted.items[i], *blank = strrchr(text, ' ');
        if (!is_hexadecimal(blank ? blank + 1 : text, KEY_DIGITS))
            return config_source_error(source, (struct config_place){"dht", -1, "trusted"},
                                       "'%.100s' is neither a key of %d hexadecimal digits nor a prefix, as ffn., and "
                                       "a key",
                                       text, KEY_DIGITS);
    }
    const struct config_place place = {"dht", -1, "voucher"};
    if (!dht->voucher[0])
        return 0;
    if (!is_hexadecimal(dht->voucher, VOUCHER_DIGITS))
        return config_source_error(
            source, place, "is none: it has %d hexadecimal digits, and expertd-dht --vouch makes it", VOUCHER_DIGITS);
    if (!dht->identity_file[0])
        return config_source_error(source, place,
                                   "is for the key of dht.identity_file, and without one each start has another");
    return 0;
}

static int check_dht(const struct config *config, const struct config_source *source)
{
    const struct config_dht *dht = &config->dht;
    struct address address;
    int rc = check_endpoint(source, (struct config_place){"dht", -1, "listen"}, dht->listen, true);
    for (unsigned i = 0; rc == 0 && i < config->frontend.listen.count; i++)
        if (strcmp(dht->listen, config->frontend.listen.items[i]) == 0)
            rc = config_source_error(source, (struct config_place){"dht", -1, "listen"},
                                     "'%.100s' is in frontend.listen already", dht->listen);
    for (unsigned i = 0; rc == 0 && i < dht->bootstrap.count; i++)
        if (address_parse(&address, dht->bootstrap.items[i]) < 0)
            rc = config_source_error(source, (struct config_place){"dht", -1, "bootstrap"},
                                     "'%.100s' is no address: write host:port, or [address]:port for IPv6",
                                     dht->bootstrap.items[i]);
    if (rc == 0 && dht->expiration <= dht->update_period)
        rc = config_source_error(source, (struct config_place){"dht", -1, "expiration"},
                                 "%.15g s must be above update_period, which is %.15g s: experts would expire before "
                                 "their next heartbeat",
                                 dht->expiration, dht->update_period);
    if (rc == 0)
        rc = check_trust(dht, source);
    if (rc < 0 || strcmp(dht->frontend, "none") == 0)
        return rc;
    if (wildcard_port(dht->frontend))
        return config_source_error(source, (struct config_place){"dht", -1, "frontend"},
                                   "'%.100s' is no address to connect to", dht->frontend);
    return check_reached(source, (struct config_place){"dht", -1, "frontend"}, dht->frontend,
                         config->frontend.listen.items[0]);
}

/* What others reach is closed to strangers, or a person has said that it shall not be. */
static int check_open(const struct config *config, const struct config_source *source, const char *section,
                      const char *endpoint)
{
    if (config->server.key_file[0] || config->server.insecure || address_endpoint_is_local(endpoint))
        return 0;
    return config_source_error(source, (struct config_place){section, -1, "listen"},
                               "'%.100s' is reached from other machines, and anybody there could use and train the "
                               "experts: give the server a key (server.key_file, made by `expertctl keygen`), or say "
                               "server.insecure: true",
                               endpoint);
}

static int check_security(const struct config *config, const struct config_source *source)
{
    const struct config_server *server = &config->server;
    const char *without_key = server->clients[0]                       ? "clients"
                              : strcmp(server->strangers, "none") != 0 ? "strangers"
                                                                       : NULL;
    if (without_key && !server->key_file[0])
        return config_source_error(source, (struct config_place){"server", -1, without_key},
                                   "says who may connect, which nobody can prove without server.key_file");
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < config->frontend.listen.count; i++)
        rc = check_open(config, source, "frontend", config->frontend.listen.items[i]);
    return rc == 0 ? check_open(config, source, "dht", config->dht.listen) : rc;
}

static int check_http(const struct config *config, const struct config_source *source)
{
    struct address address;
    if (address_parse(&address, config->http.listen) < 0 || address.port == 0)
        return config_source_error(source, (struct config_place){"http", -1, "listen"},
                                   "'%.100s' is no address with a port: write 127.0.0.1:31332, or [address]:port for "
                                   "IPv6",
                                   config->http.listen);
    if (config->http.changes && !config->http.token_file[0])
        return config_source_error(source, (struct config_place){"http", -1, "changes"},
                                   "needs token_file: else any page in a browser on this machine could load experts");
    if (wildcard_port(config->http.frontend))
        return config_source_error(source, (struct config_place){"http", -1, "frontend"},
                                   "'%.100s' is no address to connect to", config->http.frontend);
    const int rc = check_reached(source, (struct config_place){"http", -1, "frontend"}, config->http.frontend,
                                 config->frontend.listen.items[0]);
    if (rc < 0 || strcmp(config->http.dht, "none") == 0)
        return rc;
    return check_reached(source, (struct config_place){"http", -1, "dht"}, config->http.dht, config->dht.listen);
}

/* What each kernel of products can multiply in. */
static int check_kernel(const struct config_device *device, const struct config_source *source, int index)
{
    const struct config_place place = {"devices", index, "linear_kernel"};
    const char *kernel = device->linear_kernel;
    const bool fp32 = strcmp(device->precision, "fp32") == 0;
    if (strcmp(kernel, "clblast") == 0 && !fp32)
        return config_source_error(source, place, "clblast takes fp32 alone, and precision is %s", device->precision);
    if (strcmp(kernel, "mma") == 0 && fp32)
        return config_source_error(source, place,
                                   "mma multiplies in tf32 or fp16 (bf16: weights), and precision is fp32");
    if (strcmp(device->precision, "tf32") == 0 && strcmp(kernel, "mma") != 0 && strcmp(kernel, "auto") != 0)
        return config_source_error(source, place,
                                   "%s does not multiply in tf32: choose mma or auto, or precision: fp32", kernel);
    return 0;
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
        const int kernel_rc = check_kernel(&config->devices[i], source, (int)i);
        if (kernel_rc < 0)
            return kernel_rc;
    }
    return 0;
}

static int check_block(const struct config *config, const struct config_source *source, int index)
{
    const struct config_expert *expert = &config->experts[index];
    const struct config_place place = {"experts", index, "block"};
    const struct block *block;
    struct suggest suggest;
    if (!expert->block[0])
        return config_source_error(source, place, "must not be empty");
    if (config_value_is_path(expert->block) || expert->declared)
        return 0;
    suggest_begin(&suggest, expert->block);
    for (unsigned i = 0; (block = block_builtin_nth(i)) != NULL; i++)
        suggest_offer(&suggest, block->name);
    for (unsigned i = 0; i < config->declared_count; i++)
        suggest_offer(&suggest, config->declared[i].name);
    return config_source_error(
        source, place,
        "there is no block '%.100s'%s%s%s (an own one stands under blocks, or is the path of its "
        ".so)",
        expert->block, suggest.nearest ? ": is '" : "", suggest.nearest ? suggest.nearest : "",
        suggest.nearest ? "' meant?" : "");
}

/* Rows that wait for others do so in the time that their requests have. */
static int check_waiting(const struct config *config, const struct config_source *source, int index)
{
    const struct config_expert *expert = &config->experts[index];
    const uint64_t deadline = config->frontend.default_deadline;
    if (expert->min_batch_size > expert->max_batch_size)
        return config_source_error(source, (struct config_place){"experts", index, "min_batch_size"},
                                   "%" PRIu64 " is above max_batch_size, which is %" PRIu64, expert->min_batch_size,
                                   expert->max_batch_size);
    if (expert->queue_rows < expert->max_batch_size)
        return config_source_error(source, (struct config_place){"experts", index, "queue_rows"},
                                   "%" PRIu64 " is below max_batch_size, which is %" PRIu64
                                   ": the largest task would never fit",
                                   expert->queue_rows, expert->max_batch_size);
    if (expert->min_batch_size > 1 && deadline > 0 && expert->batch_timeout >= (double)deadline)
        return config_source_error(source, (struct config_place){"experts", index, "batch_timeout"},
                                   "%.15g ms must be below frontend.default_deadline, which is %" PRIu64
                                   " ms: a request that waits for others would expire first",
                                   expert->batch_timeout, deadline);
    return 0;
}

static int check_expert(const struct config *config, const struct config_source *source, int index)
{
    const struct config_expert *expert = &config->experts[index];
    if (!config_find_device(config, expert->device))
        return config_source_error(source, (struct config_place){"experts", index, "device"},
                                   "there is no device called '%.100s' in the list of devices", expert->device);
    int rc = check_block(config, source, index);
    if (rc == 0)
        rc = check_waiting(config, source, index);
    if (rc < 0)
        return rc;
    if (!expert->backward && strcmp(expert->optimizer, "none") != 0)
        return config_source_error(source, (struct config_place){"experts", index, "backward"},
                                   "false needs optimizer: none: an expert learns from backwards");
    const bool scheduled = strcmp(expert->schedule, "none") != 0;
    if (scheduled && expert->total_steps <= expert->warmup_steps)
        return config_source_error(source, (struct config_place){"experts", index, "total_steps"},
                                   "%" PRIu64 " must be above warmup_steps, which is %" PRIu64 ", with a %s schedule",
                                   expert->total_steps, expert->warmup_steps, expert->schedule);
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
        rc = check_http(config, source);
    if (rc == 0)
        rc = check_security(config, source);
    if (rc == 0)
        rc = check_devices(config, source);
    for (unsigned i = 0; rc == 0 && i < config->experts_count; i++)
        rc = check_expert(config, source, (int)i);
    if (rc == 0)
        rc = config_idle_check(config, source);
    if (rc == 0)
        rc = config_blocks_check(config, source);
    return rc < 0 ? rc : config_experts_check(config, source);
}

int config_check_needs(const struct config *config, const struct config_source *source, unsigned needs)
{
    const bool publishes = needs & CONFIG_PUBLISHES && strcmp(config->dht.frontend, "none") != 0;
    const char *advertise = config->frontend.advertise;
    const bool written = strcmp(advertise, config->frontend.listen.items[0]) != 0;
    if (publishes && strncmp(advertise, "tcp://", strlen("tcp://")) != 0)
        return config_source_error(source, (struct config_place){"frontend", -1, written ? "advertise" : "listen"},
                                   "'%.100s' cannot be published: clients of other machines need tcp://host:port (set "
                                   "frontend.advertise; or dht.frontend to none, to publish nothing)",
                                   advertise);
    const struct {
        bool needed;
        const char *section, *option, *endpoint;
    } all[] = {
        {publishes, "frontend", written ? "advertise" : "listen", advertise},
        {publishes, "dht", "frontend", config->dht.frontend},
        {needs & CONFIG_ASKS_FRONTEND, "http", "frontend", config->http.frontend},
        {needs & CONFIG_ASKS_DHT && strcmp(config->http.dht, "none") != 0, "http", "dht", config->http.dht},
    };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof all / sizeof all[0]; i++)
        if (all[i].needed)
            rc = check_endpoint(source, (struct config_place){all[i].section, -1, all[i].option}, all[i].endpoint,
                                false);
    return rc;
}
