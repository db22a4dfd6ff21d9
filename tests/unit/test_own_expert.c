/* examples/own_expert/scale_shift.c, as any expert of one's own. */
#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/blocks/own_expert.h"
#include "unit/support_device.h"

enum { HIDDEN = 21, ROWS = 3 };

static struct support_device support;
static char object[PATH_MAX + 32];

static void open_with(bool staged, const char *device, const char *options)
{
    char expert[PATH_MAX + 128];
    const char *build = getenv("BUILD");
    ck_assert_ptr_nonnull(realpath(build ? build : "build", object));
    const size_t length = strlen(object);
    snprintf(object + length, sizeof object - length, "/examples/scale_shift.so");
    snprintf(expert, sizeof expert, "block: \"%s\", hidden_dim: %d, max_batch_size: 8, %s", object, HIDDEN, options);
    support_device_open(&support, "cpu", staged, device, expert);
}

static void write_tensor(struct expert *expert, const char *name, float first)
{
    float values[HIDDEN];
    for (int i = 0; i < HIDDEN; i++)
        values[i] = first + (float)i;
    const int index = expert_tensor_find(expert, name);
    ck_assert_int_ge(index, 0);
    ck_assert_int_eq(expert_tensor_write(expert, (unsigned)index, values), 0);
}

static float read_last(struct expert *expert, const char *name)
{
    float values[HIDDEN];
    const int index = expert_tensor_find(expert, name);
    ck_assert_int_ge(index, 0);
    ck_assert_int_eq(expert_tensor_read(expert, (unsigned)index, values), 0);
    return values[HIDDEN - 1];
}

static void forward_and_backward(bool staged, const char *device)
{
    open_with(staged, device, "optimizer: sgd, learning_rate: 0.5");
    struct expert *expert = NULL;
    ck_assert_msg(expert_create(&expert, support.device, &support.config.experts[0], 1) == 0, "%s",
                  device_error(support.device));
    write_tensor(expert, "weight", 2);
    write_tensor(expert, "bias", -1);
    struct device_slab inputs[2] = {support_slab(8 * HIDDEN), support_slab(8 * HIDDEN)};
    struct device_slab outputs = support_slab(8 * HIDDEN);
    float *x = inputs[0].mapping, *dy = inputs[1].mapping, *y = outputs.mapping;
    for (int i = 0; i < ROWS * HIDDEN; i++) {
        x[2 * HIDDEN + i] = (float)(i % 5);
        dy[2 * HIDDEN + i] = 0.25f;
    }
    struct expert_batch batch = {.first_row = 2, .rows = ROWS, .inputs = inputs, .outputs = &outputs};
    ck_assert_int_eq(expert_forward(expert, &batch), 0);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    for (int i = 0; i < ROWS * HIDDEN; i++)
        ck_assert(y[2 * HIDDEN + i] == (float)(i % 5) * (float)(2 + i % HIDDEN) + (float)(i % HIDDEN - 1));
    ck_assert(isnan(y[2 * HIDDEN - 1]) && isnan(y[(2 + ROWS) * HIDDEN]));
    ck_assert_int_eq(expert_backward(expert, &batch), 0);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    ck_assert_int_eq(batch.step, EXPERT_STEP_APPLIED);
    ck_assert_uint_eq(expert->counters.updates, 1);
    ck_assert(y[2 * HIDDEN] == 0.25f * 2);
    /* Column 20 of the three rows: i = 20, 41, 62, so x = 0, 1, 2 and dw = 0.75; db = 0.75. */
    ck_assert(read_last(expert, "weight") == 2 + 20 - 0.5f * 0.75f);
    ck_assert(read_last(expert, "bias") == -1 + 20 - 0.5f * 0.75f);
    for (int i = 0; i < 2; i++)
        support_slab_free(&inputs[i]);
    support_slab_free(&outputs);
    expert_destroy(&expert);
    support_device_close(&support);
}

START_TEST(an_own_expert_computes_and_learns)
{
    forward_and_backward(false, "");
}
END_TEST

START_TEST(an_own_expert_computes_on_a_device_with_its_own_memory)
{
    forward_and_backward(true, "");
}
END_TEST

/* Its parameters are vectors, which stay as they are. */
START_TEST(an_own_expert_computes_and_learns_where_weights_are_in_fp16)
{
    forward_and_backward(false, "precision: fp16");
}
END_TEST

static const struct own_expert *exported(void)
{
    void *handle = dlopen(object, RTLD_NOW | RTLD_LOCAL);
    ck_assert_ptr_nonnull(handle);
    return dlsym(handle, "own_expert");
}

