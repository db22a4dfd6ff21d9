/* One device as the frontend sees it: its control segment, its pools, and whether its runtime lives.
 *
 *     DEVICE_ABSENT   no control segment to attach to: the runtime never was here, starts, or ended cleanly
 *     DEVICE_UP       attached, and the runtime works
 *     DEVICE_DEAD     attached, but nobody holds the runtime's lock: it died; a restart may adopt the segments
 *     DEVICE_HUNG     attached and held, but it has work and finished nothing for the stall timeout
 *
 * Hanging is the absence of completed work, not of a timer's tick. A runtime has work when its busy_since is set, or
 * when requests wait and it has not gone back to sleep since it was rung for them (one that waits for min_batch_size
 * sleeps, and so does not hang). One thread. */
#ifndef EXPERTD_FRONTEND_DEVICE_LINK_H
#define EXPERTD_FRONTEND_DEVICE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frontend/request.h"
#include "pools/control.h"
#include "pools/pool.h"

enum device_state { DEVICE_ABSENT, DEVICE_UP, DEVICE_DEAD, DEVICE_HUNG };

struct device_link;

/* A pool that was attached, and the requests that have tasks in it, in the tasks' order. */
struct pool_link {
    struct pool *pool;
    struct device_link *device;
    uint32_t index;
    bool broken; /* shared memory broke an invariant: unusable until its runtime has made the device's segments anew */
    struct request_list requests;
    struct request_list parked;  /* that wait for room in the pool (frontend/admission.h) */
    uint32_t clients, held_rows; /* frontend/share.h */
    double row_ns;               /* a row's time, while there is work; 0: not known */
    double crowd;                /* how many are refused for one that is served, lately */
    uint32_t refused;            /* since the last results */
    uint64_t served_ns;          /* the last results, if more were to come */
    uint64_t tasks, rows;        /* done with OK since it was attached */
    uint64_t request_ns;         /* of these tasks, from the request's arrival to the reply, all together */
    struct pool_measures before; /* what the pool had measured when it was attached: of an earlier frontend's tasks */
};

struct device_link {
    const char *server, *run_dir, *name; /* kept, not copied */
    uint64_t stall_timeout_ns;
    enum device_state state;
    uint64_t state_since_ns;
    struct control *control; /* NULL: ABSENT */
    uint32_t experts_count;
    struct pool_link **pools; /* by pool number; NULL: not used yet */
    uint64_t slots_seen;      /* control_slots_version of when the experts were looked at */
    uint32_t experts_placed;  /* of them in the expert table */
    uint32_t in_flight;       /* requests that wait for this device */
    uint32_t pid_seen;        /* of the runtime that was last up; 0: none was */
    uint64_t restarts;        /* how often another one came up after it */
    bool broken;              /* one of the pools */
    bool ring;                /* new tasks that the runtime was not rung for */
    int watch_fd;             /* of the runtime's lock file */
    uint64_t progress_ns;     /* when it last completed something, or had nothing to do */
    uint64_t completed_seen;
};

enum device_change {
    DEVICE_SAME,
    DEVICE_ATTACHED,
    DEVICE_DIED,
    DEVICE_STALLED,
    DEVICE_REVIVED,
    DEVICE_CHANGED, /* experts came or went */
    DEVICE_RETIRED, /* the caller takes the last results, answers what waits, and calls device_link_detach */
};

int device_link_create(struct device_link **device, const char *server, const char *run_dir, const char *name,
                       uint64_t stall_timeout_ns);
void device_link_destroy(struct device_link **device);

/* Looks whether something changed, and attaches when there is something to attach to. A few system calls. */
enum device_change device_link_look(struct device_link *device, uint64_t now_ns);
void device_link_detach(struct device_link *device, uint64_t now_ns);
const char *device_state_name(enum device_state state);
/* Why the device cannot take requests, for the client; NULL: it can. */
const char *device_link_refusal(const struct device_link *device, char *text, size_t size);

/* Whether the device itself is lost, as its runtime has said (common/device_loss.h), and none is there that may have it
 * again. A few system calls. */
bool device_link_lost(struct device_link *device);

/* Whether the slot has an expert. */
bool device_link_has(const struct device_link *device, uint32_t expert);
uint32_t device_link_count(const struct device_link *device);
/* Lets go of the pools of an expert, in which nothing of ours is any more. */
void device_link_close(struct device_link *device, uint32_t expert);
/* The pool of an expert's kind; attached at its first use. 0 or -errno (logged in bursts); -EOPNOTSUPP: a backward of
 * an expert that takes none. */
int device_link_pool(struct device_link *device, uint32_t expert, enum pool_kind kind, struct pool_link **link);
/* Whether a call of that expert would be taken. */
bool device_link_serves(const struct device_link *device, uint32_t expert);
/* Whether a backward may change the expert: not one that is known to have no optimizer. */
bool device_link_learns(const struct device_link *device, uint32_t expert);
/* The pool is not used any more, and the runtime is asked for new segments. */
void device_link_break(struct device_link *device, struct pool_link *link);
/* Something was completed: it does not hang. */
void device_link_progress(struct device_link *device, uint64_t now_ns);
/* Marks the pool ready; device_link_ring then rings the runtime once for all that was marked. */
void device_link_ready(struct device_link *device, uint32_t pool);
void device_link_ring(struct device_link *device);

#endif
