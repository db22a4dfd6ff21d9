#include "common/config_check.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/address.h"
#include "common/config_blocks.h"
#include "common/config_complete.h"

static const char default_directory[] = "tcp://127.0.0.1:31331";
enum { NAME_MAX_LENGTH = 32 };

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
    const char *port = address_wildcard_port(listen);
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

static int check_listen(const struct config_strings *listen, const struct config_source *source,
                        struct config_place place)
{
    for (unsigned i = 0; i < listen->count; i++) {
        const int rc = check_endpoint(source, place, listen->items[i], true);
        if (rc < 0)
            return rc;
        for (unsigned j = 0; j < i; j++)
            if (address_endpoints_overlap(listen->items[i], listen->items[j]))
                return config_source_error(source, place, "'%.100s' cannot be bound beside '%.100s'", listen->items[i],
                                           listen->items[j]);
    }
    return 0;
}

static int check_advertise(const struct config_source *source, struct config_place place, const char *advertise,
                           const char *listen)
{
    /* Clients of other boxes cannot connect to a wildcard, so it must not come to be advertised. */
    if (address_wildcard_port(advertise))
        return config_source_error(source, place,
                                   "'%.100s' is no address that a client could connect to: set it to one that this "
                                   "machine has",
                                   advertise);
    if (strcmp(advertise, listen) != 0 && strncmp(advertise, "ipc:", 4) == 0)
        return config_source_error(source, place,
                                   "'%.100s' is on this machine alone, and this is where those on others find the "
                                   "server: tcp://host:port",
                                   advertise);
    return check_reached(source, place, advertise, listen);
}

/* A UNIX socket of its own kind, which ZeroMQ's cannot share. */
static int check_local_path(const struct config *config, const struct config_strings *listen,
                            const struct config_source *source, struct config_place place, const char *path)
{
    static const char ipc[] = "ipc://";
    for (unsigned i = 0; path[0] && i <= listen->count; i++) {
        const char *endpoint = i < listen->count ? listen->items[i] : config->dht.listen;
        if (strncmp(endpoint, ipc, strlen(ipc)) == 0 && strcmp(endpoint + strlen(ipc), path) == 0)
            return config_source_error(source, place, "'%.100s' is the path of '%.100s' already", path, endpoint);
    }
    return 0;
}

static int check_frontend(const struct config *config, const struct config_source *source)
{
    const struct config_frontend *frontend = &config->frontend;
    int rc = check_listen(&frontend->listen, source, (struct config_place){"frontend", -1, "listen"});
    if (rc == 0)
        rc = check_local_path(config, &frontend->listen, source, (struct config_place){"frontend", -1, "local_path"},
                              frontend->local_path);
    if (rc < 0)
        return rc;
    const bool group = strncmp(frontend->local, "group ", 6) == 0;
    if (strcmp(frontend->local, "off") != 0 && strcmp(frontend->local, "same-user") != 0 &&
        !(group && frontend->local[6]))
        return config_source_error(source, (struct config_place){"frontend", -1, "local"},
                                   "'%.100s' is none of: off, same-user, group NAME", frontend->local);
    /* server.run_dir is its owner's alone. */
    if (group && !frontend->local_path[0] && config->frontends_count == 0)
        return config_source_error(source, (struct config_place){"frontend", -1, "local"},
                                   "with 'group', frontend.local_path has to name the socket, in a folder that the "
                                   "group may enter");
    return check_advertise(source, (struct config_place){"frontend", -1, "advertise"}, frontend->advertise,
                           frontend->listen.items[0]);
}

/* Whether a frontend's endpoint cannot be bound beside the directory's. One that nobody has named may never run. */
static bool meets_directory(const struct config *config, const char *endpoint)
{
    const char *directory = config->dht.listen;
    return strcmp(directory, default_directory) == 0 ? strcmp(directory, endpoint) == 0
                                                     : address_endpoints_overlap(directory, endpoint);
}

/* What another program of the server is to bind, the frontend cannot have. A directory of another frontend, or of none,
 * may be alone, beside one that nobody has thought of. */
