#include "tests/unit/support_endless.h"

#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ENOUGH = 4 * ENDLESS_MOST, COMMAND = 4, LARGE = 2 };

const char endless_frame[257] = "\x01\xff", endless_empty_frame[2] = "\x01";

static bool read_all(int fd, void *data, size_t bytes)
{
    return recv(fd, data, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

static void send_all(int fd, const void *data, size_t bytes)
{
    ck_assert_int_eq(send(fd, data, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

/* ZMTP 3.0, without keys. */
static void shake_hands(int fd)
{
    static const char ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER";
    static const char greeting[64] = "\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL";
    unsigned char theirs[256];
    send_all(fd, greeting, sizeof greeting);
    ck_assert(read_all(fd, theirs, sizeof greeting));
    send_all(fd, ready, sizeof ready - 1);
    ck_assert(read_all(fd, theirs, 2));
    ck_assert(read_all(fd, theirs + 2, theirs[1]));
}

static void flood(const struct endless *server, int fd)
{
    static char many[256 << 10];
    const size_t bytes = sizeof many / server->frame_bytes * server->frame_bytes;
    char request;
    for (size_t at = 0; at < bytes; at += server->frame_bytes)
        memcpy(many + at, server->frame, server->frame_bytes);
    ck_assert(read_all(fd, &request, 1)); /* it begins */
    for (uint64_t sent = 0; sent < ENOUGH; sent += bytes)
        if (send(fd, many, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
            break;
    while (recv(fd, &request, 1, 0) > 0)
        ;
}

static void trickle(struct endless *server, int fd)
{
    unsigned char head[2], body[255];
    while (read_all(fd, head, sizeof head)) {
        ck_assert(!(head[0] & LARGE));
        if (!read_all(fd, body, head[1]))
            return;
        if (!(head[0] & COMMAND))
            server->asked++;
        else if (send(fd, server->frame, server->frame_bytes, MSG_NOSIGNAL) < 0)
            return;
    }
}

static void *serve(void *context)
{
    struct endless *server = context;
    int fd;
    while ((fd = accept(server->listener, NULL, NULL)) >= 0) {
        shake_hands(fd);
        if (server->slow)
            trickle(server, fd);
        else
            flood(server, fd);
        close(fd);
        server->closed++;
    }
    return NULL;
}

void endless_start(struct endless *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    server->asked = server->closed = 0;
    server->listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(server->listener, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(server->listener, 1), 0);
    getsockname(server->listener, (struct sockaddr *)&address, &size);
    snprintf(server->endpoint, sizeof server->endpoint, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
    ck_assert_int_eq(pthread_create(&server->thread, NULL, serve, server), 0);
}

void endless_stop(struct endless *server)
{
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
}
