#include "client/credit.h"

#include "common/memory.h"

/* Of an empty frame's two bytes ZeroMQ makes 64. */
enum { BYTES_OF_A_BYTE = 32 };

static const uint64_t default_least = (uint64_t)64 << 20, default_most = (uint64_t)2 << 30;

uint64_t credit_default(uint64_t memory_bytes)
{
    const uint64_t share = memory_bytes / 4;
    if (share < default_least)
        return default_least;
    return share < default_most ? share : default_most;
}

void credit_begin(struct credit *credit)
{
    *credit = (struct credit){.most_bytes = credit->most_bytes};
}

void credit_taken(struct credit *credit)
{
    credit->taken = true;
}

/* What came between a message's end and this look is not counted: as much as a look's interval brings. How many frames
 * the bytes are is not seen from here, so that beside them the process's memory counts, where they can have made so
 * much of it. */
bool credit_used_up(struct credit *credit, uint64_t received_bytes)
{
    if (credit->taken || received_bytes < credit->whole_bytes) {
        credit->taken = false;
        credit->whole_bytes = received_bytes;
    }
    const uint64_t begun_bytes = received_bytes - credit->whole_bytes;
    if (begun_bytes <= credit->most_bytes / BYTES_OF_A_BYTE) {
        credit->own_bytes = 0;
        return false;
    }
    const uint64_t own_bytes = memory_own();
    if (credit->own_bytes == 0)
        credit->own_bytes = own_bytes;
    return begun_bytes > credit->most_bytes ||
           (own_bytes > credit->own_bytes && own_bytes - credit->own_bytes > credit->most_bytes);
}
