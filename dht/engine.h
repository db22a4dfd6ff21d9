/* The DHT: BitTorrent's, by libtorrent-rasterbar, as a private network. It keeps nothing but who announced what: under
 * a key, addresses that their packets came from, and the port that they named. What lies behind them it does not know.
 *
 * A find goes on until the NEAREST nodes to the key that are there have all answered; an announcement is a find, and
 * then is left with those. One that does not answer is asked three times, and then passed over. Addresses are told of
 * as they come, so that they can be connected to meanwhile.
 *
 * One thread calls all of it; libtorrent has its own, and rings engine_fd. engine.cpp is the only C++ here. */
#ifndef EXPERTD_DHT_ENGINE_H
#define EXPERTD_DHT_ENGINE_H

#include "dht/contact.h"
#include "dht/moment.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    ENGINE_NEAREST = 8,       /* nodes that keep an announcement */
    ENGINE_REPLY_PEERS = 100, /* addresses that a node keeps under a key, and that a reply holds */
    ENGINE_KEPT_S = 900,      /* an announcement is kept so long: announce again before */
    ENGINE_SILENT_MS = 5000,  /* a node that did not answer is not asked again for so long, and counts as silent */
    ENGINE_ID_TEXT = 41,
};

struct engine;

struct engine_options {
    const char *address; /* IPs to be reached at, with commas between; NULL or "": the one that bootstrap is reached
                            from, else that of the route to elsewhere, else that of the first interface; and when
                            that is no longer there, the one that there is then */
    uint16_t port;       /* UDP; 0: any free one */
    const struct contact *bootstrap; /* the first, where it is known; NULL */
    bool port_mapping;               /* ask the router by UPnP and NAT-PMP to let the port in */
};

enum engine_event_kind {
    ENGINE_PEERS,     /* addresses under the key: more may come */
    ENGINE_FOUND,     /* the find has ended */
    ENGINE_ANNOUNCED, /* the announcement has */
    ENGINE_PINGED,    /* answered: 1 or 0 */
    ENGINE_MOVED,     /* to another address of this machine: what was announced leads nowhere. Of no token */
    ENGINE_KEPT, /* somebody has announced an address to this node, under the key of the latest find with the token */
};

struct engine_event {
    enum engine_event_kind kind;
    uint64_t token;
    const struct contact *addresses; /* of ENGINE_PEERS and ENGINE_KEPT; valid during the call */
    size_t count;
    unsigned answered; /* nodes of the nearest: 0 is what a node that is alone finds */
    unsigned silent;   /* nearer nodes that did not answer */
    unsigned fullest;  /* most addresses in one reply */
};

typedef void (*engine_sink)(void *context, const struct engine_event *event, struct moment now);

/* 0 or -errno, then a message was logged. */
int engine_start(struct engine **engine, const struct engine_options *options);
void engine_stop(struct engine **engine);
int engine_fd(const struct engine *engine); /* readable: call engine_step */
/* Takes what has come, goes on with what is under way, and tells the sink. Returns when it is due next. */
uint64_t engine_step(struct engine *engine, struct moment now, engine_sink sink, void *context);

/* Each ends with one event that has the token (its kind's), from engine_step. Keys are hashed: any text. */
void engine_find(struct engine *engine, const char *key, uint64_t token);
void engine_announce(struct engine *engine, const char *key, uint16_t port, uint64_t token);
/* Pings a node to join by; one that answers is taken into the routing table. */
void engine_bootstrap(struct engine *engine, const struct contact *node, uint64_t token);

/* Asks the router to let a TCP port in (with port_mapping only): what comes to it there goes to this machine's port. */
void engine_map_port(struct engine *engine, uint16_t outside, uint16_t port);
uint16_t engine_port(const struct engine *engine);
/* The first address that it is reached at, with its port. */
struct contact engine_address(const struct engine *engine);
const char *engine_id_text(const struct engine *engine, char text[ENGINE_ID_TEXT]);
/* Nodes that have answered lately. */
size_t engine_nodes(const struct engine *engine);
/* Nodes in the routing table, some seconds ago at most: also such as nobody has asked anything. */
size_t engine_table_nodes(const struct engine *engine);

#ifdef __cplusplus
}
#endif

#endif
