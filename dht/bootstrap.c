#include "dht/bootstrap.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/address.h"
#include "common/log.h"

enum { PORT_SIZE = 12 };

static const uint64_t first_pause_ns = 250 * NS_PER_MS;
static const uint64_t longest_pause_ns = 15 * NS_PER_S;
static const uint64_t alive_pause_ns = 60 * NS_PER_S;
static const uint64_t resolving_poll_ns = 50 * NS_PER_MS;

static const uint64_t answer_ns = 1 * NS_PER_S;

enum entrance_state { ENTRANCE_WAITING, ENTRANCE_RESOLVING, ENTRANCE_PINGING };

struct entrance {
    char host[ADDRESS_HOST_SIZE];
    char port[PORT_SIZE];
    enum entrance_state state;
    bool alive;
    bool complained; /* since it was last alive */
    uint64_t due_ns;
    uint64_t pause_ns;
    uint64_t token; /* of the ping */
    struct addrinfo hints;
    struct gaicb request;
};

struct bootstrap {
    uint64_t tokens_tag, last_token;
    unsigned count;
    struct entrance entrances[];
};

static bool set_address(struct entrance *entrance, const char *text)
{
    struct address address;
    if (address_parse(&address, text) != 0)
        return false;
    memcpy(entrance->host, address.host, sizeof entrance->host);
    snprintf(entrance->port, sizeof entrance->port, "%u", address.port ? address.port : BOOTSTRAP_PORT);
    return true;
}

int bootstrap_create(struct bootstrap **bootstrap, const char *const *addresses, unsigned count, uint64_t tokens_tag)
{
    struct bootstrap *made = calloc(1, sizeof *made + count * sizeof made->entrances[0]);
    *bootstrap = NULL;
    if (!made)
        return -ENOMEM;
    made->tokens_tag = tokens_tag;
    made->count = count;
    for (unsigned i = 0; i < count; i++) {
        struct entrance *entrance = &made->entrances[i];
        entrance->pause_ns = first_pause_ns;
        entrance->hints = (struct addrinfo){.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV};
        if (!set_address(entrance, addresses[i])) {
            log_error("dht.bootstrap: '%s' is no address: write host:port", addresses[i]);
            free(made);
            return -EINVAL;
        }
    }
    *bootstrap = made;
    return 0;
}

bool bootstrap_literal(const char *text, struct contact *address)
{
    struct entrance entrance;
    char literal[ADDRESS_HOST_SIZE + PORT_SIZE + 4];
    if (!set_address(&entrance, text))
        return false;
    snprintf(literal, sizeof literal, strchr(entrance.host, ':') ? "[%s]:%s" : "%s:%s", entrance.host, entrance.port);
    return contact_parse(address, literal);
}

void bootstrap_destroy(struct bootstrap **bootstrap)
{
    struct bootstrap *old = *bootstrap;
    *bootstrap = NULL;
    if (!old)
        return;
    for (unsigned i = 0; i < old->count; i++)
        if (old->entrances[i].state == ENTRANCE_RESOLVING && gai_cancel(&old->entrances[i].request) == EAI_NOTCANCELED)
            return; /* its thread still writes there; the process is about to end */
    free(old);
}

/* Nothing to hope for now: once more after a pause. */
static void pause_entrance(struct entrance *entrance, const char *why, struct moment now)
{
    if (!entrance->complained)
        log_warning("bootstrap address %s port %s %s: trying again, for ever", entrance->host, entrance->port, why);
    entrance->complained = true;
    entrance->alive = false;
    entrance->state = ENTRANCE_WAITING;
    entrance->due_ns = now.ns + entrance->pause_ns;
    entrance->pause_ns = 2 * entrance->pause_ns < longest_pause_ns ? 2 * entrance->pause_ns : longest_pause_ns;
}

static void resolve(struct entrance *entrance, struct moment now)
{
    struct gaicb *list[] = {&entrance->request};
    entrance->request =
        (struct gaicb){.ar_name = entrance->host, .ar_service = entrance->port, .ar_request = &entrance->hints};
    entrance->state = ENTRANCE_RESOLVING;
    entrance->due_ns = now.ns;
    if (getaddrinfo_a(GAI_NOWAIT, list, 1, NULL) != 0)
        pause_entrance(entrance, "cannot be resolved", now);
}

static void ping(struct bootstrap *bootstrap, struct engine *engine, struct entrance *entrance, struct moment now)
{
    struct contact node;
    const int rc = gai_error(&entrance->request);
    if (rc == EAI_INPROGRESS) {
        entrance->due_ns = now.ns + resolving_poll_ns;
        return;
    }
    if (rc != 0) {
        pause_entrance(entrance, gai_strerror(rc), now);
        return;
    }
    entrance->token = bootstrap->tokens_tag | ++bootstrap->last_token;
    entrance->state = ENTRANCE_PINGING;
    entrance->due_ns = now.ns + answer_ns;
    for (const struct addrinfo *found = entrance->request.ar_result; found; found = found->ai_next) {
        if (!contact_from_socket(&node, found->ai_addr))
            continue;
        engine_bootstrap(engine, &node, entrance->token);
        if (contact_is_loopback(&node)) {
            /* A node of this machine, which mostly is at the address that others see. */
            struct contact here = engine_address(engine);
            contact_set_port(&here, contact_port(&node));
            engine_bootstrap(engine, &here, entrance->token);
        }
    }
    freeaddrinfo(entrance->request.ar_result);
}

bool bootstrap_on_pinged(struct bootstrap *bootstrap, uint64_t token, bool ok, struct moment now)
{
    const unsigned alive = bootstrap_alive(bootstrap);
    for (unsigned i = 0; i < bootstrap->count; i++) {
        struct entrance *entrance = &bootstrap->entrances[i];
        if (entrance->state != ENTRANCE_PINGING || entrance->token != token)
            continue;
        /* Another of its addresses may answer. */
        if (!ok)
            continue;
        if (!entrance->alive)
            log_info("joined the DHT by %s port %s", entrance->host, entrance->port);
        entrance->alive = true;
        entrance->complained = false;
        entrance->pause_ns = first_pause_ns;
        entrance->state = ENTRANCE_WAITING;
        entrance->due_ns = now.ns + alive_pause_ns;
    }
    return alive == 0 && bootstrap_alive(bootstrap) > 0;
}

uint64_t bootstrap_step(struct bootstrap *bootstrap, struct engine *engine, struct moment now)
{
    uint64_t next_ns = UINT64_MAX;
    for (unsigned i = 0; i < bootstrap->count; i++) {
        struct entrance *entrance = &bootstrap->entrances[i];
        if (entrance->state == ENTRANCE_WAITING && now.ns >= entrance->due_ns)
            resolve(entrance, now);
        if (entrance->state == ENTRANCE_RESOLVING && now.ns >= entrance->due_ns)
            ping(bootstrap, engine, entrance, now);
        if (entrance->state == ENTRANCE_PINGING && now.ns >= entrance->due_ns)
            pause_entrance(entrance, "does not answer", now);
        if (entrance->due_ns < next_ns)
            next_ns = entrance->due_ns;
    }
    return next_ns;
}

unsigned bootstrap_alive(const struct bootstrap *bootstrap)
{
    unsigned alive = 0;
    for (unsigned i = 0; i < bootstrap->count; i++)
        alive += bootstrap->entrances[i].alive;
    return alive;
}
