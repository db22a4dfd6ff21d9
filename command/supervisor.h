/* Keeps a group of programs running: starts them, starts again what ends, after longer and longer pauses, and ends all
 * of them on a stop signal (common/process.h, which must have been set up). One thread; nothing else in the process
 * waits for children. */
#ifndef EXPERTD_COMMAND_SUPERVISOR_H
#define EXPERTD_COMMAND_SUPERVISOR_H

#include <stdbool.h>
#include <stdint.h>

struct supervisor;

struct supervisor_limits {
    uint64_t first_pause_ns, longest_pause_ns; /* before the next start: doubled each time, */
    uint64_t well_ns;                          /* and from the first again after so long a life */
};
extern const struct supervisor_limits supervisor_default_limits;

/* 0 or -errno. */
int supervisor_create(struct supervisor **supervisor, const struct supervisor_limits *limits);
/* A program to keep running, found at argv[0]; `name` is for the log. Both are copied. 0 or -ENOMEM. */
int supervisor_add(struct supervisor *supervisor, const char *name, const char *const *argv);
/* Runs them until a stop signal, and returns when all have ended: 0, or the first exit status that was not (128 + the
 * signal that killed it). It also ends all, with that status, when one that is started for the first time cannot start
 * before it has lived for well_ns: exit status 1, 2 (it refuses its configuration or flags) or 127 (there is no such
 * program). One that could once is started again whatever it ends with, and the others go on. */
int supervisor_run(struct supervisor *supervisor);
void supervisor_destroy(struct supervisor **supervisor);

#endif
