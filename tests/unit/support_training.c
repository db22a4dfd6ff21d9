#include "unit/support_training.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void training_open(struct training *training, const char *kernel, bool staged, const char *device, unsigned hidden,
                   unsigned rows, const char *options)
{
    char text[512];
    snprintf(text, sizeof text, "hidden_dim: %u, max_batch_size: 64%s%s", hidden, options[0] != '\0' ? ", " : "",
             options);
    support_device_open(&training->support, kernel, staged, device, text);
    training->expert = support_expert(&training->support);
    training->hidden = hidden;
    training->rows = rows;
    for (unsigned i = 0; i < 2; i++)
        training->inputs[i] = support_slab((size_t)rows * hidden);
    training->grad_inputs = support_slab((size_t)rows * hidden);
}

void training_close(struct training *training)
{
    for (unsigned i = 0; i < 2; i++)
        support_slab_free(&training->inputs[i]);
    support_slab_free(&training->grad_inputs);
    expert_destroy(&training->expert);
    support_device_close(&training->support);
}

struct expert *training_twin(struct training *training)
{
    return support_expert(&training->support);
}

void training_fill(struct training *training, unsigned step)
{
    const size_t count = (size_t)training->rows * training->hidden;
    support_random(training->inputs[0].mapping, count, 100 + step, 2);
    support_random(training->inputs[1].mapping, count, 300 + step, 0.5f);
}

struct expert_batch training_backward(struct training *training, struct expert *expert, unsigned first, unsigned rows)
{
    struct expert_batch batch = {
        .first_row = first, .rows = rows, .inputs = training->inputs, .outputs = &training->grad_inputs};
    const struct device *device = training->support.device;
    ck_assert_msg(expert_backward(expert, &batch) == 0, "%s", device_error(device));
    ck_assert_msg(expert_finish(expert, &batch) == 0, "%s", device_error(device));
    return batch;
}

struct expert_batch training_step(struct training *training, unsigned step)
{
    training_fill(training, step);
    return training_backward(training, training->expert, 0, training->rows);
}

/* All tensors of the expert's state in one array; free() it. */
static float *state_of(struct expert *expert, size_t *count)
{
    float *state = NULL;
    *count = 0;
    for (unsigned i = 0; i < expert_tensors(expert); i++) {
        struct expert_tensor tensor;
        expert_tensor(expert, i, &tensor);
        state = realloc(state, (*count + tensor.count) * sizeof *state);
        ck_assert_int_eq(expert_tensor_read(expert, i, state + *count), 0);
        *count += tensor.count;
    }
    return state;
}

void training_check_same(struct expert *a, struct expert *b)
{
    size_t a_count, b_count;
    float *a_state = state_of(a, &a_count), *b_state = state_of(b, &b_count);
    ck_assert_uint_eq(a_count, b_count);
    ck_assert_msg(memcmp(a_state, b_state, a_count * sizeof *a_state) == 0, "the states differ");
    free(a_state);
    free(b_state);
}
