// timeout: 3000 (at the first run PoCL compiles for minutes)
#include <check.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/compute/compute.h"
#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/kernel_program.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"
#include "runtime/compute/linear_amx.h"
#include "runtime/device/program_file.h"
#include "unit/support_device.h"

static struct config_device wanted(const char *platform, const char *device)
{
    return (struct config_device){.name = "device0",
                                  .platform = platform,
                                  .device = device,
                                  .linear_kernel = "auto",
                                  .precision = "fp32",
                                  .tune = "auto",
                                  .slabs = "auto",
                                  .cache_dir = (char *)support_device_cache(),
                                  .chunk_rows = 1024};
}

START_TEST(the_list_describes_each_device)
{
    struct device_info *list;
    unsigned count;
    const struct config_device config = wanted("", "");
    device_cache_prepare(&config);
    ck_assert_int_eq(device_list(&list, &count), 0);
    ck_assert_uint_ge(count, 1);
    for (unsigned i = 0; i < count; i++) {
        ck_assert_uint_gt(strlen(list[i].name), 0);
        ck_assert_uint_gt(list[i].memory_bytes, 0);
        ck_assert_uint_ge(list[i].memory_bytes, list[i].max_allocation_bytes);
        ck_assert_uint_gt(list[i].compute_units, 0);
        ck_assert(list[i].class != DEVICE_CLASS_CPU || list[i].unified_memory);
        ck_assert_str_ne(device_class_name(list[i].class), "unknown");
    }
    free(list);
}
END_TEST

START_TEST(a_device_is_found_by_number_and_by_a_part_of_its_name_in_any_case)
{
    struct device *device;
    struct device_info *list;
    unsigned count;
    char part[8];
    struct config_device config = wanted("0", "0");
    ck_assert_int_eq(device_open(&device, &config), 0);
    snprintf(part, sizeof part, "%.5s", device_info(device)->name);
    device_destroy(&device);
    ck_assert_ptr_null(device);
    for (char *c = part; *c != '\0'; c++)
        *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    config.platform = "";
    config.device = part;
    ck_assert_int_eq(device_open(&device, &config), 0);
    ck_assert_int_eq(device_list(&list, &count), 0);
    ck_assert_str_eq(device_info(device)->name, list[0].name);
    free(list);
    device_destroy(&device);
}
END_TEST

START_TEST(what_the_configuration_cannot_have_is_refused)
{
    static const char *const bad[][4] = {
        {"no such platform", "", "auto", "fp32"},
        {"", "no such device", "auto", "fp32"},
        {"", "4294967296", "auto", "fp32"},
        {"", "", "metal", "fp32"},
        {"", "", "mma", "fp32"},
        {"", "", "cpu", "tf32"},
        {"", "", "gpu", "tf32"},
        {"", "", "amx", "tf32"},
        {"", "", "clblast", "fp16"},
        {"portable", "", "auto", "tf32"},
    };
    struct device *device;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct config_device config = wanted(bad[i][0], bad[i][1]);
        config.linear_kernel = bad[i][2];
        config.precision = bad[i][3];
        int result = device_open(&device, &config);
        if (result == 0)
            result = compute_open(device);
        ck_assert_int_eq(result, *bad[i][0] == 'n' || *bad[i][1] ? -ENXIO : -EINVAL);
        ck_assert(device == NULL || device->compute == NULL);
        device_destroy(&device);
    }
}
END_TEST

START_TEST(weights_of_16_bits_are_to_be_had_on_any_device)
{
    const char *automatic = linear_amx_usable() ? "amx" : "cpu";
    const char *const kernels[][2] = {
        {"auto", automatic}, {"cpu", "cpu"}, {"amx", "amx"}, {"gpu", "gpu"}, {"mma", "mma"}};
    for (unsigned i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        struct support_device support;
        support_device_open(&support, kernels[i][0], false, _i == 0 ? "precision: fp16" : "precision: bf16",
                            "hidden_dim: 8");
        ck_assert_str_eq(provider_name(support.device), kernels[i][1]);
        support_device_close(&support);
    }
}
END_TEST

