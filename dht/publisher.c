#include "dht/publisher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "dht/publication.h"
#include "dht/seal.h"

enum { PUTS_MAX = 16 /* under way at once */, VALUE_MAX = 60000 };

static const uint64_t heartbeat_bit = UINT64_C(1) << 47; /* tells a heartbeat's token from a record's */

/* The first heartbeat does not wait longer for the records before it: some of them are better than none. */
static const uint64_t announcing_ns = 3 * NS_PER_S;

struct publisher {
    struct node *node;
    const struct identity *identity;
    struct publisher_options options;
    enum publisher_state state;
    uint64_t since_ns; /* of the state */
    struct catalog catalog;
    struct table publications; /* prefix -> struct publication */
    size_t due;                /* publications that are */
    struct node_put *heartbeat;
    uint64_t heartbeat_token; /* of the newest one's put; 0: it has ended */
    uint64_t next_heartbeat_ns;
    uint64_t confirmed_ns;
    uint64_t sequence;
    uint64_t records_from;
    uint64_t tokens_tag, last_token;
    unsigned puts_running; /* of records */
    uint64_t double_heeded_ns;
    bool degraded; /* it was logged */
    struct publisher_counters counters;
};

const char *publisher_state_name(enum publisher_state state)
{
    static const char *const names[] = {"silent", "announcing", "live", "leaving"};
    return names[state];
}

static void set_state(struct publisher *publisher, enum publisher_state state, struct moment now)
{
    if (publisher->state == state)
        return;
    log_debug("publishing: %s -> %s", publisher_state_name(publisher->state), publisher_state_name(state));
    publisher->state = state;
    publisher->since_ns = now.ns;
}

int publisher_create(struct publisher **publisher, struct node *node, const struct identity *identity,
                     const struct publisher_options *options, uint64_t tokens_tag, struct moment now)
{
    struct publisher *made = calloc(1, sizeof *made);
    *publisher = made;
    if (!made)
        return -ENOMEM;
    made->node = node;
    made->identity = identity;
    made->options = *options;
    made->tokens_tag = tokens_tag;
    /* The wall's clock makes sequences grow over a restart, without a file to keep them in. */
    made->sequence = made->records_from = now.wall_ms * 1000;
    made->since_ns = now.ns;
    return 0;
}

void publisher_destroy(struct publisher **publisher)
{
    struct publisher *old = *publisher;
    *publisher = NULL;
    if (!old)
        return;
    struct publication *publication;
    for (size_t at = 0; (publication = table_next(&old->publications, &at));) {
        publication_withdraw(publication, old->node);
        publication_destroy(publication);
        free(publication);
    }
    table_destroy(&old->publications);
    node_withdraw(old->node, &old->heartbeat);
    catalog_destroy(&old->catalog);
    free(old);
}

/* ---- what is to be published ---------------------------------------------------------------------------------------
 */

static int set_publication(struct publisher *publisher, const struct catalog_entry *entry)
{
    const size_t length = strlen(entry->prefix);
    struct publication *publication = table_find(&publisher->publications, entry->prefix, length);
    if (!publication) {
        publication = calloc(1, sizeof *publication);
        if (!publication)
            return -ENOMEM;
        memcpy(publication->prefix, entry->prefix, length + 1);
        if (table_insert(&publisher->publications, publication->prefix, length, publication) != 0) {
            free(publication);
            return -ENOMEM;
        }
    }
    return publication_set(publication, entry);
}

int publisher_set(struct publisher *publisher, struct catalog *catalog, uint64_t confirmed_ns)
{
    int rc = 0;
    struct publication *publication;
    catalog_destroy(&publisher->catalog);
    publisher->catalog = *catalog;
    *catalog = (struct catalog){0};
    for (size_t i = 0; rc == 0 && i < publisher->catalog.count; i++)
        rc = set_publication(publisher, publisher->catalog.entries[i]);
    publisher->due = 0;
    for (size_t at = 0; (publication = table_next(&publisher->publications, &at));) {
        /* An empty record, since one that is only no longer announced would live on in the DHT. */
        if (rc == 0 && !catalog_find(&publisher->catalog, publication->prefix))
            rc = publication_set(publication, NULL);
        publisher->due += publication->due;
    }
    publisher->next_heartbeat_ns = 0;
    publisher_confirm(publisher, confirmed_ns);
    return rc;
}

