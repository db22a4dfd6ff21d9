#include "frontend/local_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OUT_LEAST = 4096 };

static int send_packet(int fd, const void *data, size_t bytes)
{
    ssize_t n;
    do
        n = send(fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

struct local_client *local_client_new(int fd, uint64_t region_max, const unsigned char instance[LOCAL_INSTANCE])
{
    struct local_welcome welcome = {
        .magic = LOCAL_MAGIC, .version = LOCAL_VERSION, .slots = LOCAL_SLOTS, .region_max = region_max};
    memcpy(welcome.instance, instance, sizeof welcome.instance);
    struct local_client *client = calloc(1, sizeof *client);
    if (!client || send_packet(fd, &welcome, sizeof welcome) < 0) {
        free(client);
        close(fd);
        return NULL;
    }
    client->fd = fd;
    return client;
}

void local_client_free(struct local_client *client)
{
    local_region_unmap(&client->region);
    close(client->fd);
    free(client->out);
    free(client);
}

int local_client_hello(struct local_client *client, const void *packet, size_t bytes, int fd, uint64_t region_max,
                       const char **why)
{
    struct local_hello hello;
    *why = "its first packet is not what it has to be";
    if (bytes != sizeof hello)
        return -EBADMSG;
    memcpy(&hello, packet, sizeof hello);
    if (memcmp(hello.magic, LOCAL_MAGIC, sizeof hello.magic) != 0 || hello.version != LOCAL_VERSION)
        return -EBADMSG;
    *why = "its first packet has not one descriptor";
    if (fd < 0)
        return -EBADMSG;
    *why = "its memory is larger than frontend.local_memory allows";
    if (hello.region_bytes > region_max)
        return -E2BIG;
    const int rc = local_region_map(&client->region, fd, hello.region_bytes, why);
    if (rc < 0)
        return rc;
    client->ready = true;
    local_client_answer(client, &(struct local_record){.slot = LOCAL_READY});
    return 0;
}

long local_client_request(struct local_client *client, const void *packet, size_t bytes, struct local_record *record)
{
    const long n = local_request_parse(packet, bytes, client->region.bytes, record);
    if (n < 0)
        return n;
    uint64_t *word = &client->busy[record->slot / 64];
    const uint64_t bit = UINT64_C(1) << record->slot % 64;
    if (*word & bit)
        return -EBADMSG;
    *word |= bit;
    return n;
}

/* There is one answer to a slot, so that what waits is bounded by the slots. */
static bool grow(struct local_client *client, size_t bytes)
{
    if (client->out_bytes + bytes <= client->out_size)
        return true;
    size_t size = client->out_size ? client->out_size : OUT_LEAST;
    while (size < client->out_bytes + bytes)
        size *= 2;
    unsigned char *out = realloc(client->out, size);
    if (!out)
        return false;
    client->out = out;
    client->out_size = size;
    return true;
}

void local_client_answer(struct local_client *client, const struct local_record *record)
{
    const size_t most = sizeof(struct local_reply) + sizeof record->spans + record->header_bytes + 8;
    if (record->slot < LOCAL_SLOTS)
        client->busy[record->slot / 64] &= ~(UINT64_C(1) << record->slot % 64);
    if (!client->dirty && client->dirty_list) {
        client->dirty = true;
        client->next_dirty = *client->dirty_list;
        *client->dirty_list = client;
    }
    client->broken |= !grow(client, most);
    if (client->broken)
        return;
    const long bytes = local_reply_write(record, client->out + client->out_bytes, most);
    if (bytes < 0)
        client->broken = true;
    else
        client->out_bytes += (size_t)bytes;
}

/* The first whole records of a packet's size. */
static size_t first_packet(const unsigned char *data, size_t bytes)
{
    size_t packet = 0;
    while (packet < bytes) {
        uint32_t record;
        memcpy(&record, data + packet, sizeof record);
        if (packet && packet + record > LOCAL_PACKET_MAX)
            break;
        packet += record;
    }
    return packet;
}

int local_client_flush(struct local_client *client)
{
    size_t sent = 0;
    int rc = 0;
    while (rc == 0 && sent < client->out_bytes) {
        const size_t packet = first_packet(client->out + sent, client->out_bytes - sent);
        rc = send_packet(client->fd, client->out + sent, packet);
        if (rc == 0)
            sent += packet;
    }
    if (sent < client->out_bytes)
        memmove(client->out, client->out + sent, client->out_bytes - sent);
    client->out_bytes -= sent;
    return rc;
}
