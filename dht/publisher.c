#include "dht/publisher.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <zmq.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "dht/frames.h"

enum { ROUTE_MAX = 255, ASK_MAX = 1024, BURST = 64, SEND_WATER = 16, FAREWELL_MS = 500 };

static const uint64_t asked_pause_ns = 200 * NS_PER_MS; /* between two questions of one subscriber that are answered */
static const uint64_t retry_ns = 20 * NS_PER_MS;        /* for one whose queue is full */

struct page {
    zmq_msg_t message;
};

/* Who asked. */
struct subscriber {
    LIST_ENTRY(subscriber) entry;
    struct dialogue_ask ask;
    uint64_t asked_ns;
    bool introduced, told;
    size_t next_page;
    size_t route_size;
    uint8_t route[];
};

struct publisher {
    void *socket;
    uint16_t port;
    struct engine *engine;
    struct world *world;
    const struct identity *identity;
    struct publisher_options options;
    enum publisher_state state;
    struct catalog catalog;
    struct resident own; /* in the world */
    struct page *pages;  /* of the catalog, as far as it lives */
    size_t pages_count;
    bool pages_right;
    struct table by_route;
    LIST_HEAD(subscribers, subscriber) subscribers;
    size_t telling; /* subscribers that are still to be told */
    struct announcer *announcer;
    uint64_t next_heartbeat_ns, confirmed_ns, started_ms;
    struct publisher_counters counters;
};

const char *publisher_state_name(enum publisher_state state)
{
    static const char *const names[] = {"silent", "live", "leaving"};
    return names[state];
}

/* ---- life ----------------------------------------------------------------------------------------------------------
 */

static int open_socket(struct publisher *publisher, void *context)
{
    const int none = 0, one = 1, water = SEND_WATER, ask_water = 64, beat_ms = 10000, timeout_ms = 30000;
    const int64_t frame_max = ASK_MAX;
    char endpoint[64];
    size_t size = sizeof endpoint;
    publisher->socket = zmq_socket(context, ZMQ_ROUTER);
    if (!publisher->socket || zmq_setsockopt(publisher->socket, ZMQ_LINGER, &none, sizeof none) != 0 ||
        zmq_setsockopt(publisher->socket, ZMQ_ROUTER_MANDATORY, &one, sizeof one) != 0 ||
        zmq_setsockopt(publisher->socket, ZMQ_SNDHWM, &water, sizeof water) != 0 ||
        zmq_setsockopt(publisher->socket, ZMQ_RCVHWM, &ask_water, sizeof ask_water) != 0 ||
        zmq_setsockopt(publisher->socket, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max) != 0 ||
        zmq_setsockopt(publisher->socket, ZMQ_HEARTBEAT_IVL, &beat_ms, sizeof beat_ms) != 0 ||
        zmq_setsockopt(publisher->socket, ZMQ_HEARTBEAT_TIMEOUT, &timeout_ms, sizeof timeout_ms) != 0)
        return -zmq_errno();
    snprintf(endpoint, sizeof endpoint, publisher->options.port ? "tcp://*:%u" : "tcp://*:*", publisher->options.port);
    if (zmq_setsockopt(publisher->socket, ZMQ_IPV6, &one, sizeof one) != 0 ||
        (zmq_bind(publisher->socket, endpoint) != 0 &&
         (zmq_setsockopt(publisher->socket, ZMQ_IPV6, &none, sizeof none) != 0 ||
          zmq_bind(publisher->socket, endpoint) != 0)))
        return -zmq_errno();
    if (zmq_getsockopt(publisher->socket, ZMQ_LAST_ENDPOINT, endpoint, &size) != 0 || !strrchr(endpoint, ':'))
        return -EIO;
    publisher->port = (uint16_t)strtoul(strrchr(endpoint, ':') + 1, NULL, 10);
    return 0;
}

static void begin_announcement(void *context, const char *key, uint64_t token)
{
    const struct publisher *publisher = context;
    engine_announce(publisher->engine, key, publisher->port, token);
}

