/* The nodes to join by: pinged until they answer, with longer and longer pauses and for ever, and now and then after
 * that, so that a network that fell apart comes together again. One that is down is never fatal. Names are resolved in
 * the background (getaddrinfo_a). One thread. */
#ifndef EXPERTD_DHT_BOOTSTRAP_H
#define EXPERTD_DHT_BOOTSTRAP_H

#include "dht/moment.h"
#include "dht/node.h"

enum { BOOTSTRAP_PORT = 4222 };

struct bootstrap;

/* "host:port", "host", "[v6]:port". 0; -EINVAL after a message about the address that is none; -ENOMEM. */
int bootstrap_create(struct bootstrap **bootstrap, struct node *node, const char *const *addresses, unsigned count,
                     uint64_t tokens_tag);
void bootstrap_destroy(struct bootstrap **bootstrap);
/* True if none had answered before: this node has just been connected. */
bool bootstrap_on_pinged(struct bootstrap *bootstrap, uint64_t token, bool ok, struct moment now);
/* Does what is due; returns when the next is. */
uint64_t bootstrap_step(struct bootstrap *bootstrap, struct moment now);
unsigned bootstrap_alive(const struct bootstrap *bootstrap);

#endif
