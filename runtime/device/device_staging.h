/* What runtime/device/device_rows.c does on a device that does not see the slabs; see "A batch is enqueued between ..."
 * in runtime/device/device_private.h. Between device_staging_begin and device_mark, but for the last two. */
#ifndef EXPERTD_RUNTIME_DEVICE_STAGING_H
#define EXPERTD_RUNTIME_DEVICE_STAGING_H

#include "runtime/device/device_private.h"

int device_staging_take(struct device *device, unsigned slot, size_t bytes, struct device_rows *rows);
int device_staging_upload(struct device *device, const char *from, size_t bytes, const struct device_rows *rows);
int device_staging_download(struct device *device, const struct device_rows *rows, char *to, size_t bytes);
int device_staging_fetch(struct device *device, cl_mem buffer, size_t offset_bytes, char *to, size_t bytes);
int device_staging_mark(struct device *device, cl_event *done);
/* The slot of the batch with that event; NULL if there is none. */
struct device_staging *device_staging_find(struct device *device, cl_event done);
int device_staging_wait(struct device *device, struct device_staging *staging);

#endif
