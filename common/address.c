#include "common/address.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static const char ipv6_characters[] = "0123456789abcdefABCDEF:.";

/* 0: it is none. */
static unsigned parse_port(const char *text)
{
    const size_t digits = strspn(text, "0123456789");
    const unsigned long port = digits > 0 && digits <= 5 && !text[digits] ? strtoul(text, NULL, 10) : 0;
    return port <= 65535 ? (unsigned)port : 0;
}

static bool is_name(const char *host, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isascii(host[i]) || !(isalnum((unsigned char)host[i]) || strchr("-._", host[i])))
            return false;
    return length > 0;
}

/* Digits and colons, and perhaps "%interface". */
static bool is_ipv6(const char *host, size_t length)
{
    const size_t number = strspn(host, ipv6_characters);
    return number >= 2 && memchr(host, ':', length) &&
           (number == length ||
            (number < length && host[number] == '%' && is_name(host + number + 1, length - number - 1)));
}

int address_parse(struct address *address, const char *text)
{
    const bool bracketed = text[0] == '[';
    const char *host = text + bracketed;
    const char *end = bracketed ? strchr(host, ']') : host + strcspn(host, ":");
    if (!end)
        return -EINVAL;
    const char *rest = end + bracketed;
    const size_t length = (size_t)(end - host);
    const unsigned port = *rest == ':' ? parse_port(rest + 1) : 0;
    if (length >= ADDRESS_HOST_SIZE || !(bracketed ? is_ipv6(host, length) : is_name(host, length)) || (*rest && !port))
        return -EINVAL;
    memcpy(address->host, host, length);
    address->host[length] = 0;
    address->port = port;
    return 0;
}

static const char *tcp_problem(const char *rest, bool for_binding)
{
    const char *port = strrchr(rest, ':');
    const size_t length = port ? (size_t)(port - rest) : strlen(rest);
    if (!port)
        return "names no port, as in tcp://127.0.0.1:31330";
    port++;
    if (!parse_port(port) && !(for_binding && strcmp(port, "*") == 0))
        return "has no port of 1 to 65535";
    if (for_binding && length == 1 && rest[0] == '*')
        return NULL;
    if (rest[0] == '[' ? length > 2 && rest[length - 1] == ']' && is_ipv6(rest + 1, length - 2) : is_name(rest, length))
        return NULL;
    return memchr(rest, ':', length) && rest[0] != '[' ? "has an IPv6 address without its brackets: [::1]"
                                                       : "has no host";
}

bool address_endpoint_is_local(const char *endpoint)
{
    static const char tcp[] = "tcp://", *const hosts[] = {"127.", "localhost:", "[::1]:"};
    if (strncmp(endpoint, tcp, strlen(tcp)) != 0)
        return true;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        const char *host = endpoint + strlen(tcp);
        /* "127.example.org" is a name like any other. */
        if (strncmp(host, hosts[i], strlen(hosts[i])) == 0 && (i > 0 || host[strspn(host, "0123456789.")] == ':'))
            return true;
    }
    return false;
}

const char *address_wildcard_port(const char *endpoint)
{
    static const char *const wildcards[] = {"tcp://*:", "tcp://0.0.0.0:", "tcp://[::]:"};
    for (size_t i = 0; i < sizeof wildcards / sizeof wildcards[0]; i++)
        if (strncmp(endpoint, wildcards[i], strlen(wildcards[i])) == 0)
            return endpoint + strlen(wildcards[i]);
    return NULL;
}

/* "*": all of IPv4; "[::]": all there are. The length of what stands in the endpoint; 0: it has no port. */
static size_t bound_host(const char *endpoint, char host[ADDRESS_HOST_SIZE])
{
    static const char *const same[][2] = {{"0.0.0.0", "*"}, {"[::0]", "[::]"}, {"localhost", "127.0.0.1"}};
    const char *port = strrchr(endpoint, ':');
    const size_t length = port && (size_t)(port - endpoint) < ADDRESS_HOST_SIZE ? (size_t)(port - endpoint) : 0;
    memcpy(host, endpoint, length);
    host[length] = 0;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        if (strcmp(host, same[i][0]) == 0)
            snprintf(host, ADDRESS_HOST_SIZE, "%s", same[i][1]);
    return length;
}

static bool stands_for(const char *host, const char *other)
{
    return strcmp(host, "[::]") == 0 || (strcmp(host, "*") == 0 && other[0] != '[') || strcmp(host, other) == 0;
}

bool address_endpoints_overlap(const char *one, const char *other)
{
    static const char tcp[] = "tcp://";
    char hosts[2][ADDRESS_HOST_SIZE];
    if (strncmp(one, tcp, strlen(tcp)) != 0 || strncmp(other, tcp, strlen(tcp)) != 0)
        return strcmp(one, other) == 0;
    one += strlen(tcp);
    other += strlen(tcp);
    const size_t lengths[] = {bound_host(one, hosts[0]), bound_host(other, hosts[1])};
    const unsigned port = lengths[0] && lengths[1] ? parse_port(one + lengths[0] + 1) : 0;
    return port && port == parse_port(other + lengths[1] + 1) &&
           (stands_for(hosts[0], hosts[1]) || stands_for(hosts[1], hosts[0]));
}

const char *address_endpoint_problem(const char *endpoint, bool for_binding)
{
    static const char tcp[] = "tcp://", ipc[] = "ipc://", inproc[] = "inproc://";
    if (strncmp(endpoint, tcp, strlen(tcp)) == 0)
        return tcp_problem(endpoint + strlen(tcp), for_binding);
    if (strncmp(endpoint, inproc, strlen(inproc)) == 0)
        return "is only reached from inside the process that binds it: use tcp:// or ipc://";
    if (strncmp(endpoint, ipc, strlen(ipc)) != 0)
        return "is no ZeroMQ endpoint, like tcp://127.0.0.1:31330 or ipc:///run/expertd/frontend";
    const char *path = endpoint + strlen(ipc);
    if (!*path || strcmp(path, "*") == 0)
        return "names no socket's path";
    if (strlen(path) >= sizeof((struct sockaddr_un *)NULL)->sun_path)
        return "is longer than a socket's path can be (107 characters)";
    return NULL;
}
