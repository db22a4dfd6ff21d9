/* A minibatch of digits on its way through a model: what a client keeps beside the two layers of its head. The layers
 * are those of the head that it was created for; several minibatches may train one head, taking turns. */
#ifndef EXPERTD_EXAMPLES_DIGITS_MINIBATCH_H
#define EXPERTD_EXAMPLES_DIGITS_MINIBATCH_H

#include <stddef.h>
#include <stdint.h>

#include "examples/digits/head.h"
#include "examples/digits/order.h"

struct minibatch {
    size_t capacity, rows; /* rows: of the images taken */
    float *pixels;         /* rows x DATASET_PIXELS */
    uint8_t *labels;
    float *logits;        /* rows x DATASET_CLASSES */
    float *gradient;      /* rows x hidden: of the loss, by what comes out of the middle, or goes into it */
    float *head_gradient; /* by the parameters of one layer; has room for the larger */
};

/* 0, or -ENOMEM, and then it holds nothing. */
int minibatch_create(struct minibatch *minibatch, size_t capacity, const struct head *head);
void minibatch_destroy(struct minibatch *minibatch);

/* Takes the next images. The number of rows; 0: the epoch is over. */
size_t minibatch_take(struct minibatch *minibatch, struct order *order);
/* One step of the layer behind on features (rows x hidden); gradient is then by them. The mean loss before it; *right
 * counts the rows that were. */
double minibatch_train_back(struct minibatch *minibatch, struct head *head, const float *features, float learning_rate,
                            size_t *right);
/* Sets head_gradient to the layer's in front, where gradient goes into the middle. */
void minibatch_front_gradient(struct minibatch *minibatch, const struct head *head);

#endif
