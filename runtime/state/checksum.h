/* A checksum of a stream of bytes that comes in pieces: tells a damaged file from a good one, at the speed of memory;
 * no protection against a forger. 64-bit FNV-1a over little-endian words of 8 bytes (the last one filled up with
 * zeros), then over the length in bytes. */
#ifndef EXPERTD_RUNTIME_CHECKSUM_H
#define EXPERTD_RUNTIME_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct checksum {
    uint64_t state;
    uint64_t length;
    uint64_t carry; /* the length % 8 newest bytes, in the low ones */
};

static inline struct checksum checksum_start(void)
{
    return (struct checksum){.state = UINT64_C(0xcbf29ce484222325)};
}

static inline void checksum_word(struct checksum *checksum, uint64_t word)
{
    checksum->state = (checksum->state ^ word) * UINT64_C(0x100000001b3);
    /* FNV's product carries only upwards, and of a whole word the high bytes must count too. */
    checksum->state ^= checksum->state >> 32;
}

static inline void checksum_add(struct checksum *checksum, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    unsigned held = (unsigned)(checksum->length % 8);
    checksum->length += length;
    for (; held != 0 && length > 0; at++, length--) {
        checksum->carry |= (uint64_t)*at << (8 * held);
        held = (held + 1) % 8;
        if (held == 0) {
            checksum_word(checksum, checksum->carry);
            checksum->carry = 0;
        }
    }
    for (; length >= 8; at += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        checksum_word(checksum, word);
    }
    for (; length > 0; at++, length--, held++)
        checksum->carry |= (uint64_t)*at << (8 * held);
}

static inline uint64_t checksum_end(struct checksum checksum)
{
    if (checksum.length % 8)
        checksum_word(&checksum, checksum.carry);
    checksum_word(&checksum, checksum.length);
    return checksum.state;
}

#endif
