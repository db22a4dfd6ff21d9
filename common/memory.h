/* How much memory there is for this process, and how much it has. */
#ifndef EXPERTD_COMMON_MEMORY_H
#define EXPERTD_COMMON_MEMORY_H

#include <stdint.h>

/* Bytes that this process's control groups (v1 or v2: containers, systemd's MemoryMax) allow, or else the machine has.
 * `root` is "" but in tests. Never 0. */
uint64_t memory_limit(const char *root);
/* Resident bytes of its own, without what it shares with others (segments, files). 0: not known. */
uint64_t memory_own(void);

#endif
