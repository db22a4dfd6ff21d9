/* Other directories of the same local network, found by broadcasts (czmq's zbeacon): each says now and then at which
 * port its node of the DHT is, and pings those that it hears of, so that they join each other without an address being
 * written anywhere. Whoever broadcasts is anybody: what is heard are addresses to ping, few and not often. One thread;
 * zbeacon has its own. */
#ifndef EXPERTD_DHT_LAN_H
#define EXPERTD_DHT_LAN_H

#include "dht/engine.h"

enum { LAN_PORT = 31333, LAN_PERIOD_MS = 1000 };

struct lan;

/* port: UDP, of the DHT's node, which is what is broadcast. 0 or -errno, then a message was logged. */
int lan_create(struct lan **lan, uint32_t network_id, uint16_t port, uint64_t tokens_tag);
void lan_destroy(struct lan **lan);
void *lan_socket(const struct lan *lan); /* a ZeroMQ socket; readable: call lan_step */
/* Pings those that were heard of. */
void lan_step(struct lan *lan, struct engine *engine, struct moment now);

#endif
