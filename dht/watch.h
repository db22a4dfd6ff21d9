/* Watches the frontend: which experts it hosts, and which of them are alive. Asked over ZeroMQ with LIST, as any client
 * would; this process never sees shared memory. A LIST of one entry is asked once a period, for its generation; all of
 * the list when that changed. A frontend that says nothing for WATCH_SILENCE_MS is lost, until it speaks again. One
 * thread. */
#ifndef EXPERTD_DHT_WATCH_H
#define EXPERTD_DHT_WATCH_H

#include "proto/guard.h"
#include "dht/catalog.h"
#include "dht/moment.h"

enum { WATCH_PERIOD_MS = 400, WATCH_SILENCE_MS = 2000, WATCH_PAGE = 4096, WATCH_MAX_EXPERTS = 1 << 20 };

enum watch_news {
    WATCH_NOTHING,
    WATCH_CONFIRMED, /* as before, as of watch_confirmed_ns */
    WATCH_CHANGED,   /* a new list: take it with watch_take */
    WATCH_LOST,      /* the frontend is silent; told once */
};

struct watch;

/* context: a ZeroMQ context. 0 or -errno, then a message was logged. */
int watch_create(struct watch **watch, void *context, const char *endpoint, const struct guard *guard,
                 uint64_t period_ns, struct moment now);
void watch_destroy(struct watch **watch);
void *watch_socket(const struct watch *watch); /* readable: call watch_step */
/* Takes an answer, if there is one, and asks when it is time. Call again while it has news; *due_ns: when it is due. */
enum watch_news watch_step(struct watch *watch, struct moment now, uint64_t *due_ns);
uint64_t watch_confirmed_ns(const struct watch *watch);
/* The list that WATCH_CHANGED told of; the caller's from then on. */
struct catalog watch_take(struct watch *watch);

/* An answer's frame, for tests and the fuzzer: what watch_step makes of it. */
enum watch_news watch_hear(struct watch *watch, const void *frame, size_t size, struct moment now);
/* A watch without a socket, that waits for an answer to the request with this id; for the same. NULL: no memory. */
struct watch *watch_deaf(uint64_t request_id);

#endif
