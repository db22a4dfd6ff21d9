// timeout: 400 (at the first run PoCL compiles for more than a minute)
/* The gradients of the block ffn against finite differences of its own forward. The loss is the sum of outputs times
 * fixed factors, so that the factors are grad_outputs; it is summed in double. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "unit/support_device.h"
#include "unit/support_reference.h"

/* Chunks that do not divide the batch. What the matrix units multiply has more rows, and the last ones are not theirs.
 */
static const struct {
    const char *kernel, *precision;
    unsigned rows, chunk;
} providers[] = {{"cpu", "fp32", 13, 5},  {"amx", "fp32", 45, 40}, {"gpu", "fp32", 13, 5},    {"cpu", "fp16", 13, 5},
                 {"amx", "fp16", 45, 40}, {"gpu", "fp16", 13, 5},  {"clblast", "fp32", 13, 5}};
enum { PROVIDERS = sizeof providers / sizeof providers[0], HIDDEN = 33, MOST_FLOATS = 45 * HIDDEN };

static struct support_device support;
static unsigned rows, row_floats;
static struct expert *expert;
static struct device_slab inputs[2], outputs;

static void begin(int provider)
{
    char text[160], options[64];
    rows = providers[provider].rows;
    row_floats = rows * HIDDEN;
    /* With the rate 1 a step of plain SGD is the gradient. */
    snprintf(text, sizeof text, "hidden_dim: %d, max_batch_size: %u, optimizer: sgd, learning_rate: 1", HIDDEN, rows);
    snprintf(options, sizeof options, "chunk_rows: %u, precision: %s", providers[provider].chunk,
             providers[provider].precision);
    support_device_open(&support, providers[provider].kernel, false, options, text);
    expert = support_expert(&support);
    inputs[0] = support_slab(row_floats);
    inputs[1] = support_slab(row_floats);
    outputs = support_slab(row_floats);
    support_random(inputs[0].mapping, row_floats, 60, 2);
    support_random(inputs[1].mapping, row_floats, 61, 1);
}

static void end(void)
{
    support_slab_free(&inputs[0]);
    support_slab_free(&inputs[1]);
    support_slab_free(&outputs);
    expert_destroy(&expert);
    support_device_close(&support);
}

static double loss(void)
{
    struct expert_batch batch = {.rows = rows, .inputs = inputs, .outputs = &outputs};
    ck_assert_int_eq(expert_forward(expert, &batch), 0);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    const float *y = outputs.mapping, *factors = inputs[1].mapping;
    double sum = 0;
    for (size_t i = 0; i < row_floats; i++)
        sum += (double)y[i] * (double)factors[i];
    return sum;
}

static double length(const float *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)values[i] * (double)values[i];
    return sqrt(sum);
}

/* Half along the gradient, so that the slope is no small difference of large numbers, and half anywhere. Its length is
 * 1 at most. */
static void direction_from(const float *gradient, size_t count, unsigned stream, float *direction)
{
    support_random(direction, count, stream, 1);
    const double of_gradient = length(gradient, count), of_random = length(direction, count);
    for (size_t i = 0; i < count; i++)
        direction[i] = (float)((double)gradient[i] / of_gradient + (double)direction[i] / of_random) / 2;
}

/* A tensor of the expert, or (-1) the inputs. */
static void put(int index, const float *values, size_t count)
{
    if (index < 0)
        memcpy(inputs[0].mapping, values, count * sizeof *values);
    else
        ck_assert_int_eq(expert_tensor_write(expert, (unsigned)index, values), 0);
}

/* `precision`: of what is moved. It goes to a value that there is, so the way that it takes is known. */
static void slope_agrees(int index, const char *name, const char *precision, const float *values, const float *gradient,
                         size_t count)
{
    const double h = 0.01;
    float *direction = malloc(count * sizeof *direction), *moved = malloc(count * sizeof *moved);
    double expected = 0, found[2];
    direction_from(gradient, count, 80, direction);
    for (unsigned side = 0; side < 2; side++) {
        for (size_t i = 0; i < count; i++)
            moved[i] = (float)((double)values[i] + (side ? h : -h) * (double)direction[i]);
        support_round(precision, moved, count, moved);
        for (size_t i = 0; i < count; i++)
            expected += (double)gradient[i] * (double)moved[i] * (side ? 1 : -1);
        put(index, moved, count);
        found[side] = loss();
    }
    put(index, values, count);
    const double difference = found[1] - found[0];
    ck_assert_msg(fabs(difference - expected) <= 2e-3 * fabs(expected), "%s: difference %g, by the gradient %g", name,
                  difference, expected);
    free(direction);
    free(moved);
}

