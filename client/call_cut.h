/* Some parts of a call's request, as a request of its own: with their rows alone, under the same ids, so that each is
 * still applied at most once. Rows keep their codes and what says what these mean; but where
 * a number of that stands for other rows as well (BLOCKWISE_8BIT's blocks, which rows share), or the codec would not
 * pay any more, they are decoded, and travel as they are. The client's thread. */
#ifndef EXPERTD_CLIENT_CALL_CUT_H
#define EXPERTD_CLIENT_CALL_CUT_H

#include "client/call.h"
#include "client/local_heap.h"

/* Whether the request (`header`: its own, decoded) can be cut: its parts' rows are those of each tensor. */
bool call_cut_possible(const struct expertd_call *whole, const Expertd__RequestHeader *header);
/* Fills cut->request[] and what follows from it with `count` parts, by their numbers, which ascend. The request has
 * cut->request_id, so that a late answer to another cut is not taken for its own; its parts keep their ids. heap: where
 * the tensors go if they can; NULL. False: no memory; there is no request then. */
bool call_cut(struct expertd_call *cut, const struct expertd_call *whole, const Expertd__RequestHeader *header,
              const uint32_t *numbers, size_t count, struct local_heap *heap);

#endif
