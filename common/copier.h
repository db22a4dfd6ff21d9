/* Copies large pieces of memory with several threads: one alone copies slower than a card's bus does, or than a network
 * of 100 Gbit/s brings.
 *
 * Pieces are copied in the order in which they are offered. The thread that offers and waits is one of those that copy,
 * so a copier without any other thread copies a piece when it is waited for. One thread offers and waits. */
#ifndef EXPERTD_COMMON_COPIER_H
#define EXPERTD_COMMON_COPIER_H

#include <stddef.h>
#include <stdint.h>

enum {
    COPIER_PIECES = 512, /* offered and not yet waited for */
    COPIER_MAX_THREADS = 64,
    COPIER_ALONE =
        1 << 20, /* bytes that copier_copy() leaves to the caller: less is copied sooner than it is shared out */
};

struct copier;

/* What the machine has to spare for each of so many copiers, with the caller: one for four cores, 4 at most. */
unsigned copier_spare_threads(unsigned copiers);
/* `threads`: with the caller; 0: copier_spare_threads(1). Fewer if no more can be had. 0 or -ENOMEM. */
int copier_create(struct copier **copier, unsigned threads);
void copier_destroy(struct copier **copier); /* wait for all pieces first */
unsigned copier_threads(const struct copier *copier);

/* The memory must not go before the piece was waited for. Its position. */
uint64_t copier_offer(struct copier *copier, void *to, const void *from, size_t bytes);
/* Until that piece is copied; copies, too. */
void copier_wait(struct copier *copier, uint64_t position);
/* Until all that were offered are. */
void copier_wait_all(struct copier *copier);

/* memcpy() by all threads, done when it returns. For whoever has offered nothing else. copier NULL: by the caller; so
 * also for a while after a copy was held up by a thread that had no core. */
void copier_copy(struct copier *copier, void *to, const void *from, size_t bytes);

#endif
