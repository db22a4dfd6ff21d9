/* A change of which experts there are, while it runs: through all runtimes that it touches (pools/control_shared.h says
 * how), so that it is done whole or not at all.
 *
 *     closing     the experts that go take no requests, and what they have is finished
 *     preparing   every runtime saves what goes and makes what comes; one that refuses ends the change
 *     -- from here on it is what is live (common/config_live.h) --
 *     committing  every runtime shows what it made, and lets go of what is gone
 *
 * A runtime that is restarted meanwhile begins with what is live. One thread. */
#ifndef EXPERTD_FRONTEND_CHANGE_H
#define EXPERTD_FRONTEND_CHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "frontend/server.h"
#include "pools/control.h"

enum change_stage { CHANGE_IDLE, CHANGE_CLOSING, CHANGE_PREPARING, CHANGE_COMMITTING };

/* What change_look has come to. */
enum change_event {
    CHANGE_WAITS,
    CHANGE_REFUSED,  /* nothing was changed, and it is over: change_status, change_why */
    CHANGE_ACCEPTED, /* the proposal is what is live, once; look again */
    CHANGE_DONE,     /* it is over */
};

/* Devices that it concerns: one, or all. */
#define CHANGE_ALL UINT32_MAX
#define CHANGE_NONE UINT32_MAX

struct change;

int change_create(struct change **change, struct server *server); /* -ENOMEM */
void change_destroy(struct change **change);

enum change_stage change_stage(const struct change *change);
/* Nobody has refused it as yet. */
void change_reset(struct change *change);
/* Begins with the proposal (config_live_propose) that was written. closing: the uids that go, malloc'd as their list
 * is; the change's from here on. only: a device, or CHANGE_ALL. lost: a device whose experts go to others, and which
 * must not come back before the proposal is what is live; or CHANGE_NONE. */
void change_begin(struct change *change, char **closing, size_t closing_count, uint32_t only, uint32_t lost);
/* Goes on as far as it can without waiting, to the next event. */
enum change_event change_look(struct change *change);
/* Ends it, unless the proposal is live already. */
void change_abort(struct change *change);
/* Lets go of one that is live already, and is done by the runtimes alone. */
void change_leave(struct change *change);

/* The first refusal. */
void change_refuse(struct change *change, enum status status, const char *why);
enum status change_status(const struct change *change);
const char *change_why(const struct change *change);

#endif
