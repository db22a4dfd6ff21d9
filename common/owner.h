/* One live owner per role. A role is a string such as "frontend" or "runtime.gpu0" in one server; the owner holds an
 * open-file-description lock on <run_dir>/<server>.<role>.lock for life, so that the kernel ends the claim with the
 * process, however it died. */
#ifndef EXPERTD_COMMON_OWNER_H
#define EXPERTD_COMMON_OWNER_H

#include <stdbool.h>
#include <stddef.h>

/* Makes run_dir (mode 0700) if it is missing; refuses one that another user owns or may write to. 0 or -errno; logs
 * why. */
int owner_prepare_run_dir(const char *run_dir);
/* Takes the role. The descriptor (>= 0) to keep open for life; -EBUSY if a live process has it: then a message
 * that names its pid was logged. */
int owner_acquire(const char *run_dir, const char *server, const char *role);
/* Whether a live process has the role. Never takes it, so it cannot get in a starting owner's way. */
bool owner_alive(const char *run_dir, const char *server, const char *role);
/* For an asker in a hot place: keep the lock file open. A descriptor, or -errno (-ENOENT: nobody ever had the role). */
int owner_watch(const char *run_dir, const char *server, const char *role);
bool owner_watch_alive(int watch_fd);
/* The pid that the newest owner wrote there, as its own namespace numbers it; 0: none. */
long owner_watch_pid(int watch_fd);

#endif
