/* A device's runtime, whole: set up, serve, stop. main() calls these three in turn. */
#ifndef EXPERTD_RUNTIME_RUNTIME_H
#define EXPERTD_RUNTIME_RUNTIME_H

#include "common/config.h"

struct runtime;

/* Opens the device, creates the experts with their newest checkpoints, warms every kernel, adopts the segments of a
 * runtime that died or makes new ones, and lets the frontend in. The owner of the role "runtime.<device>" for life.
 * config and device (one of its entries) are kept. 0 or -errno, logged; -EINTR: a stop signal came meanwhile. */
int runtime_create(struct runtime **runtime, const struct config *config, const struct config_device *device);
/* Serves until a stop signal: 0; -ENODEV: the device is lost. Another -errno, logged: it cannot go on, since another
 * process has its role, and its control segment's name too, after both were removed, or its segments cannot be made
 * anew. */
int runtime_serve(struct runtime *runtime);
/* After serving: finishes what runs, withdraws the segments (so that the frontend answers what is queued with
 * UNAVAILABLE), and saves what changed. 0; -ENODEV; -EIO: not all of it could be saved, and what was lost is logged. */
int runtime_stop(struct runtime *runtime);
/* When the device is lost: logs which experts had learned something since their newest checkpoint. */
void runtime_report_lost(const struct runtime *runtime);
/* Without runtime_stop the segments stay, for the next runtime to adopt. Nulls. */
void runtime_destroy(struct runtime **runtime);

#endif
