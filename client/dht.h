/* struct expertd_dht, to the other files of this library: look-ups, connections, and the tasks that use both. */
#ifndef EXPERTD_CLIENT_DHT_H
#define EXPERTD_CLIENT_DHT_H

#include <sys/queue.h>

#include "client/dht_client.h"
#include "client/expertd_moe.h"
#include "client/replica_cache.h"
#include "client/server_list.h"

enum task_state {
    TASK_LOOKUP,   /* wants to know who hosts its uid; until its deadline */
    TASK_PAUSED,   /* until wake_ns; then on the same server again, or on another */
    TASK_CALLED,   /* a server works on it */
    TASK_DONE,     /* ended, and the program was not told yet */
    TASK_REPORTED, /* ended, and the program knows */
    TASK_STATES,
};
TAILQ_HEAD(task_list, expertd_task);

struct remote_resolve; /* a question on its way that tasks wait for, remote_progress.c's */
TAILQ_HEAD(resolve_list, remote_resolve);

struct expertd_dht {
    struct dht_client *lookups; /* NULL: none, experts are named by endpoint */
    struct server_list servers;
    struct replica_cache cache;
    uint32_t lookup_timeout_ms;
    uint32_t deadline_ms; /* of tasks that give none */
    uint64_t cache_ns;
    uint64_t silent_until_ns; /* expertd-dht did not answer: not asked again before */
    struct task_list tasks[TASK_STATES];
    struct resolve_list resolves;
    size_t n_resolves;
    int ended;      /* tasks that neither expertd_dht_poll() has counted nor the program has waited for */
    uint64_t polls; /* that have counted some */
    struct expertd_dht_counters counters;
};

struct dht_lookup;
/* As dht_question_ended. */
typedef void dht_lookup_ended(struct dht_lookup *lookup, enum expertd_status status, const Expertd__Dht__Reply *reply,
                              const char *message);
struct dht_lookup {
    struct dht_question question; /* first */
    struct expertd_dht *dht;
    dht_lookup_ended *ended;
};

/* Asks expertd-dht, for no longer than the dht's lookup_timeout_ms and timeout_ms. NULL: the question is on its way, as
 * dht_client_start() says, and `ended` will be called. Else why there will be no answer: there is no expertd-dht, or it
 * has just let one question wait in vain (UNAVAILABLE). */
const char *dht_ask(struct expertd_dht *dht, struct dht_lookup *lookup, Expertd__Dht__Request *request,
                    uint32_t timeout_ms, dht_lookup_ended *ended);

/* Who hosts the uid, as far as that is known freshly enough; NULL if it has to be looked up. */
const struct replicas *dht_replicas(const struct expertd_dht *dht, const char *uid);

#endif
