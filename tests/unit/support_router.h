/* A server made of a ROUTER and a thread, for tests of clients: what it answers is the test's function. */
#ifndef EXPERTD_TESTS_SUPPORT_ROUTER_H
#define EXPERTD_TESTS_SUPPORT_ROUTER_H

#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#include "proto/message.h"

enum { ROUTER_MAX_FRAMES = 20 };

struct router;

/* One request, in the router's thread. Its identity frame is already off. */
struct router_request {
    struct router *router;
    unsigned char identity[256];
    size_t identity_size;
    zmq_msg_t *frames;
    size_t count;
};
typedef void router_handler(void *context, struct router_request *request);

/* endpoint NULL: a free port of the loopback. Never NULL: a test that cannot start its server aborts. */
struct router *router_start(const char *endpoint, router_handler *handler, void *context);
const char *router_endpoint(const struct router *router);
/* Closes the connections. */
void router_stop(struct router **router);

struct router_frame {
    const void *data;
    size_t size;
};
/* Of the handler: one message to whom the request came from. */
void router_send(struct router_request *request, const struct router_frame *frames, size_t count);

/* ---- a server of expertd's protocol -------------------------------------------------------------------------------
 */

/* Decodes the request's header (aborts if it is none: the client under test made it). Valid until the next one. */
Expertd__RequestHeader *router_header(struct router_request *request);
/* Sends a reply whose header is `reply` with version and the request's id, and frames behind it. */
void router_reply(struct router_request *request, const Expertd__RequestHeader *to, Expertd__ReplyHeader *reply,
                  const struct router_frame *frames, size_t count);
void router_reply_status(struct router_request *request, const Expertd__RequestHeader *to, Expertd__Status status,
                         const char *message);
/* Answers as a server with the one expert nop.0 would: the first tensors of the request (backward: the first half) come
 * back; PING, LIST, INFO and STATS have plausible answers. A router_handler. */
void router_nop(void *context, struct router_request *request);

#endif
