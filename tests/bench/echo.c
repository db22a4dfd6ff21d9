/* The floor of everything that goes over ZeroMQ: a bare DEALER-ROUTER echo of a small header and one payload frame. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "bench/support_flags.h"
#include "common/process.h"

enum { HEADER_BYTES = 32, PAYLOAD = 0x200 };

static void echo_server(int endpoint_fd)
{
    void *context = zmq_ctx_new(), *router = zmq_socket(context, ZMQ_ROUTER);
    char endpoint[128];
    size_t size = sizeof endpoint;
    if (zmq_bind(router, "tcp://127.0.0.1:*") != 0 || zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &size) != 0 ||
        write(endpoint_fd, endpoint, size) != (ssize_t)size)
        _exit(1);
    for (;;) {
        zmq_msg_t frame;
        int more;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, router, 0) < 0)
            continue;
        more = zmq_msg_more(&frame);
        zmq_msg_send(&frame, router, more ? ZMQ_SNDMORE : 0);
        zmq_msg_close(&frame);
    }
}

static size_t header(void *context, unsigned client, uint64_t id, unsigned char *bytes, size_t size, unsigned *frames)
{
    (void)context;
    (void)client;
    (void)frames;
    (void)size;
    memset(bytes, 0, HEADER_BYTES);
    memcpy(bytes, &id, sizeof id);
    return HEADER_BYTES;
}

static uint64_t reply(void *context, const void *bytes, size_t size)
{
    uint64_t id = UINT64_MAX;
    (void)context;
    if (size == HEADER_BYTES)
        memcpy(&id, bytes, sizeof id);
    return id;
}

struct echo {
    struct flags flags;
    size_t payload_bytes;
};

static error_t take(int key, char *text, struct argp_state *state)
{
    struct echo *echo = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &echo->flags;
        return 0;
    case PAYLOAD:
        echo->payload_bytes = flags_number(state, text, 1U << 30);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp_option own[] = {{"payload", PAYLOAD, "BYTES", 0, "of the second frame (4096)", 0}, {0}};
    static const struct argp argp = {.options = own, .parser = take, .children = flags_children};
    struct echo echo = {.flags.traffic = {.clients = 1, .in_flight = 1, .seconds = 2, .warmup_s = 0.3},
                        .payload_bytes = 4096};
    flags_parse(&argp, argc, argv, &echo);
    process_init("echo");
    int ends[2];
    char endpoint[128] = "";
    if (pipe(ends) != 0)
        return 1;
    const pid_t server = fork();
    if (server == 0)
        echo_server(ends[1]);
    if (read(ends[0], endpoint, sizeof endpoint - 1) <= 0)
        return 1;
    echo.flags.traffic.endpoint = endpoint;
    const struct traffic_content content = {.header = header,
                                            .reply = reply,
                                            .frames = 1,
                                            .frame = {calloc(1, echo.payload_bytes + 1)},
                                            .frame_bytes = {echo.payload_bytes}};
    struct traffic_result result;
    const int rc = traffic_run(&echo.flags.traffic, &content, &result);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    if (rc == 0)
        traffic_print("echo", &echo.flags.traffic, &result, (double)echo.payload_bytes, "payload", echo.flags.json);
    free((void *)(uintptr_t)content.frame[0]);
    return rc == 0 ? 0 : 1;
}