START_TEST(an_own_block_is_found_and_what_its_kernels_lack_is_said)
{
    open_with(false, "", "optimizer: none");
    const struct kernel_grid grid = {.dims = 1, .global = {1}, .local = {1}};
    const struct own_expert *own = exported();
    ck_assert_ptr_eq(own_expert_find(object), own->block);
    ck_assert_str_eq(own->block->name, "scale_shift");
    own_programs_use(support.device);
    ck_assert_int_lt(own_kernel_launch(support.device, own, "scale_shift.cl", "no_such_kernel", &grid, NULL, 0), 0);
    ck_assert_int_eq(own_kernel_launch(support.device, own, "none.cl", "any", &grid, NULL, 0), -EINVAL);
    ck_assert_ptr_nonnull(strstr(device_error(support.device), "none.cl"));
    own_programs_drop(support.device);
    support_device_close(&support);
}
END_TEST

START_TEST(an_own_block_without_panels_is_refused)
{
    if (!support_device_has_clblast())
        return;
    struct expert *expert;
    open_with(false, "linear_kernel: clblast", "optimizer: none");
    ck_assert_int_eq(expert_create(&expert, support.device, &support.config.experts[0], 1), -EINVAL);
    ck_assert_ptr_nonnull(strstr(device_error(support.device), "linear_kernel clblast"));
    support_device_close(&support);
}
END_TEST

START_TEST(what_is_no_block_is_refused)
{
    char path[256];
    const char *build = getenv("BUILD");
    ck_assert_ptr_null(own_expert_find("/nowhere/block.so"));
    ck_assert_ptr_null(own_expert_find("./Makefile"));
    snprintf(path, sizeof path, "./%s/lib/libexpertd.so", build ? build : "build");
    if (access(path, R_OK) == 0)
        ck_assert_ptr_null(own_expert_find(path)); /* a shared object without own_expert */
    ck_assert_ptr_null(expert_find(&(const struct config_expert){.block = "nonsense"}));
}
END_TEST

/* Each number alone, as an object made for other headers has it. */
START_TEST(a_block_that_was_made_for_another_runtime_is_refused)
{
    open_with(false, "", "optimizer: sgd");
    void *handle = dlopen(object, RTLD_NOW | RTLD_LOCAL);
    ck_assert_ptr_nonnull(handle);
    struct own_expert *own = dlsym(handle, "own_expert");
    ck_assert_ptr_nonnull(own);
    ck_assert_ptr_nonnull(own_expert_find(object));
    const uintptr_t page = (uintptr_t)own & ~(uintptr_t)4095;
    ck_assert_int_eq(mprotect((void *)page, 2 * 4096, PROT_READ | PROT_WRITE), 0);
    ++own->abi;
    ck_assert_ptr_null(own_expert_find(object));
    --own->abi;
    own->headers ^= 1; /* any header but one comment of one was another */
    ck_assert_ptr_null(own_expert_find(object));
    own->headers ^= 1;
    const char *version = own->version;
    own->version = "0.0.9";
    ck_assert_ptr_null(own_expert_find(object));
    own->version = version;
    ck_assert_ptr_nonnull(own_expert_find(object));
    dlclose(handle);
    support_device_close(&support);
}
END_TEST

/* As an object says it whose kind of layer has all but one. */
START_TEST(a_kind_of_layer_that_lacks_something_is_refused)
{
    open_with(false, "", "optimizer: none");
    struct own_expert *own = (struct own_expert *)(uintptr_t)exported();
    const uintptr_t page = (uintptr_t)own & ~(uintptr_t)4095;
    ck_assert_int_eq(mprotect((void *)page, 2 * 4096, PROT_READ | PROT_WRITE), 0);
    const struct block *const whole = own->block;
    const struct block_kind *const whole_kind = whole->kinds[0];
    struct block_kind kind;
    struct layer_kind layer;
    const struct block_kind *const kinds[] = {&kind, NULL};
    struct block block = *whole;
    block.kinds = kinds;
    own->block = &block;
    for (unsigned lacks = 0; lacks <= 5; lacks++) {
        kind = *whole_kind;
        layer = *whole_kind->implementation;
        kind.implementation = lacks == 2 ? NULL : &layer;
        kind.name = lacks == 1 ? NULL : kind.name;
        kind.shape = lacks == 3 ? NULL : kind.shape;
        layer.forward = lacks == 4 ? NULL : layer.forward;
        layer.backward = lacks == 5 ? NULL : layer.backward;
        ck_assert_msg((own_expert_find(object) == NULL) == (lacks > 0), "%u", lacks);
    }
    own->block = whole;
    support_device_close(&support);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("own_expert");
    tcase_add_test(all, a_kind_of_layer_that_lacks_something_is_refused);
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_test(all, an_own_expert_computes_and_learns);
    tcase_add_test(all, an_own_expert_computes_on_a_device_with_its_own_memory);
    tcase_add_test(all, an_own_expert_computes_and_learns_where_weights_are_in_fp16);
    tcase_add_test(all, an_own_block_is_found_and_what_its_kernels_lack_is_said);
    tcase_add_test(all, an_own_block_without_panels_is_refused);
    tcase_add_test(all, what_is_no_block_is_refused);
    tcase_add_test(all, a_block_that_was_made_for_another_runtime_is_refused);
    Suite *suite = suite_create("own_expert");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
