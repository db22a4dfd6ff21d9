/* The servers that were announced, as one who looks up sees them: each address is asked for its catalog once, and then
 * listened to.
 *
 *     WAITING -> ASKED -> LIVE       it has told all that it hosts; news, heartbeats and a farewell follow
 *        ^         |        |
 *        +-- RESTING <------+        it did not answer, lied, broke off, or its life is over: left alone for a while,
 *                                    longer each time
 *
 * A server is SETTLED for whoever waits for it when it is LIVE, or RESTING after it was refused, or lied, or did not
 * answer once; SURE when one that did not answer was asked a second time, longer. Only then "nobody" is no guess.
 *
 * Who a server is, it proves by a signature, which takes longer to check than all else that it says. It is checked when
 * an answer is to name the server (resident.prove), and soon after it has told all in any case; so nobody waits for the
 * proofs of servers that are not asked for.
 *
 * Strangers have a budget: connections being made, at once and of one IP; addresses of one IP; the bytes of a catalog,
 * and of all together (the largest goes first); messages and bytes in a second; time. One thread; ZeroMQ has its own.
 */
#ifndef EXPERTD_DHT_SERVERS_H
#define EXPERTD_DHT_SERVERS_H

#include <sys/queue.h>

#include "dht/contact.h"
#include "dht/moment.h"
#include "dht/world.h"

enum server_state { SERVER_WAITING, SERVER_ASKED, SERVER_LIVE, SERVER_RESTING };
const char *server_state_name(enum server_state state);

enum {
    SERVERS_ASKED_MAX = 256,  /* at once, */
    SERVERS_ASKED_OF_IP = 64, /* and of one IP */
    SERVERS_OF_IP = 256,      /* addresses of one IP that are kept; of loopback SERVERS_OF_LOOPBACK */
    SERVERS_OF_LOOPBACK = 4096,
    SERVERS_MAX = 16384,          /* addresses in all */
    SERVERS_ANSWER_MS = 1500,     /* for the first answer, and four times as long the second time */
    SERVERS_AGAIN_MS = 300,       /* for one whose connection broke: until then it may come back */
    SERVERS_WHOLE_MS = 30000,     /* for all of a catalog */
    SERVERS_BYTES_MAX = 16 << 20, /* of one catalog, in memory */
};

/* Why a server's proof does not do: it is none; or it is another connection's as well, of the same process. */
enum refusal { REFUSED_NOT, REFUSED_LIE, REFUSED_DOUBLE };

struct server {
    struct resident resident; /* in the world, while there is anything; the first member */
    struct servers *servers;
    struct contact contact;
    enum server_state state;
    bool settled, sure;
    bool live;         /* as those with links were told */
    int turn;          /* in which it is asked, or waits to be */
    uint64_t since_ns; /* of the state */
    uint64_t due_ns;   /* ASKED: given up then; RESTING: asked again; LIVE: its life ends */
    uint64_t used_ns;  /* when it was last of use to a look-up */
    LIST_HEAD(server_links, server_link) links;
    struct servers_source *source;
    LIST_ENTRY(server) entry; /* waiting, of the source; or of its state */
    uint8_t route[9];         /* of the connection, to ZeroMQ; route[0] 0: none */
    uint8_t challenge[CHALLENGE_SIZE];
    uint8_t instance[INSTANCE_SIZE];
    uint64_t started_ms;
    bool vouched; /* and the voucher holds */
    struct voucher voucher;
    bool introduced, proven;           /* in this connection; ever */
    uint8_t signature[SIGNATURE_SIZE]; /* of its introduction; */
    TAILQ_ENTRY(server) by_proof;      /* that is still to be checked, while there is resident.prove, */
    uint64_t prove_ns;                 /* then at the latest */
    enum refusal refused;              /* the check failed */
    unsigned failures, timeouts;
    uint64_t window_ns; /* messages and bytes in the second that began then */
    unsigned window_messages;
    size_t window_bytes;
};

/* Somebody's interest in a server. */
struct server_link {
    struct server *server;
    LIST_ENTRY(server_link) entry;
    /* The server has become settled, or sure, or is no longer, or lives, or has died; `gone`: it was let go of for
     * another, and the link is undone. Must not call back. */
    void (*changed)(struct server_link *link, bool gone);
};

struct servers_counters {
    uint64_t asked, refused, silent, liars, lost, farewells, let_go, overflow, doubles, untrusted;
};

struct servers_options {
    uint32_t network_id;
    size_t max_servers;          /* connections to keep */
    size_t max_bytes;            /* of all catalogs */
    const struct trust *trust;   /* whom to believe; NULL: everybody; kept */
    const uint8_t *own_instance; /* INSTANCE_SIZE bytes: of this process, which is not asked */
};

struct servers;

/* context: a ZeroMQ context. The world must outlive it. 0 or -errno, then a message was logged. */
int servers_create(struct servers **servers, void *context, struct world *world, const struct servers_options *options);
void servers_destroy(struct servers **servers);
void *servers_socket(const struct servers *servers); /* both readable: call servers_step */
void *servers_monitor(const struct servers *servers);
/* Does what is due; returns when the next is. */
uint64_t servers_step(struct servers *servers, struct moment now);

/* Links to the server at an address, which is asked if it is new. Beyond the budget one that never was a server, and is
 * left alone, makes room; else -EDQUOT: the IP has too many; -ENOSPC: there are too many; -ENOMEM. */
int servers_link(struct servers *servers, const struct contact *contact, struct server_link *link, struct moment now);
/* A server that nobody has a link to is closed. */
void servers_unlink(struct servers *servers, struct server_link *link);
const struct server *servers_find(const struct servers *servers, const struct contact *contact); /* NULL: none */
/* The first server from *at (0 at first); NULL: no more. */
const struct server *servers_next(const struct servers *servers, size_t *at);
size_t servers_count(const struct servers *servers, enum server_state state);
size_t servers_total(const struct servers *servers);
const struct servers_counters *servers_counters(const struct servers *servers);

/* A message of the server's, as servers_step takes it: for tests and the fuzzer. */
void servers_hear(struct servers *servers, struct server *server, const uint8_t *bytes, size_t size, struct moment now);

#endif
