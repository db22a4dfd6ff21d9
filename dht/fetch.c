#include "dht/fetch.h"

#include <stdint.h>

#include "common/log.h"

enum { LISTENS_AT_ONCE = 4 };

/* A get that OpenDHT does not end: it gives a peer three tries of a second, and walks on from some. */
static const uint64_t lost_ns = 20 * NS_PER_S;
static const uint64_t retry_ns = 100 * NS_PER_MS;  /* nobody answered */
static const uint64_t recheck_ns = 10 * NS_PER_MS; /* doubled with every get */
/* The first answer to a listening is a burst of all values that there are, from four peers. */
static const uint64_t listen_pause_ns = 5 * NS_PER_MS;

/* ---- rings ---------------------------------------------------------------------------------------------------------
 */

static void ring_init(struct fetch_link *head)
{
    head->next = head->prev = head;
}

static void ring_add(struct fetch_link *head, struct fetch_link *link, struct fetch *fetch)
{
    link->fetch = fetch;
    link->next = head;
    link->prev = head->prev;
    link->prev->next = head->prev = link;
}

static void ring_remove(struct fetch_link *link)
{
    if (!link->next)
        return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = link->prev = NULL;
}

static struct fetch *ring_first(const struct fetch_link *head)
{
    return head->next == head ? NULL : head->next->fetch;
}

/* ---- the fetcher ---------------------------------------------------------------------------------------------------
 */

void fetcher_init(struct fetcher *fetcher, const struct fetch_engine *engine, uint64_t tokens_tag)
{
    *fetcher = (struct fetcher){.engine = *engine, .tokens_tag = tokens_tag, .credit = FETCH_RATE};
    ring_init(&fetcher->queue);
    ring_init(&fetcher->listen);
}

void fetcher_destroy(struct fetcher *fetcher)
{
    table_destroy(&fetcher->by_token);
}

struct fetch *fetcher_find(const struct fetcher *fetcher, uint64_t token)
{
    return table_find(&fetcher->by_token, &token, sizeof token);
}

static double rate(const struct fetcher *fetcher)
{
    return fetcher->nodes > FETCH_NODES ? (double)FETCH_RATE * (double)fetcher->nodes / FETCH_NODES : FETCH_RATE;
}

static void earn(struct fetcher *fetcher, struct moment now)
{
    const double most = rate(fetcher);
    if (now.ns > fetcher->credit_ns)
        fetcher->credit += most * (double)(now.ns - fetcher->credit_ns) / NS_PER_S;
    if (fetcher->credit > most)
        fetcher->credit = most;
    fetcher->credit_ns = now.ns;
}

static void leave_window(struct fetcher *fetcher, struct fetch *fetch)
{
    fetcher->window -= fetch->window;
    fetch->window = 0;
}

static void set_state(struct fetcher *fetcher, struct fetch *fetch, enum fetch_state state, struct moment now)
{
    ring_remove(&fetch->queue);
    leave_window(fetcher, fetch);
    fetch->state = state;
    fetch->since_ns = now.ns;
    if (state == FETCH_QUEUED) {
        ring_add(&fetcher->queue, &fetch->queue, fetch);
        if (!fetch->asked_ns)
            fetch->asked_ns = now.ns;
    }
    if (state != FETCH_RUNNING)
        return;
    fetch->news = false;
    fetch->values = 0;
    fetch->window = 1 + fetch->expected;
    fetcher->window += fetch->window;
    fetcher->credit -= 1 + fetch->expected;
}

static void run(struct fetcher *fetcher, struct fetch *fetch, struct moment now)
{
    const int rc = fetcher->engine.get(fetcher->engine.context, fetch->key, fetch->token);
    set_state(fetcher, fetch, rc == 0 ? FETCH_RUNNING : FETCH_RETRYING, now);
}

static void listen_to(struct fetcher *fetcher, struct fetch *fetch)
{
    ring_remove(&fetch->listen);
    if (fetcher->engine.listen(fetcher->engine.context, fetch->key, fetch->token, &fetch->listening) != 0)
        log_warning("not enough memory to listen in the DHT");
}

uint64_t fetcher_step(struct fetcher *fetcher, struct moment now)
{
    struct fetch *fetch;
    uint64_t next_ns = UINT64_MAX;
    earn(fetcher, now);
    while ((fetch = ring_first(&fetcher->queue))) {
        /* One that is larger than the window runs alone. */
        if (fetcher->window > 0 && fetcher->window + 1 + fetch->expected > FETCH_WINDOW)
            break;
        if (fetcher->credit <= 0) {
            next_ns = now.ns + 1 + (uint64_t)((1 - fetcher->credit) / rate(fetcher) * NS_PER_S);
            break;
        }
        run(fetcher, fetch, now);
    }
    if (!ring_first(&fetcher->listen))
        return next_ns;
    /* Look-ups come first, but do not keep it from listening for ever. */
    const bool busy = fetcher->window > 0 && now.ns < fetcher->next_listen_ns + 20 * listen_pause_ns;
    if (!busy && now.ns >= fetcher->next_listen_ns) {
        for (int i = 0; i < LISTENS_AT_ONCE && (fetch = ring_first(&fetcher->listen)); i++)
            listen_to(fetcher, fetch);
        fetcher->next_listen_ns = now.ns + listen_pause_ns;
    }
    const uint64_t listen_ns = fetcher->next_listen_ns > now.ns ? fetcher->next_listen_ns : now.ns + listen_pause_ns;
    return ring_first(&fetcher->listen) && listen_ns < next_ns ? listen_ns : next_ns;
}

/* ---- a key ---------------------------------------------------------------------------------------------------------
 */