void publisher_confirm(struct publisher *publisher, uint64_t confirmed_ns)
{
    publisher->confirmed_ns = confirmed_ns;
    if (publisher->state == PUBLISHER_SILENT)
        set_state(publisher, PUBLISHER_ANNOUNCING, (struct moment){.ns = confirmed_ns});
}

/* ---- putting -------------------------------------------------------------------------------------------------------
 */

static uint64_t next_sequence(struct publisher *publisher, struct moment now)
{
    const uint64_t wall = now.wall_ms * 1000;
    publisher->sequence = wall > publisher->sequence ? wall : publisher->sequence + 1;
    return publisher->sequence;
}

static uint64_t new_token(struct publisher *publisher, enum seal_kind kind)
{
    return publisher->tokens_tag | (kind == SEAL_HEARTBEAT ? heartbeat_bit : 0) | ++publisher->last_token;
}

static void tell(const struct publisher *publisher, const char *prefix, const struct node_put *handle,
                 struct moment now)
{
    size_t size;
    const uint8_t *value = node_put_value(handle, &size);
    if (publisher->options.published)
        publisher->options.published(publisher->options.context, prefix, value, size, now);
}

void publisher_repeat(const struct publisher *publisher, const char *key, struct moment now)
{
    char heartbeats[HEARTBEAT_KEY_SIZE];
    const struct publication *publication = table_find(&publisher->publications, key, strlen(key));
    for (uint32_t i = 0; publication && i < publication->puts_count; i++)
        tell(publisher, publication->prefix, publication->puts[i], now);
    heartbeat_key(identity_id(publisher->identity), heartbeats);
    if (publisher->heartbeat && strcmp(key, heartbeats) == 0)
        tell(publisher, NULL, publisher->heartbeat, now);
}

/* Seals and puts a payload, which is freed. 0 or -errno. */
static int put(struct publisher *publisher, enum seal_kind kind, const char *key, uint8_t *payload, size_t payload_size,
               struct moment now, struct node_put **handle)
{
    uint8_t *value = NULL;
    size_t size = 0;
    int rc = seal_encode(publisher->identity, kind, payload, payload_size, &value, &size);
    free(payload);
    if (rc == 0 && size > VALUE_MAX)
        rc = -EMSGSIZE;
    if (rc == 0)
        rc = node_put(publisher->node, key, value, size, new_token(publisher, kind), handle);
    free(value);
    if (rc == 0)
        tell(publisher, kind == SEAL_RECORD ? key : NULL, *handle, now);
    return rc;
}

static int put_record(struct publisher *publisher, struct publication *publication, struct moment now)
{
    struct record_slice slices[RECORD_MAX_PARTS];
    struct record record = {.published_ms = now.wall_ms, .sequence = next_sequence(publisher, now)};
    bool cut;
    int rc = 0;
    record.parts = publication_slices(publication, slices, &cut);
    if (cut)
        log_error("too many scattered coordinates under '%s': some experts are not published", publication->prefix);
    memcpy(record.prefix, publication->prefix, UID_SIZE);
    strncpy(record.endpoint, publisher->options.endpoint, sizeof record.endpoint - 1);
    record.experts = publication->experts; /* borrowed */
    record.branches = publication->branches;
    publication_withdraw(publication, publisher->node);
    for (uint32_t part = 0; rc == 0 && part < record.parts; part++) {
        uint8_t *payload;
        size_t size;
        record.part = part;
        rc = record_encode(&record, &slices[part], &payload, &size);
        if (rc == 0)
            rc = put(publisher, SEAL_RECORD, publication->prefix, payload, size, now, &publication->puts[part]);
        if (rc == 0) {
            publication->puts_count++;
            publisher->puts_running++;
            publisher->counters.records++;
        }
    }
    return rc;
}

