#include "client/local_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FRAMES = 1 + MESSAGE_MAX_TENSORS };

struct local_slot {
    struct local_slot *next; /* of those that are to be sent again */
    zmq_msg_t frames[FRAMES];
    size_t count; /* 0: the slot is free */
    struct local_block *room;
    uint64_t wanted;
};

void local_link_init(struct local_link *link)
{
    *link = (struct local_link){.fd = -1};
}

static void clear_slot(struct local_slot *slot)
{
    for (size_t i = 0; i < slot->count; i++)
        zmq_msg_close(&slot->frames[i]);
    slot->count = 0;
    if (slot->room)
        local_block_release(slot->room);
    slot->room = NULL;
}

static void free_slot(struct local_link *link, uint32_t number)
{
    clear_slot(&link->slots[number]);
    link->free[link->free_count++] = number;
}

void local_link_close(struct local_link *link)
{
    for (uint32_t i = 0; link->slots && i < LOCAL_SLOTS; i++)
        clear_slot(&link->slots[i]);
    free(link->slots);
    free(link->free);
    free(link->packet);
    local_heap_release(&link->heap);
    if (link->fd >= 0)
        close(link->fd);
    local_link_init(link);
}

/* The server's end of it is gone, or what it says cannot be. */
static void lose(struct local_link *link)
{
    const bool ready = link->state == LOCAL_LINK_READY;
    local_link_close(link);
    link->lost = ready;
    link->failed = !ready;
}

static int open_all(struct local_link *link, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    link->slots = calloc(LOCAL_SLOTS, sizeof *link->slots);
    link->free = malloc(LOCAL_SLOTS * sizeof *link->free);
    link->packet = malloc(LOCAL_PACKET_MAX);
    if (!link->slots || !link->free || !link->packet)
        return -ENOMEM;
    while (link->free_count < LOCAL_SLOTS) {
        link->free[link->free_count] = LOCAL_SLOTS - 1 - link->free_count;
        link->free_count++;
    }
    link->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return link->fd < 0 || connect(link->fd, (struct sockaddr *)&address, sizeof address) != 0 ? -errno : 0;
}

