/* A client's calls that wait because the server had no room, by expert and method: those that it has refused, and those
 * that were made since, which stand behind them. They are CALL_PAUSED. A call for many experts, or without tensors, is
 * by itself. The client's thread. */
#ifndef EXPERTD_CLIENT_BACKLOG_H
#define EXPERTD_CLIENT_BACKLOG_H

#include "client/client_state.h"
#include "client/comeback.h"

struct backlog {
    TAILQ_ENTRY(backlog) link; /* client->backlogs */
    struct call_list calls;    /* by their `behind` */
    uint64_t key;
    size_t flying; /* of the expert's other calls: with the server, or on their way there */
    struct comeback comeback;
};

/* Of the call's expert; NULL: none. */
struct backlog *backlog_find(const struct expertd_call *call);
/* The same, made if there is none; NULL: no memory. */
struct backlog *backlog_take(const struct expertd_call *call);
/* The call, which is CALL_PAUSED, waits there, behind those that were made before it. */
void backlog_join(struct backlog *backlog, struct expertd_call *call);
/* The call goes from its state to another one: it leaves where it waits, and is counted where others do. */
void backlog_note(struct expertd_call *call, enum call_state to);
/* One of the expert's calls has left the server without an answer, of which nothing else will tell: some of those that
 * wait are tried soon. */
void backlog_stir(const struct expertd_call *call);
/* One of the expert's calls has ended: what is empty goes, with what it knew of pauses. */
void backlog_settle(const struct expertd_call *call);
void backlog_clear(struct expertd_client *client);

#endif
