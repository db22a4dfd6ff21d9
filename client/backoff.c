#include "client/backoff.h"

#include "common/clock.h"

enum { LONGEST_MS = 1000, DOUBLINGS = 10 };

/* splitmix64 */
static uint64_t draw(uint64_t *random)
{
    uint64_t z = *random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t backoff_ns(uint32_t hint_ms, uint32_t refusals, uint64_t *random)
{
    uint64_t ms = (uint64_t)hint_ms << (refusals < DOUBLINGS ? refusals : DOUBLINGS);
    const uint64_t longest = hint_ms > LONGEST_MS ? hint_ms : LONGEST_MS;
    if (ms > longest)
        ms = longest;
    const uint64_t least_ns = ms * NS_PER_MS;
    return least_ns + (least_ns ? draw(random) % least_ns : 0);
}
