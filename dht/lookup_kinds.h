/* The kinds of look-up, one for each method that is one: which is the service's to know. */
#ifndef EXPERTD_DHT_LOOKUP_KINDS_H
#define EXPERTD_DHT_LOOKUP_KINDS_H

#include "dht/lookup.h"

extern const struct lookup_kind resolve_kind; /* resolve.c */
extern const struct lookup_kind listing_kind; /* listing.c */
extern const struct lookup_kind search_kind;  /* search.c */
extern const struct lookup_kind draw_kind;    /* draw.c */

#endif
