/* What stands between a client and a server and lets so many connections through: a firewall, a limit of connections.
 * Those it lets through carry bytes both ways, unchanged. */
#ifndef EXPERTD_TESTS_SUPPORT_DOOR_H
#define EXPERTD_TESTS_SUPPORT_DOOR_H

#include <stdbool.h>

struct door;

/* On that IPv4 address, before a server at `endpoint` ("tcp://ADDRESS:PORT"). Never NULL. What is not let through is
 * closed at once, or with `holds` stays open without a byte. */
struct door *door_open(const char *address, const char *endpoint, bool holds);
const char *door_endpoint(const struct door *door);
/* How many connections are let through, in all, 0 at first: those that were held are closed now, so that they try
 * again. */
void door_admit(struct door *door, int connections);
/* How many were not let through. */
int door_turned_away(const struct door *door);
/* Closes all of them. */
void door_close(struct door **door);

#endif
