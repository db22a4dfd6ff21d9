/* The lookout: who came, died, hangs or left, as far as that is not told; and whether the names under which this
 * process is found still lead to it. */
#ifndef EXPERTD_FRONTEND_LOOKOUT_H
#define EXPERTD_FRONTEND_LOOKOUT_H

#include "frontend/server.h"

/* Looks at every device, acts on what changed, and sets the time of the next look. -EBUSY: another process has this
 * one's role; else 0. */
int lookout_look(struct server *server, uint64_t now_ns);
/* The same for the devices alone, unless that was done just now: before an answer that tells who is alive. */
void lookout_refresh(struct server *server, uint64_t now_ns);
/* Looks at one device. */
void lookout_device(struct server *server, struct device_link *device, uint64_t now_ns);

#endif
