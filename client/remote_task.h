/* A call that finds its server, and another one when that fails (struct expertd_task). The states are
 * remote_attempt.h's. One thread at a time, with its dht. */
#ifndef EXPERTD_CLIENT_REMOTE_TASK_H
#define EXPERTD_CLIENT_REMOTE_TASK_H

#include "client/dht.h"

struct remote_task_request {
    const char *uid;
    struct server *server; /* only there; NULL: wherever the uid is */
    struct server *first;  /* there first, if it is one of the uid's; NULL: any */
    bool backward;
    /* Goes on until its deadline. Else it ends when each server that is known after a fresh look-up has failed, or is
     * known to be down: for those who have other experts to turn to. */
    bool patient;
    const struct expertd_tensor *tensors[2]; /* inputs; grad_outputs */
    size_t count[2];
    const bool *requires_grad; /* of each input of a backward, copied; NULL: all */
    uint32_t deadline_ms;
};

/* 0 and a task, or -ENOMEM; tensors with a free_fn are taken in every case. */
int remote_task_start(struct expertd_dht *dht, const struct remote_task_request *request, struct expertd_task **task);
/* The server that answered, or worked on it last; NULL. Held by the task. */
struct server *remote_task_server(const struct expertd_task *task);
/* Waits until `done` says so of context, or end_ns (CLOCK_MONOTONIC); true if it says so. For as long as tasks or
 * look-ups are in flight, all of which go on meanwhile. -EINTR counts as nothing. */
bool remote_task_await(struct expertd_dht *dht, bool (*done)(void *context), void *context, uint64_t end_ns);

void remote_task_release_all(struct expertd_dht *dht);

#endif
