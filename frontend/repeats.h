/* BACKWARD at most once, the frontend's half: requests with a client id that are running, and the answers of those that
 * were applied, so that one that is repeated meets its first. (The runtime's half, for answers that are no longer kept,
 * is pools/applied.h.) Answers share their buffers with the replies; the least recently asked go first. One thread. */
#ifndef EXPERTD_FRONTEND_REPEATS_H
#define EXPERTD_FRONTEND_REPEATS_H

#include <stddef.h>
#include <stdint.h>

struct buffer;
struct request;
struct repeats;

struct repeat_key {
    uint64_t uid_hash, client[2], request_id;
};

struct repeat_found {
    struct request *running; /* NULL: none */
    struct buffer *kept;     /* the answer, NULL: none; the table's reference */
};

/* Keeps answers of at most so many bytes. -ENOMEM. */
int repeats_create(struct repeats **repeats, size_t keep_bytes);
void repeats_destroy(struct repeats **repeats);

struct repeat_found repeats_find(struct repeats *repeats, const struct repeat_key *key);
/* This request is now the running one of its key. -ENOMEM. */
int repeats_begin(struct repeats *repeats, const struct repeat_key *key, struct request *request);
/* The key's answer; takes a reference. Nobody is the running one any more. */
void repeats_keep(struct repeats *repeats, const struct repeat_key *key, struct buffer *answer);
/* The request ended without an answer to be kept; nothing if it is not the running one of its key. */
void repeats_end(struct repeats *repeats, const struct repeat_key *key, const struct request *request);

uint32_t repeats_kept(const struct repeats *repeats);
size_t repeats_kept_bytes(const struct repeats *repeats);

#endif