int publisher_create(struct publisher **publisher, void *context, struct engine *engine, struct world *world,
                     const struct identity *identity, const struct publisher_options *options, struct moment now)
{
    struct publisher *made = calloc(1, sizeof *made);
    *publisher = NULL;
    if (!made)
        return -ENOMEM;
    made->engine = engine;
    made->world = world;
    made->identity = identity;
    made->options = *options;
    made->started_ms = now.wall_ms;
    memcpy(made->own.id, identity_id(identity), SERVER_ID_SIZE);
    snprintf(made->own.endpoint, sizeof made->own.endpoint, "%s", options->endpoint);
    made->own.curve_key = options->curve_key;
    const struct announcer_options announcing = {.network_id = options->network_id,
                                                 .id = made->own.id,
                                                 .single = options->single,
                                                 .tokens_tag = options->tokens_tag,
                                                 .announce = begin_announcement,
                                                 .context = made};
    int rc = announcer_create(&made->announcer, &announcing);
    if (rc == 0 && (rc = open_socket(made, context)) != 0)
        log_error("cannot listen for other directories on TCP port %u: %s (set dht.tcp_port)", (unsigned)options->port,
                  zmq_strerror(-rc));
    if (rc != 0)
        publisher_destroy(&made);
    else
        engine_map_port(engine, made->port, made->port);
    *publisher = made;
    return rc;
}

static void drop_pages(struct publisher *publisher)
{
    for (size_t i = 0; i < publisher->pages_count; i++)
        zmq_msg_close(&publisher->pages[i].message);
    free(publisher->pages);
    publisher->pages = NULL;
    publisher->pages_count = 0;
    publisher->pages_right = false;
}

static void drop_subscriber(struct publisher *publisher, struct subscriber *subscriber)
{
    table_remove(&publisher->by_route, subscriber->route, subscriber->route_size);
    LIST_REMOVE(subscriber, entry);
    publisher->telling -= !subscriber->told;
    free(subscriber);
}

void publisher_destroy(struct publisher **publisher)
{
    struct publisher *old = *publisher;
    *publisher = NULL;
    if (!old)
        return;
    while (!LIST_EMPTY(&old->subscribers))
        drop_subscriber(old, LIST_FIRST(&old->subscribers));
    table_destroy(&old->by_route);
    announcer_destroy(&old->announcer);
    drop_pages(old);
    world_remove(old->world, &old->own);
    catalog_destroy(&old->catalog);
    if (old->socket)
        zmq_close(old->socket);
    free(old);
}

void *publisher_socket(const struct publisher *publisher)
{
    return publisher->socket;
}

uint16_t publisher_port(const struct publisher *publisher)
{
    return publisher->port;
}

/* ---- telling -------------------------------------------------------------------------------------------------------
 */

/* What is left of `expiration` since the frontend was last known to be there. A server of which nothing lives need not
 * be confirmed: its catalog is empty. */
static uint32_t life_ms(const struct publisher *publisher, struct moment now)
{
    const uint64_t expiration_ns = publisher->options.expiration_ns;
    const uint64_t age_ns =
        publisher->state == PUBLISHER_LIVE && now.ns > publisher->confirmed_ns ? now.ns - publisher->confirmed_ns : 0;
    const uint64_t left_ns = age_ns + NS_PER_MS < expiration_ns ? expiration_ns - age_ns : NS_PER_MS;
    return (uint32_t)(left_ns / NS_PER_MS);
}

static int to_message(const struct dialogue_tell *tell, zmq_msg_t *message)
{
    uint8_t *bytes;
    size_t size;
    int rc = dialogue_pack_tell(tell, &bytes, &size);
    if (rc != 0)
        return rc;
    rc = zmq_msg_init_size(message, size) == 0 ? 0 : -ENOMEM;
    if (rc == 0)
        memcpy(zmq_msg_data(message), bytes, size);
    free(bytes);
    return rc;
}

