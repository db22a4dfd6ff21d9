/* Prefixes: what stands before a coordinate, with its dot. `ffn.4.17` has the prefixes `ffn.` and `ffn.4.`.
 * All functions are pure. */
#ifndef EXPERTD_DHT_PREFIX_H
#define EXPERTD_DHT_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

#include "common/uid.h"

/* Whether a uid can begin with it. */
bool prefix_valid(const char *prefix);
/* Splits a valid uid at its last coordinate. False for an invalid one. */
bool prefix_of_uid(const char *uid, char prefix[UID_SIZE], uint32_t *coordinate);
/* `ffn.4.` -> `ffn.` and 4. False if there is none before it. The two may be the same memory. */
bool prefix_parent(const char *prefix, char parent[UID_SIZE], uint32_t *coordinate);
/* `ffn.` and 4 -> `ffn.4.` with its dot, or the uid `ffn.4` without. False if it would be too long. */
bool prefix_child(const char *prefix, uint32_t coordinate, bool dot, char child[UID_SIZE]);

#endif
