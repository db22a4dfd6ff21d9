/* Clients on this host, whose tensors lie in memory that they share with the frontend: the socket where they connect,
 * and who may. (frontend/local_receive.h: their requests.) One thread. */
#ifndef EXPERTD_FRONTEND_LOCAL_H
#define EXPERTD_FRONTEND_LOCAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "proto/local_record.h"

struct server;
struct local;

struct local_counters {
    uint64_t requests, refused, ended; /* ended: by the frontend, for a packet that breaks the rules */
};

/* Listens as frontend.local says; logs where. 0 and NULL: it is off, or the place cannot be (then with a warning).
 * -errno for a group that does not exist, and when memory or files are short; logs why. */
int local_open(struct local **local, const struct config *config);
void local_close(struct local **local); /* its clients' requests were dropped or answered */

/* All that follows takes NULL for one that is off. */
int local_fd(const struct local *local); /* readable when there is something to receive; -1 */
uint32_t local_count(const struct local *local);
const char *local_path(const struct local *local); /* NULL */
const unsigned char *local_instance(const struct local *local);
const struct local_counters *local_counters(const struct local *local);

/* Sends the answers that are queued. */
void local_flush(struct local *local);
/* Now and then: whether the socket's name still leads here; it is made anew if not. */
void local_keep(struct local *local);

#endif
