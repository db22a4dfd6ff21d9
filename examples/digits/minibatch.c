#include "examples/digits/minibatch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "examples/digits/dataset.h"

int minibatch_create(struct minibatch *minibatch, size_t capacity, const struct head *head)
{
    size_t row_bytes = capacity * sizeof(float);
    size_t parameters = head->front.count > head->back.count ? head->front.count : head->back.count;
    *minibatch = (struct minibatch){.capacity = capacity,
                                    .pixels = malloc(row_bytes * DATASET_PIXELS),
                                    .labels = malloc(capacity),
                                    .logits = malloc(row_bytes * DATASET_CLASSES),
                                    .gradient = malloc(row_bytes * head->hidden),
                                    .head_gradient = malloc(parameters * sizeof(float))};
    if (minibatch->pixels && minibatch->labels && minibatch->logits && minibatch->gradient &&
        minibatch->head_gradient) {
        return 0;
    }
    minibatch_destroy(minibatch);
    return -ENOMEM;
}

void minibatch_destroy(struct minibatch *minibatch)
{
    free(minibatch->pixels);
    free(minibatch->labels);
    free(minibatch->logits);
    free(minibatch->gradient);
    free(minibatch->head_gradient);
    *minibatch = (struct minibatch){0};
}

size_t minibatch_take(struct minibatch *minibatch, struct order *order)
{
    minibatch->rows = order_take(order, minibatch->capacity, minibatch->pixels, minibatch->labels);
    return minibatch->rows;
}

double minibatch_train_back(struct minibatch *minibatch, struct head *head, const float *features, float learning_rate,
                            size_t *right)
{
    struct linear *back = &head->back;
    memset(minibatch->head_gradient, 0, back->count * sizeof(float));
    linear_forward(back, features, minibatch->rows, minibatch->logits);
    double loss = linear_cross_entropy(minibatch->logits, minibatch->labels, minibatch->rows, DATASET_CLASSES, right);
    linear_backward(back, features, minibatch->logits, minibatch->rows, minibatch->head_gradient, minibatch->gradient);
    linear_step(back, minibatch->head_gradient, learning_rate);
    return loss;
}

void minibatch_front_gradient(struct minibatch *minibatch, const struct head *head)
{
    memset(minibatch->head_gradient, 0, head->front.count * sizeof(float));
    linear_backward(&head->front, minibatch->pixels, minibatch->gradient, minibatch->rows, minibatch->head_gradient,
                    NULL);
}
