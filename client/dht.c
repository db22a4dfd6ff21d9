#include "client/dht.h"

#include "common/clock.h"

enum { SILENCE_MS = 1000 };

static void ended(struct dht_question *question, enum expertd_status status, const Expertd__Dht__Reply *reply,
                  const char *message)
{
    struct dht_lookup *lookup = (struct dht_lookup *)question;
    struct expertd_dht *dht = lookup->dht;
    if (status != EXPERTD_OK)
        dht->counters.failed_lookups++;
    /* Whoever asks next need not wait as long to learn the same. What was given less time says nothing. */
    if (!reply && (status == EXPERTD_UNAVAILABLE || status == EXPERTD_DEADLINE_EXCEEDED) &&
        question->timeout_ms == dht->lookup_timeout_ms)
        dht->silent_until_ns = clock_now_ns() + SILENCE_MS * NS_PER_MS;
    lookup->ended(lookup, status, reply, message);
}

const char *dht_ask(struct expertd_dht *dht, struct dht_lookup *lookup, Expertd__Dht__Request *request,
                    uint32_t timeout_ms, dht_lookup_ended *when_ended)
{
    if (!dht->lookups)
        return "there is no dht endpoint";
    if (clock_now_ns() < dht->silent_until_ns)
        return "expertd-dht did not answer";
    lookup->dht = dht;
    lookup->ended = when_ended;
    dht->counters.lookups++;
    dht_client_start(dht->lookups, &lookup->question, request,
                     timeout_ms < dht->lookup_timeout_ms ? timeout_ms : dht->lookup_timeout_ms, ended);
    return NULL;
}

const struct replicas *dht_replicas(const struct expertd_dht *dht, const char *uid)
{
    const uint64_t now_ns = clock_now_ns();
    return replica_cache_get(&dht->cache, uid, now_ns > dht->cache_ns ? now_ns - dht->cache_ns : 1);
}
