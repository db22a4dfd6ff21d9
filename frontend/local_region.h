/* A client's memory, mapped: a file without name (memfd) that it passed and that cannot shrink. The client may write
 * there at any moment, so whatever is read is read once, and nothing that is written is read back. Where a page cannot
 * be had all the same (the host has no memory left for it), the frontend does not end: the region becomes memory of its
 * own, filled with zeros, and is `lost`. One thread maps and unmaps; others may touch a region meanwhile that stays
 * mapped until they have ended (the copier's, for whom it waits). */
#ifndef EXPERTD_FRONTEND_LOCAL_REGION_H
#define EXPERTD_FRONTEND_LOCAL_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct local_region {
    unsigned char *base;
    uint64_t bytes;
    volatile bool lost; /* set by a signal handler, in a thread that touched it */
    struct local_region *next;
};

/* Maps `bytes` of fd, which stays the caller's. -EPERM: it may shrink; -EINVAL: no such file, or smaller than that;
 * -errno of mmap. `why` is a sentence then. The region must stay where it is until it is unmapped. */
int local_region_map(struct local_region *region, int fd, uint64_t bytes, const char **why);
void local_region_unmap(struct local_region *region); /* fine if it is not mapped */

#endif
