/* The memory of messages: what comes and is not whole yet, what waits to be read by clients, what is kept to be used
 * again. It has a budget, and when that is used up, connections that send without end are closed. When the traffic is
 * over, memory goes back to the system. One thread. */
#ifndef EXPERTD_FRONTEND_PRESSURE_H
#define EXPERTD_FRONTEND_PRESSURE_H

#include "common/config.h"
#include "frontend/server.h"

/* Bytes: frontend.max_memory, or by the memory that there is (memory_limit). */
uint64_t pressure_budget(const struct config_frontend *config, uint64_t memory);
/* Of the budget: what clients may leave unread, all together; what is kept; the largest frame. */
uint64_t pressure_unread_max(uint64_t budget);
uint64_t pressure_keep_max(uint64_t budget);
uint64_t pressure_frame_max(uint64_t budget, uint64_t configured);
/* Now and then. */
void pressure_look(struct server *server, uint64_t now_ns);

#endif
