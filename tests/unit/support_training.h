/* An expert ffn that is trained on what tests/fixtures/make_fixtures.py trains PyTorch's on. */
#ifndef EXPERTD_TESTS_SUPPORT_TRAINING_H
#define EXPERTD_TESTS_SUPPORT_TRAINING_H

#include "unit/support_device.h"

struct training {
    struct support_device support;
    struct expert *expert;
    struct device_slab inputs[2], grad_inputs; /* inputs and grad_outputs; of `rows` rows */
    unsigned hidden, rows;
};

/* `options` of the expert, `device` of the device, as support_device_open takes them. */
void training_open(struct training *training, const char *kernel, bool staged, const char *device, unsigned hidden,
                   unsigned rows, const char *options);
void training_close(struct training *training);
/* A second expert on the same device, as the first was at its start. */
struct expert *training_twin(struct training *training);

/* Fills the slabs with the inputs and grad_outputs of the fixture's step. */
void training_fill(struct training *training, unsigned step);
/* One backward batch of rows [first, first + rows), from start to end. */
struct expert_batch training_backward(struct training *training, struct expert *expert, unsigned first, unsigned rows);
/* Both, with all rows, of the training's own expert. */
struct expert_batch training_step(struct training *training, unsigned step);

/* Fails unless all tensors of their states are the same, bit by bit. */
void training_check_same(struct expert *a, struct expert *b);

#endif
