#include "dht/bootstrap.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

enum { HOST_SIZE = 256, PORT_SIZE = 8 };

static const uint64_t first_pause_ns = 250 * NS_PER_MS;
static const uint64_t longest_pause_ns = 15 * NS_PER_S;
static const uint64_t alive_pause_ns = 60 * NS_PER_S;
static const uint64_t resolving_poll_ns = 50 * NS_PER_MS;

enum address_state { ADDRESS_WAITING, ADDRESS_RESOLVING, ADDRESS_PINGING };

struct address {
    char host[HOST_SIZE];
    char port[PORT_SIZE];
    enum address_state state;
    bool alive;
    bool complained; /* since it was last alive */
    uint64_t due_ns;
    uint64_t pause_ns;
    uint64_t token; /* of the ping */
    struct addrinfo hints;
    struct gaicb request;
};

struct bootstrap {
    struct node *node;
    uint64_t tokens_tag, last_token;
    unsigned count;
    struct address addresses[];
};

static bool split(const char *text, struct address *address)
{
    const char *host = text;
    const char *end;
    const char *port = NULL;
    if (*text == '[') {
        host = text + 1;
        end = strchr(host, ']');
        if (!end || (end[1] && end[1] != ':'))
            return false;
        port = end[1] ? end + 2 : NULL;
    } else {
        end = strchr(text, ':');
        port = end ? end + 1 : NULL;
        if (!end)
            end = text + strlen(text);
    }
    const size_t length = (size_t)(end - host);
    if (length == 0 || length >= HOST_SIZE)
        return false;
    memcpy(address->host, host, length);
    snprintf(address->port, sizeof address->port, "%d", BOOTSTRAP_PORT);
    if (!port)
        return true;
    const size_t digits = strspn(port, "0123456789");
    if (digits == 0 || digits > 5 || port[digits] || strtoul(port, NULL, 10) == 0 || strtoul(port, NULL, 10) > 65535)
        return false;
    memcpy(address->port, port, digits + 1);
    return true;
}

int bootstrap_create(struct bootstrap **bootstrap, struct node *node, const char *const *addresses, unsigned count,
                     uint64_t tokens_tag)
{
    struct bootstrap *made = calloc(1, sizeof *made + count * sizeof made->addresses[0]);
    *bootstrap = NULL;
    if (!made)
        return -ENOMEM;
    made->node = node;
    made->tokens_tag = tokens_tag;
    made->count = count;
    for (unsigned i = 0; i < count; i++) {
        struct address *address = &made->addresses[i];
        address->pause_ns = first_pause_ns;
        address->hints = (struct addrinfo){.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV};
        if (!split(addresses[i], address)) {
            log_error("dht.bootstrap: '%s' is no address: write host:port", addresses[i]);
            free(made);
            return -EINVAL;
        }
    }
    *bootstrap = made;
    return 0;
}

void bootstrap_destroy(struct bootstrap **bootstrap)
{
    struct bootstrap *old = *bootstrap;
    *bootstrap = NULL;
    if (!old)
        return;
    for (unsigned i = 0; i < old->count; i++)
        if (old->addresses[i].state == ADDRESS_RESOLVING && gai_cancel(&old->addresses[i].request) == EAI_NOTCANCELED)
            return; /* its thread still writes there; the process is about to end */
    free(old);
}

/* Nothing to hope for now: once more after a pause. */
static void pause_address(struct address *address, const char *why, struct moment now)
{
    if (!address->complained)
        log_warning("bootstrap address %s port %s %s: trying again, for ever", address->host, address->port, why);
    address->complained = true;
    address->alive = false;
    address->state = ADDRESS_WAITING;
    address->due_ns = now.ns + address->pause_ns;
    address->pause_ns = 2 * address->pause_ns < longest_pause_ns ? 2 * address->pause_ns : longest_pause_ns;
}

static void resolve(struct address *address, struct moment now)
{
    struct gaicb *list[] = {&address->request};
    address->request =
        (struct gaicb){.ar_name = address->host, .ar_service = address->port, .ar_request = &address->hints};
    address->state = ADDRESS_RESOLVING;
    address->due_ns = now.ns;
    if (getaddrinfo_a(GAI_NOWAIT, list, 1, NULL) != 0)
        pause_address(address, "cannot be resolved", now);
}

static void ping(struct bootstrap *bootstrap, struct address *address, struct moment now)
{
    const int rc = gai_error(&address->request);
    if (rc == EAI_INPROGRESS) {
        address->due_ns = now.ns + resolving_poll_ns;
        return;
    }
    if (rc != 0) {
        pause_address(address, gai_strerror(rc), now);
        return;
    }
    /* The first that it resolves to; the next time the resolver may put another first. */
    struct addrinfo *found = address->request.ar_result;
    address->token = bootstrap->tokens_tag | ++bootstrap->last_token;
    address->state = ADDRESS_PINGING;
    address->due_ns = UINT64_MAX;
    if (node_ping(bootstrap->node, found->ai_addr, found->ai_addrlen, address->token) != 0)
        pause_address(address, "cannot be pinged", now);
    freeaddrinfo(found);
}

bool bootstrap_on_pinged(struct bootstrap *bootstrap, uint64_t token, bool ok, struct moment now)
{
    const unsigned alive = bootstrap_alive(bootstrap);
    for (unsigned i = 0; i < bootstrap->count; i++) {
        struct address *address = &bootstrap->addresses[i];
        if (address->state != ADDRESS_PINGING || address->token != token)
            continue;
        if (!ok) {
            pause_address(address, "does not answer", now);
            continue;
        }
        if (!address->alive)
            log_info("joined the DHT by %s port %s", address->host, address->port);
        address->alive = true;
        address->complained = false;
        address->pause_ns = first_pause_ns;
        address->state = ADDRESS_WAITING;
        address->due_ns = now.ns + alive_pause_ns;
    }
    return alive == 0 && bootstrap_alive(bootstrap) > 0;
}

uint64_t bootstrap_step(struct bootstrap *bootstrap, struct moment now)
{
    uint64_t next_ns = UINT64_MAX;
    for (unsigned i = 0; i < bootstrap->count; i++) {
        struct address *address = &bootstrap->addresses[i];
        if (address->state == ADDRESS_WAITING && now.ns >= address->due_ns)
            resolve(address, now);
        if (address->state == ADDRESS_RESOLVING && now.ns >= address->due_ns)
            ping(bootstrap, address, now);
        if (address->due_ns < next_ns)
            next_ns = address->due_ns;
    }
    return next_ns;
}

unsigned bootstrap_alive(const struct bootstrap *bootstrap)
{
    unsigned alive = 0;
    for (unsigned i = 0; i < bootstrap->count; i++)
        alive += bootstrap->addresses[i].alive;
    return alive;
}
