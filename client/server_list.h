/* The servers that this process has connections to: one client each, made when first needed, closed when there are many
 * and it is the one that was not needed for the longest time. One thread at a time. */
#ifndef EXPERTD_CLIENT_SERVER_LIST_H
#define EXPERTD_CLIENT_SERVER_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/expertd.h"
#include "common/certificate.h"

struct server {
    TAILQ_ENTRY(server) link;
    struct expertd_client *client;
    char key[CERTIFICATE_KEY_SIZE]; /* that it has to prove; "": as the options say */
    size_t refs;                    /* who holds a pointer to it */
    size_t calls;                   /* in flight, by the holders' own account */
    uint64_t last_used;             /* a number that grows with each use of any server */
    bool down;                      /* a call failed for want of a connection, and there has been none since */
};

TAILQ_HEAD(server_queue, server);

struct server_list {
    struct server_queue servers;
    size_t count, kept; /* more are dropped, as far as nobody holds them */
    struct expertd_client_options options;
    char *server_key, *key_file; /* of the options; NULL */
    bool owns_context;
    int fd; /* epoll over the clients' descriptors */
    uint64_t uses;
};

int server_list_init(struct server_list *list, const struct expertd_client_options *options); /* -errno */
void server_list_clear(struct server_list *list); /* safe after a failed init */

/* The server at an endpoint, which has to prove the key ("": as the options say), held until server_release(). NULL and
 * errno: EINVAL for no endpoint. */
struct server *server_list_get(struct server_list *list, const char *endpoint, const char *key);
void server_release(struct server *server);

/* Notes that the server is about to be called. */
void server_use(struct server_list *list, struct server *server);
/* Whether a call has a chance: there is a connection, or none has failed yet. Takes in what is known by now. */
bool server_usable(struct server *server);

/* Takes in the answers of all servers that have calls in flight. */
void server_list_poll(struct server_list *list);
/* Milliseconds until server_list_poll() has something to do by the clock; -1: it has not. */
int server_list_timeout_ms(const struct server_list *list);
/* When list->fd is readable: takes in what made it so, be it answers or news of the connection of a server that has no
 * call in flight, which would signal it for ever. */
void server_list_take_news(const struct server_list *list);

#endif
