#include "client/credit.h"

#include "common/memory.h"

/* Of an empty frame's two bytes ZeroMQ makes 64. A ping and an answer have some 90 bytes with keys. */
enum { BYTES_OF_A_BYTE = 32, PING_BYTES = 128 };

static const uint64_t default_least = (uint64_t)64 << 20, default_most = (uint64_t)2 << 30,
                      header_most = (uint64_t)1 << 20;

uint64_t credit_default(uint64_t memory_bytes, uint64_t frame_bytes)
{
    const uint64_t share = memory_bytes / 4;
    const uint64_t bytes = share < default_least ? default_least : share < default_most ? share : default_most;
    const uint64_t header_bytes = frame_bytes > UINT64_MAX - header_most ? 0 : header_most;
    const uint64_t named_bytes = frame_bytes > 0 ? frame_bytes + header_bytes : 0;
    return named_bytes > bytes ? named_bytes : bytes;
}

void credit_begin(struct credit *credit, uint64_t now_ns)
{
    *credit = (struct credit){.most_bytes = credit->most_bytes, .ping_ns = credit->ping_ns, .pinged_ns = now_ns};
}

void credit_taken(struct credit *credit)
{
    credit->taken = true;
    credit->pings_bytes = 0;
    credit->asked = false;
}

bool credit_in_doubt(const struct credit *credit)
{
    return !credit->asked && credit->pings_bytes > credit->most_bytes / BYTES_OF_A_BYTE;
}

void credit_asked(struct credit *credit)
{
    credit->asked |= credit_in_doubt(credit);
}

/* Else those of weeks without a message would be one. */
static void count_pings(struct credit *credit, uint64_t received_bytes, uint64_t now_ns)
{
    const uint64_t pings = credit->ping_ns > 0 ? (now_ns - credit->pinged_ns) / credit->ping_ns : 0;
    const uint64_t most_bytes = received_bytes - credit->whole_bytes;
    const uint64_t bytes = pings * PING_BYTES < most_bytes ? pings * PING_BYTES : most_bytes;
    credit->pinged_ns += pings * credit->ping_ns;
    if (credit->asked)
        return;
    credit->whole_bytes += bytes;
    credit->pings_bytes += bytes;
}

/* What came between a message's end and this look is not counted: as much as a look's interval brings. How many frames
 * the bytes are is not seen from here, so that beside them the growth of the process's memory counts, as far as they
 * can have made it: a program has other uses of memory, too. */
bool credit_used_up(struct credit *credit, uint64_t received_bytes, uint64_t now_ns)
{
    if (credit->taken || received_bytes < credit->whole_bytes) {
        credit->taken = false;
        credit->whole_bytes = received_bytes;
    }
    count_pings(credit, received_bytes, now_ns);
    const uint64_t begun_bytes = received_bytes - credit->whole_bytes;
    if (begun_bytes <= credit->most_bytes / BYTES_OF_A_BYTE) {
        credit->own_bytes = 0;
        return false;
    }
    const uint64_t own_bytes = memory_own();
    if (credit->own_bytes == 0) {
        credit->own_bytes = own_bytes;
        credit->large_bytes = begun_bytes;
    }
    const uint64_t grown_bytes = own_bytes > credit->own_bytes ? own_bytes - credit->own_bytes : 0;
    return begun_bytes > credit->most_bytes ||
           (grown_bytes > credit->most_bytes && begun_bytes > credit->large_bytes &&
            begun_bytes - credit->large_bytes > credit->most_bytes / BYTES_OF_A_BYTE);
}
