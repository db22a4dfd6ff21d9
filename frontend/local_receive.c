#include "frontend/local_receive.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frontend/dispatch.h"
#include "frontend/local_private.h"
#include "frontend/task_end.h"

enum { EVENTS = 64, DESCRIPTORS = 4, BURST_BYTES = 1 << 20 };

static void hello(struct server *server, struct local_client *client)
{
    struct local *local = server->local;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
    struct iovec part = {local->packets[0], LOCAL_PACKET_MAX};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    const ssize_t n = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    int fd = -1;
    unsigned count = 0;
    for (struct cmsghdr *part_of = n >= 0 ? CMSG_FIRSTHDR(&message) : NULL; part_of;
         part_of = CMSG_NXTHDR(&message, part_of)) {
        if (part_of->cmsg_level != SOL_SOCKET || part_of->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (part_of->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int next;
            memcpy(&next, CMSG_DATA(part_of) + i * sizeof next, sizeof next);
            if (count++ == 0)
                fd = next;
            else
                close(next);
        }
    }
    const char *why = NULL;
    int rc = -EPIPE;
    if (n > 0)
        rc = local_client_hello(client, local->packets[0], (size_t)n, count == 1 ? fd : -1, local->region_max, &why);
    if (fd >= 0)
        close(fd);
    if (rc < 0)
        local_end(server, client, why);
}

static void dispatch_record(struct server *server, struct local_client *client, const struct local_record *record,
                            uint64_t now_ns)
{
    struct incoming_message *message = &server->message;
    struct reply_to to = {.peer = client->peer, .slot = record->slot, .room = record->room};
    message->header = record->header_bytes ? record->header : NULL;
    message->header_bytes = record->header_bytes;
    message->tensor_frames = record->tensors;
    message->bytes = record->header_bytes;
    for (uint32_t i = 0; i < record->tensors && i < MESSAGE_MAX_TENSORS; i++) {
        message->tensors[i] = local_client_at(client, record->spans[i].at);
        message->tensor_bytes[i] = record->spans[i].bytes;
        message->bytes += record->spans[i].bytes;
    }
    server->local->counters.requests++;
    dispatch_message(server, &to, now_ns);
}

/* False: the packet breaks the rules. *bytes counts what was taken in. */
static bool take_packet(struct server *server, struct local_client *client, const unsigned char *packet, size_t size,
                        uint64_t now_ns, uint64_t *bytes)
{
    struct local_record record;
    while (size > 0) {
        const long n = local_client_request(client, packet, size, &record);
        if (n < 0)
            return false;
        dispatch_record(server, client, &record, now_ns);
        *bytes += server->message.bytes;
        packet += n;
        size -= (size_t)n;
    }
    return true;
}

static void serve(struct server *server, struct local_client *client, uint64_t now_ns, uint64_t *bytes)
{
    struct local *local = server->local;
    struct iovec parts[LOCAL_PACKETS];
    struct mmsghdr messages[LOCAL_PACKETS];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < LOCAL_PACKETS; i++) {
        parts[i] = (struct iovec){local->packets[i], LOCAL_PACKET_MAX};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    const int count = recvmmsg(client->fd, messages, LOCAL_PACKETS, MSG_DONTWAIT, NULL);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    bool there = count > 0;
    for (int i = 0; i < count && there && !client->broken; i++) {
        there = messages[i].msg_len > 0; /* an empty one: its end */
        if (there && ((messages[i].msg_hdr.msg_flags & MSG_TRUNC) ||
                      !take_packet(server, client, local->packets[i], messages[i].msg_len, now_ns, bytes))) {
            local_end(server, client, "a packet breaks the rules (PROTOCOL.md, On the same host)");
            return;
        }
    }
    if (client->region.lost)
        local_end(server, client, "its memory cannot be read or written: the host has no more");
    else if (!there || client->broken)
        local_end(server, client, NULL);
}

static void on_event(struct server *server, struct local_client *client, uint32_t events, uint64_t now_ns,
                     uint64_t *bytes)
{
    if (client->full && (events & EPOLLOUT)) {
        client->full = false;
        local_watch(server->local, client, false);
        if (!client->dirty) {
            client->dirty = true;
            client->next_dirty = server->local->dirty;
            server->local->dirty = client;
        }
    } else if (!client->ready) {
        hello(server, client);
    } else if (client->full && (events & (EPOLLHUP | EPOLLERR))) {
        local_end(server, client, NULL);
    } else {
        serve(server, client, now_ns, bytes);
    }
}

bool local_receive(struct server *server, uint64_t now_ns)
{
    struct epoll_event events[EVENTS];
    struct local *local = server->local;
    if (!local)
        return false;
    const int count = epoll_wait(local->epoll_fd, events, EVENTS, 0);
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr)
            on_event(server, events[i].data.ptr, events[i].events, now_ns, &bytes);
        if (bytes >= BURST_BYTES) {
            /* Runtimes begin while the rest is copied. */
            for (unsigned d = 0; d < server->devices_count; d++)
                device_link_ring(server->devices[d]);
            bytes = 0;
        }
    }
    /* Last: who comes may take the place, and the address, of who went. */
    for (int i = 0; i < count; i++) {
        if (!events[i].data.ptr)
            local_accept(server);
    }
    if (local->gone) {
        local->gone = false;
        task_drop_gone(server);
    }
    return count > 0;
}
