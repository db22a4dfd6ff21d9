#include "common/config_table.h"

#include <string.h>

#define DEFAULT_STRING(default, min, max) .string = default
#define DEFAULT_PATH(default, min, max) .string = default
#define DEFAULT_BLOCK(default, min, max) .string = default
#define DEFAULT_ENDPOINT(default, min, max) .string = default
#define DEFAULT_CHOICE(default, min, max) .string = default
#define DEFAULT_UINT(default, min, max) .uint = default, .uint_min = min, .uint_max = max
#define DEFAULT_FLOAT(default, min, max) .number = default, .number_min = min, .number_max = max
#define DEFAULT_BOOL(default, min, max) .boolean = default
#define DEFAULT_STRINGS(default, min, max) .string = NULL
#define DEFAULT_TREE(default, min, max) .string = NULL
#define OPTION(option_kind, option_name, default, min, max, option_unit, text)                                         \
    {.name = #option_name,                                                                                             \
     .kind = CONFIG_##option_kind,                                                                                     \
     .offset = offsetof(struct OPTION_RECORD, option_name),                                                            \
     .unit = option_unit,                                                                                              \
     .description = text,                                                                                              \
     DEFAULT_##option_kind(default, min, max)},

#define OPTION_RECORD config_server
static const struct config_option server_options[] = {CONFIG_SERVER_OPTIONS(OPTION)};
#undef OPTION_RECORD
#define OPTION_RECORD config_frontend
static const struct config_option frontend_options[] = {CONFIG_FRONTEND_OPTIONS(OPTION)};
#undef OPTION_RECORD
#define OPTION_RECORD config_frontend_entry
static const struct config_option frontend_entry_options[] = {CONFIG_FRONTEND_ENTRY_OPTIONS(OPTION)};
#undef OPTION_RECORD
#define OPTION_RECORD config_dht
static const struct config_option dht_options[] = {CONFIG_DHT_OPTIONS(OPTION)};
#undef OPTION_RECORD
#define OPTION_RECORD config_checkpoint
static const struct config_option checkpoint_options[] = {CONFIG_CHECKPOINT_OPTIONS(OPTION)};
#undef OPTION_RECORD
#define OPTION_RECORD config_http
static const struct config_option http_options[] = {CONFIG_HTTP_OPTIONS(OPTION)};
#undef OPTION_RECORD
#define OPTION_RECORD config_metrics
static const struct config_option metrics_options[] = {CONFIG_METRICS_OPTIONS(OPTION)};
#undef OPTION_RECORD
#define OPTION_RECORD config_device
static const struct config_option device_options[] = {CONFIG_DEVICE_OPTIONS(OPTION)};
#undef OPTION_RECORD
#define OPTION_RECORD config_expert
static const struct config_option expert_options[] = {CONFIG_EXPERT_OPTIONS(OPTION)};
#undef OPTION_RECORD
#define OPTION_RECORD config_block
static const struct config_option block_options[] = {CONFIG_BLOCK_OPTIONS(OPTION)};
#undef OPTION_RECORD

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
_Static_assert(COUNT(expert_options) <= CONFIG_SECTION_OPTIONS_MAX, "the YAML schema has room for every option");
_Static_assert(COUNT(frontend_options) <= CONFIG_SECTION_OPTIONS_MAX, "the YAML schema has room for every option");
_Static_assert(COUNT(dht_options) <= CONFIG_SECTION_OPTIONS_MAX, "the YAML schema has room for every option");

#define SECTION(section, text)                                                                                         \
    {                                                                                                                  \
        .name = #section, .description = text, .options = section##_options, .count = COUNT(section##_options),        \
        .record_size = sizeof(struct config_##section), .offset = offsetof(struct config, section)                     \
    }
#define LIST(section, record, text)                                                                                    \
    {                                                                                                                  \
        .name = #section, .description = text, .options = record##_options, .count = COUNT(record##_options),          \
        .record_size = sizeof(struct config_##record), .list = true, .offset = offsetof(struct config, section),       \
        .count_offset = offsetof(struct config, section##_count)                                                       \
    }

const struct config_section config_sections[CONFIG_SECTIONS] = {
    SECTION(server, "The server: what its processes have in common."),
    SECTION(frontend, "The frontend: where clients connect."),
    SECTION(dht, "The distributed hash table: how this server's experts are found."),
    SECTION(checkpoint, "Checkpoints of the experts."),
    SECTION(http, "The HTTP gateway expertd-http: metrics, health, a page, and the Open Inference Protocol."),
    SECTION(metrics, "What expertd-http's /metrics tells."),
    LIST(frontends, frontend_entry,
         "Several frontends, each a process with endpoints of its own for some of the devices (docs/operating.md). "
         "None: "
         "one for all."),
    LIST(devices, device, "The OpenCL devices; each is served by a runtime of its own. None: one called device0."),
    LIST(experts, expert, "The experts; an entry is one, or a grid of them."),
    LIST(blocks, block, "Blocks of your own, made of layers (docs/blocks.md)."),
};

const struct config_section *config_section_find(const char *name)
{
    for (unsigned i = 0; i < CONFIG_SECTIONS; i++)
        if (strcmp(config_sections[i].name, name) == 0)
            return &config_sections[i];
    return NULL;
}
