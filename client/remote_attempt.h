/* A task's inside, for remote_task.c (its life, and waiting for it) and remote_attempt.c (its way through the states).
 */
#ifndef EXPERTD_CLIENT_REMOTE_ATTEMPT_H
#define EXPERTD_CLIENT_REMOTE_ATTEMPT_H

#include "client/remote_task.h"
#include "client/shared_data.h"

struct expertd_task {
    struct expertd_dht *dht;
    TAILQ_ENTRY(expertd_task) link;
    enum task_state state;
    bool backward, patient;
    bool looked_up; /* what is known of the uid's servers was asked for by this task */
    char uid[UID_SIZE];
    struct expertd_tensor tensors[EXPERTD_MAX_TENSORS];
    struct shared_data *data[EXPERTD_MAX_TENSORS];
    size_t count[2];
    uint64_t deadline_ns;
    uint64_t wake_ns; /* PAUSED: when to go on. CALLED: by when there has to be a connection; 0: no matter */
    uint32_t pause_ms;
    struct server *fixed, *first; /* held */
    struct server *server;        /* of the call; held while there is one, and after the end */
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
/* Takes in all answers, passed times and look-ups that there are; afterwards nothing is left that would not wake
 * server_list_wait(). */
void remote_attempt_progress(struct expertd_dht *dht);
/* The program knows that the task, which was DONE, has ended. */
void remote_attempt_report(struct expertd_task *task);

#endif
