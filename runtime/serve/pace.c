#include "runtime/serve/pace.h"

enum { MOST_SKIPS = 256 };

void pace_completed(struct pace *pace, uint32_t rows, uint32_t queued_rows, uint64_t took_ns, uint64_t now_ns)
{
    uint64_t wait_ns = took_ns / 2;
    pace->until_ns = 0;
    if (wait_ns < PACE_LEAST_NS || rows >= PACE_FULL_ROWS || queued_rows >= PACE_FULL_ROWS)
        return;
    pace->rows = rows + queued_rows < PACE_FULL_ROWS ? rows + queued_rows : PACE_FULL_ROWS;
    if (pace->rows <= 1)
        return;
    if (pace->skips > 0) {
        pace->skips--;
        return;
    }
    if (wait_ns > PACE_LONGEST_NS)
        wait_ns = PACE_LONGEST_NS;
    pace->until_ns = now_ns + wait_ns;
}

bool pace_took(struct pace *pace, uint32_t rows)
{
    if (pace->until_ns == 0)
        return false;
    pace->until_ns = 0;
    /* Some may always be missing: a client has ended, a call was lost. */
    if (rows >= pace->rows - pace->rows / 4) {
        pace->next_skips = 0;
        return true;
    }
    pace->next_skips = pace->next_skips == 0 ? 1 : 2 * pace->next_skips;
    if (pace->next_skips > MOST_SKIPS)
        pace->next_skips = MOST_SKIPS;
    pace->skips = pace->next_skips;
    return true;
}
