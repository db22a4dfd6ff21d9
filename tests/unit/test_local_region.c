/* Memory of somebody else: what may be mapped, and that no access to it ends the process. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "frontend/local_region.h"

enum { BYTES = 1 << 16 };
static struct local_region region, other;
static const char *why;
static int fd;

static void setup(void)
{
    fd = memfd_create("test", MFD_ALLOW_SEALING);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, BYTES), 0);
}

static void teardown(void)
{
    local_region_unmap(&region);
    local_region_unmap(&region);
    local_region_unmap(&other);
    close(fd);
}

START_TEST(what_cannot_shrink_is_mapped_and_shared)
{
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    ck_assert_int_eq(local_region_map(&region, fd, BYTES, &why), 0);
    ck_assert_int_eq(pwrite(fd, "word", 4, 100), 4);
    ck_assert_mem_eq(region.base + 100, "word", 4);
    region.base[BYTES - 1] = 'x';
    char last;
    ck_assert_int_eq(pread(fd, &last, 1, BYTES - 1), 1);
    ck_assert_int_eq(last, 'x');
    ck_assert(!region.lost);
}
END_TEST

START_TEST(what_may_shrink_or_is_too_small_or_no_file_is_refused)
{
    int ends[2];
    ck_assert_int_eq(local_region_map(&region, fd, BYTES, &why), -EPERM);
    ck_assert_ptr_nonnull(strstr(why, "shrink"));
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    ck_assert_int_eq(local_region_map(&region, fd, BYTES + 1, &why), -EINVAL);
    ck_assert_int_eq(local_region_map(&region, fd, 0, &why), -EINVAL);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(local_region_map(&region, ends[0], BYTES, &why), -EINVAL);
    ck_assert_int_eq(local_region_map(&region, -1, BYTES, &why), -EINVAL);
    ck_assert_ptr_null(region.base);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

/* A seal keeps files from shrinking; a host without memory has the same effect, and is harder to make. */
START_TEST(a_page_that_is_not_to_be_had_costs_the_region_alone)
{
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    ck_assert_int_eq(local_region_map(&other, fd, BYTES, &why), 0);
    ck_assert_int_eq(local_region_map(&region, fd, BYTES, &why), 0);
    const int empty = memfd_create("empty", 0);
    ck_assert_ptr_eq(mmap(region.base, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, empty, 0), region.base);
    close(empty);
    ck_assert_uint_eq(region.base[BYTES / 2], 0); /* the kernel sends SIGBUS here */
    ck_assert(region.lost);
    memset(region.base, 1, BYTES);
    ck_assert(!other.lost);
    ck_assert_uint_eq(other.base[0], 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("local_region");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, what_cannot_shrink_is_mapped_and_shared);
    tcase_add_test(all, what_may_shrink_or_is_too_small_or_no_file_is_refused);
    tcase_add_test(all, a_page_that_is_not_to_be_had_costs_the_region_alone);
    Suite *suite = suite_create("local_region");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
