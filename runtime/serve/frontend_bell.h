/* The doorbell of the frontend that a device's tasks come from, as its runtime rings it (common/doorbell.h). One
 * thread.
 */
#ifndef EXPERTD_RUNTIME_FRONTEND_BELL_H
#define EXPERTD_RUNTIME_FRONTEND_BELL_H

#include <stdint.h>

#include "pools/control_shared.h"

struct frontend_bell {
    const char *run_dir, *server; /* where it is */
    struct control_shared *page;  /* with the frontend's epoch, and whether it sleeps */
    int fd;                       /* -1: it is not open */
    uint64_t epoch;               /* of the frontend for which it was opened */
    uint64_t retry_ns;            /* when to try again to open it */
};

/* Opens nothing yet. All that is given must outlive it. */
void frontend_bell_init(struct frontend_bell *bell, const char *run_dir, const char *server,
                        struct control_shared *page);
void frontend_bell_close(struct frontend_bell *bell);
/* Wakes the frontend if it sleeps. */
void frontend_bell_ring(struct frontend_bell *bell);
/* Whatever it says of itself. */
void frontend_bell_ring_always(struct frontend_bell *bell);

#endif