static void put_if_due(struct publisher *publisher, struct publication *publication, struct moment now)
{
    if (!publication->due || publisher->puts_running >= PUTS_MAX)
        return;
    const int rc = put_record(publisher, publication, now);
    if (rc != 0)
        log_error("cannot publish what begins with '%s': %s", publication->prefix, strerror(-rc));
    publication->due = false;
    publisher->due--;
}

static void put_records(struct publisher *publisher, struct moment now)
{
    struct publication *publication;
    /* A prefix goes before those below it, since it is by the one above that readers know whether they have all. */
    for (size_t i = 0; publisher->due > 0 && i < publisher->catalog.count; i++) {
        const char *prefix = publisher->catalog.entries[i]->prefix;
        put_if_due(publisher, table_find(&publisher->publications, prefix, strlen(prefix)), now);
    }
    for (size_t at = 0; publisher->due > 0 && (publication = table_next(&publisher->publications, &at));)
        put_if_due(publisher, publication, now);
}

/* What is left of `expiration` since the frontend was last known to be there. */
static uint64_t life_ms(const struct publisher *publisher, struct moment now)
{
    const uint64_t age_ns = now.ns > publisher->confirmed_ns ? now.ns - publisher->confirmed_ns : 0;
    return age_ns < publisher->options.expiration_ns ? (publisher->options.expiration_ns - age_ns) / NS_PER_MS : 0;
}

static int put_heartbeat(struct publisher *publisher, uint64_t expiration_ms, struct moment now)
{
    struct heartbeat heartbeat = {.published_ms = now.wall_ms,
                                  .expiration_ms = expiration_ms,
                                  .sequence = next_sequence(publisher, now),
                                  .records_from = publisher->records_from};
    size_t degraded = 0;
    uint8_t *payload;
    size_t size;
    char key[HEARTBEAT_KEY_SIZE];
    int rc = 0;
    strncpy(heartbeat.endpoint, publisher->options.endpoint, sizeof heartbeat.endpoint - 1);
    if (expiration_ms > 0)
        rc = catalog_exclusions(&publisher->catalog, &heartbeat.excluded, &heartbeat.excluded_count, &degraded);
    if (degraded && !publisher->degraded)
        log_warning("too many scattered experts are not alive to name them all: %zu prefixes are not advertised at all",
                    degraded);
    publisher->degraded = degraded > 0;
    if (rc == 0)
        rc = heartbeat_encode(&heartbeat, &payload, &size);
    heartbeat_destroy(&heartbeat);
    if (rc != 0)
        return rc;
    struct node_put *before = publisher->heartbeat;
    heartbeat_key(identity_id(publisher->identity), key);
    rc = put(publisher, SEAL_HEARTBEAT, key, payload, size, now, &publisher->heartbeat);
    if (rc == 0) {
        publisher->heartbeat_token = publisher->tokens_tag | heartbeat_bit | publisher->last_token;
        publisher->counters.heartbeats++;
    }
    node_withdraw(publisher->node, &before);
    return rc;
}

static void beat(struct publisher *publisher, uint64_t expiration_ms, struct moment now)
{
    int rc = put_heartbeat(publisher, expiration_ms, now);
    /* Nobody may go on believing an older one that covers more. */
    if (rc == -EMSGSIZE)
        rc = put_heartbeat(publisher, 0, now);
    if (rc != 0)
        log_error("cannot publish a heartbeat: %s", strerror(-rc));
    publisher->next_heartbeat_ns = now.ns + publisher->options.update_period_ns;
}

/* ---- life ----------------------------------------------------------------------------------------------------------
 */

