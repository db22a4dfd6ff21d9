#include "dht/lan.h"

#include <czmq.h>
#include <errno.h>

#include "common/log.h"
#include "dht/beacon.h"

enum { BURST = 64 };

struct lan {
    zactor_t *actor;
    uint64_t tokens_tag, last_token;
    struct beacons beacons;
};

int lan_create(struct lan **lan, uint32_t network_id, uint16_t port, uint64_t tokens_tag)
{
    struct lan *made = calloc(1, sizeof *made);
    uint8_t own[BEACON_SIZE];
    *lan = NULL;
    if (!made)
        return -ENOMEM;
    made->tokens_tag = tokens_tag;
    made->beacons.network_id = network_id;
    beacon_pack(own, network_id, port);
    zsys_handler_set(NULL); /* signals are this program's */
    made->actor = zactor_new(zbeacon, NULL);
    char *host = NULL;
    if (made->actor && zsock_send(made->actor, "si", "CONFIGURE", LAN_PORT) == 0)
        host = zstr_recv(made->actor);
    const bool works = host && *host &&
                       zsock_send(made->actor, "sbi", "PUBLISH", own, sizeof own, LAN_PERIOD_MS) == 0 &&
                       zsock_send(made->actor, "sb", "SUBSCRIBE", BEACON_MAGIC, sizeof BEACON_MAGIC - 1) == 0;
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

void lan_step(struct lan *lan, struct engine *engine, struct moment now)
{
    for (int i = 0; i < BURST && (zsock_events(lan->actor) & ZMQ_POLLIN); i++) {
        char *host = zstr_recv(lan->actor);
        zframe_t *frame = zframe_recv(lan->actor);
        struct contact node;
        if (host && frame && beacons_hear(&lan->beacons, host, zframe_data(frame), zframe_size(frame), now, &node))
            engine_bootstrap(engine, &node, lan->tokens_tag | ++lan->last_token);
        zstr_free(&host);
        zframe_destroy(&frame);
    }
}
