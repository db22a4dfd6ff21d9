/* Who asks at the socket for look-ups: how much waits for each, and how much each has not read of its answers. Who asks
 * without end, or does not read, gets no more than a share of what there is, and the others are served. An asker is a
 * routing id: a connection. One thread, but for asker_credit. */
#ifndef EXPERTD_DHT_ASKERS_H
#define EXPERTD_DHT_ASKERS_H

#include <stdbool.h>
#include <stddef.h>

enum {
    ASKERS_KEPT_MAX = 4096,              /* look-ups that wait, of all together */
    ASKERS_KEPT_BYTES_MAX = 256 << 20,   /* and their requests and answers */
    ASKERS_UNREAD_BYTES_MAX = 256 << 20, /* answers that ZeroMQ has yet to send */
};

struct asker;
struct askers;

int askers_create(struct askers **askers); /* -ENOMEM */
/* Nothing waits any more. Answers may still be on their way. */
void askers_destroy(struct askers **askers);
/* Valid as long as something of it waits, and until askers_tidy(). NULL: no memory. */
struct asker *askers_find(struct askers *askers, const void *id, size_t size);
/* Now and then: forgets whom nothing is left of. */
void askers_tidy(struct askers *askers);
size_t askers_count(const struct askers *askers);

/* A look-up is to wait: false when there is no room, or it has its share: eight times what is free, so that one that is
 * alone may have nearly all. */
bool asker_keep(struct askers *askers, struct asker *asker, size_t bytes);
void asker_let_go(struct askers *askers, struct asker *asker, size_t bytes);
/* An answer is to be sent: false when it has too much unread. It may have a quarter of what is free, and one answer in
 * any case. */
bool asker_charge(struct asker *asker, size_t bytes);
/* ZeroMQ is done with that answer. Any thread, also after askers_destroy(). */
void asker_credit(struct asker *asker, size_t bytes);

#endif