int fetch_start(struct fetcher *fetcher, struct fetch *fetch, const char *key)
{
    fetch->key = key;
    fetch->token = fetcher->tokens_tag | ++fetcher->last_token;
    fetch->state = FETCH_IDLE;
    return table_insert(&fetcher->by_token, &fetch->token, sizeof fetch->token, fetch);
}

void fetch_stop(struct fetcher *fetcher, struct fetch *fetch)
{
    table_remove(&fetcher->by_token, &fetch->token, sizeof fetch->token);
    set_state(fetcher, fetch, FETCH_IDLE, (struct moment){0});
    ring_remove(&fetch->listen);
    if (fetch->listening)
        fetcher->engine.unlisten(fetcher->engine.context, &fetch->listening);
}

void fetch_want(struct fetcher *fetcher, struct fetch *fetch, struct moment now)
{
    if (fetch->state == FETCH_IDLE && !fetch->sure && fetch->ends == 0)
        set_state(fetcher, fetch, FETCH_QUEUED, now);
}

void fetch_again(struct fetcher *fetcher, struct fetch *fetch, struct moment now)
{
    if (fetch->state == FETCH_IDLE || fetch->state == FETCH_RETRYING) {
        fetch->attempts = 0;
        if (fetch->unconfirmed)
            fetch->sure = false;
        set_state(fetcher, fetch, FETCH_QUEUED, now);
    }
}

void fetch_again_later(struct fetcher *fetcher, struct fetch *fetch, struct moment now)
{
    if (fetch->state == FETCH_IDLE)
        set_state(fetcher, fetch, FETCH_RETRYING, now);
}

void fetch_drop(struct fetcher *fetcher, struct fetch *fetch, struct moment now)
{
    if (fetch->state == FETCH_QUEUED || fetch->state == FETCH_RETRYING)
        set_state(fetcher, fetch, FETCH_IDLE, now);
}

void fetch_listen(struct fetcher *fetcher, struct fetch *fetch, struct moment now)
{
    if (fetch->listening || fetch->listen.next)
        return;
    if (!ring_first(&fetcher->listen) && fetcher->next_listen_ns < now.ns)
        fetcher->next_listen_ns = now.ns;
    ring_add(&fetcher->listen, &fetch->listen, fetch);
}

void fetch_heard(struct fetcher *fetcher, struct fetch *fetch, bool news, struct moment now)
{
    fetch->heard = true;
    fetch->news |= news;
    if (news)
        fetch->news_ns = now.ns;
    if (fetch->state == FETCH_RUNNING && ++fetch->values > fetch->expected)
        fetcher->credit--;
}

static bool may_retry(const struct fetcher *fetcher, struct fetch *fetch, bool ok, struct moment now)
{
    if (fetcher->alone && !ok)
        return now.ns - fetch->asked_ns < FETCH_ALONE_MS * NS_PER_MS;
    return ++fetch->attempts < FETCH_ATTEMPTS;
}

void fetch_ended(struct fetcher *fetcher, struct fetch *fetch, bool ok, struct moment now)
{
    if (fetch->state != FETCH_RUNNING)
        return;
    const bool calm = now.ns - fetch->since_ns < FETCH_CALM_MS * NS_PER_MS;
    const bool nothing = !fetch->heard && fetch->ends == 0;
    const bool all = ok && !nothing && (calm || !fetch->news);
    fetch->ends += ok;
    if (ok)
        fetch->expected = fetch->values;
    if (!all && !fetch->sure && may_retry(fetcher, fetch, ok, now)) {
        set_state(fetcher, fetch, FETCH_RETRYING, now);
        return;
    }
    fetch->attempts = 0;
    fetch->sure = true;
    fetch->unconfirmed = !ok;
    set_state(fetcher, fetch, FETCH_IDLE, now);
}

/* When a get that has brought something, and goes on, is sure. */
static uint64_t quiet_ns(const struct fetch *fetch)
{
    if (fetch->sure || fetch->values == 0)
        return UINT64_MAX;
    return (fetch->news_ns > fetch->since_ns ? fetch->news_ns : fetch->since_ns) + FETCH_QUIET_MS * NS_PER_MS;
}

static uint64_t given_up_ns(const struct fetcher *fetcher, const struct fetch *fetch)
{
    return fetch->since_ns + (fetcher->alone ? FETCH_ALONE_MS * NS_PER_MS : lost_ns);
}

uint64_t fetch_due_ns(const struct fetcher *fetcher, const struct fetch *fetch)
{
    switch (fetch->state) {
    case FETCH_RUNNING:
        if (fetch->window)
            return fetch->since_ns + FETCH_BURST_MS * NS_PER_MS;
        return quiet_ns(fetch) < given_up_ns(fetcher, fetch) ? quiet_ns(fetch) : given_up_ns(fetcher, fetch);
    case FETCH_RETRYING:
        if (fetch->ends)
            return fetch->since_ns + (recheck_ns << (fetch->ends < 6 ? fetch->ends : 6));
        return fetch->since_ns + retry_ns * (fetch->attempts ? fetch->attempts : 1);
    case FETCH_QUEUED:
    case FETCH_IDLE:
        break;
    }
    return UINT64_MAX;
}

void fetch_tick(struct fetcher *fetcher, struct fetch *fetch, struct moment now)
{
    if (now.ns < fetch_due_ns(fetcher, fetch))
        return;
    if (fetch->state == FETCH_RETRYING)
        set_state(fetcher, fetch, FETCH_QUEUED, now);
    else if (fetch->window)
        leave_window(fetcher, fetch);
    else if (now.ns < given_up_ns(fetcher, fetch))
        fetch->sure = true;
    else
        fetch_ended(fetcher, fetch, false, now);
}
