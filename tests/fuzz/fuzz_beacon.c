/* Broadcasts of a local network: the host that each came from, as text, and its bytes; one after the other, told apart
 * by their lengths, with more or less time between them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dht/beacon.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct beacons beacons;
    struct moment now = {NS_PER_S, 0};
    struct contact node;
    memset(&beacons, 0, sizeof beacons);
    while (size >= 3) {
        char host[256] = "";
        const size_t host_size = data[0] < size - 3 ? data[0] : size - 3;
        const size_t left = size - 3 - host_size;
        const size_t frame = data[1] < left ? data[1] : left;
        now.ns += data[2] * (NS_PER_S / 8);
        memcpy(host, data + 3, host_size);
        if (beacons_hear(&beacons, host, data + 3 + host_size, frame, now, &node) &&
            (contact_port(&node) == 0 || beacons_hear(&beacons, host, data + 3 + host_size, frame, now, &node)))
            abort();
        if (beacons.count > BEACON_KNOWN_MAX)
            abort();
        data += 3 + host_size + frame;
        size -= 3 + host_size + frame;
    }
    return 0;
}
