/* BACKWARD at most once, the frontend's half: requests with a client id that are running, and the answers of those that
 * were applied, so that one that is repeated meets its first. (The runtime's half, for answers that are no longer kept,
 * is pools/applied.h.) Answers share their buffers with the replies; the least recently asked go first. One thread. */
#ifndef EXPERTD_FRONTEND_REPLAY_H
#define EXPERTD_FRONTEND_REPLAY_H

#include <stddef.h>
#include <stdint.h>

struct buffer;
struct request;
struct replay;

struct replay_key {
    uint64_t uid_hash, client[2], request_id;
};

struct replay_found {
    struct request *running; /* NULL: none */
    struct buffer *kept;     /* the answer, NULL: none; the table's reference */
};

/* Keeps answers of at most so many bytes. -ENOMEM. */
int replay_create(struct replay **replay, size_t keep_bytes);
void replay_destroy(struct replay **replay);

struct replay_found replay_find(struct replay *replay, const struct replay_key *key);
/* This request is now the running one of its key. -ENOMEM. */
int replay_begin(struct replay *replay, const struct replay_key *key, struct request *request);
/* The key's answer; takes a reference. Nobody is the running one any more. */
void replay_keep(struct replay *replay, const struct replay_key *key, struct buffer *answer);
/* The request ended without an answer to be kept; nothing if it is not the running one of its key. */
void replay_end(struct replay *replay, const struct replay_key *key, const struct request *request);

uint32_t replay_kept(const struct replay *replay);
size_t replay_kept_bytes(const struct replay *replay);

#endif
