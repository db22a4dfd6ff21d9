/* What is put in the DHT under one prefix: the parts of the newest record. */
#ifndef EXPERTD_DHT_PUBLICATION_H
#define EXPERTD_DHT_PUBLICATION_H

#include "dht/catalog.h"
#include "dht/node.h"

struct publication {
    char prefix[UID_SIZE];
    struct ranges experts, branches; /* as they are to be published */
    bool due;                        /* and are not yet */
    struct node_put *puts[RECORD_MAX_PARTS];
    uint32_t puts_count;
};

/* Takes over what the entry hosts (NULL: nothing); due if that is new. 0 or -ENOMEM. */
int publication_set(struct publication *publication, const struct catalog_entry *entry);
/* How the lists are cut into parts, at most RECORD_MAX_PARTS; what does not fit is left out (*cut says whether).
 * Returns the number of parts, at least 1. */
uint32_t publication_slices(const struct publication *publication, struct record_slice slices[RECORD_MAX_PARTS],
                            bool *cut);
/* Ends the announcing of what was put. */
void publication_withdraw(struct publication *publication, struct node *node);
void publication_destroy(struct publication *publication);

#endif
