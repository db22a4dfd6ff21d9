#include "frontend/replay.h"

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
    struct replay_key key;
    struct request *running;
    struct buffer *kept;
};

struct replay {
    struct entry *buckets[BUCKETS];
    struct entry *free;
    struct entry *newest, *oldest; /* of those that keep an answer */
    size_t keep_bytes, kept_bytes;
    uint32_t kept;
    uint64_t secret[4];
};

int replay_create(struct replay **replay, size_t keep_bytes)
{
    *replay = calloc(1, sizeof **replay);
    if (!*replay)
        return -ENOMEM;
    (*replay)->keep_bytes = keep_bytes;
    /* Without random bytes, which Linux always has once it is up, the time has to do. */
    if (getrandom((*replay)->secret, sizeof(*replay)->secret, GRND_NONBLOCK) < 0) {
        for (int i = 0; i < 4; i++)
            (*replay)->secret[i] = (clock_now_ns() + (uint64_t)i) * (clock_wall_ns() | 1);
    }
    return 0;
}

static size_t cost(const struct buffer *answer)
{
    return buffer_capacity(answer) + sizeof *answer + sizeof(struct entry);
}

static void unlink_age(struct replay *replay, struct entry *entry)
{
    if (entry->newer)
        entry->newer->older = entry->older;
    else
        replay->newest = entry->older;
    if (entry->older)
        entry->older->newer = entry->newer;
    else
        replay->oldest = entry->newer;
}

static void link_newest(struct replay *replay, struct entry *entry)
{
    entry->newer = NULL;
    entry->older = replay->newest;
    if (replay->newest)
        replay->newest->newer = entry;
    else
        replay->oldest = entry;
    replay->newest = entry;
}

static uint64_t fold(uint64_t a, uint64_t b)
{
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Clients choose most of a key, so its hash has a secret: or they could choose keys of one bucket. */
static struct entry **bucket_of(struct replay *replay, const struct replay_key *key)
{
    const uint64_t *secret = replay->secret;
    const uint64_t half = fold(key->uid_hash ^ secret[0], key->client[0] ^ secret[1]);
    const uint64_t hash = fold(half ^ key->client[1] ^ secret[2], key->request_id ^ secret[3]);
    return &replay->buckets[hash % BUCKETS];
}

static struct entry *find(struct replay *replay, const struct replay_key *key)
{
    struct entry *entry = *bucket_of(replay, key);
    while (entry && memcmp(&entry->key, key, sizeof *key) != 0)
        entry = entry->chain;
    return entry;
}

static struct entry *find_or_add(struct replay *replay, const struct replay_key *key)
{
    struct entry *entry = find(replay, key);
    if (entry)
        return entry;
    entry = replay->free;
    if (entry)
        replay->free = entry->chain;
    else
        entry = malloc(sizeof *entry);
    if (!entry)
        return NULL;
    struct entry **bucket = bucket_of(replay, key);
    *entry = (struct entry){.chain = *bucket, .key = *key};
    *bucket = entry;
    return entry;
}

/* An entry that neither runs nor keeps is of no use. */
static void remove_if_idle(struct replay *replay, struct entry *entry)
{
    if (entry->running || entry->kept)
        return;
    struct entry **link = bucket_of(replay, &entry->key);
    while (*link != entry)
        link = &(*link)->chain;
    *link = entry->chain;
    entry->chain = replay->free;
    replay->free = entry;
}

static void drop_answer(struct replay *replay, struct entry *entry)
{
    unlink_age(replay, entry);
    replay->kept--;
    replay->kept_bytes -= cost(entry->kept);
    buffer_release(entry->kept);
    entry->kept = NULL;
    remove_if_idle(replay, entry);
}

void replay_destroy(struct replay **replay)
{
    if (!*replay)
        return;
    while ((*replay)->oldest)
        drop_answer(*replay, (*replay)->oldest);
    for (size_t b = 0; b < BUCKETS; b++) {
        for (struct entry *entry = (*replay)->buckets[b], *next; entry; entry = next) {
            next = entry->chain;
            free(entry);
        }
    }
    for (struct entry *entry = (*replay)->free, *next; entry; entry = next) {
        next = entry->chain;
        free(entry);
    }
    free(*replay);
    *replay = NULL;
}

struct replay_found replay_find(struct replay *replay, const struct replay_key *key)
{
    struct entry *entry = find(replay, key);
    if (!entry)
        return (struct replay_found){0};
    if (entry->kept) {
        unlink_age(replay, entry);
        link_newest(replay, entry);
    }
    return (struct replay_found){entry->running, entry->kept};
}

int replay_begin(struct replay *replay, const struct replay_key *key, struct request *request)
{
    struct entry *entry = find_or_add(replay, key);
    if (!entry)
        return -ENOMEM;
    entry->running = request;
    return 0;
}

void replay_keep(struct replay *replay, const struct replay_key *key, struct buffer *answer)
{
    struct entry *entry = find_or_add(replay, key);
    if (!entry)
        return;
    entry->running = NULL;
    if (!entry->kept && cost(answer) <= replay->keep_bytes) {
        buffer_hold(answer);
        entry->kept = answer;
        link_newest(replay, entry);
        replay->kept++;
        replay->kept_bytes += cost(answer);
        while (replay->kept_bytes > replay->keep_bytes)
            drop_answer(replay, replay->oldest);
    }
    remove_if_idle(replay, entry);
}

void replay_end(struct replay *replay, const struct replay_key *key, const struct request *request)
{
    struct entry *entry = find(replay, key);
    if (!entry || entry->running != request)
        return;
    entry->running = NULL;
    remove_if_idle(replay, entry);
}

uint32_t replay_kept(const struct replay *replay)
{
    return replay->kept;
}

size_t replay_kept_bytes(const struct replay *replay)
{
    return replay->kept_bytes;
}
