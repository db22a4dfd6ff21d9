/* A client's calls by expert and method: how many are with the server, and those that wait because it had no room:
 * those that it has refused, and those that were made since, which stand behind them. They are CALL_PAUSED. A call for
 * many experts, or without tensors, is by itself: nobody stands behind it, and it behind nobody. The client's thread.
 */
#ifndef EXPERTD_CLIENT_BACKLOG_H
#define EXPERTD_CLIENT_BACKLOG_H

#include "client/client_state.h"
#include "client/comeback.h"

struct backlog {
    struct keyed by_expert; /* in client->backlogs, unless its call is by itself; the first member */
    bool by_itself;
    TAILQ_ENTRY(backlog) link; /* client->waiting_backlogs */
    struct call_list calls;    /* that wait, by their `behind` */
    size_t members;            /* calls that have it, until they are free again: with the last one it goes */
    size_t flying;             /* of them: with the server, or on their way there */
    struct comeback comeback;
};

/* The call's, made if there is none yet; NULL: no memory. It counts there from now on. */
struct backlog *backlog_of(struct expertd_call *call);
/* The same for a call that is about to be made; NULL too if it is by itself. */
struct backlog *backlog_enter(struct expertd_call *call);
/* The call, which is CALL_PAUSED, waits there, behind those that were made before it. */
void backlog_join(struct backlog *backlog, struct expertd_call *call);
/* The call goes from its state to another one: it leaves where it waits, and is counted where others do. */
void backlog_note(struct expertd_call *call, enum call_state to);
/* One of the expert's calls has left the server without an answer, of which nothing else will tell: some of those that
 * wait are tried soon. */
void backlog_stir(const struct expertd_call *call);
/* One of the expert's calls has ended: where none waits, what was known of pauses is forgotten. */
void backlog_settle(const struct expertd_call *call);
/* The call has nothing to do with its expert any more, and does not wait. */
void backlog_leave(struct expertd_call *call);

#endif
