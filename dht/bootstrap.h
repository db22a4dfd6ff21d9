/* The nodes to join by: pinged until they answer, with longer and longer pauses and for ever, and now and then after
 * that, so that a network that fell apart comes together again. One that is down is never fatal. Names are resolved in
 * the background (getaddrinfo_a). One thread. */
#ifndef EXPERTD_DHT_BOOTSTRAP_H
#define EXPERTD_DHT_BOOTSTRAP_H

#include "dht/engine.h"

enum { BOOTSTRAP_PORT = 4222 };

struct bootstrap;

/* "host:port", "host", "[v6]:port". 0; -EINVAL after a message about the address that is none; -ENOMEM. */
int bootstrap_create(struct bootstrap **bootstrap, const char *const *addresses, unsigned count, uint64_t tokens_tag);
/* The address of one that is no name. */
bool bootstrap_literal(const char *text, struct contact *address);
void bootstrap_destroy(struct bootstrap **bootstrap);
/* True if none had answered before: this node has just been connected. */
bool bootstrap_on_pinged(struct bootstrap *bootstrap, uint64_t token, bool ok, struct moment now);
/* Does what is due; returns when the next is. */
uint64_t bootstrap_step(struct bootstrap *bootstrap, struct engine *engine, struct moment now);
/* Of those that answered the last ping. */
unsigned bootstrap_alive(const struct bootstrap *bootstrap);

#endif
