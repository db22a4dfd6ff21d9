/* Reads a server's reply into its call. Replies are hostile until read: sizes, counts, shapes, statuses and strings are
 * checked against each other and against the request. */
#ifndef EXPERTD_CLIENT_CALL_REPLY_H
#define EXPERTD_CLIENT_CALL_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <zmq.h>

#include "client/call.h"
#include "client/decoder.h"

/* Decodes a reply's first frame; valid until the next one. NULL if it is no header, *why says why. A header with too
 * many tensors is returned, too: *why is not NULL then. */
Expertd__ReplyHeader *call_reply_decode(struct decoder *decoder, zmq_msg_t *frame, const char **why);

/* Ends the call with what the reply says: its status, message, answer and outputs. frames are the n_frames that came
 * after the header (n_frames may be more than EXPERTD_MAX_TENSORS; there are no more than that many then); those that
 * hold outputs move to the call, the caller closes them all in any case. `why` is call_reply_decode()'s. False if the
 * reply is malformed (the status is INTERNAL then). */
bool call_reply_take(struct expertd_call *call, const Expertd__ReplyHeader *header, zmq_msg_t *frames, size_t n_frames,
                     const char *why);

#endif
