#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "examples/digits/dataset.h"
#include "examples/digits/minibatch.h"

enum { IMAGES = 8, TRAIN = 7, CAPACITY = 5, HIDDEN = 6 };

static float pixels[IMAGES * DATASET_PIXELS];
static uint8_t labels[IMAGES];
static const struct dataset digits = {.count = IMAGES, .train_count = TRAIN, .pixels = pixels, .labels = labels};
static struct order order;
static struct head head;
static struct minibatch minibatch;

static void set_up(void)
{
    for (int i = 0; i < IMAGES * DATASET_PIXELS; i++) {
        pixels[i] = 0.5F + 0.5F * sinf((float)i);
    }
    for (int i = 0; i < IMAGES; i++) {
        labels[i] = (uint8_t)(i % DATASET_CLASSES);
    }
    ck_assert_int_eq(order_create(&order, &digits, 1), 0);
    ck_assert_int_eq(head_create(&head, HIDDEN, 1), 0);
    ck_assert_int_eq(minibatch_create(&minibatch, CAPACITY, &head), 0);
}

static void tear_down(void)
{
    minibatch_destroy(&minibatch);
    head_destroy(&head);
    order_destroy(&order);
}

START_TEST(an_epoch_is_taken_in_minibatches_and_the_last_is_what_is_left)
{
    ck_assert_uint_eq(minibatch_take(&minibatch, &order), CAPACITY);
    ck_assert_uint_eq(minibatch.rows, CAPACITY);
    ck_assert_mem_eq(minibatch.labels, labels, CAPACITY);
    ck_assert_uint_eq(minibatch_take(&minibatch, &order), TRAIN - CAPACITY);
    ck_assert_mem_eq(minibatch.pixels, pixels + CAPACITY * DATASET_PIXELS,
                     (TRAIN - CAPACITY) * DATASET_PIXELS * sizeof(float));
    ck_assert_uint_eq(minibatch_take(&minibatch, &order), 0);
}
END_TEST

START_TEST(each_layer_s_step_is_the_one_of_its_gradient)
{
    struct head twin;
    size_t right, twin_right;
    float features[TRAIN * HIDDEN], logits[TRAIN * DATASET_CLASSES], by_features[TRAIN * HIDDEN];
    float gradient[HIDDEN * DATASET_PIXELS + HIDDEN] = {0};
    ck_assert_int_eq(head_create(&twin, HIDDEN, 1), 0);
    ck_assert_uint_eq(minibatch_take(&minibatch, &order), CAPACITY);
    linear_forward(&head.front, minibatch.pixels, minibatch.rows, features);
    for (int repetition = 0; repetition < 2; repetition++) { /* nothing of a step is left for the next */
        const double loss = minibatch_train_back(&minibatch, &head, features, 0.01F, &right);
        linear_forward(&twin.back, features, CAPACITY, logits);
        ck_assert_double_eq(loss, linear_cross_entropy(logits, labels, CAPACITY, DATASET_CLASSES, &twin_right));
        ck_assert_uint_eq(right, twin_right);
        memset(gradient, 0, sizeof gradient);
        linear_backward(&twin.back, features, logits, CAPACITY, gradient, by_features);
        ck_assert_int_eq(linear_step(&twin.back, gradient, 0.01F), 0);
        ck_assert_mem_eq(minibatch.gradient, by_features, CAPACITY * HIDDEN * sizeof(float));
        ck_assert_mem_eq(head.back.weight, twin.back.weight, DATASET_CLASSES * HIDDEN * sizeof(float));
        ck_assert_mem_eq(head.back.bias, twin.back.bias, DATASET_CLASSES * sizeof(float));
    }
    minibatch_front_gradient(&minibatch, &head);
    memset(gradient, 0, sizeof gradient);
    linear_backward(&twin.front, pixels, by_features, CAPACITY, gradient, NULL);
    ck_assert_mem_eq(minibatch.head_gradient, gradient, head.front.count * sizeof(float));
    head_destroy(&twin);
}
END_TEST

START_TEST(destroying_it_twice_is_fine)
{
    minibatch_destroy(&minibatch);
    minibatch_destroy(&minibatch);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("minibatch");
    TCase *tests = tcase_create("minibatch");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, an_epoch_is_taken_in_minibatches_and_the_last_is_what_is_left);
    tcase_add_test(tests, each_layer_s_step_is_the_one_of_its_gradient);
    tcase_add_test(tests, destroying_it_twice_is_fine);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