START_TEST(memory_beyond_the_device_is_refused_with_the_figures_and_nothing_is_lost)
{
    struct support_device support;
    struct expert *expert;
    uint64_t own, workspace;
    support_device_open(&support, "cpu", false, "", "hidden_dim: 1048576");
    const uint64_t used = device_memory_used(support.device);
    ck_assert_int_eq(expert_memory(support.device, &support.config.experts[0], &own, &workspace), 0);
    ck_assert_uint_gt(own, (uint64_t)1 << 40);
    ck_assert_int_eq(expert_create(&expert, support.device, &support.config.experts[0], 1), -ENOMEM);
    ck_assert_ptr_null(expert);
    ck_assert_ptr_nonnull(strstr(device_error(support.device), "MiB"));
    ck_assert_uint_eq(device_memory_used(support.device), used);
    ck_assert(!device_is_lost(support.device));
    support_device_close(&support);
}
END_TEST

START_TEST(memory_of_experts_is_what_was_announced_and_comes_back)
{
    struct support_device support;
    struct expert *experts[2];
    uint64_t own, workspace;
    support_device_open(&support, "cpu", _i == 1, "", "hidden_dim: 48, max_batch_size: 100");
    const uint64_t used = device_memory_used(support.device);
    ck_assert_int_eq(expert_memory(support.device, &support.config.experts[0], &own, &workspace), 0);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(expert_create(&experts[i], support.device, &support.config.experts[0], 1), 0);
    ck_assert_uint_eq(device_memory_used(support.device), used + 2 * own + workspace);
    for (unsigned i = 0; i < 2; i++)
        expert_destroy(&experts[i]);
    ck_assert_uint_eq(device_memory_used(support.device), used + workspace);
    support_device_close(&support);
}
END_TEST

static int run_forward(struct expert *expert, struct device_slab *inputs, struct device_slab *outputs)
{
    struct expert_batch batch = {.rows = 3, .inputs = inputs, .outputs = outputs};
    const int result = expert_forward(expert, &batch);
    return result == 0 ? expert_finish(expert, &batch) : result;
}

/* `memory` is what the configuration lets the device have; 1 MiB is less than is used already. */
START_TEST(what_cannot_grow_stays_and_a_batch_without_memory_fails_alone)
{
    struct support_device support;
    struct device_slab inputs = support_slab(4096), outputs = support_slab(4096);
    support_device_open(&support, "gpu", _i == 1, "", "hidden_dim: 256, max_batch_size: 8");
    struct device *device = support.device;
    struct expert *expert = support_expert(&support);
    const size_t workspace = device->workspace_bytes;
    support_random(inputs.mapping, 4096, 1, 1);
    support.config.devices[0].memory = (device_memory_used(device) >> 20) + 2;
    ck_assert_int_eq(device_reserve_workspace(device, 64 << 20), -ENOMEM);
    ck_assert_uint_eq(device->workspace_bytes, workspace);
    if (_i == 1)
        ck_assert_int_eq(device_reserve_staging(device, 64 << 20), -ENOMEM);
    ck_assert_ptr_nonnull(strstr(device_error(device), "does not fit"));
    ck_assert_int_eq(run_forward(expert, &inputs, &outputs), 0);
    support.config.devices[0].memory = 1;
    ck_assert_int_eq(device_reserve_workspace(device, 64 << 20), -ENOMEM);
    ck_assert_uint_eq(device->workspace_bytes, 0);
    ck_assert_int_eq(run_forward(expert, &inputs, &outputs), -ENOMEM);
    ck_assert(!device_is_lost(device));
    support.config.devices[0].memory = 0;
    ck_assert_int_eq(run_forward(expert, &inputs, &outputs), 0);
    expert_destroy(&expert);
    support_slab_free(&inputs);
    support_slab_free(&outputs);
    support_device_close(&support);
}
END_TEST

