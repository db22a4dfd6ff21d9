// timeout: 600 (at the first run PoCL compiles for minutes)
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device/device_private.h"
#include "runtime/train/parameters.h"
#include "unit/support_device.h"

enum { EXPERTS = 5 };

static struct support_device support;
static struct device *device;
static struct expert *experts[EXPERTS];
static uint64_t own, used;

/* As if the device were a GPU: on a CPU nothing is allocated together. */
static void set_up(void)
{
    uint64_t workspace;
    support_device_open(&support, "gpu", false, "", "hidden_dim: 40, max_batch_size: 16, grad_accumulation: 2");
    device = support.device;
    device->info.class = DEVICE_CLASS_GPU;
    device->info.unified_memory = false;
    ck_assert_int_eq(expert_memory(device, &support.config.experts[0], &own, &workspace), 0);
    ck_assert_int_eq(device_reserve_workspace(device, workspace), 0);
    used = device_memory_used(device);
}

static void tear_down(void)
{
    support_device_close(&support);
}

static void create(void)
{
    for (unsigned i = 0; i < EXPERTS; i++)
        ck_assert_msg(expert_create(&experts[i], device, &support.config.experts[0], 1 + i) == 0, "%s",
                      device_error(device));
}

static void destroy(void)
{
    for (unsigned i = 0; i < EXPERTS; i++)
        expert_destroy(&experts[i]);
    ck_assert_uint_eq(device->blocks_count, 0);
    ck_assert_uint_eq(device_memory_used(device), used);
}

static float first_value(struct expert *expert)
{
    struct expert_tensor tensor;
    expert_tensor(expert, 0, &tensor);
    float *values = malloc(tensor.count * sizeof *values);
    ck_assert_int_eq(expert_tensor_read(expert, 0, values), 0);
    const float value = values[0];
    free(values);
    return value;
}

START_TEST(experts_that_are_expected_take_one_buffer_in_aligned_parts)
{
    cl_uint bits = 0;
    device_expect(device, EXPERTS * own, EXPERTS);
    create();
    ck_assert_uint_eq(device->blocks_count, 1);
    ck_assert_uint_ge(device_memory_used(device), used + EXPERTS * own);
    ck_assert_uint_le(device_memory_used(device), used + EXPERTS * (own + 4096));
    clGetDeviceInfo(device->id, CL_DEVICE_MEM_BASE_ADDR_ALIGN, sizeof bits, &bits, NULL);
    for (unsigned i = 0; i < EXPERTS; i++) {
        const struct parameters *parameters = experts[i]->ops->parameters(experts[i]);
        const cl_mem parts[] = {parameters->masters, parameters->moment[0], parameters->moment[1],
                                parameters->gradient};
        for (unsigned part = 0; part < 4; part++) {
            size_t offset = 1;
            cl_mem parent = NULL;
            clGetMemObjectInfo(parts[part], CL_MEM_OFFSET, sizeof offset, &offset, NULL);
            clGetMemObjectInfo(parts[part], CL_MEM_ASSOCIATED_MEMOBJECT, sizeof parent, &parent, NULL);
            ck_assert_ptr_eq(parent, device->blocks[0].buffer);
            ck_assert_uint_eq(offset % (bits / 8), 0);
        }
        /* Each has its own values, whoever came after it. */
        ck_assert(first_value(experts[i]) == parameters_random(1 + i, 0, 0) * (1 / sqrtf(40)));
    }
    destroy();
}
END_TEST

START_TEST(no_buffer_is_larger_than_the_device_allocates)
{
    device->info.max_allocation_bytes = 2 * own;
    device_expect(device, EXPERTS * own, EXPERTS);
    create();
    ck_assert_uint_gt(device->blocks_count, 1);
    ck_assert_uint_le(device->blocks_count, EXPERTS);
    for (unsigned i = 0; i < device->blocks_count; i++)
        ck_assert_uint_le(device->blocks[i].bytes, 2 * own);
    destroy();
}
END_TEST

START_TEST(less_is_taken_at_once_where_what_is_expected_is_not_to_be_had)
{
    support.config.devices[0].memory = ((used + EXPERTS * own) >> 20) + 2;
    device_expect(device, (uint64_t)1 << 50, EXPERTS);
    create();
    ck_assert_uint_le(device_memory_used(device), support.config.devices[0].memory << 20);
    destroy();
}
END_TEST

START_TEST(what_nobody_expected_gets_buffers_of_its_own)
{
    create();
    ck_assert_uint_gt(device->blocks_count, 0);
    destroy();
}
END_TEST

START_TEST(room_that_came_back_is_zeroed_before_it_is_given_again)
{
    enum { BYTES = 1000 };
    cl_mem first, second, third;
    char values[BYTES], zeros[BYTES] = {0};
    memset(values, 1, sizeof values);
    device_expect(device, 64 << 10, 1);
    ck_assert_int_eq(device_allocate_part(device, BYTES, "test", &first), 0);
    ck_assert_int_eq(device_allocate_part(device, BYTES, "test", &second), 0);
    ck_assert_int_eq(device_write(device, second, 0, values, BYTES), 0);
    device_release_part(device, &second);
    ck_assert_ptr_null(second);
    ck_assert_int_eq(device_allocate_part(device, BYTES, "test", &third), 0);
    ck_assert_uint_eq(device->blocks_count, 1);
    ck_assert_int_eq(device_read(device, third, 0, values, BYTES), 0);
    ck_assert_mem_eq(values, zeros, BYTES);
    device_release_part(device, &first);
    ck_assert_uint_eq(device->blocks_count, 1);
    device_release_part(device, &third);
    ck_assert_uint_eq(device->blocks_count, 0);
    ck_assert_uint_eq(device_memory_used(device), used);
}
END_TEST

START_TEST(an_expert_too_many_is_refused_and_the_others_stay)
{
    struct expert *more;
    device_expect(device, EXPERTS * own, EXPERTS);
    create();
    support.config.devices[0].memory = 1;
    const uint64_t before = device_memory_used(device);
    ck_assert_int_eq(expert_create(&more, device, &support.config.experts[0], 9), -ENOMEM);
    ck_assert_ptr_null(more);
    ck_assert_ptr_nonnull(strstr(device_error(device), "does not fit"));
    ck_assert_uint_eq(device_memory_used(device), before);
    ck_assert(first_value(experts[0]) == parameters_random(1, 0, 0) * (1 / sqrtf(40)));
    destroy();
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("device_arena");
    tcase_set_timeout(all, 100);
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, experts_that_are_expected_take_one_buffer_in_aligned_parts);
    tcase_add_test(all, no_buffer_is_larger_than_the_device_allocates);
    tcase_add_test(all, less_is_taken_at_once_where_what_is_expected_is_not_to_be_had);
    tcase_add_test(all, what_nobody_expected_gets_buffers_of_its_own);
    tcase_add_test(all, room_that_came_back_is_zeroed_before_it_is_given_again);
    tcase_add_test(all, an_expert_too_many_is_refused_and_the_others_stay);
    Suite *suite = suite_create("device_arena");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
