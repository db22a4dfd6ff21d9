/* Any text as a configuration: it is refused with a message, or gives one that is complete. */
#include <stdint.h>
#include <stdlib.h>

#include "common/config.h"
#include "common/config_cut.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config;
    if (config_parse(&config, (const char *)data, size, "fuzz") == 0) {
        if (config.devices_count == 0 || config.frontend.listen.count == 0 || !config.server.run_dir[0])
            abort();
        for (unsigned i = 0; i < config.experts_count; i++)
            if (!config_find_device(&config, config.experts[i].device))
                abort();
        for (unsigned i = 0; i < config.frontends_count; i++) {
            struct config part;
            if (config_cut(&part, &config, i) != 0 || part.devices_count == 0 || part.frontends_count != 0)
                abort(); /* what is good as a whole is good in parts */
            config_destroy(&part);
        }
    }
    config_destroy(&config);
    return 0;
}
