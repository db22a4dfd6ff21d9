/* The order in which a model sees the training images of an epoch, minibatch by minibatch. Not thread-safe. */
#ifndef EXPERTD_EXAMPLES_DIGITS_ORDER_H
#define EXPERTD_EXAMPLES_DIGITS_ORDER_H

#include "examples/digits/dataset.h"

struct order {
    const struct dataset *digits; /* must outlive it */
    size_t *images;               /* digits->train_count of them */
    size_t next;                  /* index into images of the first that was not taken */
    uint64_t random;
};

/* As in the dataset, none taken. 0 or -ENOMEM (and then nothing is held). */
int order_create(struct order *order, const struct dataset *digits, uint64_t seed);
void order_destroy(struct order *order);

/* A new epoch: all images, in another order. */
void order_shuffle(struct order *order);
/* Copies the next images, at most `rows` of them, to pixels (rows x DATASET_PIXELS) and labels. How many; 0: the epoch
 * is over. */
size_t order_take(struct order *order, size_t rows, float *pixels, uint8_t *labels);

#endif
