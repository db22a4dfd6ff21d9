#include "dht/lan.h"

#include <czmq.h>
#include <errno.h>

#include "common/log.h"

enum { BURST = 64 };

/* What is broadcast; numbers are big-endian. */
struct beacon {
    char magic[7]; /* and the version */
    uint8_t version;
    uint8_t network_id[4];
    uint8_t port[2];
};

static const char magic[7] = "EXPERTD";

struct lan {
    zactor_t *actor;
    struct beacon own;
    uint64_t tokens_tag, last_token;
    struct {
        struct contact contact;
        uint64_t pinged_ns;
    } known[LAN_KNOWN_MAX];
    size_t known_count;
};

int lan_create(struct lan **lan, uint32_t network_id, uint16_t port, uint64_t tokens_tag)
{
    struct lan *made = calloc(1, sizeof *made);
    *lan = NULL;
    if (!made)
        return -ENOMEM;
    made->tokens_tag = tokens_tag;
    made->own.version = 1;
    memcpy(made->own.magic, magic, sizeof magic);
    for (int i = 0; i < 4; i++)
        made->own.network_id[i] = (uint8_t)(network_id >> (24 - 8 * i));
    made->own.port[0] = (uint8_t)(port >> 8);
    made->own.port[1] = (uint8_t)port;
    zsys_handler_set(NULL); /* signals are this program's */
    made->actor = zactor_new(zbeacon, NULL);
    char *host = NULL;
    if (made->actor && zsock_send(made->actor, "si", "CONFIGURE", LAN_PORT) == 0)
        host = zstr_recv(made->actor);
    const bool works = host && *host &&
                       zsock_send(made->actor, "sbi", "PUBLISH", &made->own, sizeof made->own, LAN_PERIOD_MS) == 0 &&
                       zsock_send(made->actor, "sb", "SUBSCRIBE", magic, sizeof magic) == 0;
    if (works)
        log_info("looking for others of this network by broadcasts from %s, UDP port %d", host, LAN_PORT);
    else
        log_error("dht.lan: no interface of this machine lets us broadcast (UDP port %d)", LAN_PORT);
    zstr_free(&host);
    if (!works)
        lan_destroy(&made);
    *lan = made;
    return works ? 0 : -ENETUNREACH;
}

void lan_destroy(struct lan **lan)
{
    if (*lan)
        zactor_destroy(&(*lan)->actor);
    free(*lan);
    *lan = NULL;
}

void *lan_socket(const struct lan *lan)
{
    return zsock_resolve(lan->actor);
}

/* Not more often than every LAN_AGAIN_S; who is beyond the number that is kept takes the place of the first. */
static bool due(struct lan *lan, const struct contact *contact, struct moment now)
{
    size_t i = 0;
    while (i < lan->known_count && memcmp(&lan->known[i].contact, contact, sizeof *contact) != 0)
        i++;
    if (i < lan->known_count && now.ns - lan->known[i].pinged_ns < LAN_AGAIN_S * NS_PER_S)
        return false;
    if (i == LAN_KNOWN_MAX) {
        for (size_t k = i = 0; k < LAN_KNOWN_MAX; k++)
            if (lan->known[k].pinged_ns < lan->known[i].pinged_ns)
                i = k;
        if (now.ns - lan->known[i].pinged_ns < NS_PER_S)
            return false;
    }
    lan->known_count += i == lan->known_count;
    lan->known[i].contact = *contact;
    lan->known[i].pinged_ns = now.ns;
    return true;
}

static void take(struct lan *lan, struct engine *engine, const char *host, zframe_t *frame, struct moment now)
{
    struct beacon heard;
    struct contact contact;
    char text[CONTACT_TEXT];
    if (!host || !frame || zframe_size(frame) != sizeof heard)
        return;
    memcpy(&heard, zframe_data(frame), sizeof heard);
    if (memcmp(heard.magic, magic, sizeof magic) != 0 || heard.version != lan->own.version ||
        memcmp(heard.network_id, lan->own.network_id, sizeof heard.network_id) != 0)
        return;
    snprintf(text, sizeof text, "%s:%u", host, (unsigned)(heard.port[0] << 8 | heard.port[1]));
    if (contact_parse(&contact, text) && contact_port(&contact) != 0 && due(lan, &contact, now))
        engine_bootstrap(engine, &contact, lan->tokens_tag | ++lan->last_token);
}

void lan_step(struct lan *lan, struct engine *engine, struct moment now)
{
    for (int i = 0; i < BURST && (zsock_events(lan->actor) & ZMQ_POLLIN); i++) {
        char *host = zstr_recv(lan->actor);
        zframe_t *frame = zframe_recv(lan->actor);
        take(lan, engine, host, frame, now);
        zstr_free(&host);
        zframe_destroy(&frame);
    }
}
