/* Addresses as people write them: hosts of the DHT, and ZeroMQ's endpoints. */
#ifndef EXPERTD_COMMON_ADDRESS_H
#define EXPERTD_COMMON_ADDRESS_H

#include <stdbool.h>

enum { ADDRESS_HOST_SIZE = 256 };

struct address {
    char host[ADDRESS_HOST_SIZE];
    unsigned port; /* 0: none was given */
};

/* "host:port", "host", "[v6]:port", "[v6]": a name or a number, which is not looked up. 0, or -EINVAL. */
int address_parse(struct address *address, const char *text);
/* What is wrong with an endpoint that another process is to reach, as the end of a sentence; NULL if nothing is. Good
 * are tcp://HOST:PORT (for binding also "*" as either) and ipc://PATH. */
const char *address_endpoint_problem(const char *endpoint, bool for_binding);

/* Whether only processes of this machine reach what is bound there: ipc://, and tcp:// on 127.0.0.0/8, [::1] or
 * localhost. */
bool address_endpoint_is_local(const char *endpoint);

/* The port, as it is written, of a tcp:// endpoint that is bound to every address there is; NULL: it is no such
 * wildcard.
 */
const char *address_wildcard_port(const char *endpoint);

/* Whether two endpoints cannot both be bound on one machine: the same path, or the same port and addresses that are the
 * same or of which one stands for all. Names are not looked up, but for localhost. */
bool address_endpoints_overlap(const char *one, const char *other);

#endif
