#include <check.h>
#include <stdlib.h>

#include "examples/digits/order.h"

enum { IMAGES = 23, TRAIN = 19 };

static float pixels[IMAGES * DATASET_PIXELS], taken[IMAGES * DATASET_PIXELS];
static uint8_t labels[IMAGES], taken_labels[IMAGES];
static const struct dataset digits = {.count = IMAGES, .train_count = TRAIN, .pixels = pixels, .labels = labels};
static struct order order;

/* Image i has label i, and i in all its pixels. */
static void setup(void)
{
    for (size_t i = 0; i < IMAGES; i++) {
        labels[i] = (uint8_t)i;
        for (size_t p = 0; p < DATASET_PIXELS; p++) {
            pixels[i * DATASET_PIXELS + p] = (float)i;
        }
    }
    ck_assert_int_eq(order_create(&order, &digits, 1), 0);
}

static void teardown(void)
{
    order_destroy(&order);
    ck_assert_ptr_null(order.images);
}

START_TEST(an_epoch_takes_each_training_image_once)
{
    for (int epoch = 0; epoch < 3; epoch++) {
        size_t times[IMAGES] = {0}, total = 0;
        for (size_t rows; (rows = order_take(&order, 8, taken, taken_labels)) > 0; total += rows) {
            ck_assert_uint_eq(rows, total < 16 ? 8 : TRAIN - 16);
            for (size_t r = 0; r < rows; r++) {
                times[taken_labels[r]]++;
                ck_assert_float_eq(taken[r * DATASET_PIXELS], (float)taken_labels[r]);
                ck_assert_float_eq(taken[(r + 1) * DATASET_PIXELS - 1], (float)taken_labels[r]);
            }
        }
        ck_assert_uint_eq(total, TRAIN);
        for (size_t i = 0; i < IMAGES; i++) {
            ck_assert_uint_eq(times[i], i < TRAIN);
        }
        ck_assert_uint_eq(order_take(&order, 8, taken, taken_labels), 0);
        order_shuffle(&order);
    }
}
END_TEST

START_TEST(epochs_differ_and_a_seed_gives_the_same_ones)
{
    struct order twin;
    uint8_t first[TRAIN];
    ck_assert_int_eq(order_create(&twin, &digits, 1), 0);
    ck_assert_uint_eq(order_take(&order, TRAIN, taken, first), TRAIN);
    ck_assert_mem_eq(first, labels, TRAIN); /* before the first shuffle, as in the dataset */
    order_shuffle(&order);
    order_shuffle(&twin);
    ck_assert_uint_eq(order_take(&order, TRAIN, taken, first), TRAIN);
    ck_assert_uint_eq(order_take(&twin, TRAIN, taken, taken_labels), TRAIN);
    ck_assert_mem_eq(first, taken_labels, TRAIN);
    order_shuffle(&order);
    ck_assert_uint_eq(order_take(&order, TRAIN, taken, taken_labels), TRAIN);
    ck_assert_mem_ne(first, taken_labels, TRAIN);
    order_destroy(&twin);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("order");
    TCase *tests = tcase_create("order");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, an_epoch_takes_each_training_image_once);
    tcase_add_test(tests, epochs_differ_and_a_seed_gives_the_same_ones);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
