#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "command/machine.h"

static const struct {
    const char *line;
    struct options_device device;
} lines[] = {
    {"platform 0 'Portable Computing Language' device 0 'pthread-x': cpu of GenuineIntel, 8794 MiB",
     {0, 0, .cpu = true}},
    {"platform 2 'NVIDIA CUDA' device 1 'NVIDIA H200': gpu of NVIDIA Corporation, 1 MiB", {2, 1, .gpu = true}},
    {"platform 1 'Intel's' device 3 'it's': integrated gpu of Intel", {1, 3, .gpu = true}},
    {"platform 1 'A' device 0 'B': accelerator of C", {1, 0, false, false}},
};

START_TEST(a_line_of_the_list_is_read)
{
    struct options_device device;
    ck_assert(machine_parse_device(lines[_i].line, &device));
    ck_assert_uint_eq(device.platform, lines[_i].device.platform);
    ck_assert_uint_eq(device.device, lines[_i].device.device);
    ck_assert(device.gpu == lines[_i].device.gpu && device.cpu == lines[_i].device.cpu);
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
