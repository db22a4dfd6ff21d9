/* A client and the server of one expert, nop.0, which the test answers for: a checked fixture, and calls that are to
 * end as the test says. */
#ifndef EXPERTD_TESTS_SUPPORT_SESSION_H
#define EXPERTD_TESTS_SUPPORT_SESSION_H

#include <stdint.h>

#include "client/expertd.h"
#include "tests/unit/support_router.h"

enum { SESSION_LONG_MS = 500000, SESSION_SHORT_MS = 50, SESSION_FLOATS = 64 };

struct session {
    struct router *router;
    struct expertd_client *client;
    struct expertd_call *call; /* for a test that has one at a time */
};
extern struct session session;
extern float session_floats[SESSION_FLOATS]; /* 0, 1, 2 ... */

/* The fixture: neither a server nor a client yet. */
void session_open(void);
void session_close(void);

/* Starts the server, and a client of it. */
void session_start(router_handler *handler, void *context);
/* A port of the loopback where nobody listens. Valid until the next one. */
const char *session_free_endpoint(void);

struct expertd_tensor session_rows_of_4(uint64_t rows);
void session_forward(uint64_t rows, uint32_t deadline_ms, struct expertd_call **result);
/* Of two rows. */
void session_backward(uint32_t deadline_ms, struct expertd_call **result);
/* Until the call has ended. */
void session_wait(struct expertd_call *which);
void session_finish_as(struct expertd_call *which, enum expertd_status status);
/* The answer of a ping: what was sent before it has been received by the server. */
void session_ping(void);

#endif
