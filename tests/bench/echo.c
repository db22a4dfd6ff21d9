/* The floor of everything that goes over ZeroMQ: a bare DEALER-ROUTER echo of a small header and one payload frame. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "bench/support_traffic.h"
#include "common/process.h"

enum { HEADER_BYTES = 32 };

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

int main(int argc, char **argv)
{
    static const struct option flags[] = {
        {"payload", 1, NULL, 'p'},   {"clients", 1, NULL, 'c'}, {"processes", 1, NULL, 'P'},
        {"in-flight", 1, NULL, 'i'}, {"seconds", 1, NULL, 's'}, {"warmup", 1, NULL, 'w'},
        {"json", 0, NULL, 'j'},      {"help", 0, NULL, 'h'},    {NULL, 0, NULL, 0},
    };
    struct traffic_options options = {.clients = 1, .in_flight = 1, .seconds = 2, .warmup_s = 0.3};
    size_t payload_bytes = 4096;
    bool json = false;
    int flag;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        switch (flag) {
        case 'p':
            payload_bytes = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            options.clients = (unsigned)atoi(optarg);
            break;
        case 'P':
            options.processes = (unsigned)atoi(optarg);
            break;
        case 'i':
            options.in_flight = (unsigned)atoi(optarg);
            break;
        case 's':
            options.seconds = atof(optarg);
            break;
        case 'w':
            options.warmup_s = atof(optarg);
            break;
        case 'j':
            json = true;
            break;
        default:
            puts("echo [--payload BYTES] [--clients N] [--processes N] [--in-flight N] [--seconds S] [--warmup S] "
                 "[--json]");
            return flag == 'h' ? 0 : 2;
        }
    }
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
    options.endpoint = endpoint;
    const struct traffic_content content = {.header = header,
                                            .reply = reply,
                                            .frames = 1,
                                            .frame = {calloc(1, payload_bytes + 1)},
                                            .frame_bytes = {payload_bytes}};
    struct traffic_result result;
    const int rc = traffic_run(&options, &content, &result);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    if (rc == 0)
        traffic_print("echo", &options, &result, (double)payload_bytes, "payload", json);
    free((void *)(uintptr_t)content.frame[0]);
    return rc == 0 ? 0 : 1;
}
