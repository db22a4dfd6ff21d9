// timeout: 3000 (at the first run PoCL compiles for minutes)
/* The search for tiles: what it finds, keeps and takes back, and that it never makes a start fail. The CPU device plays
 * a GPU where "auto" should search. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/compute/provider.h"
#include "runtime/compute/tuner.h"
#include "unit/support_device.h"

enum { H = 32, INNER = 128, ROWS = 70 };
static const struct linear_size sizes[] = {{.n = INNER, .k = H}, {.n = H, .k = INNER}};
#define EXPERT "hidden_dim: 32, max_batch_size: 70"

static struct support_device support;
static struct tuner *tuner;

/* A device without an expert yet, which takes itself for a GPU or not, and with no file of an earlier run. */
static void begin(const char *options, bool gpu)
{
    support_device_open(&support, "gpu", false, options, EXPERT);
    if (gpu)
        support.device->info.class = DEVICE_CLASS_GPU;
    tuner = support.device->compute->tuner;
    ck_assert_str_ne(tuner->path, "");
    unlink(tuner->path);
}

/* The same once more, as at the next start; the file stays. */
static void again(const char *options, bool gpu)
{
    support_device_close(&support);
    support_device_open(&support, "gpu", false, options, EXPERT);
    if (gpu)
        support.device->info.class = DEVICE_CLASS_GPU;
    tuner = support.device->compute->tuner;
}

static void end(void)
{
    unlink(tuner->path);
    support_device_close(&support);
}

static void prepare(void)
{
    ck_assert_msg(linear_layer_prepare(support.device, ROWS, sizes, 2) == 0, "%s", device_error(support.device));
}

/* Products of up to ROWS rows have three classes. */
static unsigned found(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < 2 * TUNING_PRODUCTS * TUNING_CLASSES; i++)
        count += tuning_find(&tuner->tuning, i / TUNING_CLASSES % TUNING_PRODUCTS, i % TUNING_CLASSES,
                             sizes[i / (TUNING_CLASSES * TUNING_PRODUCTS)].n,
                             sizes[i / (TUNING_CLASSES * TUNING_PRODUCTS)].k) != TUNING_NONE;
    return count;
}

static void write_file(const char *line)
{
    FILE *file = fopen(tuner->path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file, "expertd-tuning 1\n%s\n%s", tuner->key, line);
    ck_assert_int_eq(fclose(file), 0);
}

static bool file_is_there(void)
{
    return access(tuner->path, F_OK) == 0;
}

static cl_kernel kernel_of(enum tuning_product product, uint64_t rows)
{
    struct kernel_grid grid;
    tuner_grid(support.device, product, rows, INNER, H, &grid);
    return grid.object;
}

START_TEST(a_forced_search_finds_a_tile_for_each_class_and_keeps_it)
{
    static struct tuning kept;
    char error[128];
    begin("tune: force, tune_time: 500", false);
    const uint64_t used = device_memory_used(support.device);
    prepare();
    ck_assert_uint_eq(found(), 2 * TUNING_PRODUCTS * 3);
    ck_assert_uint_eq(device_memory_used(support.device), used);
    ck_assert_msg(tuning_load(&kept, tuner->key, tuner->path, error, sizeof error) == 0, "%s", error);
    ck_assert_int_eq(memcmp(&kept, &tuner->tuning, sizeof kept), 0);
    /* What is known is not searched for again. */
    const uint64_t left_ns = tuner->left_ns;
    prepare();
    ck_assert_uint_eq(tuner->left_ns, left_ns);
    end();
}
END_TEST

START_TEST(where_nothing_trains_no_gradient_is_searched_for)
{
    static const struct linear_size frozen = {.n = INNER, .k = H, .frozen = true};
    begin("tune: force, tune_time: 500", false);
    ck_assert_int_eq(tuner_prepare(support.device, 16, &frozen, 1), 0);
    ck_assert_uint_eq(found(), 1); /* the forward's, of the class of so few rows */
    ck_assert_int_eq(tuning_find(&tuner->tuning, TUNING_GRADIENT, 0, INNER, H), TUNING_NONE);
    for (unsigned tile = 0; tile < TILE_COUNT; tile++)
        ck_assert(!tuner->warm[TUNING_GRADIENT][tile]);
    end();
}
END_TEST

/* Kernels that read halves are others. */
START_TEST(each_precision_has_a_file_of_its_own)
{
    char path[sizeof tuner->path];
    begin("tune: off", false);
    memcpy(path, tuner->path, sizeof path);
    again("tune: off, precision: fp16", false);
    ck_assert_str_ne(tuner->path, path);
    again("tune: off", false);
    ck_assert_str_eq(tuner->path, path);
    end();
}
END_TEST

START_TEST(the_next_start_takes_what_was_kept)
{
    begin("tune: auto", true);
    char lines[1024] = "";
    for (unsigned i = 0; i < 12; i++) {
        const size_t length = strlen(lines);
        snprintf(lines + length, sizeof lines - length, "%s %d %d %d %s\n", i % 2 ? "gradient" : "forward",
                 i < 6 ? INNER : H, i < 6 ? H : INNER,
                 i / 2 % 3 == 0   ? 16
                 : i / 2 % 3 == 1 ? 64
                                  : 256,
                 i % 2 ? "32x32-2x4-32-2" : "8x32-1x4-32-1");
    }
    write_file(lines);
    const uint64_t left_ns = tuner->left_ns;
    prepare();
    ck_assert_uint_eq(found(), 12);
    ck_assert_uint_eq(tuner->left_ns, left_ns);
    const int forward = tile_find("8x32-1x4-32-1", 13), gradient = tile_find("32x32-2x4-32-2", 14);
    for (uint64_t rows = 1; rows <= ROWS; rows += 23) {
        ck_assert_ptr_eq(kernel_of(TUNING_FORWARD, rows), tuner->kernels.of[forward].linear);
        ck_assert_ptr_eq(kernel_of(TUNING_GRADIENT, rows), tuner->kernels.of[gradient].weight_gradient);
    }
    /* A size that is not in it goes by the rule. */
    struct kernel_grid grid;
    tuner_grid(support.device, TUNING_FORWARD, 1, 4096, 1024, &grid);
    ck_assert_ptr_eq(grid.object, tuner->kernels.of[TILE_FEW_ROWS].linear);
    end();
}
END_TEST

