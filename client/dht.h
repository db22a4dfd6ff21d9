/* struct expertd_dht, to the other files of this library: look-ups, connections, and the tasks that use both. */
#ifndef EXPERTD_CLIENT_DHT_H
#define EXPERTD_CLIENT_DHT_H

#include <sys/queue.h>

#include "client/dht_client.h"
#include "client/expertd_moe.h"
#include "client/replica_cache.h"
#include "client/server_list.h"

enum task_state {
    TASK_LOOKUP,   /* wants to know who hosts its uid */
    TASK_PAUSED,   /* until wake_ns; then on the same server again, or on another */
    TASK_CALLED,   /* a server works on it */
    TASK_DONE,     /* ended, and the program was not told yet */
    TASK_REPORTED, /* ended, and the program knows */
    TASK_STATES,
};
TAILQ_HEAD(task_list, expertd_task);

struct expertd_dht {
    struct dht_client *lookups; /* NULL: none, experts are named by endpoint */
    struct server_list servers;
    struct replica_cache cache;
    uint32_t lookup_timeout_ms;
    uint32_t deadline_ms; /* of tasks that give none */
    uint64_t cache_ns;
    uint64_t silent_until_ns; /* expertd-dht did not answer: not asked again before */
    struct task_list tasks[TASK_STATES];
    int ended; /* tasks that neither expertd_dht_poll() has counted nor the program has waited for */
    struct expertd_dht_counters counters;
};

/* Asks expertd-dht, no longer than the dht's lookup_timeout_ms and timeout_ms; at once UNAVAILABLE while it is known to
 * be silent. As dht_client_ask(). */
enum expertd_status dht_ask(struct expertd_dht *dht, Expertd__Dht__Request *request, uint32_t timeout_ms,
                            const Expertd__Dht__Reply **reply, char message[DHT_CLIENT_MESSAGE]);

/* Who hosts the uid, as far as that is known freshly enough; NULL if it has to be looked up. */
const struct replicas *dht_replicas(const struct expertd_dht *dht, const char *uid);

#endif
