/* The configuration: one YAML file serves all programs, flags override it. See common/config_options.h for the options.
 *
 *     server: {name: box1}
 *     frontend: {listen: [tcp://0.0.0.0:31330], advertise: tcp://10.0.0.7:31330}
 *     devices:
 *       - {name: cpu0}
 *     experts:
 *       - {uid: "ffn.[0:4].[0:16]", block: ffn, hidden_dim: 1024}
 *
 * An unknown key, a wrong type and a value out of range are errors that name file, line and option. */
#ifndef EXPERTD_COMMON_CONFIG_H
#define EXPERTD_COMMON_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/block.h"
#include "common/config_options.h"

enum { CONFIG_FRONTENDS_MAX = 64 };

struct config_strings {
    const char **items;
    unsigned count;
};

#define CONFIG_TYPE_STRING const char *
#define CONFIG_TYPE_PATH const char *
#define CONFIG_TYPE_BLOCK const char *
#define CONFIG_TYPE_ENDPOINT const char *
#define CONFIG_TYPE_CHOICE const char *
#define CONFIG_TYPE_UINT uint64_t
#define CONFIG_TYPE_FLOAT double
#define CONFIG_TYPE_BOOL bool
#define CONFIG_TYPE_STRINGS struct config_strings
#define CONFIG_TYPE_TREE bool /* unused: what stands there is in `declared`, `values` */
#define CONFIG_FIELD(kind, name, ...) CONFIG_TYPE_##kind name;

struct config_server {
    CONFIG_SERVER_OPTIONS(CONFIG_FIELD)
};
struct config_frontend {
    CONFIG_FRONTEND_OPTIONS(CONFIG_FIELD)
};
struct config_frontend_entry {
    CONFIG_FRONTEND_ENTRY_OPTIONS(CONFIG_FIELD)
};
struct config_dht {
    CONFIG_DHT_OPTIONS(CONFIG_FIELD)
};
struct config_http {
    CONFIG_HTTP_OPTIONS(CONFIG_FIELD)
};
struct config_metrics {
    CONFIG_METRICS_OPTIONS(CONFIG_FIELD)
};
struct config_checkpoint {
    CONFIG_CHECKPOINT_OPTIONS(CONFIG_FIELD)
};
struct config_device {
    CONFIG_DEVICE_OPTIONS(CONFIG_FIELD)
};
struct config_expert {
    CONFIG_EXPERT_OPTIONS(CONFIG_FIELD)
    /* What `arguments` says, for those of the block (common/block.h). */
    struct {
        const struct block_option *items;
        unsigned count;
    } values;
    /* What `tensors` says: where in a model's files a parameter is (common/tensor_part.h). */
    struct {
        const struct config_template {
            const char *parameter, *template; /* NULL: none */
            unsigned line;
        } * items;
        unsigned count;
    } templates;
    const struct block *declared; /* the block, own or built in; NULL: a shared object */
};

struct config_block {
    CONFIG_BLOCK_OPTIONS(CONFIG_FIELD)
};

/* Complete: every default is filled in (run_dir, listen, devices, expert.device too), every range is checked, names
 * that refer to devices exist, patterns parse. No devices in the file: one called "device0". */
struct config {
    struct config_server server;
    struct config_frontend frontend;
    struct config_dht dht;
    struct config_checkpoint checkpoint;
    struct config_http http;
    struct config_metrics metrics;
    struct config_frontend_entry *frontends; /* none: `frontend` is the one there is (else see common/config_cut.h) */
    unsigned frontends_count;
    struct config_device *devices;
    unsigned devices_count;
    struct config_expert *experts;
    unsigned experts_count;
    struct config_block *blocks;
    unsigned blocks_count;
    struct block *declared; /* `blocks`, read */
    unsigned declared_count;
    const struct config_node *tree; /* the file's, if it has parts that no option describes; NULL */
    struct config_memory *memory;   /* owns every string and list */
};

