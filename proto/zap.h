/* Who may connect: ZeroMQ's authentication protocol (ZAP, RFC 27), answered from a keyring in a thread of its own. Each
 * handshake of a CURVE socket with ZAP_DOMAIN in the context waits for its answer, so a flood of handshakes costs
 * ZeroMQ's threads and this one, and not the one that works. Whoever is let in has its key, in Z85, as the User-Id of
 * its messages. */
#ifndef EXPERTD_PROTO_ZAP_H
#define EXPERTD_PROTO_ZAP_H

#include <stdint.h>

#include "common/keyring.h"

struct zap;

struct zap_counters {
    uint64_t accepted, refused; /* handshakes; refused: keys that are not known */
};

/* Begins to answer in this ZeroMQ context, for which there may be one. The keyring is kept. 0 or -errno; logged. */
int zap_create(struct zap **zap, void *context, struct keyring *keyring);
/* After the context was terminated, which ends the thread. */
void zap_destroy(struct zap **zap);
struct zap_counters zap_counters(const struct zap *zap); /* any thread */

/* Makes a socket, before it is bound, a CURVE server of this domain: it takes no other mechanism, and no connection
 * whose handshake takes longer than 5 s. 0 or -errno. */
int zap_guard(void *socket, const char *secret_key);

#endif
