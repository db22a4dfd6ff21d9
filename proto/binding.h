/* Names of UNIX sockets (ipc://) that a ZeroMQ socket is bound to: whoever removes one, or the folder that it is in,
 * makes the socket one that nobody finds. One thread, the socket's. */
#ifndef EXPERTD_PROTO_BINDING_H
#define EXPERTD_PROTO_BINDING_H

enum { BINDINGS_MAX = 16, BINDING_SIZE = 128 };

struct bindings {
    char endpoints[BINDINGS_MAX][BINDING_SIZE];
    unsigned count;
};

/* What is in the way of a socket under that path. 0: nothing, or a socket at which nobody listens, which may be
 * removed; -EADDRINUSE: somebody listens there; -EEXIST: it is no socket, and so nobody's to remove. */
int binding_check(const char *path);
/* zmq_bind(), and remembers the name if it is one. 0 or -1 with errno, as zmq_bind(), which would remove whatever file
 * has the name: EADDRINUSE or EEXIST instead. */
int bindings_bind(struct bindings *bindings, void *socket, const char *endpoint);
/* Now and then: a name that is gone is bound once more. Clients that are connected stay so. What somebody else has put
 * there is left alone. */
void bindings_keep(struct bindings *bindings, void *socket);

#endif
