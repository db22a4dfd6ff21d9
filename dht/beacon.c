#include "dht/beacon.h"

#include <stdio.h>
#include <string.h>

/* Magic, version, network (4 bytes), port (2); numbers are big-endian. */
enum { MAGIC_SIZE = sizeof BEACON_MAGIC - 1, VERSION = 1, PORT_AT = BEACON_SIZE - 2 };

void beacon_pack(uint8_t bytes[BEACON_SIZE], uint32_t network_id, uint16_t port)
{
    memcpy(bytes, BEACON_MAGIC, MAGIC_SIZE);
    bytes[MAGIC_SIZE] = VERSION;
    for (int i = 0; i < 4; i++)
        bytes[MAGIC_SIZE + 1 + i] = (uint8_t)(network_id >> (24 - 8 * i));
    bytes[PORT_AT] = (uint8_t)(port >> 8);
    bytes[PORT_AT + 1] = (uint8_t)port;
}

static bool is_due(struct beacons *beacons, const struct contact *node, struct moment now)
{
    size_t i = 0, oldest = 0;
    for (; i < beacons->count && memcmp(&beacons->known[i].contact, node, sizeof *node) != 0; i++)
        if (beacons->known[i].pinged_ns < beacons->known[oldest].pinged_ns)
            oldest = i;
    if (i < beacons->count && now.ns - beacons->known[i].pinged_ns < BEACON_AGAIN_S * NS_PER_S)
        return false;
    if (i == BEACON_KNOWN_MAX) {
        i = oldest;
        if (now.ns - beacons->replaced_ns < NS_PER_S)
            return false;
        beacons->replaced_ns = now.ns;
    }
    beacons->count += i == beacons->count;
    beacons->known[i].contact = *node;
    beacons->known[i].pinged_ns = now.ns;
    return true;
}

bool beacons_hear(struct beacons *beacons, const char *host, const uint8_t *bytes, size_t size, struct moment now,
                  struct contact *node)
{
    uint8_t expected[BEACON_SIZE];
    char text[CONTACT_TEXT];
    if (size != BEACON_SIZE)
        return false;
    const uint16_t port = (uint16_t)(bytes[PORT_AT] << 8 | bytes[PORT_AT + 1]);
    beacon_pack(expected, beacons->network_id, port);
    if (memcmp(bytes, expected, BEACON_SIZE) != 0 || port == 0)
        return false;
    const int length = snprintf(text, sizeof text, "%s:%u", host, port);
    return length < (int)sizeof text && contact_parse(node, text) && is_due(beacons, node, now);
}
