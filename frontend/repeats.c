#include "frontend/repeats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"
#include "frontend/buffer.h"

enum { BUCKETS = 1 << 14 };

struct entry {
    struct entry *chain; /* in its bucket, or the free list */
    struct entry *newer, *older;
    struct repeat_key key;
    struct request *running;
    struct buffer *kept;
};

struct repeats {
    struct entry *buckets[BUCKETS];
    struct entry *free;
    struct entry *newest, *oldest; /* of those that keep an answer */
    size_t keep_bytes, kept_bytes;
    uint32_t kept;
    uint64_t secret[4];
};

int repeats_create(struct repeats **repeats, size_t keep_bytes)
{
    *repeats = calloc(1, sizeof **repeats);
    if (!*repeats)
        return -ENOMEM;
    (*repeats)->keep_bytes = keep_bytes;
    /* Without random bytes, which Linux always has once it is up, the time has to do. */
    if (getrandom((*repeats)->secret, sizeof(*repeats)->secret, GRND_NONBLOCK) < 0) {
        for (int i = 0; i < 4; i++)
            (*repeats)->secret[i] = (clock_now_ns() + (uint64_t)i) * (clock_wall_ns() | 1);
    }
    return 0;
}

static size_t cost(const struct buffer *answer)
{
    return buffer_capacity(answer) + sizeof *answer + sizeof(struct entry);
}

static void unlink_age(struct repeats *repeats, struct entry *entry)
{
    if (entry->newer)
        entry->newer->older = entry->older;
    else
        repeats->newest = entry->older;
    if (entry->older)
        entry->older->newer = entry->newer;
    else
        repeats->oldest = entry->newer;
}

static void link_newest(struct repeats *repeats, struct entry *entry)
{
    entry->newer = NULL;
    entry->older = repeats->newest;
    if (repeats->newest)
        repeats->newest->newer = entry;
    else
        repeats->oldest = entry;
    repeats->newest = entry;
}

static uint64_t fold(uint64_t a, uint64_t b)
{
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Clients choose most of a key, so its hash has a secret: or they could choose keys of one bucket. */
static struct entry **bucket_of(struct repeats *repeats, const struct repeat_key *key)
{
    const uint64_t *secret = repeats->secret;
    const uint64_t half = fold(key->uid_hash ^ secret[0], key->client[0] ^ secret[1]);
    const uint64_t hash = fold(half ^ key->client[1] ^ secret[2], key->request_id ^ secret[3]);
    return &repeats->buckets[hash % BUCKETS];
}

static struct entry *find(struct repeats *repeats, const struct repeat_key *key)
{
    struct entry *entry = *bucket_of(repeats, key);
    while (entry && memcmp(&entry->key, key, sizeof *key) != 0)
        entry = entry->chain;
    return entry;
}

static struct entry *find_or_add(struct repeats *repeats, const struct repeat_key *key)
{
    struct entry *entry = find(repeats, key);
    if (entry)
        return entry;
    entry = repeats->free;
    if (entry)
        repeats->free = entry->chain;
    else
        entry = malloc(sizeof *entry);
    if (!entry)
        return NULL;
    struct entry **bucket = bucket_of(repeats, key);
    *entry = (struct entry){.chain = *bucket, .key = *key};
    *bucket = entry;
    return entry;
}

/* An entry that neither runs nor keeps is of no use. */
static void remove_if_idle(struct repeats *repeats, struct entry *entry)
{
    if (entry->running || entry->kept)
        return;
    struct entry **link = bucket_of(repeats, &entry->key);
    while (*link != entry)
        link = &(*link)->chain;
    *link = entry->chain;
    entry->chain = repeats->free;
    repeats->free = entry;
}

static void drop_answer(struct repeats *repeats, struct entry *entry)
{
    unlink_age(repeats, entry);
    repeats->kept--;
    repeats->kept_bytes -= cost(entry->kept);
    buffer_release(entry->kept);
    entry->kept = NULL;
    remove_if_idle(repeats, entry);
}

void repeats_destroy(struct repeats **repeats)
{
    if (!*repeats)
        return;
    while ((*repeats)->oldest)
        drop_answer(*repeats, (*repeats)->oldest);
    for (size_t b = 0; b < BUCKETS; b++) {
        for (struct entry *entry = (*repeats)->buckets[b], *next; entry; entry = next) {
            next = entry->chain;
            free(entry);
        }
    }
    for (struct entry *entry = (*repeats)->free, *next; entry; entry = next) {
        next = entry->chain;
        free(entry);
    }
    free(*repeats);
    *repeats = NULL;
}

struct repeat_found repeats_find(struct repeats *repeats, const struct repeat_key *key)
{
    struct entry *entry = find(repeats, key);
    if (!entry)
        return (struct repeat_found){0};
    if (entry->kept) {
        unlink_age(repeats, entry);
        link_newest(repeats, entry);
    }
    return (struct repeat_found){entry->running, entry->kept};
}

int repeats_begin(struct repeats *repeats, const struct repeat_key *key, struct request *request)
{
    struct entry *entry = find_or_add(repeats, key);
    if (!entry)
        return -ENOMEM;
    entry->running = request;
    return 0;
}

void repeats_keep(struct repeats *repeats, const struct repeat_key *key, struct buffer *answer)
{
    struct entry *entry = find_or_add(repeats, key);
    if (!entry)
        return;
    entry->running = NULL;
    if (!entry->kept && cost(answer) <= repeats->keep_bytes) {
        buffer_hold(answer);
        entry->kept = answer;
        link_newest(repeats, entry);
        repeats->kept++;
        repeats->kept_bytes += cost(answer);
        while (repeats->kept_bytes > repeats->keep_bytes)
            drop_answer(repeats, repeats->oldest);
    }
    remove_if_idle(repeats, entry);
}

void repeats_end(struct repeats *repeats, const struct repeat_key *key, const struct request *request)
{
    struct entry *entry = find(repeats, key);
    if (!entry || entry->running != request)
        return;
    entry->running = NULL;
    remove_if_idle(repeats, entry);
}

uint32_t repeats_kept(const struct repeats *repeats)
{
    return repeats->kept;
}

size_t repeats_kept_bytes(const struct repeats *repeats)
{
    return repeats->kept_bytes;
}
