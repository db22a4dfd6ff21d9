/* That a device is lost, as its runtime leaves word of it for the frontend: a file in the run folder,
 * <run_dir>/<server>.<device>.lost. It says so of one that failed, and of one that could not be found at a start; a
 * runtime that has its device takes the word back. A runtime that was killed leaves none: it comes again. */
#ifndef EXPERTD_COMMON_DEVICE_LOSS_H
#define EXPERTD_COMMON_DEVICE_LOSS_H

#include <stdbool.h>

/* Of the device's runtime, while it has its role. What cannot be written is logged. */
void device_loss_note(const char *run_dir, const char *server, const char *device);
void device_loss_forget(const char *run_dir, const char *server, const char *device);
/* Of anybody: whether the last word was that it is lost. One system call. */
bool device_loss_noted(const char *run_dir, const char *server, const char *device);

#endif