/* A flag that one program has beside the options, such as the runtime's --list-devices. */
struct config_flag {
    const char *name;     /* "device" is --device VALUE */
    const char *argument; /* name of its value in the help, NULL: it has none */
    const char *description;
    const char **value; /* set to the argument, or to "" for a flag without one; unchanged if it is not given */
};

/* What a program does with endpoints, which then have to be complete; and whether the files have to be there.
 * CONFIG_STARTS_HTTP: with http.start it is as one that asks the frontend and the directory. */
enum config_needs {
    CONFIG_PUBLISHES = 1,
    CONFIG_ASKS_FRONTEND = 2,
    CONFIG_ASKS_DHT = 4,
    CONFIG_HAS_FILES = 8,
    CONFIG_STARTS_HTTP = 16,
};

struct config_program {
    const char *name;    /* "expertd-runtime" */
    const char *purpose; /* one sentence for --help */
    /* Sections whose options this program uses, for the order of its help text: "server", "frontend", ... ; NULL ends.
     */
    const char *const *sections;
    const struct config_flag *flags; /* name NULL ends */
    unsigned needs;                  /* of enum config_needs, together */
    const char **publishes_not;      /* a flag's value: where it is given, CONFIG_PUBLISHES does not count; or NULL */
    bool reads_no_file;              /* it makes one: --config is none of its flags */
};

/* Reads --config FILE and the flags. --help, --version and --print-config (a commented sample of all options) print and
 * exit(0). 0; or -EINVAL after the error, with the way out, was printed to stderr. Free with config_destroy. */
int config_load(struct config *config, const struct config_program *program, int argc, char **argv);
/* The same with a text in the place of --config's file. */
int config_load_text(struct config *config, const struct config_program *program, int argc, char **argv,
                     const char *text, const char *origin);
/* The same from text in memory (origin names it in errors): for tests and the fuzzer. */
int config_parse(struct config *config, const char *text, size_t length, const char *origin);
void config_destroy(struct config *config);
/* The same of one that was malloc'd, which goes too; NULL is none. */
void config_free(struct config **config);
void config_print_sample(FILE *out);
/* The configuration as a file that gives the same one: every value, in quotes where it is a text. */
void config_print(FILE *out, const struct config *config);
/* Of the sections that are no lists, the options whose value is another than in `base`. */
void config_print_changed(FILE *out, const struct config *config, const struct config *base);
/* A text in YAML's double quotes. */
void config_print_text(FILE *out, const char *text);
/* Where a process of this box reaches the frontend: the first of frontend.listen, of a wildcard loopback. NULL when out
 * of memory; the configuration owns it. */
const char *config_frontend_endpoint(struct config *config);

/* The same of an endpoint that is bound. */
const char *config_local_endpoint(struct config *config, const char *listen);

/* What metrics.experts says ("top 20", "all", "none"), as how many experts at most have metrics of their own. 0 or
 * -EINVAL. */
enum { CONFIG_METRICS_EXPERTS_MAX = 4096 };
int config_metrics_experts(const char *text, uint32_t *count);

/* The device's entry by name, NULL if there is none ("" is the first). */
const struct config_device *config_find_device(const struct config *config, const char *name);
/* Whether its precision keeps matrices of weights in a few bits, in which nothing trains. */
bool config_device_quantizes(const struct config_device *device);
/* Whether a device can have an expert that another one had: neither trains an expert where weights are in a few bits,
 * nor has a file's weights where they must be in fp8 or mxfp4, and need not have been. */
bool config_device_takes(const struct config_device *device, const struct config_device *before,
                         const struct config_expert *expert);

/* The uids that the entry names (all of the pattern, or its draw: the same configuration gives the same uids).
 * A malloc'd array of *count pointers in one block with their strings: free() it. 0 or -errno; -EEXIST and a logged
 * message when a uid stands twice in the configuration is config_load's check, not this one's. */
int config_expert_uids(const struct config_expert *expert, char ***uids, uint64_t *count);
/* How many uids the entries of a device name, all together; device NULL: those of all devices. */
uint64_t config_experts_on(const struct config *config, const char *device);

#endif
