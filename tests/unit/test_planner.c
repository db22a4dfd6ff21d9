/* Devices are chosen by words, and experts divided by speed and memory. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "command/planner.h"

enum { COUNT = 4 };
static struct planner_device devices[COUNT];

static void setup(void)
{
    static const struct options_device machine[COUNT] = {
        {0, 0, .gpu = true, .class = "gpu", .platform_name = "NVIDIA CUDA", .name = "NVIDIA H200",
         .vendor = "NVIDIA Corporation", .pci = "0000:65:00.0"},
        {0, 1, .gpu = true, .class = "gpu", .platform_name = "NVIDIA CUDA", .name = "NVIDIA H200",
         .vendor = "NVIDIA Corporation", .pci = "0000:66:00.0"},
        {1, 0, .gpu = true, .class = "integrated gpu", .platform_name = "Intel OpenCL", .name = "Iris",
         .vendor = "Intel", .pci = "0000:00:02.0"},
        {2, 0, .cpu = true, .class = "cpu", .platform_name = "Portable Computing Language", .name = "pthread-x",
         .vendor = "GenuineIntel"}};
    for (unsigned i = 0; i < COUNT; i++)
        devices[i] = (struct planner_device){.is = machine[i], .gflops = 100, .room = 100};
}

static const struct {
    struct planner_choice choice;
    const char *used; /* "x" for each that is; "": refused */
} choices[] = {
    {{NULL, NULL, NULL}, "xxx-"},
    {{"all", NULL, NULL}, "xxxx"},
    {{"cpu", NULL, NULL}, "---x"},
    {{"gpu", NULL, "integrated gpu"}, "xx--"},
    {{NULL, "0.1,2.0", NULL}, "-x-x"},
    {{NULL, "nvidia", "0.0"}, "-x--"},
    {{NULL, "0000:65:00.0", NULL}, "x---"},
    {{NULL, "66:00.0", NULL}, "-x--"},
    {{NULL, NULL, "H200,Iris"}, ""}, /* none of the GPUs is left */
    {{"all", NULL, "H200,Iris"}, "---x"},
    {{NULL, "intel", NULL}, "--xx"},
    {{NULL, "0.2", NULL}, ""},
    {{NULL, "amd", NULL}, ""},
    {{NULL, NULL, "67:00.0"}, ""},
    {{"gpus", NULL, NULL}, ""},
    {{"accelerator", NULL, NULL}, ""},
    {{NULL, "0.0,", NULL}, "x---"},
    {{NULL, ",", NULL}, ""},
};

START_TEST(words_choose_devices)
{
    const int result = planner_choose(devices, COUNT, &choices[_i].choice);
    ck_assert_int_eq(result, choices[_i].used[0] ? 0 : -EINVAL);
    for (unsigned i = 0; result == 0 && i < COUNT; i++)
        ck_assert_msg((devices[i].left_out == NULL) == (choices[_i].used[i] == 'x'), "%u: %s", i,
                      devices[i].left_out ? devices[i].left_out : "used");
}
END_TEST

START_TEST(a_machine_without_devices_is_refused)
{
    ck_assert_int_eq(planner_choose(devices, 0, &choices[0].choice), -EINVAL);
}
END_TEST

static void gives(uint64_t experts, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    ck_assert_int_eq(planner_divide(devices, COUNT, experts), 0);
    const uint64_t expected[COUNT] = {a, b, c, d};
    for (unsigned i = 0; i < COUNT; i++)
        ck_assert_msg(devices[i].experts == expected[i], "%u has %u, not %u", i, (unsigned)devices[i].experts,
                      (unsigned)expected[i]);
}

START_TEST(experts_are_divided_by_speed_within_memory)
{
    gives(8, 2, 2, 2, 2);
    devices[0].gflops = 300;
    gives(12, 6, 2, 2, 2);
    gives(0, 0, 0, 0, 0);
    gives(1, 1, 0, 0, 0);
    devices[0].room = 3; /* the rest goes to the others, by their speed */
    devices[1].gflops = 200;
    gives(11, 3, 4, 2, 2);
    devices[2].left_out = "excluded";
    gives(9, 3, 4, 0, 2);
    gives(203, 3, 100, 0, 100);
    ck_assert_int_eq(planner_divide(devices, COUNT, 204), -ENOSPC);
    devices[1].gflops = 0; /* what cannot be measured gets what nobody else has room for */
    gives(104, 3, 1, 0, 100);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("planner");
    TCase *tcase = tcase_create("planner");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_loop_test(tcase, words_choose_devices, 0, (int)(sizeof choices / sizeof choices[0]));
    tcase_add_test(tcase, a_machine_without_devices_is_refused);
    tcase_add_test(tcase, experts_are_divided_by_speed_within_memory);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