/* A larger expert that comes while batches of a smaller one are in flight. */
START_TEST(room_for_rows_grows_beside_batches_in_flight)
{
    struct support_device support;
    struct device_slab inputs = support_slab(4096), outputs = support_slab(4096);
    support_device_open(&support, "gpu", true, "", "hidden_dim: 64, max_batch_size: 4");
    struct device *device = support.device;
    struct expert *expert = support_expert(&support);
    const size_t bytes = device->staging_bytes;
    support_random(inputs.mapping, 4096, 1, 1);
    struct expert_batch batch = {.rows = 4, .inputs = &inputs, .outputs = &outputs};
    ck_assert_int_eq(expert_forward(expert, &batch), 0);
    ck_assert_int_eq(device_reserve_staging(device, 4 * bytes), 0);
    ck_assert_uint_eq(device->staging[batch.staging].bytes, bytes);
    ck_assert_uint_gt(device->staging[1 - batch.staging].bytes, 4 * bytes);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(run_forward(expert, &inputs, &outputs), 0);
    ck_assert_uint_eq(device->staging[0].bytes, device->staging[1].bytes);
    expert_destroy(&expert);
    support_slab_free(&inputs);
    support_slab_free(&outputs);
    support_device_close(&support);
}
END_TEST

START_TEST(an_opencl_error_is_named_and_the_device_goes_on)
{
    struct support_device support;
    const struct kernel_grid grid = {.dims = 2, .global = {3, 1}, .local = {2, 1}};
    cl_mem buffer;
    support_device_open(&support, "cpu", false, "", "");
    ck_assert_int_eq(kernel_launch(support.device, KERNEL_LINEAR, &grid, NULL, 0), -EIO);
    ck_assert_ptr_nonnull(strstr(device_error(support.device), "kernel linear: CL_INVALID_"));
    ck_assert_int_eq(device_allocate(support.device, 4096, "test", &buffer), 0);
    device_release(support.device, &buffer);
    support_device_close(&support);
}
END_TEST

START_TEST(a_lost_device_says_so_from_then_on)
{
    struct support_device support;
    const struct kernel_grid grid = {.dims = 1, .global = {1}, .local = {1}};
    float value;
    support_device_open(&support, "cpu", false, "", "");
    ck_assert_int_eq(device_fail(support.device, CL_DEVICE_NOT_AVAILABLE, "a batch"), -ENODEV);
    ck_assert(device_is_lost(support.device));
    ck_assert_str_eq(device_error(support.device), "a batch: CL_DEVICE_NOT_AVAILABLE");
    ck_assert_int_eq(kernel_launch(support.device, KERNEL_LINEAR, &grid, NULL, 0), -ENODEV);
    ck_assert_int_eq(device_read(support.device, support.device->pulse, 0, &value, sizeof value), -ENODEV);
    support_device_close(&support);
}
END_TEST

/* What was enqueued before may still write there; small memory is of the heap, large memory a mapping. */
START_TEST(memory_of_a_lost_device_stays)
{
    struct support_device support;
    static const size_t sizes[] = {512, 3 << 20};
    static unsigned char pattern[3 << 20];
    cl_mem buffer;
    support_device_open(&support, "cpu", false, "", "");
    memset(pattern, 0xa5, sizeof pattern);
    ck_assert_int_eq(device_allocate(support.device, sizes[_i], "test", &buffer), 0);
    ck_assert_int_eq(device_write(support.device, buffer, 0, pattern, sizes[_i]), 0);
    const unsigned char *memory = device_address(support.device, buffer);
    ck_assert_ptr_nonnull(memory);
    ck_assert_int_eq(device_fail(support.device, CL_DEVICE_NOT_AVAILABLE, "a batch"), -ENODEV);
    device_release(support.device, &buffer);
    ck_assert_ptr_null(buffer);
    ck_assert_int_eq(memcmp(memory, pattern, sizes[_i]), 0);
    support_device_close(&support);
}
END_TEST