int local_link_open(struct local_link *link, const char *path, const unsigned char instance[LOCAL_INSTANCE],
                    uint64_t memory_bytes)
{
    local_link_init(link);
    memcpy(link->instance, instance, sizeof link->instance);
    link->memory_bytes = memory_bytes;
    const int rc = open_all(link, path);
    if (rc < 0)
        local_link_close(link);
    else
        link->state = LOCAL_LINK_GREETING;
    return rc;
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static int send_packet(int fd, const void *data, size_t bytes)
{
    ssize_t n;
    do
        n = send(fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* Tensors that lie elsewhere are copied into the heap: then the frame is that copy. */
static bool place(struct local_link *link, zmq_msg_t *frame, struct local_span *span)
{
    span->bytes = zmq_msg_size(frame);
    if (span->bytes == 0 || local_heap_has(link->heap, zmq_msg_data(frame), span->bytes, &span->at)) {
        span->at = span->bytes ? span->at : 0;
        return true;
    }
    struct local_block *block = local_heap_take(link->heap, span->bytes);
    if (!block)
        return false;
    zmq_msg_t copy;
    const bool made = local_block_message(block, local_block_at(block), span->bytes, &copy);
    if (made) {
        memcpy(local_block_data(block), zmq_msg_data(frame), span->bytes);
        span->at = local_block_at(block);
        zmq_msg_move(frame, &copy);
        zmq_msg_close(&copy);
    }
    local_block_release(block);
    return made;
}

/* -EAGAIN: the socket takes no more now. */
static int send_slot(struct local_link *link, uint32_t number, zmq_msg_t *frames, size_t count,
                     const struct local_block *room)
{
    unsigned char
        packet[sizeof(struct local_request) + MESSAGE_MAX_TENSORS * sizeof(struct local_span) + LOCAL_HEADER_MAX + 8];
    struct local_record record = {.slot = number, .tensors = (uint32_t)count - 1};
    if (zmq_msg_size(&frames[0]) > LOCAL_HEADER_MAX)
        return -EMSGSIZE;
    record.header = zmq_msg_data(&frames[0]);
    record.header_bytes = (uint32_t)zmq_msg_size(&frames[0]);
    for (size_t i = 1; i < count; i++) {
        if (!place(link, &frames[i], &record.spans[i - 1]))
            return -ENOMEM;
    }
    if (room)
        record.room = (struct local_span){local_block_at(room), local_block_bytes(room)};
    const long bytes = local_request_write(&record, packet, sizeof packet);
    return bytes < 0 ? (int)bytes : send_packet(link->fd, packet, (size_t)bytes);
}

int local_link_send(struct local_link *link, zmq_msg_t *frames, size_t count, uint64_t room_bytes)
{
    if (link->state != LOCAL_LINK_READY || link->free_count == 0 || link->again_first)
        return -EAGAIN;
    if (count > FRAMES)
        return -EMSGSIZE;
    const uint32_t number = link->free[link->free_count - 1];
    struct local_slot *slot = &link->slots[number];
    struct local_block *room = room_bytes ? local_heap_take(link->heap, room_bytes) : NULL;
    int rc = room || !room_bytes ? 0 : -ENOMEM;
    if (rc == 0)
        rc = send_slot(link, number, frames, count, room);
    if (rc < 0) {
        if (room)
            local_block_release(room);
        return rc == -EAGAIN || rc == -EMSGSIZE || rc == -ENOMEM ? rc : -EAGAIN; /* its end is seen when receiving */
    }
    link->free_count--;
    slot->room = room;
    slot->count = count;
    for (size_t i = 0; i < count; i++) {
        zmq_msg_init(&slot->frames[i]);
        zmq_msg_move(&slot->frames[i], &frames[i]);
    }
    return 0;
}

bool local_link_waits(const struct local_link *link)
{
    return link->again_first != NULL;
}

/* Those whose rooms were too small. False: the link is of no use any more. */
static bool send_again(struct local_link *link)
{
    struct local_slot *slot;
    while ((slot = link->again_first) != NULL) {
        if (!slot->room)
            slot->room = local_heap_take(link->heap, slot->wanted);
        if (!slot->room) {
            link->again_first = slot->next;
            slot->next = link->refused;
            link->refused = slot;
            continue;
        }
        const int rc = send_slot(link, (uint32_t)(slot - link->slots), slot->frames, slot->count, slot->room);
        if (rc == -EAGAIN)
            return true;
        if (rc < 0)
            return false;
        link->again_first = slot->next;
    }
    return true;
}

size_t local_link_refused(struct local_link *link, zmq_msg_t *frames)
{
    struct local_slot *slot = link->refused;
    if (!slot)
        return 0;
    link->refused = slot->next;
    const size_t count = slot->count;
    for (size_t i = 0; i < count; i++) {
        zmq_msg_init(&frames[i]);
        zmq_msg_move(&frames[i], &slot->frames[i]);
    }
    free_slot(link, (uint32_t)(slot - link->slots));
    return count;
}

static void want_again(struct local_link *link, struct local_slot *slot, uint64_t wanted)
{
    if (slot->room)
        local_block_release(slot->room);
    slot->room = NULL;
    slot->wanted = wanted;
    slot->next = NULL;
    struct local_slot **last = &link->again_first;
    while (*last)
        last = &(*last)->next;
    *last = slot;
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

/* The greeting, which is answered with the memory's descriptor. */
static bool greet(struct local_link *link, size_t bytes)
{
    struct local_welcome welcome;
    if (bytes != sizeof welcome)
        return false;
    memcpy(&welcome, link->packet, sizeof welcome);
    if (memcmp(welcome.magic, LOCAL_MAGIC, sizeof welcome.magic) != 0 || welcome.version != LOCAL_VERSION ||
        welcome.slots < LOCAL_SLOTS || memcmp(welcome.instance, link->instance, sizeof welcome.instance) != 0)
        return false;
    const uint64_t most = welcome.region_max / 4096 * 4096;
    if (local_heap_new(&link->heap, link->memory_bytes < most ? link->memory_bytes : most) < 0)
        return false;
    struct local_hello hello = {
        .magic = LOCAL_MAGIC, .version = LOCAL_VERSION, .region_bytes = local_heap_bytes(link->heap)};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&hello, sizeof hello};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    const int fd = local_heap_fd(link->heap);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    link->hello_sent = sendmsg(link->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof hello;
    return link->hello_sent;
}

/* 1: there is a packet. 0: there is none now. -EPIPE: the link has ended. */
static int next_packet(struct local_link *link)
{
    struct iovec part = {link->packet, LOCAL_PACKET_MAX};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    const ssize_t n = recvmsg(link->fd, &message, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0 || (message.msg_flags & MSG_TRUNC))
        return -EPIPE;
    link->packet_bytes = (size_t)n;
    link->packet_at = 0;
    return 1;
}

/* The reply's frames: its header, and tensors that lie in the room. False: it is none. */
static bool make_frames(const struct local_slot *slot, const struct local_record *record, zmq_msg_t *frames,
                        size_t limit)
{
    const uint64_t begin = slot->room ? local_block_at(slot->room) : 0;
    const uint64_t end = slot->room ? begin + local_block_bytes(slot->room) : 0;
    if (record->tensors > MESSAGE_MAX_TENSORS || record->tensors >= limit ||
        zmq_msg_init_size(&frames[0], record->header_bytes) != 0)
        return false;
    memcpy(zmq_msg_data(&frames[0]), record->header, record->header_bytes);
    for (uint32_t i = 0; i < record->tensors; i++) {
        const struct local_span span = record->spans[i];
        const bool within = slot->room && span.at >= begin && span.at <= end && span.bytes <= end - span.at;
        if (within && local_block_message(slot->room, span.at, span.bytes, &frames[1 + i]))
            continue;
        for (uint32_t f = 0; f <= i; f++)
            zmq_msg_close(&frames[f]);
        return false;
    }
    return true;
}

/* How many frames the record makes; 0: it is not for whoever asked. -EBADMSG. */
static int take_record(struct local_link *link, const struct local_record *record, zmq_msg_t *frames, size_t limit)
{
    if (record->slot == LOCAL_READY) {
        if (link->state == LOCAL_LINK_READY)
            return -EBADMSG;
        link->state = LOCAL_LINK_READY;
        return 0;
    }
    struct local_slot *slot = &link->slots[record->slot];
    if (slot->count == 0)
        return -EBADMSG;
    if (record->header_bytes == 0 && record->wanted) {
        want_again(link, slot, record->wanted);
        return send_again(link) ? 0 : -ENOMEM;
    }
    int count = 0;
    if (record->header_bytes) {
        if (!make_frames(slot, record, frames, limit))
            return -EBADMSG;
        count = 1 + (int)record->tensors;
    }
    free_slot(link, record->slot);
    return count;
}

size_t local_link_receive(struct local_link *link, zmq_msg_t *frames, size_t limit)
{
    struct local_record record;
    if (link->again_first && !send_again(link))
        lose(link);
    while (link->fd >= 0) {
        if (link->packet_at == link->packet_bytes) {
            const int rc = next_packet(link);
            if (rc == 0)
                return 0;
            if (rc < 0)
                break;
            if (!link->hello_sent) {
                if (!greet(link, link->packet_bytes))
                    break;
                link->packet_at = link->packet_bytes;
                continue;
            }
        }
        const long n = local_reply_parse(link->packet + link->packet_at, link->packet_bytes - link->packet_at,
                                         local_heap_bytes(link->heap), &record);
        if (n < 0)
            break;
        link->packet_at += (size_t)n;
        const int count = take_record(link, &record, frames, limit);
        if (count < 0)
            break;
        if (count > 0)
            return (size_t)count;
    }
    if (link->fd >= 0)
        lose(link);
    return 0;
}