START_TEST(gradients_are_the_slopes_of_the_loss)
{
    begin(_i);
    const unsigned parameters = 6;
    float *before[6], *gradient[6];
    struct expert_tensor tensors[6];
    ck_assert_uint_eq(expert_tensors(expert), parameters);
    for (unsigned p = 0; p < parameters; p++) {
        expert_tensor(expert, p, &tensors[p]);
        before[p] = malloc(tensors[p].count * sizeof(float));
        gradient[p] = malloc(tensors[p].count * sizeof(float));
        ck_assert_int_eq(expert_tensor_read(expert, p, before[p]), 0);
    }
    struct expert_batch batch = {.rows = rows, .inputs = inputs, .outputs = &outputs};
    ck_assert_int_eq(expert_backward(expert, &batch), 0);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    ck_assert_int_eq(batch.step, EXPERT_STEP_APPLIED);
    float grad_inputs[MOST_FLOATS], x[MOST_FLOATS];
    memcpy(grad_inputs, outputs.mapping, row_floats * sizeof(float));
    memcpy(x, inputs[0].mapping, row_floats * sizeof(float));
    for (unsigned p = 0; p < parameters; p++) {
        ck_assert_int_eq(expert_tensor_read(expert, p, gradient[p]), 0);
        for (size_t i = 0; i < tensors[p].count; i++)
            gradient[p][i] = before[p][i] - gradient[p][i];
        put((int)p, before[p], tensors[p].count);
    }
    slope_agrees(-1, "inputs", "fp32", x, grad_inputs, row_floats);
    for (unsigned p = 0; p < parameters; p++) {
        slope_agrees((int)p, tensors[p].name, tensors[p].ndim == 2 ? providers[_i].precision : "fp32", before[p],
                     gradient[p], tensors[p].count);
        free(before[p]);
        free(gradient[p]);
    }
    end();
}
END_TEST

/* The product with the first matrix, which nothing else reads. */
START_TEST(a_gradient_that_nobody_wants_is_not_computed)
{
    begin(_i);
    struct expert_tensor first;
    expert_tensor(expert, 0, &first);
    float *before = malloc(first.count * sizeof(float)), *after = malloc(first.count * sizeof(float));
    float untouched[MOST_FLOATS];
    memset(untouched, 0x55, sizeof untouched);
    ck_assert_int_eq(expert_tensor_read(expert, 0, before), 0);
    for (unsigned unwanted = 0; unwanted < 2; unwanted++) {
        put(0, before, first.count);
        struct expert_batch batch = {.rows = rows, .inputs = inputs, .outputs = &outputs, .unwanted = unwanted};
        memcpy(outputs.mapping, untouched, row_floats * sizeof(float));
        ck_assert_int_eq(expert_backward(expert, &batch), 0);
        ck_assert_int_eq(expert_finish(expert, &batch), 0);
        ck_assert_int_eq(batch.step, EXPERT_STEP_APPLIED);
        ck_assert_int_eq(memcmp(outputs.mapping, untouched, row_floats * sizeof(float)) == 0, unwanted);
        ck_assert_int_eq(expert_tensor_read(expert, 0, after), 0);
        ck_assert_int_ne(memcmp(after, before, first.count * sizeof(float)), 0);
    }
    free(before);
    free(after);
    end();
}
END_TEST

/* One row after another through other tiles than all at once. */
START_TEST(grad_inputs_of_a_row_do_not_depend_on_the_rows_beside_it)
{
    begin(_i);
    float together[MOST_FLOATS];
    struct expert_batch batch = {.rows = rows, .inputs = inputs, .outputs = &outputs};
    expert->optimizer.learning_rate = 0;
    ck_assert_int_eq(expert_backward(expert, &batch), 0);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    memcpy(together, outputs.mapping, row_floats * sizeof(float));
    for (unsigned row = 0; row < rows; row++) {
        batch = (struct expert_batch){.first_row = row, .rows = 1, .inputs = inputs, .outputs = &outputs};
        ck_assert_int_eq(expert_backward(expert, &batch), 0);
        ck_assert_int_eq(expert_finish(expert, &batch), 0);
    }
    ck_assert_double_le(support_error(outputs.mapping, together, row_floats), 1e-6);
    end();
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("ffn_backward");
    const int count = support_device_has_clblast() ? PROVIDERS : PROVIDERS - 1;
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_loop_test(all, gradients_are_the_slopes_of_the_loss, 0, count);
    tcase_add_loop_test(all, a_gradient_that_nobody_wants_is_not_computed, 0, count);
    tcase_add_loop_test(all, grad_inputs_of_a_row_do_not_depend_on_the_rows_beside_it, 0, count);
    Suite *suite = suite_create("ffn_backward");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
