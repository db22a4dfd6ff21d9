/* Addresses that servers announce: an IP (IPv4 as IPv4-mapped IPv6) and a port, in bytes that compare and hash as they
 * lie. All functions are pure. */
#ifndef EXPERTD_DHT_CONTACT_H
#define EXPERTD_DHT_CONTACT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { CONTACT_IP_SIZE = 16, CONTACT_TEXT = 64 };

struct contact {
    uint8_t ip[CONTACT_IP_SIZE];
    uint8_t port[2]; /* network order */
};
static_assert(sizeof(struct contact) == 18, "no padding: it is a key");

/* False: neither IPv4 nor IPv6. */
bool contact_from_socket(struct contact *address, const struct sockaddr *from);
/* "10.0.0.7:4222", "[2001:db8::1]:4222". Returns text. */
const char *contact_format(const struct contact *address, char text[CONTACT_TEXT]);
/* Of what contact_format writes. */
bool contact_parse(struct contact *address, const char *text);
uint16_t contact_port(const struct contact *address);
void contact_set_port(struct contact *address, uint16_t port);
bool contact_is_v4(const struct contact *address);
bool contact_is_loopback(const struct contact *address);

#endif
