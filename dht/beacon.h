/* What directories broadcast in a local network, and which of those that are heard to ping: those of this network, and
 * none more often than every BEACON_AGAIN_S, since whoever broadcasts is anybody. No locks. */
#ifndef EXPERTD_DHT_BEACON_H
#define EXPERTD_DHT_BEACON_H

#include "dht/contact.h"
#include "dht/moment.h"

enum { BEACON_SIZE = 14, BEACON_AGAIN_S = 60, BEACON_KNOWN_MAX = 256 };
#define BEACON_MAGIC "EXPERTD"

/* Zero-initialised but for the network: nobody was heard yet. */
struct beacons {
    uint32_t network_id;
    size_t count;
    uint64_t replaced_ns; /* when one last took another's place */
    struct {
        struct contact contact;
        uint64_t pinged_ns;
    } known[BEACON_KNOWN_MAX];
};

/* port: UDP, of the DHT's node. */
void beacon_pack(uint8_t bytes[BEACON_SIZE], uint32_t network_id, uint16_t port);
/* A broadcast from a host ("10.0.0.7"). True: the node is to be pinged now. Where more are heard than are known, at
 * most one a second takes the place of the one that was pinged before all others. */
bool beacons_hear(struct beacons *beacons, const char *host, const uint8_t *bytes, size_t size, struct moment now,
                  struct contact *node);

#endif
