#include "examples/digits/order.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int order_create(struct order *order, const struct dataset *digits, uint64_t seed)
{
    *order = (struct order){.digits = digits, .random = seed};
    order->images = malloc((digits->train_count + 1) * sizeof *order->images);
    for (size_t i = 0; order->images && i < digits->train_count; i++) {
        order->images[i] = i;
    }
    return order->images ? 0 : -ENOMEM;
}

void order_destroy(struct order *order)
{
    free(order->images);
    *order = (struct order){0};
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

void order_shuffle(struct order *order)
{
    for (size_t i = order->digits->train_count; i > 1; i--) {
        size_t j = next_random(&order->random) % i, kept = order->images[i - 1];
        order->images[i - 1] = order->images[j];
        order->images[j] = kept;
    }
    order->next = 0;
}

size_t order_take(struct order *order, size_t rows, float *pixels, uint8_t *labels)
{
    const struct dataset *digits = order->digits;
    size_t left = digits->train_count - order->next;
    rows = left < rows ? left : rows;
    for (size_t r = 0; r < rows; r++) {
        size_t image = order->images[order->next + r];
        memcpy(pixels + r * DATASET_PIXELS, digits->pixels + image * DATASET_PIXELS, DATASET_PIXELS * sizeof(float));
        labels[r] = digits->labels[image];
    }
    order->next += rows;
    return rows;
}
