/* The look-up service: a ZeroMQ ROUTER that takes requests and sends replies (proto/PROTOCOL-dht.md).
 *
 * A request becomes a lookup, which is run at once and mostly done at once; one that waits for the DHT is kept until
 * something that it wants is known, or its deadline comes. What is kept, and what clients have not read, is bounded, of
 * all and of each (askers.h). One thread. */
#ifndef EXPERTD_DHT_SERVICE_H
#define EXPERTD_DHT_SERVICE_H

#include "dht/lookup.h"
#include "proto/guard.h"

enum {
    SERVICE_FRAME_MAX = 16 << 20,
};

struct service_counters {
    uint64_t requests, refused, late, unsent;
    uint64_t unread; /* answers in whose place a refusal was sent, as the client had too much unread */
};

struct service;

/* Fills in the answer to STATUS: strings and the like come from the arena. */
typedef int (*service_status)(void *context, struct arena *arena, Expertd__Dht__NodeStatus *status, struct moment now);

/* context: a ZeroMQ context; endpoint: to bind; guard: who may ask (any role). 0 or -errno, then a message was logged.
 */
int service_create(struct service **service, void *context, const char *endpoint, const struct guard *guard,
                   struct cache *cache, service_status status, void *status_context);
void service_destroy(struct service **service);
void service_keep(struct service *service);          /* now and then: see proto/binding.h */
void *service_socket(const struct service *service); /* readable: call service_step */
/* Takes requests (some at a time), runs what is to run, sends replies. Returns when it is due next. */
uint64_t service_step(struct service *service, struct moment now);
const struct service_counters *service_counters(const struct service *service);

/* Decodes and checks a frame, and makes a lookup of it: what service_step does, for tests and the fuzzer. The request
 * is to be freed with expertd__dht__request__free_unpacked after lookup_destroy. */
Expertd__Dht__Request *service_decode(const void *frame, size_t size, struct cache *cache, struct lookup *lookup,
                                      struct moment now);

#endif
