/* What somebody has asked to be changed (LOAD, UNLOAD, SET, RELOAD), kept until it is its turn. */
#ifndef EXPERTD_FRONTEND_CHANGE_ORDER_H
#define EXPERTD_FRONTEND_CHANGE_ORDER_H

#include <stdbool.h>

#include "common/config.h"
#include "common/config_edit.h"
#include "proto/message.h"

struct change_order;

/* What is wrong with the request, whoever sent it; NULL: nothing. The header is as it was unpacked: its strings end. */
const char *change_order_fault(const Expertd__RequestHeader *header);
/* Whether who is at the other end of that connection is the server's own user, or root, over a UNIX socket. */
bool change_order_of_owner(int fd);

/* Copies what has no fault. NULL: no memory. */
struct change_order *change_order_create(const Expertd__RequestHeader *header);
void change_order_destroy(struct change_order **order); /* nulls */

/* The uid that it names; "": none. And the device that it wants it on; NULL: it names none. */
const char *change_order_uid(const struct change_order *order);
const char *change_order_device(const struct change_order *order);
/* It wants the configuration to be read again. */
bool change_order_reloads(const struct change_order *order);
/* Of the others: the configuration that they want, made of what is live, and of the file where they say nothing of an
 * expert. As config_edit_load. */
int change_order_edit(const struct change_order *order, const struct config *live, const struct config *file,
                      char **text, char why[CONFIG_EDIT_WHY_SIZE]);

#endif