static int check_beside_frontend(const struct config *config, const struct config_source *source,
                                 struct config_place place, const char *endpoint)
{
    const bool alone = strcmp(config->dht.frontend, config_default_listen) != 0 &&
                       config->frontend.listen.items[0] == config_default_listen;
    for (unsigned i = 0; !alone && i < config->frontend.listen.count; i++)
        if (endpoint == config->dht.listen ? meets_directory(config, config->frontend.listen.items[i])
                                           : address_endpoints_overlap(endpoint, config->frontend.listen.items[i]))
            return config_source_error(source, place, "'%.100s' cannot be bound beside '%.100s' of frontend.listen",
                                       endpoint, config->frontend.listen.items[i]);
    return 0;
}

/* At which other directories ask. */
static int check_directory_port(const struct config *config, const struct config_source *source)
{
    const struct config_place place = {"dht", -1, "tcp_port"};
    char endpoint[32];
    snprintf(endpoint, sizeof endpoint, "tcp://[::]:%" PRIu64, config->dht.tcp_port);
    if (config->dht.tcp_port && address_endpoints_overlap(endpoint, config->dht.listen))
        return config_source_error(source, place, "%" PRIu64 " is that of dht.listen, '%.100s'", config->dht.tcp_port,
                                   config->dht.listen);
    return config->dht.tcp_port ? check_beside_frontend(config, source, place, endpoint) : 0;
}

static bool is_hexadecimal(const char *text, size_t length)
{
    return strlen(text) == length && strspn(text, "0123456789abcdefABCDEF") == length;
}

/* Keys of servers, and what one key says of another (dht/trust.h). */
static int check_trust(const struct config_dht *dht, const struct config_source *source)
{
    enum { KEY_DIGITS = 64 };
    for (unsigned i = 0; i < dht->trusted.count; i++) {
        const char *text = dht->trusted.items[i], *blank = strrchr(text, ' ');
        if (!is_hexadecimal(blank ? blank + 1 : text, KEY_DIGITS))
            return config_source_error(source, (struct config_place){"dht", -1, "trusted"},
                                       "'%.100s' is neither a key of %d hexadecimal digits nor a prefix, as ffn., and "
                                       "a key",
                                       text, KEY_DIGITS);
    }
    return 0;
}

static int check_voucher(const struct config *config, const struct config_source *source, struct config_place place,
                         const char *voucher)
{
    enum { VOUCHER_DIGITS = 192 };
    if (!voucher[0])
        return 0;
    if (!is_hexadecimal(voucher, VOUCHER_DIGITS))
        return config_source_error(
            source, place, "is none: it has %d hexadecimal digits, and expertd-dht --vouch makes it", VOUCHER_DIGITS);
    if (!config->dht.identity_file[0])
        return config_source_error(source, place,
                                   "is for the key of dht.identity_file, and without one each start has another");
    return 0;
}

static int check_dht(const struct config *config, const struct config_source *source)
{
    const struct config_dht *dht = &config->dht;
    struct address address;
    int rc = check_endpoint(source, (struct config_place){"dht", -1, "listen"}, dht->listen, true);
    if (rc == 0)
        rc = check_beside_frontend(config, source, (struct config_place){"dht", -1, "listen"}, dht->listen);
    if (rc == 0)
        rc = check_directory_port(config, source);
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
    if (rc == 0)
        rc = check_voucher(config, source, (struct config_place){"dht", -1, "voucher"}, dht->voucher);
    if (rc < 0 || strcmp(dht->frontend, "none") == 0)
        return rc;
    if (address_wildcard_port(dht->frontend))
        return config_source_error(source, (struct config_place){"dht", -1, "frontend"},
                                   "'%.100s' is no address to connect to", dht->frontend);
    return check_reached(source, (struct config_place){"dht", -1, "frontend"}, dht->frontend,
                         config->frontend.listen.items[0]);
}

