#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "command/machine.h"

static const struct {
    const char *line;
    struct options_device device;
} lines[] = {
    {"platform 0 'Portable Computing Language' device 0 'pthread-x': cpu of GenuineIntel, 8794 MiB, 2 compute units",
     {0, 0, .cpu = true, .class = "cpu", .platform_name = "Portable Computing Language", .name = "pthread-x",
      .vendor = "GenuineIntel", .memory_mib = 8794}},
    {"platform 2 'NVIDIA CUDA' device 1 'NVIDIA H200': gpu of NVIDIA Corporation, 143156 MiB, 132 compute units, "
     "memory "
     "of its own, PCI 0000:65:00.0\n",
     {2, 1, .gpu = true, .class = "gpu", .platform_name = "NVIDIA CUDA", .name = "NVIDIA H200",
      .vendor = "NVIDIA Corporation", .pci = "0000:65:00.0", .memory_mib = 143156}},
    {"platform 1 'Intel's' device 3 'it's': integrated gpu of Intel, Inc., 12 MiB, fp16 no",
     {1, 3, .gpu = true, .class = "integrated gpu", .platform_name = "Intel's", .name = "it's", .vendor = "Intel, Inc.",
      .memory_mib = 12}},
    {"platform 1 'A' device 0 'B': accelerator of C", {1, 0, .platform_name = "A", .name = "B"}},
};

START_TEST(a_line_of_the_list_is_read)
{
    struct options_device device;
    const struct options_device *expected = &lines[_i].device;
    ck_assert(machine_parse_device(lines[_i].line, &device));
    ck_assert_uint_eq(device.platform, expected->platform);
    ck_assert_uint_eq(device.device, expected->device);
    ck_assert(device.gpu == expected->gpu && device.cpu == expected->cpu);
    ck_assert_str_eq(device.class, expected->class);
    ck_assert_str_eq(device.platform_name, expected->platform_name);
    ck_assert_str_eq(device.name, expected->name);
    ck_assert_str_eq(device.vendor, expected->vendor);
    ck_assert_str_eq(device.pci, expected->pci);
    ck_assert_uint_eq(device.memory_mib, expected->memory_mib);
}
END_TEST

static const char *const none[] = {"", "no OpenCL device is there; ...", "platform x 'a' device 0 'b': cpu of c",
                                   "platform 0 'a'", "platform 0 'a' device y 'b': cpu of c"};

START_TEST(another_line_is_no_device)
{
    struct options_device device;
    ck_assert(!machine_parse_device(none[_i], &device));
}
END_TEST

START_TEST(the_programs_are_beside_this_one)
{
    ck_assert_int_eq(machine_programs()[0], '/');
    ck_assert_ptr_nonnull(strstr(machine_programs(), "/tests"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("machine");
    TCase *tcase = tcase_create("machine");
    tcase_add_loop_test(tcase, a_line_of_the_list_is_read, 0, 4);
    tcase_add_loop_test(tcase, another_line_is_no_device, 0, 5);
    tcase_add_test(tcase, the_programs_are_beside_this_one);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