void publisher_lose(struct publisher *publisher, struct moment now)
{
    if (publisher->state == PUBLISHER_LIVE)
        beat(publisher, 0, now);
    if (publisher->state != PUBLISHER_LEAVING)
        set_state(publisher, PUBLISHER_SILENT, now);
}

void publisher_leave(struct publisher *publisher, struct moment now)
{
    publisher_lose(publisher, now);
    set_state(publisher, PUBLISHER_LEAVING, now);
}

bool publisher_quiet(const struct publisher *publisher)
{
    return publisher->heartbeat_token == 0;
}

bool publisher_done(const struct publisher *publisher)
{
    return publisher->state == PUBLISHER_LIVE && publisher->due == 0 && publisher->puts_running == 0 &&
           publisher->heartbeat_token == 0;
}

void publisher_on_put(struct publisher *publisher, uint64_t token, bool ok)
{
    if (!ok)
        publisher->counters.put_failures++;
    if (token == publisher->heartbeat_token)
        publisher->heartbeat_token = 0;
    if (!(token & heartbeat_bit))
        publisher->puts_running--;
}

void publisher_on_own(struct publisher *publisher, const uint8_t *value, size_t size, struct moment now)
{
    struct seal seal;
    struct heartbeat heartbeat;
    if (seal_decode(&seal, value, size) != 0)
        return;
    if (memcmp(seal.server_id, identity_id(publisher->identity), SERVER_ID_SIZE) == 0 &&
        heartbeat_decode(&heartbeat, seal.payload, seal.size) == 0) {
        const bool ahead = heartbeat.sequence > publisher->sequence && heartbeat.sequence < UINT64_MAX / 2;
        const bool young = now.ns - publisher->double_heeded_ns < publisher->options.update_period_ns;
        heartbeat_destroy(&heartbeat);
        if (ahead && !young && seal_valid(&seal, SEAL_HEARTBEAT)) {
            struct publication *publication;
            log_warning("the DHT has a later heartbeat of this server's identity: its clock was ahead, or another "
                        "server uses the same dht.identity_file; publishing everything again");
            publisher->double_heeded_ns = now.ns;
            publisher->sequence = heartbeat.sequence;
            publisher->records_from = next_sequence(publisher, now);
            publisher->due = 0;
            for (size_t at = 0; (publication = table_next(&publisher->publications, &at)); publisher->due++)
                publication->due = true;
            publisher->next_heartbeat_ns = 0;
        }
    }
    seal_destroy(&seal);
}

void publisher_on_connected(struct publisher *publisher, struct moment now)
{
    if (publisher->state == PUBLISHER_LIVE)
        publisher->next_heartbeat_ns = now.ns;
}

uint64_t publisher_step(struct publisher *publisher, struct moment now)
{
    if (publisher->state == PUBLISHER_SILENT || publisher->state == PUBLISHER_LEAVING)
        return UINT64_MAX;
    put_records(publisher, now);
    if (publisher->state == PUBLISHER_ANNOUNCING) {
        const uint64_t end_ns = publisher->since_ns + announcing_ns;
        if ((publisher->due || publisher->puts_running) && now.ns < end_ns)
            return end_ns;
        set_state(publisher, PUBLISHER_LIVE, now);
        publisher->next_heartbeat_ns = 0;
    }
    if (now.ns >= publisher->next_heartbeat_ns) {
        const uint64_t left_ms = life_ms(publisher, now);
        if (left_ms == 0) {
            publisher_lose(publisher, now);
            return UINT64_MAX;
        }
        beat(publisher, left_ms, now);
    }
    return publisher->next_heartbeat_ns;
}

enum publisher_state publisher_state(const struct publisher *publisher)
{
    return publisher->state;
}

const struct catalog *publisher_catalog(const struct publisher *publisher)
{
    return &publisher->catalog;
}

const struct publisher_counters *publisher_counters(const struct publisher *publisher)
{
    return &publisher->counters;
}