START_TEST(compiled_kernels_are_kept_in_a_private_folder)
{
    struct support_device support;
    struct stat status;
    support_device_open(&support, "cpu", false, "", "");
    ck_assert_uint_gt(strlen(support.device->cache_path), 0);
    ck_assert_int_eq(stat(support.device->cache_path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 077, 0);
    ck_assert_str_eq(getenv("POCL_CACHE_DIR"), support.device->cache_path);
    support_device_close(&support);
}
END_TEST

/* --- compiled kernels in a file --------------------------------------------------------------------------------------
 * PoCL is not asked for them in earnest, but has them, too. */

static void rebuild(struct device *device)
{
    kernel_program_release(device);
    ck_assert_msg(kernel_program_build(device) == 0, "%s", device_error(device));
}

/* Only a program of our sources has any. */
static bool comes_from_file(const struct device *device)
{
    size_t size = 0;
    ck_assert_int_eq(clGetProgramInfo(device->compute->program, CL_PROGRAM_SOURCE, 0, NULL, &size), CL_SUCCESS);
    return size <= 1;
}

/* The one file of compiled kernels in `dir`. */
static void find_file(const char *dir, char *path, size_t size)
{
    char pattern[DEVICE_PATH_SIZE + 8];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*.bin*", dir);
    ck_assert_int_eq(glob(pattern, 0, NULL, &found), 0);
    ck_assert_uint_eq(found.gl_pathc, 1);
    snprintf(path, size, "%s", found.gl_pathv[0]);
    globfree(&found);
}

/* Builds again while what is logged goes into `text`. */
static void rebuild_and_listen(struct device *device, char *text, size_t size)
{
    FILE *log = tmpfile();
    const int real_stderr = dup(STDERR_FILENO);
    ck_assert_ptr_nonnull(log);
    ck_assert_int_ge(dup2(fileno(log), STDERR_FILENO), 0);
    rebuild(device);
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    rewind(log);
    text[fread(text, 1, size - 1, log)] = '\0';
    fclose(log);
}

static void open_keeping(struct support_device *support, char dir[DEVICE_PATH_SIZE])
{
    const char *base = getenv("TMPDIR");
    snprintf(dir, DEVICE_PATH_SIZE, "%s/expertd-programs.XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    support_device_open(support, "cpu", false, "", "hidden_dim: 48");
    snprintf(support->device->cache_path, DEVICE_PATH_SIZE, "%s", dir);
    support->device->keeps_binaries = true;
}

START_TEST(compiled_kernels_are_built_once_and_then_taken_from_their_file)
{
    struct support_device support;
    char dir[DEVICE_PATH_SIZE], path[DEVICE_PATH_SIZE + 64], text[4096];
    open_keeping(&support, dir);
    rebuild(support.device);
    ck_assert(!comes_from_file(support.device));
    find_file(dir, path, sizeof path);
    rebuild_and_listen(support.device, text, sizeof text);
    ck_assert_str_eq(text, "");
    ck_assert(comes_from_file(support.device));
    /* They run: kernels fill and pack the expert's parameters, and unpack them. */
    struct expert *expert = support_expert(&support);
    const int weight = expert_tensor_find(expert, "ffn.weight");
    struct expert_tensor tensor;
    ck_assert_int_ge(weight, 0);
    expert_tensor(expert, (unsigned)weight, &tensor);
    float *values = malloc(2 * tensor.count * sizeof *values), *again = values + tensor.count;
    support_random(values, tensor.count, 5, 1.0f);
    ck_assert_int_eq(expert_tensor_write(expert, (unsigned)weight, values), 0);
    ck_assert_int_eq(expert_tensor_read(expert, (unsigned)weight, again), 0);
    ck_assert_mem_eq(values, again, tensor.count * sizeof *values);
    free(values);
    expert_destroy(&expert);
    support_device_close(&support);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

START_TEST(a_damaged_file_of_compiled_kernels_is_reported_and_made_anew)
{
    struct support_device support;
    char dir[DEVICE_PATH_SIZE], path[DEVICE_PATH_SIZE + 64], text[4096];
    struct stat status;
    open_keeping(&support, dir);
    rebuild(support.device);
    find_file(dir, path, sizeof path);
    for (unsigned damage = 0; damage < 3; damage++) {
        static const unsigned char nonsense[] = "no program of any driver";
        ck_assert_int_eq(stat(path, &status), 0);
        if (damage == 0)
            ck_assert_int_eq(truncate(path, status.st_size / 2), 0);
        else if (damage == 1)
            ck_assert_int_eq(truncate(path, 0), 0);
        else
            ck_assert_int_eq(program_file_write(path, nonsense, sizeof nonsense), 0); /* whole, but not a driver's */
        rebuild_and_listen(support.device, text, sizeof text);
        ck_assert_msg(strstr(text, path) != NULL && strstr(text, "compiled again") != NULL, "%u: %s", damage, text);
        ck_assert(!comes_from_file(support.device));
        rebuild_and_listen(support.device, text, sizeof text);
        ck_assert_str_eq(text, "");
        ck_assert(comes_from_file(support.device));
    }
    support_device_close(&support);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

START_TEST(other_options_have_another_file_of_compiled_kernels)
{
    struct support_device support;
    char dir[DEVICE_PATH_SIZE], path[DEVICE_PATH_SIZE + 64];
    open_keeping(&support, dir);
    rebuild(support.device);
    find_file(dir, path, sizeof path);
    support_device_narrow(&support, support.device->info.vector_width == 4 ? 8 : 4);
    ck_assert(!comes_from_file(support.device));
    ck_assert_int_eq(unlink(path), 0);
    find_file(dir, path, sizeof path);
    support_device_close(&support);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

START_TEST(a_cache_folder_that_cannot_be_is_only_a_warning)
{
    struct device *device;
    struct config_device config = wanted("", "");
    config.cache_dir = "/proc/expertd";
    ck_assert_int_eq(device_open(&device, &config), 0);
    ck_assert_msg(strstr(device->cache_path, "/expertd-cache-"), "%s", device->cache_path); /* a spare one */
    device_destroy(&device);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("device");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, the_list_describes_each_device);
    tcase_add_test(all, a_device_is_found_by_number_and_by_a_part_of_its_name_in_any_case);
    tcase_add_test(all, what_the_configuration_cannot_have_is_refused);
    tcase_add_loop_test(all, weights_of_16_bits_are_to_be_had_on_any_device, 0, 2);
    tcase_add_test(all, memory_beyond_the_device_is_refused_with_the_figures_and_nothing_is_lost);
    tcase_add_loop_test(all, memory_of_experts_is_what_was_announced_and_comes_back, 0, 2);
    tcase_add_loop_test(all, what_cannot_grow_stays_and_a_batch_without_memory_fails_alone, 0, 2);
    tcase_add_test(all, room_for_rows_grows_beside_batches_in_flight);
    tcase_add_test(all, an_opencl_error_is_named_and_the_device_goes_on);
    tcase_add_test(all, a_lost_device_says_so_from_then_on);
    tcase_add_loop_test(all, memory_of_a_lost_device_stays, 0, 2);
    tcase_add_test(all, compiled_kernels_are_kept_in_a_private_folder);
    tcase_add_test(all, compiled_kernels_are_built_once_and_then_taken_from_their_file);
    tcase_add_test(all, a_damaged_file_of_compiled_kernels_is_reported_and_made_anew);
    tcase_add_test(all, other_options_have_another_file_of_compiled_kernels);
    tcase_add_test(all, a_cache_folder_that_cannot_be_is_only_a_warning);
    Suite *suite = suite_create("device");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
