#include "tests/unit/support_proxy.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

enum { CONNECTIONS = 16, ROOM = 64 << 10, TICK_MS = 5, SOCKET_BYTES = 64 << 10 };

/* One direction of a connection. */
struct lane {
    int from, to;
    size_t used;
    unsigned char bytes[ROOM];
};

struct link {
    int client, server; /* -1: free */
    struct lane lanes[2];
};

struct proxy {
    int listener;
    int stop[2];
    struct sockaddr_in target;
    char endpoint[64];
    atomic_size_t bytes_per_second;
    atomic_size_t accepted;
    struct link links[CONNECTIONS];
    pthread_t thread;
};

static void small_buffers(int fd)
{
    const int bytes = SOCKET_BYTES;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

static void hang_up(struct link *link)
{
    close(link->client);
    close(link->server);
    link->client = link->server = -1;
}

static void take_connection(struct proxy *proxy)
{
    const int client = accept(proxy->listener, NULL, NULL);
    if (client < 0)
        return;
    for (size_t i = 0; i < CONNECTIONS; i++) {
        struct link *link = &proxy->links[i];
        if (link->client >= 0)
            continue;
        link->client = client;
        link->server = socket(AF_INET, SOCK_STREAM, 0);
        small_buffers(link->server);
        if (connect(link->server, (struct sockaddr *)&proxy->target, sizeof proxy->target) < 0) {
            hang_up(link);
            return;
        }
        fcntl(link->client, F_SETFL, O_NONBLOCK);
        fcntl(link->server, F_SETFL, O_NONBLOCK);
        link->lanes[0].from = link->lanes[1].to = link->client;
        link->lanes[0].to = link->lanes[1].from = link->server;
        link->lanes[0].used = link->lanes[1].used = 0;
        proxy->accepted++;
        return;
    }
    close(client);
}

/* At most `budget` bytes on; false when the connection has ended. */
static bool carry(struct lane *lane, size_t budget)
{
    if (budget > ROOM - lane->used)
        budget = ROOM - lane->used;
    if (budget > 0) {
        const ssize_t n = recv(lane->from, lane->bytes + lane->used, budget, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        lane->used += n > 0 ? (size_t)n : 0;
    }
    if (lane->used > 0) {
        const ssize_t n = send(lane->to, lane->bytes, lane->used, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (n > 0) {
            lane->used -= (size_t)n;
            memmove(lane->bytes, lane->bytes + n, lane->used);
        }
    }
    return true;
}

static void *run(void *argument)
{
    struct proxy *proxy = argument;
    uint64_t last_ns = clock_now_ns();
    for (;;) {
        struct pollfd fds[] = {{proxy->stop[0], POLLIN, 0}, {proxy->listener, POLLIN, 0}};
        poll(fds, 2, TICK_MS);
        if (fds[0].revents)
            return NULL;
        if (fds[1].revents)
            take_connection(proxy);
        const uint64_t now_ns = clock_now_ns();
        const size_t speed = proxy->bytes_per_second;
        const double budget = (double)speed * (double)(now_ns - last_ns) / 1e9;
        last_ns = now_ns;
        for (size_t i = 0; i < CONNECTIONS; i++) {
            struct link *link = &proxy->links[i];
            for (size_t k = 0; k < 2 && link->client >= 0; k++)
                if (speed > 0 && !carry(&link->lanes[k], budget < ROOM ? (size_t)budget : ROOM))
                    hang_up(link);
        }
    }
}

struct proxy *proxy_start(const char *endpoint)
{
    struct proxy *proxy = calloc(1, sizeof *proxy);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert(proxy);
    for (size_t i = 0; i < CONNECTIONS; i++)
        proxy->links[i].client = proxy->links[i].server = -1;
    proxy->bytes_per_second = SIZE_MAX;
    proxy->target = address;
    proxy->target.sin_port = htons((uint16_t)atoi(strrchr(endpoint, ':') + 1));
    proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    small_buffers(proxy->listener); /* what it accepts inherits them */
    if (proxy->listener < 0 || bind(proxy->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(proxy->listener, CONNECTIONS) < 0 ||
        getsockname(proxy->listener, (struct sockaddr *)&address, &size) < 0 || pipe(proxy->stop) < 0)
        abort();
    snprintf(proxy->endpoint, sizeof proxy->endpoint, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
    if (pthread_create(&proxy->thread, NULL, run, proxy) != 0)
        abort();
    return proxy;
}

const char *proxy_endpoint(const struct proxy *proxy)
{
    return proxy->endpoint;
}

void proxy_set_speed(struct proxy *proxy, size_t bytes_per_second)
{
    proxy->bytes_per_second = bytes_per_second;
}

size_t proxy_accepted(const struct proxy *proxy)
{
    return proxy->accepted;
}

void proxy_stop(struct proxy **pointer)
{
    struct proxy *proxy = *pointer;
    *pointer = NULL;
    if (!proxy)
        return;
    if (write(proxy->stop[1], "", 1) != 1)
        abort();
    pthread_join(proxy->thread, NULL);
    for (size_t i = 0; i < CONNECTIONS; i++)
        if (proxy->links[i].client >= 0)
            hang_up(&proxy->links[i]);
    close(proxy->listener);
    close(proxy->stop[0]);
    close(proxy->stop[1]);
    free(proxy);
}
