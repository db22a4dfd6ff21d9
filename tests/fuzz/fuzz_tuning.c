/* Any bytes are a table of tiles, or are refused with a message; a table is the same after it was written and read. */
#include <stdlib.h>
#include <string.h>

#include "runtime/compute/tile.h"
#include "runtime/compute/tuning.h"

static const char key[] = "0 d";

static void check_tiles(const struct tuning_size *size)
{
    for (unsigned i = 0; i < TUNING_PRODUCTS * TUNING_CLASSES; i++) {
        const int tile = size->tiles[i / TUNING_CLASSES][i % TUNING_CLASSES];
        if (tile != TUNING_NONE && (tile < 0 || tile >= TILE_COUNT))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tuning tuning, again;
    static char text[TUNING_TEXT_BYTES];
    char error[128] = "";
    const int rc = tuning_parse(&tuning, key, (const char *)data, size, error, sizeof error);
    if ((rc == 0) != (error[0] == '\0') || tuning.count > TUNING_SIZES || (rc != 0 && tuning.count != 0))
        abort();
    if (rc != 0)
        return 0;
    for (unsigned i = 0; i < tuning.count; i++)
        check_tiles(&tuning.sizes[i]);
    const size_t length = tuning_print(&tuning, key, text, sizeof text);
    if (tuning_parse(&again, key, text, length, error, sizeof error) != 0 || again.count != tuning.count ||
        memcmp(again.sizes, tuning.sizes, tuning.count * sizeof tuning.sizes[0]) != 0)
        abort();
    return 0;
}