/* What others reach is closed to strangers, or a person has said that it shall not be. */
static int check_open(const struct config *config, const struct config_source *source, struct config_place place,
                      const char *endpoint)
{
    if (config->server.key_file[0] || config->server.insecure || address_endpoint_is_local(endpoint))
        return 0;
    return config_source_error(source, place,
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
    for (unsigned i = 0; rc == 0 && i < config->frontend.listen.count && config->frontends_count == 0; i++)
        rc = check_open(config, source, (struct config_place){"frontend", -1, "listen"},
                        config->frontend.listen.items[i]);
    for (unsigned f = 0; f < config->frontends_count; f++)
        for (unsigned i = 0; rc == 0 && i < config->frontends[f].listen.count; i++)
            rc = check_open(config, source, (struct config_place){"frontends", (int)f, "listen"},
                            config->frontends[f].listen.items[i]);
    return rc == 0 ? check_open(config, source, (struct config_place){"dht", -1, "listen"}, config->dht.listen) : rc;
}

/* Where nothing is said of HTTP nobody needs it, perhaps. */
static int check_http_place(const struct config *config, const struct config_source *source)
{
    static const char standard[] = "127.0.0.1:31332";
    const struct config_place place = {"http", -1, "listen"};
    char endpoint[300];
    if (!config->http.start && strcmp(config->http.listen, standard) == 0)
        return 0;
    snprintf(endpoint, sizeof endpoint, "tcp://%.280s", config->http.listen);
    if (address_endpoints_overlap(endpoint, config->dht.listen))
        return config_source_error(source, place, "'%.100s' cannot be bound beside dht.listen, '%.100s'",
                                   config->http.listen, config->dht.listen);
    return check_beside_frontend(config, source, place, endpoint);
}

static int check_metrics(const struct config *config, const struct config_source *source)
{
    uint32_t count;
    if (config_metrics_experts(config->metrics.experts, &count) == 0)
        return 0;
    return config_source_error(source, (struct config_place){"metrics", -1, "experts"},
                               "'%.100s' is none of: top N (of 1 to %d), all, none", config->metrics.experts,
                               CONFIG_METRICS_EXPERTS_MAX);
}

static int check_http(const struct config *config, const struct config_source *source)
{
    struct address address;
    if (address_parse(&address, config->http.listen) < 0 || address.port == 0)
        return config_source_error(source, (struct config_place){"http", -1, "listen"},
                                   "'%.100s' is no address with a port: write 127.0.0.1:31332, or [address]:port for "
                                   "IPv6",
                                   config->http.listen);
    const int taken = check_http_place(config, source);
    if (taken < 0)
        return taken;
    if (config->http.changes && !config->http.token_file[0])
        return config_source_error(source, (struct config_place){"http", -1, "changes"},
                                   "needs token_file: else any page in a browser on this machine could load experts");
    if (address_wildcard_port(config->http.frontend))
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
    if (config_device_quantizes(device) && (strcmp(kernel, "mma") == 0 || strcmp(kernel, "amx") == 0))
        return config_source_error(source, place, "%s does not read weights of precision %s: choose auto, cpu or gpu",
                                   kernel, device->precision);
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

/* --- several frontends ----------------------------------------------------------------------------------------------
 */

/* Under `frontend` stands what all have in common; where each is, it says itself. */
static int check_common(const struct config *config, const struct config_source *source)
{
    const struct config_frontend *common = &config->frontend;
    const struct config_frontend_entry *first = &config->frontends[0];
    bool same = common->listen.count == first->listen.count;
    for (unsigned i = 0; same && i < first->listen.count; i++)
        same = strcmp(common->listen.items[i], first->listen.items[i]) == 0;
    const char *other = !same                                              ? "listen"
                        : strcmp(common->advertise, first->advertise) != 0 ? "advertise"
                        : common->local_path[0]                            ? "local_path"
                                                                           : NULL;
    if (other)
        return config_source_error(source, (struct config_place){"frontend", -1, other},
                                   "stands in each entry of frontends, where there are some, and not here");
    if (strcmp(config->dht.frontend, "none") != 0 && !is_derived(config->dht.frontend, first->listen.items[0]))
        return config_source_error(source, (struct config_place){"dht", -1, "frontend"},
                                   "has no place beside frontends: all of them are asked (none: nothing is published)");
    if (config->dht.voucher[0])
        return config_source_error(
            source, (struct config_place){"dht", -1, "voucher"},
            "is for one key, and each of several frontends has one of its own: it stands in each "
            "entry of frontends");
    return 0;
}

/* Nobody else binds that. */
static int check_not_bound(const struct config *config, const struct config_source *source, struct config_place place,
                           const char *endpoint)
{
    if (meets_directory(config, endpoint))
        return config_source_error(source, place, "'%.100s' cannot be bound beside dht.listen, '%.100s'", endpoint,
                                   config->dht.listen);
    for (int other = 0; other < place.index; other++) {
        const struct config_strings *listen = &config->frontends[other].listen;
        for (unsigned i = 0; i < listen->count; i++)
            if (address_endpoints_overlap(listen->items[i], endpoint))
                return config_source_error(source, place, "'%.100s' cannot be bound beside '%.100s' of frontends[%d]",
                                           endpoint, listen->items[i], other);
    }
    return 0;
}

static int check_places(const struct config *config, const struct config_source *source, int index)
{
    const struct config_frontend_entry *entry = &config->frontends[index];
    const struct config_place listen = {"frontends", index, "listen"}, path = {"frontends", index, "local_path"};
    if (entry->listen.count == 0)
        return config_source_error(source, listen, "is needed: each frontend has an endpoint of its own");
    int rc = check_listen(&entry->listen, source, listen);
    if (rc == 0)
        rc = check_voucher(config, source, (struct config_place){"frontends", index, "voucher"}, entry->voucher);
    for (unsigned i = 0; rc == 0 && i < entry->listen.count; i++)
        rc = check_not_bound(config, source, listen, entry->listen.items[i]);
    if (rc == 0)
        rc = check_advertise(source, (struct config_place){"frontends", index, "advertise"}, entry->advertise,
                             entry->listen.items[0]);
    if (rc == 0) /* the others name it, and so it has to be known before it is bound */
        rc = check_endpoint(source, (struct config_place){"frontends", index, "advertise"}, entry->advertise, false);
    if (rc == 0 && strncmp(config->frontend.local, "group ", 6) == 0 && !entry->local_path[0])
        return config_source_error(source, path,
                                   "with frontend.local 'group' it has to be named, in a folder that the group may "
                                   "enter");
    if (rc == 0)
        rc = check_local_path(config, &entry->listen, source, path, entry->local_path);
    for (int other = 0; rc == 0 && entry->local_path[0] && other < index; other++)
        if (strcmp(config->frontends[other].local_path, entry->local_path) == 0)
            return config_source_error(source, path, "'%.100s' is frontends[%d].local_path already", entry->local_path,
                                       other);
    return rc;
}

static int check_frontend_name(const struct config *config, const struct config_source *source, int index)
{
    const struct config_place place = {"frontends", index, "name"};
    const char *name = config->frontends[index].name;
    const int rc = check_name(source, place, name);
    if (rc < 0)
        return rc;
    if (strlen(config->server.name) + 1 + strlen(name) > NAME_MAX_LENGTH)
        return config_source_error(source, place, "'%s-%s', which its files are called, has more than %d characters",
                                   config->server.name, name, NAME_MAX_LENGTH);
    for (int other = 0; other < index; other++)
        if (strcmp(config->frontends[other].name, name) == 0)
            return config_source_error(source, place, "'%s' is the name of frontends[%d] already", name, other);
    return 0;
}

/* owners: of each device, 1 + the number of its frontend. */
static int check_owned(const struct config *config, const struct config_source *source, int index, unsigned *owners)
{
    const struct config_place place = {"frontends", index, "devices"};
    const struct config_strings *devices = &config->frontends[index].devices;
    if (devices->count == 0)
        return config_source_error(source, place, "is needed: a frontend answers for the experts of some devices");
    for (unsigned i = 0; i < devices->count; i++) {
        const struct config_device *device =
            devices->items[i][0] ? config_find_device(config, devices->items[i]) : NULL;
        if (!device)
            return config_source_error(source, place, "there is no device called '%.100s' in the list of devices",
                                       devices->items[i]);
        unsigned *owner = &owners[device - config->devices];
        if (*owner)
            return config_source_error(source, place,
                                       "'%s' belongs to frontends[%u] already: a device has one frontend", device->name,
                                       *owner - 1);
        *owner = (unsigned)index + 1;
    }
    return 0;
}

static int check_frontends(const struct config *config, const struct config_source *source)
{
    if (config->frontends_count == 0)
        return 0;
    if (config->frontends_count > CONFIG_FRONTENDS_MAX)
        return config_source_error(source, (struct config_place){"frontends", CONFIG_FRONTENDS_MAX, NULL},
                                   "there are at most %d", CONFIG_FRONTENDS_MAX);
    unsigned *owners = calloc((size_t)config->devices_count + 1, sizeof *owners);
    if (!owners)
        return -ENOMEM;
    int rc = 0;
    for (int i = 0; rc == 0 && i < (int)config->frontends_count; i++) {
        rc = check_frontend_name(config, source, i);
        if (rc == 0)
            rc = check_places(config, source, i);
        if (rc == 0)
            rc = check_owned(config, source, i, owners);
    }
    for (unsigned d = 0; rc == 0 && d < config->devices_count; d++)
        if (!owners[d])
            rc = config_source_error(source, (struct config_place){"devices", (int)d, "name"},
                                     "'%s' is in the devices of no entry of frontends", config->devices[d].name);
    free(owners);
    return rc == 0 ? check_common(config, source) : rc;
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
        rc = check_metrics(config, source);
    if (rc == 0)
        rc = check_security(config, source);
    if (rc == 0)
        rc = check_devices(config, source);
    if (rc == 0)
        rc = check_frontends(config, source);
    for (unsigned i = 0; rc == 0 && i < config->experts_count; i++)
        rc = config_entry_check(config, source, (int)i);
    if (rc == 0)
        rc = config_idle_check(config, source);
    if (rc == 0)
        rc = config_blocks_check(config, source);
    return rc < 0 ? rc : config_experts_check(config, source);
}

/* What clients of other machines are to find. */
static int check_published(const struct config_source *source, struct config_place place, const char *advertise)
{
    if (strncmp(advertise, "tcp://", strlen("tcp://")) == 0)
        return check_endpoint(source, place, advertise, false);
    return config_source_error(source, place,
                               "'%.100s' cannot be published: clients of other machines need tcp://host:port (set "
                               "%s.advertise; or dht.frontend to none, to publish nothing)",
                               advertise, place.section);
}

int config_check_needs(const struct config *config, const struct config_source *source, unsigned needs)
{
    const bool publishes = needs & CONFIG_PUBLISHES && strcmp(config->dht.frontend, "none") != 0;
    const bool starts = needs & CONFIG_STARTS_HTTP && config->http.start;
    const char *advertise = config->frontend.advertise;
    const bool written = strcmp(advertise, config->frontend.listen.items[0]) != 0;
    const char *option = written ? "advertise" : "listen";
    int rc = 0;
    if (publishes && config->frontends_count == 0)
        rc = check_published(source, (struct config_place){"frontend", -1, option}, advertise);
    if (publishes && config->frontends_count > 1 && config->dht.port == 0 && config->dht.bootstrap.count == 0)
        rc = config_source_error(source, (struct config_place){"dht", -1, "port"},
                                 "has to be a number, as each of several frontends has an expertd-dht, and the others "
                                 "join by the first one's port (or by dht.bootstrap)");
    for (unsigned i = 0; publishes && rc == 0 && i < config->frontends_count; i++)
        rc = check_published(source, (struct config_place){"frontends", (int)i, "advertise"},
                             config->frontends[i].advertise);
    const struct {
        bool needed;
        const char *section, *option, *endpoint;
    } all[] = {
        {publishes, "dht", "frontend", config->dht.frontend},
        {needs & CONFIG_ASKS_FRONTEND || starts, "http", "frontend", config->http.frontend},
        {(needs & CONFIG_ASKS_DHT || starts) && strcmp(config->http.dht, "none") != 0, "http", "dht", config->http.dht},
    };
    for (size_t i = 0; rc == 0 && i < sizeof all / sizeof all[0]; i++)
        if (all[i].needed)
            rc = check_endpoint(source, (struct config_place){all[i].section, -1, all[i].option}, all[i].endpoint,
                                false);
    return rc == 0 && needs & CONFIG_HAS_FILES ? config_files_check(config, source) : rc;
}
