/* What somebody may have meant who wrote a name that nobody knows: the nearest of those that are known. */
#ifndef EXPERTD_COMMON_SUGGEST_H
#define EXPERTD_COMMON_SUGGEST_H

#include <stddef.h>

struct suggest {
    const char *word;
    const char *nearest; /* of those offered so far, as it was given; NULL: none is near */
    size_t distance;
};

/* The word is kept, not copied. */
void suggest_begin(struct suggest *suggest, const char *word);
/* Edits are letters that are missing, too many, wrong or swapped with their neighbour; '-' and '_' are one letter. Near
 * is up to a third of the word, the first one offered wins. */
void suggest_offer(struct suggest *suggest, const char *known);

#endif
