#include "dht/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/log.h"
#include "dht/frames.h"
#include "proto/expertd.pb-c.h"
#include "proto/wire.h"

enum { FRAME_MAX = 8 << 20 };

static const uint64_t unconnected_ns = 50 * NS_PER_MS; /* pause while there is no connection to ask over */

struct watch {
    void *socket;
    uint64_t period_ns;
    uint64_t request_id; /* of the question that is open; 0: none */
    uint64_t asked_ns;   /* when it was asked */
    uint64_t next_ns;    /* when to ask again */
    uint64_t confirmed_ns;
    uint64_t last_id;
    bool listing; /* the open question is a page of the list */
    bool known;   /* generation is that of a list that was handed out */
    bool lost;
    uint64_t generation;
    uint32_t offset; /* of the page */
    uint64_t listing_generation, listing_ns;
    struct catalog catalog; /* that is being built, or is to be taken */
};

int watch_create(struct watch **watch, void *context, const char *endpoint, const struct guard *guard,
                 uint64_t period_ns, struct moment now)
{
    const int none = 0, one = 1, water = 8;
    const int64_t frame_max = FRAME_MAX;
    struct watch *made = calloc(1, sizeof *made);
    *watch = NULL;
    if (!made)
        return -ENOMEM;
    made->period_ns = period_ns;
    made->confirmed_ns = now.ns;
    made->socket = zmq_socket(context, ZMQ_DEALER);
    /* IMMEDIATE: nothing is queued for a frontend that is not there. */
    if (!made->socket || zmq_setsockopt(made->socket, ZMQ_LINGER, &none, sizeof none) != 0 ||
        zmq_setsockopt(made->socket, ZMQ_IMMEDIATE, &one, sizeof one) != 0 ||
        zmq_setsockopt(made->socket, ZMQ_SNDHWM, &water, sizeof water) != 0 ||
        zmq_setsockopt(made->socket, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max) != 0 ||
        guard_client_socket(guard, made->socket) < 0 || zmq_connect(made->socket, endpoint) != 0) {
        log_error("cannot connect to the frontend at '%s': %s (set dht.frontend)", endpoint, zmq_strerror(zmq_errno()));
        watch_destroy(&made);
        return -EINVAL;
    }
    *watch = made;
    return 0;
}

struct watch *watch_deaf(uint64_t request_id)
{
    struct watch *watch = calloc(1, sizeof *watch);
    if (watch) {
        watch->request_id = watch->last_id = request_id;
        watch->next_ns = UINT64_MAX;
    }
    return watch;
}

void watch_destroy(struct watch **watch)
{
    struct watch *old = *watch;
    *watch = NULL;
    if (!old)
        return;
    if (old->socket)
        zmq_close(old->socket);
    catalog_destroy(&old->catalog);
    free(old);
}

void *watch_socket(const struct watch *watch)
{
    return watch->socket;
}

uint64_t watch_confirmed_ns(const struct watch *watch)
{
    return watch->confirmed_ns;
}

struct catalog watch_take(struct watch *watch)
{
    struct catalog catalog = watch->catalog;
    watch->catalog = (struct catalog){0};
    return catalog;
}

/* ---- asking --------------------------------------------------------------------------------------------------------
 */

static void ask(struct watch *watch, struct moment now)
{
    Expertd__RequestHeader request = EXPERTD__REQUEST_HEADER__INIT;
    Expertd__ListQuery query = EXPERTD__LIST_QUERY__INIT;
    uint8_t frame[64];
    request.version = 1;
    request.request_id = ++watch->last_id;
    request.method = EXPERTD__METHOD__LIST;
    request.list = &query;
    query.offset = watch->listing ? watch->offset : 0;
    query.limit = watch->listing ? WATCH_PAGE : 1;
    const size_t size = expertd__request_header__pack(&request, frame);
    watch->request_id = watch->last_id;
    watch->asked_ns = now.ns;
    /* It asks again in a period if this gets lost, or is not even sent. */
    watch->next_ns = now.ns + watch->period_ns;
    if (watch->socket && zmq_send(watch->socket, frame, size, ZMQ_DONTWAIT) < 0) {
        watch->request_id = 0;
        if (watch->period_ns > unconnected_ns)
            watch->next_ns = now.ns + unconnected_ns;
    }
}

