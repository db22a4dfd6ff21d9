/* The frontend behind the gateway: connections that requests take and give back, so that several wait beside each
 * other. Any thread. */
#ifndef EXPERTD_HTTP_UPSTREAM_H
#define EXPERTD_HTTP_UPSTREAM_H

#include "client/expertd.h"
#include "common/config.h"

struct upstream;

/* A connection for each of config->http.threads, and one for the history. 0 or -errno, logged. Keeps config. */
int upstream_create(struct upstream **upstream, const struct config *config);
void upstream_destroy(struct upstream **upstream); /* all have been given back */

/* A connection for this thread alone; waits while all are taken. */
struct expertd_client *upstream_take(struct upstream *upstream);
void upstream_give(struct upstream *upstream, struct expertd_client *client);
/* Whether experts may be changed through this gateway; and a connection for that, on the server's own socket (of
 * several frontends', the first one's that answers), to be destroyed; NULL: no memory. */
bool upstream_changes(const struct upstream *upstream);
struct expertd_client *upstream_own(const struct upstream *upstream);
/* Waits until the call has ended; true if it is OK. */
bool upstream_wait(struct expertd_call *call);
uint32_t upstream_timeout_ms(const struct upstream *upstream);
/* For questions that a frontend answers at once: a probe or a scrape is not to wait longer for one that is away. */
uint32_t upstream_patience_ms(const struct upstream *upstream);

#endif
