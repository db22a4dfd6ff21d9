/* A task's inside, and its way through the states: what follows when its call ends, its look-up is answered, its time
 * comes. Who tells it so is remote_progress.c; its life is remote_task.c's. */
#ifndef EXPERTD_CLIENT_REMOTE_ATTEMPT_H
#define EXPERTD_CLIENT_REMOTE_ATTEMPT_H

#include "client/dht.h"
#include "client/shared_data.h"

struct expertd_task {
    struct expertd_dht *dht;
    TAILQ_ENTRY(expertd_task) link;
    enum task_state state;
    bool backward, patient;
    bool looked_up;                     /* what is known of the uid's servers was asked for by this task */
    const struct remote_resolve *asked; /* LOOKUP: which question will tell; NULL: none yet */
    uint64_t ended_before;              /* which expertd_dht_poll() counts its end: the dht's number of polls then */
    char uid[UID_SIZE];
    struct expertd_tensor tensors[EXPERTD_MAX_TENSORS];
    struct shared_data *data[EXPERTD_MAX_TENSORS];
    size_t count[2];
    bool chosen, requires_grad[EXPERTD_MAX_TENSORS]; /* whether the latter says which gradients are wanted */
    uint64_t deadline_ns;
    uint64_t wake_ns; /* PAUSED: when to go on. CALLED: by when there has to be a connection; 0: no matter */
    uint32_t pause_ms, retry_after_ms; /* the own one; the least that servers of this round have asked for, 0: none */
    struct server *fixed, *first;      /* held */
    struct server *server;             /* of the call; held while there is one, and after the end */
    struct expertd_call *call;
    struct server *tried[REPLICAS_MAX]; /* in this round; held */
    size_t n_tried;
    enum expertd_status status; /* of the last failure; of the end */
    bool not_applied;
    char message[512];
};

/* Moves a task that is PAUSED, with its server not chosen yet, on its way: CALLED, LOOKUP, PAUSED or DONE. */
void remote_attempt(struct expertd_task *task);
/* Ends a task with that status. */
void remote_attempt_end(struct expertd_task *task, enum expertd_status status, const char *message);
/* Gives up what the task holds of servers and calls; it must not be in flight afterwards. */
void remote_attempt_drop(struct expertd_task *task);
/* What happened to it: its call has ended; its uid's servers were looked up, and are in the cache unless status says
 * why not; wake_ns has come of one that is PAUSED; or of one that is CALLED, whose server there is no connection to;
 * the deadline of one that is in LOOKUP. */
void remote_attempt_call_ended(struct expertd_task *task);
void remote_attempt_looked_up(struct expertd_task *task, enum expertd_status status, const char *message);
void remote_attempt_wake(struct expertd_task *task);
void remote_attempt_not_connected(struct expertd_task *task);
void remote_attempt_out_of_time(struct expertd_task *task);

/* Milliseconds to its deadline, 1 at least. */
uint32_t remote_attempt_remaining_ms(const struct expertd_task *task);
/* The program knows that the task, which was DONE, has ended. */
void remote_attempt_report(struct expertd_task *task);

#endif
