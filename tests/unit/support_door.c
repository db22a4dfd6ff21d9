#include "tests/unit/support_door.h"

#include <arpa/inet.h>
#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 16, PIECE = 1 << 16 };

struct door {
    int listener, wake[2]; /* a byte: close what is held; its end: the thread's */
    bool holds;
    atomic_int admits, let_through, turned_away;
    char endpoint[64];
    struct sockaddr_in server;
    int fds[2 * CONNECTIONS]; /* the client's, the server's; -1: of what is held there is none */
    int count;
    pthread_t thread;
};

static void must(bool done, const char *what)
{
    if (!done) {
        perror(what);
        abort();
    }
}

static void end(struct door *door, int at)
{
    at -= at % 2;
    for (int i = at; i < at + 2; i++)
        if (door->fds[i] >= 0)
            close(door->fds[i]);
    door->count -= 2;
    memmove(&door->fds[at], &door->fds[at + 2], (size_t)(door->count - at) * sizeof door->fds[0]);
}

static void end_held(struct door *door)
{
    for (int i = door->count - 2; i >= 0; i -= 2)
        if (door->fds[i + 1] < 0)
            end(door, i);
}

static void take(struct door *door)
{
    const int client = accept(door->listener, NULL, NULL);
    int server = -1;
    if (client < 0)
        return;
    if (atomic_load(&door->let_through) < atomic_load(&door->admits)) {
        atomic_fetch_add(&door->let_through, 1);
        server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        must(connect(server, (const struct sockaddr *)&door->server, sizeof door->server) == 0, "connect");
    } else {
        atomic_fetch_add(&door->turned_away, 1);
        if (!door->holds || door->count == 2 * CONNECTIONS) {
            close(client);
            return;
        }
    }
    must(door->count < 2 * CONNECTIONS, "connections");
    door->fds[door->count++] = client;
    door->fds[door->count++] = server;
}

/* False: one side has gone. */
static bool pass(int from, int to)
{
    char piece[PIECE];
    const ssize_t size = recv(from, piece, sizeof piece, 0);
    if (to < 0)
        return size > 0;
    for (ssize_t sent = 0, n; sent < size; sent += n) {
        n = send(to, piece + sent, (size_t)(size - sent), MSG_NOSIGNAL);
        if (n < 0)
            return false;
    }
    return size > 0;
}

static void *run(void *argument)
{
    struct door *door = argument;
    for (;;) {
        struct pollfd polls[2 + 2 * CONNECTIONS] = {{door->wake[0], POLLIN, 0}, {door->listener, POLLIN, 0}};
        const nfds_t count = (nfds_t)door->count;
        char byte;
        for (nfds_t i = 0; i < count; i++)
            polls[2 + i] = (struct pollfd){door->fds[i], POLLIN, 0};
        must(poll(polls, 2 + count, -1) > 0, "poll");
        if (polls[0].revents) {
            if (read(door->wake[0], &byte, 1) <= 0)
                return NULL;
            end_held(door);
            continue;
        }
        for (int i = (int)count - 1; i >= 0; i--) {
            if (polls[2 + i].revents && !pass(door->fds[i], door->fds[i ^ 1])) {
                end(door, i);
                break; /* the others' places have changed */
            }
        }
        if (polls[1].revents)
            take(door);
    }
}

struct door *door_open(const char *address, const char *endpoint, bool holds)
{
    struct door *door = calloc(1, sizeof *door);
    struct sockaddr_in own = {.sin_family = AF_INET};
    socklen_t size = sizeof own;
    char host[INET_ADDRSTRLEN], *port;
    must(door != NULL, "calloc");
    door->holds = holds;
    door->server.sin_family = AF_INET;
    snprintf(host, sizeof host, "%s", endpoint + strlen("tcp://"));
    port = strchr(host, ':');
    if (port)
        *port = 0;
    must(inet_pton(AF_INET, host, &door->server.sin_addr) == 1, "the server's address");
    door->server.sin_port = htons((unsigned short)strtoul(strrchr(endpoint, ':') + 1, NULL, 10));
    must(inet_pton(AF_INET, address, &own.sin_addr) == 1, "address");
    door->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(door->listener, (const struct sockaddr *)&own, sizeof own) == 0, "bind");
    must(listen(door->listener, CONNECTIONS) == 0, "listen");
    must(getsockname(door->listener, (struct sockaddr *)&own, &size) == 0, "getsockname");
    snprintf(door->endpoint, sizeof door->endpoint, "tcp://%s:%u", address, ntohs(own.sin_port));
    must(pipe(door->wake) == 0, "pipe");
    must(pthread_create(&door->thread, NULL, run, door) == 0, "pthread_create");
    return door;
}

const char *door_endpoint(const struct door *door)
{
    return door->endpoint;
}

void door_admit(struct door *door, int connections)
{
    atomic_store(&door->admits, connections);
    must(write(door->wake[1], "", 1) == 1, "write");
}

int door_turned_away(const struct door *door)
{
    return atomic_load(&door->turned_away);
}

void door_close(struct door **pointer)
{
    struct door *door = *pointer;
    *pointer = NULL;
    if (!door)
        return;
    close(door->wake[1]);
    pthread_join(door->thread, NULL);
    while (door->count > 0)
        end(door, 0);
    close(door->wake[0]);
    close(door->listener);
    free(door);
}
