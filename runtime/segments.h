/* A runtime's segments in shared memory: the control segment and its experts' pools, all of one generation. The
 * runtime's thread only. */
#ifndef EXPERTD_RUNTIME_SEGMENTS_H
#define EXPERTD_RUNTIME_SEGMENTS_H

#include <stdint.h>

#include "runtime/serve/backend.h"

struct runtime;

/* Where the pools are. */
struct backend_place segments_place(const struct runtime *runtime);
/* Adopts those of a runtime that died, where they fit: experts then move to the slots that they have there. Else makes
 * new ones. 0 or -errno, logged. */
int segments_open(struct runtime *runtime);
/* The next generation. 0 or -errno, logged. */
int segments_create(struct runtime *runtime);
/* Lets go of them, so that what waits there is answered; what another process has by now stays as it is. */
void segments_close(struct runtime *runtime);

/* Why they have to be made anew, NULL: they need not. Pools' names are looked at some at a time. */
const char *segments_fault(struct runtime *runtime, uint64_t now_ns);

#endif