static void start_listing(struct watch *watch, uint64_t generation, struct moment now)
{
    catalog_destroy(&watch->catalog);
    watch->listing = true;
    watch->offset = 0;
    watch->listing_generation = generation;
    watch->listing_ns = watch->asked_ns;
    ask(watch, now);
}

/* ---- hearing -------------------------------------------------------------------------------------------------------
 */

static enum watch_news hear_page(struct watch *watch, const Expertd__ExpertList *list, struct moment now)
{
    if (list->generation != watch->listing_generation) {
        start_listing(watch, list->generation, now);
        return WATCH_NOTHING;
    }
    for (size_t i = 0; i < list->n_experts; i++) {
        if (list->experts[i]->endpoint[0])
            continue; /* another frontend's, which has a directory of its own */
        const int rc = catalog_add(&watch->catalog, list->experts[i]->uid, list->experts[i]->alive);
        if (rc == -EINVAL)
            log_warning("the frontend lists '%.100s', which is no uid: it is not published", list->experts[i]->uid);
        else if (rc != 0)
            log_error("not enough memory for the list of experts");
    }
    watch->offset += (uint32_t)list->n_experts;
    if (list->n_experts > 0 && watch->offset < list->total && watch->offset < WATCH_MAX_EXPERTS) {
        ask(watch, now);
        return WATCH_NOTHING;
    }
    watch->listing = false;
    watch->known = true;
    watch->generation = watch->listing_generation;
    watch->confirmed_ns = watch->listing_ns;
    return catalog_finish(&watch->catalog) == 0 ? WATCH_CHANGED : WATCH_NOTHING;
}

static enum watch_news hear_reply(struct watch *watch, const Expertd__ReplyHeader *reply, struct moment now)
{
    if (reply->request_id != watch->request_id || watch->request_id == 0)
        return WATCH_NOTHING; /* late: another has been asked since */
    watch->request_id = 0;
    if (reply->status != EXPERTD__STATUS__OK || !reply->list) {
        static struct log_burst burst;
        if (log_burst_allows(&burst, NULL, NULL))
            log_warning("the frontend refuses to list its experts: status %d, '%.200s'", (int)reply->status,
                        reply->message);
        watch->listing = false;
        return WATCH_NOTHING;
    }
    if (watch->lost)
        log_info("the frontend answers");
    watch->lost = false;
    if (watch->listing)
        return hear_page(watch, reply->list, now);
    if (!watch->known || reply->list->generation != watch->generation) {
        start_listing(watch, reply->list->generation, now);
        return WATCH_NOTHING;
    }
    watch->confirmed_ns = watch->asked_ns;
    return WATCH_CONFIRMED;
}

enum watch_news watch_hear(struct watch *watch, const void *frame, size_t size, struct moment now)
{
    Expertd__ReplyHeader *reply = wire_unpack(&expertd__reply_header__descriptor, NULL, size, frame);
    if (!reply)
        return WATCH_NOTHING;
    const enum watch_news news = hear_reply(watch, reply, now);
    expertd__reply_header__free_unpacked(reply, NULL);
    return news;
}

enum watch_news watch_step(struct watch *watch, struct moment now, uint64_t *due_ns)
{
    struct frames frames;
    *due_ns = now.ns;
    while (frames_receive(&frames, watch->socket)) {
        const enum watch_news news =
            watch_hear(watch, zmq_msg_data(&frames.items[0]), zmq_msg_size(&frames.items[0]), now);
        frames_close(&frames);
        if (news != WATCH_NOTHING)
            return news;
    }
    if (now.ns >= watch->next_ns) {
        /* A page that did not come: from the beginning. */
        if (watch->request_id)
            watch->listing = false;
        ask(watch, now);
    }
    const uint64_t silent_ns = watch->confirmed_ns + WATCH_SILENCE_MS * NS_PER_MS;
    *due_ns = watch->next_ns;
    if (!watch->lost && now.ns >= silent_ns) {
        log_warning("the frontend does not answer: its experts are no longer advertised as alive");
        watch->lost = true;
        watch->known = false; /* a new one may count its generations from the beginning */
        return WATCH_LOST;
    }
    if (!watch->lost && silent_ns < *due_ns)
        *due_ns = silent_ns;
    return WATCH_NOTHING;
}
