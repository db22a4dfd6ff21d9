#include "dht/fetch.h"

#include <stdint.h>

#include "common/log.h"

/* A get that OpenDHT does not end: it gives a peer three tries of a second, and walks on from some. */
static const uint64_t lost_ns = 20 * NS_PER_S;
static const uint64_t retry_ns = 100 * NS_PER_MS;

void fetcher_init(struct fetcher *fetcher, const struct fetch_engine *engine, uint64_t tokens_tag)
{
    *fetcher = (struct fetcher){.engine = *engine, .tokens_tag = tokens_tag};
    fetcher->queue.next = fetcher->queue.prev = &fetcher->queue;
}

void fetcher_destroy(struct fetcher *fetcher)
{
    table_destroy(&fetcher->by_token);
}

struct fetch *fetcher_find(const struct fetcher *fetcher, uint64_t token)
{
    return table_find(&fetcher->by_token, &token, sizeof token);
}

static void unqueue(struct fetch *fetch)
{
    fetch->prev->next = fetch->next;
    fetch->next->prev = fetch->prev;
    fetch->next = fetch->prev = NULL;
}

static void set_state(struct fetcher *fetcher, struct fetch *fetch, enum fetch_state state, struct moment now)
{
    if (fetch->state == FETCH_QUEUED && fetch->next)
        unqueue(fetch);
    if (fetch->state == FETCH_RUNNING)
        fetcher->running--;
    fetch->state = state;
    fetch->since_ns = now.ns;
    if (state == FETCH_RUNNING) {
        fetcher->running++;
        fetch->heard = false;
    }
    if (state == FETCH_QUEUED) {
        fetch->next = &fetcher->queue;
        fetch->prev = fetcher->queue.prev;
        fetch->prev->next = fetch->next->prev = fetch;
    }
}

void fetcher_step(struct fetcher *fetcher, struct moment now)
{
    while (fetcher->running < FETCH_RUNNING_MAX && fetcher->queue.next != &fetcher->queue) {
        struct fetch *fetch = fetcher->queue.next;
        const int rc = fetcher->engine.get(fetcher->engine.context, fetch->key, fetch->token);
        set_state(fetcher, fetch, rc == 0 ? FETCH_RUNNING : FETCH_RETRYING, now);
    }
}

int fetch_start(struct fetcher *fetcher, struct fetch *fetch, const char *key, struct moment now)
{
    fetch->key = key;
    fetch->token = fetcher->tokens_tag | ++fetcher->last_token;
    fetch->state = FETCH_DONE;
    const int rc = table_insert(&fetcher->by_token, &fetch->token, sizeof fetch->token, fetch);
    if (rc == 0)
        set_state(fetcher, fetch, FETCH_QUEUED, now);
    return rc;
}

void fetch_stop(struct fetcher *fetcher, struct fetch *fetch)
{
    table_remove(&fetcher->by_token, &fetch->token, sizeof fetch->token);
    set_state(fetcher, fetch, FETCH_DONE, (struct moment){0});
    if (fetch->listening)
        fetcher->engine.unlisten(fetcher->engine.context, &fetch->listening);
}

void fetch_again(struct fetcher *fetcher, struct fetch *fetch, struct moment now)
{
    if (fetch->state == FETCH_DONE || fetch->state == FETCH_RETRYING) {
        fetch->attempts = 0;
        set_state(fetcher, fetch, FETCH_QUEUED, now);
    }
}

void fetch_heard(struct fetch *fetch)
{
    fetch->heard = true;
}

/* Listening begins with all that there is, so that nothing falls between it and the get before. */
static void listen_to(struct fetcher *fetcher, struct fetch *fetch)
{
    if (!fetch->listening &&
        fetcher->engine.listen(fetcher->engine.context, fetch->key, fetch->token, &fetch->listening) != 0)
        log_warning("not enough memory to listen in the DHT");
}

bool fetch_ended(struct fetcher *fetcher, struct fetch *fetch, bool ok, struct moment now)
{
    const bool was_known = fetch->known;
    if (fetch->state != FETCH_RUNNING)
        return false;
    listen_to(fetcher, fetch);
    if (!ok && !fetcher->alone && ++fetch->attempts < FETCH_ATTEMPTS) {
        set_state(fetcher, fetch, FETCH_RETRYING, now);
        return false;
    }
    fetch->attempts = 0;
    fetch->known = true;
    fetch->unconfirmed = !ok;
    set_state(fetcher, fetch, FETCH_DONE, now);
    return !was_known;
}

uint64_t fetch_due_ns(const struct fetcher *fetcher, const struct fetch *fetch)
{
    switch (fetch->state) {
    case FETCH_RUNNING:
        if (fetch->heard && !fetch->known)
            return fetch->since_ns + FETCH_GRACE_MS * NS_PER_MS;
        return fetch->since_ns + (fetcher->alone ? FETCH_ALONE_MS * NS_PER_MS : lost_ns);
    case FETCH_RETRYING:
        return fetch->since_ns + retry_ns * (fetch->attempts ? fetch->attempts : 1);
    case FETCH_QUEUED:
    case FETCH_DONE:
        break;
    }
    return UINT64_MAX;
}

bool fetch_tick(struct fetcher *fetcher, struct fetch *fetch, struct moment now)
{
    if (now.ns < fetch_due_ns(fetcher, fetch))
        return false;
    if (fetch->state == FETCH_RUNNING && fetch->heard && !fetch->known) {
        listen_to(fetcher, fetch);
        fetch->known = true;
        return true;
    }
    if (fetch->state == FETCH_RUNNING)
        return fetch_ended(fetcher, fetch, false, now);
    set_state(fetcher, fetch, FETCH_QUEUED, now);
    return false;
}
