#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "unit/support_device.h"
#include "unit/support_fixture.h"

enum { MAX_ROWS = 2048 };
static const unsigned batch_rows[] = {1, 3, 17, 255, MAX_ROWS};

/* The elements that tests/fixtures/make_fixtures.py samples of a tensor. */
static size_t sampled(size_t i, size_t count)
{
    return (i * 7919 + 13) % count;
}

static void check_rows(const float *y, const float *expected, size_t count)
{
    ck_assert_double_le(support_error(y, expected, count), 1e-5);
}

static void check_sample(const float *y, size_t count, const struct support_fixture *fixture, unsigned hidden)
{
    size_t samples;
    const float *expected = support_fixture_find(fixture, &samples, "forward.%u.sample", hidden);
    float *values = malloc(samples * sizeof *values);
    for (size_t i = 0; i < samples; i++)
        values[i] = y[sampled(i, count)];
    check_rows(values, expected, samples);
    free(values);
}

/* Rows [5, 5 + rows) of the slabs are the batch; what is around them must stay as it was. */
static void forward_agrees(const char *kernel, bool staged, unsigned hidden, unsigned sizes)
{
    struct support_fixture *fixture = support_fixture_open("ffn");
    struct support_device support;
    char options[64];
    size_t count;
    snprintf(options, sizeof options, "hidden_dim: %u", hidden);
    support_device_open(&support, kernel, staged, "chunk_rows: 1000", options);
    struct expert *expert = support_expert(&support);
    struct device_slab slabs[2] = {support_slab((MAX_ROWS + 10) * hidden), support_slab((MAX_ROWS + 10) * hidden)};
    float *x = (float *)slabs[0].mapping + 5 * hidden, *y = (float *)slabs[1].mapping + 5 * hidden;
    support_random(x, (size_t)MAX_ROWS * hidden, 3, 2);
    const float *expected = support_fixture_find(fixture, &count, "forward.%u.rows", hidden);
    for (unsigned i = 0; i < sizes; i++) {
        const size_t rows = batch_rows[i];
        struct expert_batch batch = {.first_row = 5, .rows = rows, .inputs = &slabs[0], .outputs = &slabs[1]};
        ck_assert_msg(expert_forward(expert, &batch) == 0, "%s", device_error(support.device));
        ck_assert_msg(expert_finish(expert, &batch) == 0, "%s", device_error(support.device));
        ck_assert_int_eq(batch.step, EXPERT_STEP_NONE);
        check_rows(y, expected, (rows < 3 ? rows : 3) * hidden);
        ck_assert_msg(isnan(y[-1]) && isnan(y[rows * hidden]), "a row outside of the batch was written");
    }
    if (sizes == 5)
        check_sample(y, (size_t)MAX_ROWS * hidden, fixture, hidden);
    for (unsigned i = 0; i < 2; i++)
        support_slab_free(&slabs[i]);
    expert_destroy(&expert);
    support_device_close(&support);
    support_fixture_close(&fixture);
}

static const unsigned hidden_sizes[] = {64, 96, 1000, 1024};

START_TEST(forward_on_the_cpu_kernels_is_pytorchs)
{
    forward_agrees("cpu", false, hidden_sizes[_i], 5);
}
END_TEST

START_TEST(forward_through_staging_buffers_is_the_same)
{
    forward_agrees("cpu", true, 96, 5);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("ffn");
    tcase_set_timeout(all, 60);
    tcase_add_loop_test(all, forward_on_the_cpu_kernels_is_pytorchs, 0, 4);
    tcase_add_test(all, forward_through_staging_buffers_is_the_same);
    Suite *suite = suite_create("ffn");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
