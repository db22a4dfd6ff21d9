/* Clients on this host, from inside: for local.c, which has them come and go, and local_receive.c, which hears them. */
#ifndef EXPERTD_FRONTEND_LOCAL_PRIVATE_H
#define EXPERTD_FRONTEND_LOCAL_PRIVATE_H

#include <sys/types.h>
#include <sys/un.h>

#include "frontend/local.h"
#include "frontend/local_client.h"

enum { LOCAL_PACKETS = 8 /* that are received at once */ };

struct local {
    int epoll_fd, listen_fd;
    struct sockaddr_un address;
    dev_t device; /* of the socket's name */
    ino_t inode;
    bool by_group;
    gid_t group;
    bool accepting;
    uint32_t count, most;
    uint64_t region_max, last_number;
    unsigned char instance[LOCAL_INSTANCE];
    struct local_client_list clients;
    struct local_client *dirty;
    struct local_counters counters;
    bool gone; /* one with requests, perhaps */
    unsigned char packets[LOCAL_PACKETS][LOCAL_PACKET_MAX];
};

/* Takes in all who wait to connect. */
void local_accept(struct server *server);
/* Has the epoll tell of what the client sends, or, while it does not read, that it does. */
void local_watch(const struct local *local, struct local_client *client, bool add);
/* The client goes, and its requests with it; why NULL: it went by itself. */
void local_end(struct server *server, struct local_client *client, const char *why);

#endif
