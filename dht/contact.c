#include "dht/contact.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAPPED_SIZE = 12 };
static const uint8_t mapped[MAPPED_SIZE] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool contact_from_socket(struct contact *address, const struct sockaddr *from)
{
    *address = (struct contact){0};
    if (from->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
        memcpy(address->ip, mapped, sizeof mapped);
        memcpy(address->ip + MAPPED_SIZE, &v4->sin_addr, sizeof v4->sin_addr);
        memcpy(address->port, &v4->sin_port, sizeof address->port);
        return true;
    }
    if (from->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
        memcpy(address->ip, &v6->sin6_addr, sizeof address->ip);
        memcpy(address->port, &v6->sin6_port, sizeof address->port);
        return true;
    }
    return false;
}

bool contact_is_v4(const struct contact *address)
{
    return memcmp(address->ip, mapped, sizeof mapped) == 0;
}

bool contact_is_loopback(const struct contact *address)
{
    static const uint8_t v6_loopback[CONTACT_IP_SIZE] = {[CONTACT_IP_SIZE - 1] = 1};
    return contact_is_v4(address) ? address->ip[MAPPED_SIZE] == 127
                                  : memcmp(address->ip, v6_loopback, sizeof v6_loopback) == 0;
}

uint16_t contact_port(const struct contact *address)
{
    return (uint16_t)(address->port[0] << 8 | address->port[1]);
}

void contact_set_port(struct contact *address, uint16_t port)
{
    address->port[0] = (uint8_t)(port >> 8);
    address->port[1] = (uint8_t)port;
}

const char *contact_format(const struct contact *address, char text[CONTACT_TEXT])
{
    char ip[INET6_ADDRSTRLEN] = "";
    const bool v4 = contact_is_v4(address);
    inet_ntop(v4 ? AF_INET : AF_INET6, address->ip + (v4 ? MAPPED_SIZE : 0), ip, sizeof ip);
    snprintf(text, CONTACT_TEXT, v4 ? "%s:%u" : "[%s]:%u", ip, contact_port(address));
    return text;
}

bool contact_parse(struct contact *address, const char *text)
{
    char ip[INET6_ADDRSTRLEN];
    const bool v6 = *text == '[';
    const char *end = v6 ? strchr(text, ']') : strchr(text, ':');
    const size_t length = end ? (size_t)(end - text) - v6 : sizeof ip;
    *address = (struct contact){0};
    if (length >= sizeof ip || (v6 && end[1] != ':'))
        return false;
    memcpy(ip, text + v6, length);
    ip[length] = '\0';
    const char *port = end + 1 + v6;
    const size_t digits = strspn(port, "0123456789");
    const unsigned long number = strtoul(port, NULL, 10);
    if (digits == 0 || digits > 5 || port[digits] || number == 0 || number > UINT16_MAX)
        return false;
    contact_set_port(address, (uint16_t)number);
    if (!v6)
        memcpy(address->ip, mapped, sizeof mapped);
    return inet_pton(v6 ? AF_INET6 : AF_INET, ip, address->ip + (v6 ? 0 : MAPPED_SIZE)) == 1;
}
