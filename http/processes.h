/* The processes of a server, as far as they are this host's and this user's, and what each takes. */
#ifndef EXPERTD_HTTP_PROCESSES_H
#define EXPERTD_HTTP_PROCESSES_H

#include <stddef.h>

#include "http/history.h"
#include "http/snapshot.h"
#include "http/usage.h"

enum { PROCESSES_MAX = 64 };

struct listed_process {
    char program[24], device[64];
    char frontend[64]; /* of several; as device, "": it has none */
    long pid;
    struct usage usage;
};

/* This one, and those that the frontend and the directory name; returns how many. Any thread. */
size_t processes_list(struct listed_process processes[PROCESSES_MAX], const struct snapshot *snapshot,
                      struct history *history);

#endif
