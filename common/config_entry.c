/* One entry of the list of experts: that its block is there, and that its options fit each other and its device. */
#include <inttypes.h>
#include <string.h>

#include "common/config_blocks.h"
#include "common/config_check.h"
#include "common/config_value.h"
#include "common/suggest.h"

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

int config_entry_check(const struct config *config, const struct config_source *source, int index)
{
    const struct config_expert *expert = &config->experts[index];
    const struct config_device *device = config_find_device(config, expert->device);
    const bool trains = strcmp(expert->optimizer, "none") != 0;
    if (!device)
        return config_source_error(source, (struct config_place){"experts", index, "device"},
                                   "there is no device called '%.100s' in the list of devices", expert->device);
    int rc = check_block(config, source, index);
    if (rc == 0)
        rc = check_waiting(config, source, index);
    if (rc < 0)
        return rc;
    if (!expert->backward && trains)
        return config_source_error(source, (struct config_place){"experts", index, "backward"},
                                   "false needs optimizer: none: an expert learns from backwards");
    if (trains && config_device_quantizes(device) && expert->declared && expert->declared->layers_count > 0)
        return config_source_error(source, (struct config_place){"experts", index, "optimizer"},
                                   "must be none on device '%s': nothing trains in precision %s, in which it keeps "
                                   "weights",
                                   device->name, device->precision);
    const bool scheduled = strcmp(expert->schedule, "none") != 0;
    if (scheduled && expert->total_steps <= expert->warmup_steps)
        return config_source_error(source, (struct config_place){"experts", index, "total_steps"},
                                   "%" PRIu64 " must be above warmup_steps, which is %" PRIu64 ", with a %s schedule",
                                   expert->total_steps, expert->warmup_steps, expert->schedule);
    return 0;
}