START_TEST(a_hostile_file_is_ignored_and_replaced)
{
    static const char *const bad[] = {"forward 128 32 16 128x128-8x8-16-9\n", "forward 128 32 16 8x32-1x4-32-1",
                                      "forward 128 32 16 %s%n\n", "\n"};
    static struct tuning kept;
    char error[128];
    begin("tune: auto, tune_time: 500", true);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file(bad[i]);
        again("tune: auto, tune_time: 500", true);
        if (i > 0) /* one search is enough to see that */
            tuner->left_ns = 0;
        prepare();
        ck_assert_uint_eq(found(), i == 0 ? 12 : 0);
        if (i == 0)
            ck_assert_int_eq(tuning_load(&kept, tuner->key, tuner->path, error, sizeof error), 0);
    }
    end();
}
END_TEST

START_TEST(off_and_auto_on_a_cpu_search_nothing_and_read_nothing)
{
    static const char *const options[] = {"tune: off", "tune: auto", ""};
    begin(options[_i], _i == 0);
    prepare();
    ck_assert(!file_is_there());
    write_file("forward 128 32 16 8x32-1x4-32-1\n");
    again(options[_i], _i == 0);
    prepare();
    ck_assert_uint_eq(found(), 0);
    ck_assert_ptr_eq(kernel_of(TUNING_FORWARD, 1), tuner->kernels.of[TILE_FEW_ROWS].linear);
    end();
}
END_TEST

START_TEST(force_does_not_believe_the_file)
{
    begin("tune: force, tune_time: 500", false);
    write_file("forward 999 999 16 8x32-1x4-32-1\n");
    prepare();
    ck_assert_uint_eq(found(), 12);
    ck_assert_int_eq(tuning_find(&tuner->tuning, TUNING_FORWARD, 0, 999, 999), TUNING_NONE);
    end();
}
END_TEST

START_TEST(a_search_ends_when_its_time_is_over_and_the_rule_goes_on)
{
    begin("tune: force", false);
    tuner->left_ns = 1;
    prepare();
    ck_assert_uint_eq(found(), 0);
    ck_assert_uint_eq(tuner->left_ns, 0);
    prepare(); /* and there is no more time for another */
    struct expert *expert = support_expert(&support);
    expert_destroy(&expert);
    end();
}
END_TEST

START_TEST(no_memory_for_the_operands_is_no_reason_not_to_start)
{
    begin("tune: force", false);
    struct device *device = support.device;
    const uint64_t bytes = device->info.memory_bytes;
    device->info.memory_bytes = (device_memory_used(device) + 8192) / 95 * 100;
    prepare();
    device->info.memory_bytes = bytes;
    ck_assert_uint_eq(found(), 0);
    end();
}
END_TEST

START_TEST(an_expert_with_its_own_tiles_answers_as_with_the_rules)
{
    const size_t floats = (size_t)ROWS * H;
    float *expected = malloc(floats * sizeof *expected);
    begin("tune: off", false);
    for (unsigned run = 0; run < 2; run++) {
        if (run == 1)
            again("tune: force, tune_time: 500", false);
        struct device_slab slabs[2] = {support_slab(floats), support_slab(floats)};
        support_random(slabs[0].mapping, floats, 3, 2);
        struct expert *expert = support_expert(&support);
        ck_assert_uint_eq(found(), run == 0 ? 0 : 12);
        struct expert_batch batch = {.rows = ROWS, .inputs = &slabs[0], .outputs = &slabs[1]};
        ck_assert_int_eq(expert_forward(expert, &batch), 0);
        ck_assert_int_eq(expert_finish(expert, &batch), 0);
        if (run == 0)
            memcpy(expected, slabs[1].mapping, floats * sizeof *expected);
        ck_assert_int_eq(memcmp(expected, slabs[1].mapping, floats * sizeof *expected), 0);
        expert_destroy(&expert);
        for (unsigned i = 0; i < 2; i++)
            support_slab_free(&slabs[i]);
    }
    free(expected);
    end();
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("tuner");
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_test(all, a_forced_search_finds_a_tile_for_each_class_and_keeps_it);
    tcase_add_test(all, where_nothing_trains_no_gradient_is_searched_for);
    tcase_add_test(all, each_precision_has_a_file_of_its_own);
    tcase_add_test(all, the_next_start_takes_what_was_kept);
    tcase_add_test(all, a_hostile_file_is_ignored_and_replaced);
    tcase_add_loop_test(all, off_and_auto_on_a_cpu_search_nothing_and_read_nothing, 0, 3);
    tcase_add_test(all, force_does_not_believe_the_file);
    tcase_add_test(all, a_search_ends_when_its_time_is_over_and_the_rule_goes_on);
    tcase_add_test(all, no_memory_for_the_operands_is_no_reason_not_to_start);
    tcase_add_test(all, an_expert_with_its_own_tiles_answers_as_with_the_rules);
    Suite *suite = suite_create("tuner");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
