/* With server.on_device_loss: move, the experts of a device that is lost (frontend/device_link.h) are given to the
 * others: those that are up, each as many as it has free slots. When, how many at once, and again after a refusal, is
 * decided here; the change itself is frontend/changes.h's. One thread. */
#ifndef EXPERTD_FRONTEND_MOVES_H
#define EXPERTD_FRONTEND_MOVES_H

#include <stdint.h>

#include "common/status.h"
#include "frontend/server.h"

struct moves;

int moves_create(struct moves **moves, struct server *server); /* -ENOMEM */
void moves_destroy(struct moves **moves);

/* 1: experts of the device *lost are to go elsewhere, by the configuration *text, malloc'd; 0: there are none, or it is
 * not time; -errno: logged. */
int moves_propose(struct moves *moves, uint64_t now_ns, uint32_t *lost, char **text);
/* What was proposed was refused: fewer are tried next, or all again later. */
void moves_refused(struct moves *moves, uint32_t lost, enum status status, const char *why, uint64_t now_ns);
/* They are elsewhere: what still waits for them at the lost device is answered UNAVAILABLE. */
void moves_done(struct moves *moves, uint32_t lost);

#endif
