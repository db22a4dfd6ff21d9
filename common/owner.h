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
/* Prepares run_dir, and takes the role. The descriptor (>= 0) to keep open for life; -EBUSY if a live process has it;
 * another -errno. Logs why, and whose it is. */
int owner_acquire(const char *run_dir, const char *server, const char *role);
/* To be called now and then: whether the lock file's name still leads to the file that is locked. If not (the run
 * folder was emptied or removed), a second owner could come in, so the role is taken once more under that name. 0: it
 * does, or does again, which is logged. -EBUSY: another process has the role now: this one is to end, unless what it
 * holds besides keeps the other out. Another -errno: it cannot be made anew as yet: *owner_fd stays, and nobody else
 * could have it. Both are logged once, and then once in a minute. */
int owner_keep(int *owner_fd, const char *run_dir, const char *server, const char *role);
/* Whether a live process has the role. Never takes it, so it cannot get in a starting owner's way. */
bool owner_alive(const char *run_dir, const char *server, const char *role);
/* For an asker in a hot place: keep the lock file open. A descriptor, or -errno (-ENOENT: nobody ever had the role). */
int owner_watch(const char *run_dir, const char *server, const char *role);
bool owner_watch_alive(int watch_fd);
/* A watch of before, when the name may lead to another file by now: that one is watched from then on, once it has an
 * owner, or the old one has none. *watch_fd may be -1. */
void owner_watch_keep(int *watch_fd, const char *run_dir, const char *server, const char *role);
/* The pid that the newest owner wrote there, as its own namespace numbers it; 0: none. */
long owner_watch_pid(int watch_fd);

#endif
