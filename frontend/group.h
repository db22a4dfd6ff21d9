/* A call for many experts: one message whose parts are requests of their own from then on, each in its expert's pool,
 * with a share, a deadline and (BACKWARD) ids of its own; and one reply, when the last of them has ended. A part that
 * ends otherwise than with OK hurts no other: the reply has its status, and zeros for its rows. One thread. */
#ifndef EXPERTD_FRONTEND_GROUP_H
#define EXPERTD_FRONTEND_GROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/status.h"
#include "common/tensor.h"
#include "frontend/reply.h"

struct group;
struct request;

/* A call of so many parts that is taken apart; the asker and the codecs that it wishes (SCHEMA_MAX_TENSORS) are copied.
 * NULL: no memory. It lives until group_close() was called and the last of its parts has ended. */
struct group *group_open(const struct reply_to *to, uint32_t parts, const uint8_t *codecs);
/* What comes out of its experts, for that many rows, without the `unwanted` ones, a bit each; before the first part
 * ends with OK. */
void group_set_outputs(struct group *group, const struct schema *outputs, uint32_t unwanted, uint64_t rows);
/* The part's rows in the reply. */
void group_set_part(struct group *group, uint32_t part, uint64_t row, uint32_t rows);
/* All parts were handed out: from now on the last one's end sends the reply. */
void group_close(struct replier *replier, struct group *group);

/* The part is a request that goes on: one of this end ends it. */
void group_hold(struct group *group, uint32_t part, struct request *request);
/* It is no part any more: what was said of it before stays. The last one's end sends the reply. */
void group_end(struct replier *replier, struct request *request);

/* What is to be said of a part. Message NULL: none. */
void group_refuse(struct group *group, uint32_t part, enum status status, const char *message, uint32_t retry_after_ms);
/* With a refusal: the part's expert is at another frontend of this server, at that endpoint, which is copied. */
void group_refer(struct group *group, uint32_t part, const char *endpoint);
/* Copies its rows of each output from data[i]. False: there is no memory for the reply; nothing was said. */
bool group_take_rows(struct replier *replier, struct group *group, uint32_t part, const void *const *data);
/* The same of the answer of a BACKWARD that was applied, now or before (frontend/repeats.h). Where it is not this
 * part's, which has other rows or wants other gradients, or there is no memory, that is said of the part. */
void group_take_answer(struct replier *replier, struct group *group, uint32_t part, const struct buffer *answer);

#endif
