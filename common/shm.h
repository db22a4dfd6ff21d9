/* POSIX shared memory. Every segment of a server is called "/expertd.<server>.<rest>", mode 0600.
 * Sizes are multiples of the page; pages cost nothing until they are committed. */
#ifndef EXPERTD_COMMON_SHM_H
#define EXPERTD_COMMON_SHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHM_NAME_SIZE = 256 };

/* Formats "/expertd.<server>.<format...>" into name; -ENAMETOOLONG, -EINVAL for a '/' in it. */
int shm_name(char name[SHM_NAME_SIZE], const char *server, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Creates a segment of `size` bytes (fails with -EEXIST if there is one), commits the first `committed` bytes and maps
 * the whole of it. -ENOSPC when /dev/shm is full (never SIGBUS later, within what was committed). */
int shm_create_segment(const char *name, size_t size, size_t committed, void **mapping);
/* Maps an existing segment whole: *size is what fstat said, at least `least` bytes or -EPROTO. Refuses (-EPERM) one
 * that another user owns or may open, and what is no regular file. -ENOENT if there is none. */
int shm_attach_segment(const char *name, size_t least, void **mapping, size_t *size);
/* Commits and populates [offset, offset + length) of a mapped segment: -ENOSPC if /dev/shm is full, and then nothing
 * that was committed before is lost. Opens the segment by name, so that no descriptor is held for thousands of pools.
 */
int shm_commit(const char *name, void *mapping, size_t offset, size_t length);
/* Populates this process's page tables for a range that is committed already; no error is possible, only slowness. */
void shm_populate(void *mapping, size_t offset, size_t length);
void shm_detach(void *mapping, size_t size);
int shm_remove(const char *name); /* 0, or -errno; -ENOENT too. An empty folder of that name is removed as well. */
/* Whether the name leads to a segment of `size` bytes; of which, if `content` is not NULL, the first bytes are these.
 */
bool shm_named(const char *name, size_t size, const void *content, size_t content_bytes);
/* A segment has one holder at a time, until it closes the descriptor or ends, whatever becomes of the name. The
 * descriptor, or -errno: -EBUSY, another has it; -ENOENT, -EPERM as of shm_attach_segment(). */
int shm_hold(const char *name);
/* Whether the segment that the name leads to now has a holder other than that of hold_fd (-1: of none). */
bool shm_held(const char *name, int hold_fd);
/* When a segment, of anybody, was last made or removed: a number that changes with it. 0: not known. */
uint64_t shm_changes(void);
/* Where a person finds it; text of at least SHM_NAME_SIZE + 16 bytes. Returns text. */
const char *shm_path(const char *name, char *text);
/* Calls visit for each segment whose name begins with "/expertd.<server>.<prefix>"; stops at a non-zero result, which
 * it returns. The name may be removed in the visit. Linux only: it reads /dev/shm. */
int shm_each(const char *server, const char *prefix, int (*visit)(const char *name, void *context), void *context);

static inline size_t shm_round_up(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

#endif
