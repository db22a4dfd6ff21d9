#include "tests/unit/support_session.h"

#include <check.h>
#include <errno.h>
#include <string.h>

struct session session;
float session_floats[SESSION_FLOATS];

void session_open(void)
{
    for (size_t i = 0; i < SESSION_FLOATS; i++)
        session_floats[i] = (float)i;
    session = (struct session){0};
}

void session_close(void)
{
    expertd_client_destroy(&session.client);
    router_stop(&session.router);
}

void session_start(router_handler *handler, void *context)
{
    session.router = router_start(NULL, handler, context);
    ck_assert_int_eq(expertd_client_new(&session.client, router_endpoint(session.router), NULL), 0);
}

struct expertd_tensor session_rows_of_4(uint64_t rows)
{
    return expertd_tensor_f32(session_floats, rows, 4);
}

void session_forward(uint64_t rows, uint32_t deadline_ms, struct expertd_call **result)
{
    struct expertd_tensor input = session_rows_of_4(rows);
    ck_assert_int_eq(expertd_forward(session.client, "nop.0", &input, 1, deadline_ms, result), 0);
}

void session_backward(uint32_t deadline_ms, struct expertd_call **result)
{
    struct expertd_tensor input = session_rows_of_4(2);
    ck_assert_int_eq(expertd_backward(session.client, "nop.0", &input, 1, &input, 1, deadline_ms, result), 0);
}

/* A process that was stopped, or frozen with others, finds epoll_wait() interrupted, though no signal has a handler. */
void session_wait(struct expertd_call *which)
{
    int rc;
    do
        rc = expertd_call_wait(which, -1);
    while (rc == -EINTR);
    ck_assert_int_eq(rc, 0);
}

void session_finish_as(struct expertd_call *which, enum expertd_status status)
{
    session_wait(which);
    ck_assert(expertd_call_done(which));
    ck_assert_msg(expertd_call_status(which) == status, "%s: %s", expertd_status_name(expertd_call_status(which)),
                  expertd_call_message(which));
    ck_assert((expertd_call_message(which)[0] == 0) == (status == EXPERTD_OK));
}

void session_ping(void)
{
    struct expertd_call *one;
    ck_assert_int_eq(expertd_ping(session.client, SESSION_LONG_MS, &one), 0);
    session_finish_as(one, EXPERTD_OK);
    expertd_call_release(&one);
}

const char *session_free_endpoint(void)
{
    static char endpoint[256];
    struct router *other = router_start(NULL, router_nop, NULL);
    strcpy(endpoint, router_endpoint(other));
    router_stop(&other);
    return endpoint;
}
