/* The requests in flight: a fixed number of slots with a free list, so that the steady state allocates nothing. A
 * request is in one list at a time, that of its pool in the order of its tasks, that of those which wait for room in
 * it, or that of the waiting checkpoints.
 *
 *     REQUEST_FREE ---take---> REQUEST_WAITING ---answered---> REQUEST_FREE
 *                                     |                             ^
 *                                     +--answered early--> REQUEST_ABANDONED --result--+
 *
 * Abandoned is a BACKWARD with ids whose asker was told (its deadline, or a dead runtime) before its result was there:
 * the result may still come, and is then kept for a repeat. One thread. */
#ifndef EXPERTD_FRONTEND_REQUEST_H
#define EXPERTD_FRONTEND_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "frontend/deadline.h"
#include "frontend/repeats.h"
#include "frontend/reply.h"

struct group;
struct pool_link;
struct request_parked;
struct share;

enum request_state { REQUEST_FREE, REQUEST_WAITING, REQUEST_ABANDONED };

struct request_checkpoint {
    uint64_t ticket;
    uint32_t device, expert;           /* the first that is not known to have served it */
    uint32_t last_device, last_expert; /* inclusive; last_expert UINT32_MAX: all of each device */
    enum status status;                /* the first error */
    char message[128];
};

struct request {
    struct deadline deadline; /* first: the heap's entry is the request */
    enum request_state state;
    struct reply_to to;
    struct request *next, *previous;
    bool keyed; /* a BACKWARD with ids */
    struct repeat_key key;
    struct pool_link *pool; /* NULL: a CHECKPOINT */
    uint64_t task;
    struct group *group;           /* that it is part `part` of (frontend/group.h); NULL: it has a reply of its own */
    struct share *share;           /* that it is charged to */
    struct request_parked *parked; /* while it waits for room in its pool (frontend/admission.h); NULL */
    uint64_t began_ns;             /* when it arrived */
    uint32_t rows, part;
    uint32_t unwanted;                     /* outputs that are left out of the reply, a bit each */
    uint8_t codecs[SCHEMA_MAX_TENSORS];    /* that are wished for the reply's tensors */
    struct request_checkpoint *checkpoint; /* malloc'd, of a CHECKPOINT */
    struct change_order *change;           /* the same of a change (frontend/changes.h) */
};

/* The tensors of its reply: outputs, or what of them is wanted, in `some`. */
static inline const struct schema *request_outputs(const struct request *request, const struct schema *outputs,
                                                   struct schema *some)
{
    if (request->unwanted == 0)
        return outputs;
    schema_without(some, outputs, request->unwanted);
    return some;
}

struct request_list {
    struct request *first, *last;
    uint32_t count;
};
void request_list_append(struct request_list *list, struct request *request);
void request_list_remove(struct request_list *list, struct request *request);

struct requests;
int requests_create(struct requests **requests, uint32_t capacity); /* -ENOMEM */
void requests_destroy(struct requests **requests);
/* A slot, WAITING, zeroed else; NULL: all are taken. */
struct request *requests_take(struct requests *requests);
void requests_give(struct requests *requests, struct request *request);
uint32_t requests_taken(const struct requests *requests);
uint32_t requests_capacity(const struct requests *requests);

#endif