/* 0; -EAGAIN: its queue is full; or it is gone. The message stays the caller's. */
static int send_to(struct publisher *publisher, const struct subscriber *subscriber, zmq_msg_t *message)
{
    zmq_msg_t copy;
    if (zmq_send(publisher->socket, subscriber->route, subscriber->route_size, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return zmq_errno() == EAGAIN ? -EAGAIN : -EHOSTUNREACH;
    zmq_msg_init(&copy);
    if (zmq_msg_copy(&copy, message) != 0 || zmq_msg_send(&copy, publisher->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&copy);
        return -EHOSTUNREACH;
    }
    publisher->counters.told++;
    return 0;
}

/* Cuts contents into such as fit a message each. Their ranges stay the source's. */
struct cutter {
    const struct publisher *publisher;
    struct dialogue_content *piece;
    size_t count, bytes;
    struct page **pages;
    size_t *pages_count;
    struct moment now;
};

static int flush(struct cutter *cutter, bool whole)
{
    struct dialogue_tell tell = {.network_id = cutter->publisher->options.network_id,
                                 .expiration_ms = life_ms(cutter->publisher, cutter->now),
                                 .whole = whole,
                                 .contents = cutter->piece,
                                 .contents_count = cutter->count};
    struct page *bigger = realloc(*cutter->pages, (*cutter->pages_count + 1) * sizeof *bigger);
    if (!bigger)
        return -ENOMEM;
    *cutter->pages = bigger;
    const int rc = to_message(&tell, &bigger[*cutter->pages_count].message);
    if (rc == 0)
        ++*cutter->pages_count;
    cutter->count = cutter->bytes = 0;
    return rc;
}

enum { RANGES_PIECE = 2048, PIECES_MAX = 1024 };

static int cut(struct cutter *cutter, const struct dialogue_content *content)
{
    int rc = 0;
    size_t from = 0;
    do {
        const size_t left = content->experts.count - from;
        struct dialogue_content piece = *content;
        piece.adds = from > 0;
        piece.experts.items += from;
        piece.experts.count = left < RANGES_PIECE ? left : RANGES_PIECE;
        const size_t bytes = dialogue_content_bytes(&piece);
        if (cutter->count == PIECES_MAX || (cutter->count && cutter->bytes + bytes > DIALOGUE_CONTENTS_BYTES))
            rc = flush(cutter, false);
        cutter->piece[cutter->count++] = piece;
        cutter->bytes += bytes;
        from += piece.experts.count;
    } while (rc == 0 && from < content->experts.count);
    return rc;
}

/* Messages with the contents; `whole`: the last one says so. */
static int make_pages(const struct publisher *publisher, const struct dialogue_content *const *list,
                      const struct dialogue_content *items, size_t count, bool whole, struct page **pages,
                      size_t *pages_count, struct moment now)
{
    struct cutter cutter = {.publisher = publisher, .pages = pages, .pages_count = pages_count, .now = now};
    int rc = 0;
    assert(list || items || count == 0);
    *pages = NULL;
    *pages_count = 0;
    cutter.piece = malloc(PIECES_MAX * sizeof *cutter.piece);
    if (!cutter.piece)
        return -ENOMEM;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = cut(&cutter, list ? list[i] : &items[i]);
    if (rc == 0)
        rc = flush(&cutter, whole);
    free(cutter.piece);
    return rc;
}

static void make_catalog_pages(struct publisher *publisher, struct moment now)
{
    if (publisher->pages_right)
        return;
    drop_pages(publisher);
    const size_t count = publisher->state == PUBLISHER_LIVE ? publisher->catalog.count : 0;
    if (make_pages(publisher, (const struct dialogue_content *const *)publisher->catalog.contents, NULL, count, true,
                   &publisher->pages, &publisher->pages_count, now) == 0)
        publisher->pages_right = true;
    else
        log_error("not enough memory to tell what this server hosts");
}

static int introduce(struct publisher *publisher, struct subscriber *subscriber, struct moment now)
{
    struct dialogue_tell tell = {
        .network_id = publisher->options.network_id, .expiration_ms = life_ms(publisher, now), .introduced = true};
    struct dialogue_introduction *introduction = &tell.introduction;
    zmq_msg_t message;
    if (FAILPOINT("dht.tell"))
        return -ENOMEM;
    memcpy(introduction->server_id, identity_id(publisher->identity), SERVER_ID_SIZE);
    memcpy(introduction->instance, publisher->options.instance, INSTANCE_SIZE);
    snprintf(introduction->endpoint, sizeof introduction->endpoint, "%s", publisher->options.endpoint);
    introduction->started_ms = publisher->started_ms;
    introduction->curve_key = publisher->options.curve_key;
    introduction->vouched = publisher->options.voucher != NULL;
    if (introduction->vouched)
        introduction->voucher = *publisher->options.voucher;
    int rc = dialogue_sign(introduction, publisher->identity, &subscriber->ask);
    if (rc == 0)
        rc = to_message(&tell, &message);
    if (rc != 0)
        return rc;
    rc = send_to(publisher, subscriber, &message);
    zmq_msg_close(&message);
    return rc;
}

/* All of the catalog, or as much as its queue holds. */
static void tell_all(struct publisher *publisher, struct subscriber *subscriber, struct moment now)
{
    int rc = 0;
    make_catalog_pages(publisher, now);
    if (!subscriber->introduced) {
        rc = introduce(publisher, subscriber, now);
        subscriber->introduced = rc == 0;
        subscriber->next_page = 0;
    }
    while (rc == 0 && subscriber->next_page < publisher->pages_count) {
        rc = send_to(publisher, subscriber, &publisher->pages[subscriber->next_page].message);
        subscriber->next_page += rc == 0;
    }
    if (rc == -EHOSTUNREACH) {
        drop_subscriber(publisher, subscriber);
    } else if (rc == 0 && publisher->pages_right) {
        subscriber->told = true;
        publisher->telling--;
    }
}

/* From the beginning. */
static void start_telling(struct publisher *publisher, struct subscriber *subscriber)
{
    publisher->telling += subscriber->told;
    subscriber->told = subscriber->introduced = false;
}

/* Who has been told all is told this too; the others will see it in the catalog. */
static void tell_news(struct publisher *publisher, zmq_msg_t *message)
{
    for (struct subscriber *subscriber = LIST_FIRST(&publisher->subscribers), *next; subscriber; subscriber = next) {
        next = LIST_NEXT(subscriber, entry);
        if (!subscriber->told)
            continue;
        const int rc = send_to(publisher, subscriber, message);
        if (rc == -EHOSTUNREACH)
            drop_subscriber(publisher, subscriber);
        else if (rc != 0)
            start_telling(publisher, subscriber);
    }
}

/* What lives was `old` and is `new` now. */
static int tell_changes(struct publisher *publisher, const struct catalog *old, const struct catalog *new,
                        struct moment now)
{
    struct dialogue_content *changes;
    struct page *pages = NULL;
    size_t count, pages_count = 0;
    int rc = catalog_changes(old, new, &changes, &count);
    publisher->pages_right = false;
    struct subscriber *subscriber;
    for (subscriber = LIST_FIRST(&publisher->subscribers); subscriber; subscriber = LIST_NEXT(subscriber, entry))
        if (!subscriber->told)
            subscriber->introduced = false; /* pages of two catalogs do not mix */
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = world_put(publisher->world, &publisher->own, &changes[i]);
    if (rc == 0)
        rc = world_branch(publisher->world, &publisher->own);
    if (rc == 0 && count > 0)
        rc = make_pages(publisher, NULL, changes, count, false, &pages, &pages_count, now);
    for (size_t i = 0; i < pages_count; i++) {
        if (rc == 0)
            tell_news(publisher, &pages[i].message);
        zmq_msg_close(&pages[i].message);
    }
    free(pages);
    free(changes);
    return rc;
}

static void beat(struct publisher *publisher, uint32_t expiration_ms)
{
    const struct dialogue_tell tell = {.network_id = publisher->options.network_id, .expiration_ms = expiration_ms};
    zmq_msg_t message;
    if (to_message(&tell, &message) != 0)
        return;
    tell_news(publisher, &message);
    zmq_msg_close(&message);
    publisher->counters.heartbeats++;
}

/* ---- being asked ---------------------------------------------------------------------------------------------------
 */

static struct subscriber *subscriber_for(struct publisher *publisher, zmq_msg_t *route)
{
    const size_t size = zmq_msg_size(route);
    struct subscriber *subscriber = table_find(&publisher->by_route, zmq_msg_data(route), size);
    if (subscriber || size > ROUTE_MAX || publisher->by_route.count >= PUBLISHER_SUBSCRIBERS_MAX)
        return subscriber;
    subscriber = calloc(1, sizeof *subscriber + size);
    if (!subscriber)
        return NULL;
    subscriber->route_size = size;
    memcpy(subscriber->route, zmq_msg_data(route), size);
    if (table_insert(&publisher->by_route, subscriber->route, size, subscriber) != 0) {
        free(subscriber);
        return NULL;
    }
    subscriber->told = true; /* counted by start_telling */
    LIST_INSERT_HEAD(&publisher->subscribers, subscriber, entry);
    return subscriber;
}

static void take_ask(struct publisher *publisher, zmq_msg_t *route, const struct dialogue_ask *ask, struct moment now)
{
    struct subscriber *subscriber = subscriber_for(publisher, route);
    publisher->counters.asked++;
    if (!subscriber || (subscriber->asked_ns && now.ns - subscriber->asked_ns < asked_pause_ns))
        return;
    subscriber->asked_ns = now.ns;
    subscriber->ask = *ask;
    start_telling(publisher, subscriber);
    /* One of another network hears only that it is wrong here. */
    if (ask->network_id != publisher->options.network_id) {
        introduce(publisher, subscriber, now);
        drop_subscriber(publisher, subscriber);
        return;
    }
    tell_all(publisher, subscriber, now);
}

static bool receive(struct publisher *publisher, struct moment now)
{
    struct frames frames;
    struct dialogue_ask ask;
    if (!frames_receive(&frames, publisher->socket))
        return false;
    zmq_msg_t *frame = &frames.items[1];
    if (frames.count == 2 && dialogue_unpack_ask(&ask, zmq_msg_data(frame), zmq_msg_size(frame)) == 0)
        take_ask(publisher, &frames.items[0], &ask, now);
    frames_close(&frames);
    return true;
}

/* ---- the frontend --------------------------------------------------------------------------------------------------
 */

static const struct catalog nothing;

static void set_state(struct publisher *publisher, enum publisher_state state, struct moment now)
{
    const enum publisher_state before = publisher->state;
    if (before == state || before == PUBLISHER_LEAVING)
        return;
    log_debug("publishing: %s -> %s", publisher_state_name(before), publisher_state_name(state));
    publisher->state = state;
    int rc = 0;
    if (before == PUBLISHER_LIVE)
        rc = tell_changes(publisher, &publisher->catalog, &nothing, now);
    else if (state == PUBLISHER_LIVE)
        rc = tell_changes(publisher, &nothing, &publisher->catalog, now);
    if (rc != 0)
        log_error("not enough memory to publish the experts");
    publisher->next_heartbeat_ns = 0;
}

int publisher_set(struct publisher *publisher, struct catalog *catalog, uint64_t confirmed_ns, struct moment now)
{
    struct catalog old = publisher->catalog;
    int rc = 0;
    publisher->catalog = *catalog;
    *catalog = (struct catalog){0};
    if (publisher->state == PUBLISHER_LIVE)
        rc = tell_changes(publisher, &old, &publisher->catalog, now);
    if (rc == 0)
        rc = announcer_host(publisher->announcer, &publisher->catalog);
    catalog_destroy(&old);
    publisher_confirm(publisher, confirmed_ns, now);
    return rc;
}

void publisher_confirm(struct publisher *publisher, uint64_t confirmed_ns, struct moment now)
{
    publisher->confirmed_ns = confirmed_ns;
    set_state(publisher, PUBLISHER_LIVE, now);
}

void publisher_lose(struct publisher *publisher, struct moment now)
{
    set_state(publisher, PUBLISHER_SILENT, now);
}

void publisher_leave(struct publisher *publisher, struct moment now)
{
    const int linger_ms = FAREWELL_MS;
    set_state(publisher, PUBLISHER_LEAVING, now);
    beat(publisher, 0);
    if (zmq_setsockopt(publisher->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms) != 0)
        log_debug("the farewell may not reach everybody");
}

uint64_t publisher_step(struct publisher *publisher, struct moment now)
{
    bool left = true;
    for (int i = 0; i < BURST && left; i++)
        left = receive(publisher, now);
    if (now.ns >= publisher->next_heartbeat_ns && publisher->state != PUBLISHER_LEAVING) {
        beat(publisher, life_ms(publisher, now));
        publisher->next_heartbeat_ns = now.ns + publisher->options.update_period_ns;
    }
    for (struct subscriber *subscriber = LIST_FIRST(&publisher->subscribers), *next;
         subscriber && publisher->telling > 0; subscriber = next) {
        next = LIST_NEXT(subscriber, entry);
        if (!subscriber->told)
            tell_all(publisher, subscriber, now);
    }
    uint64_t next_ns = announcer_step(publisher->announcer, engine_table_nodes(publisher->engine), now);
    if (publisher->next_heartbeat_ns < next_ns)
        next_ns = publisher->next_heartbeat_ns;
    if (publisher->telling > 0 && now.ns + retry_ns < next_ns)
        next_ns = now.ns + retry_ns;
    return left ? now.ns : next_ns;
}

/* ---- what is there -------------------------------------------------------------------------------------------------
 */

enum publisher_state publisher_state(const struct publisher *publisher)
{
    return publisher->state;
}

struct announcer *publisher_announcer(const struct publisher *publisher)
{
    return publisher->announcer;
}

const struct catalog *publisher_catalog(const struct publisher *publisher)
{
    return &publisher->catalog;
}

size_t publisher_subscribers(const struct publisher *publisher)
{
    return publisher->by_route.count;
}

uint64_t publisher_started_ms(const struct publisher *publisher)
{
    return publisher->started_ms;
}

const struct publisher_counters *publisher_counters(const struct publisher *publisher)
{
    return &publisher->counters;
}
