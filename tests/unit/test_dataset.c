#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "examples/digits/dataset.h"

static char error[256];

/* One good line for `label`, whose pixels are all `pixel`. */
static void add_line(char *text, unsigned pixel, unsigned label)
{
    char *at = text + strlen(text);
    for (int i = 0; i < DATASET_PIXELS; i++) {
        at += sprintf(at, "%u,", pixel);
    }
    sprintf(at, "%u\n", label);
}

static int read_bytes(struct dataset *dataset, const char *bytes, size_t length)
{
    FILE *source = fmemopen((void *)(uintptr_t)bytes, length, "r");
    ck_assert_ptr_nonnull(source);
    int rc = dataset_read(dataset, source, "test.csv", error, sizeof error);
    fclose(source);
    return rc;
}

static void expect_refused(const char *text, size_t length, const char *why)
{
    struct dataset dataset;
    ck_assert_int_eq(read_bytes(&dataset, text, length), -EINVAL);
    ck_assert_msg(strstr(error, why), "\"%s\" does not say \"%s\"", error, why);
    ck_assert_ptr_null(dataset.pixels);
    ck_assert_uint_eq(dataset.count, 0);
}

START_TEST(the_shipped_file_is_whole_and_split_by_digit)
{
    struct dataset dataset;
    ck_assert_msg(dataset_load(&dataset, "examples/data/digits.csv", error, sizeof error) == 0, "%s", error);
    ck_assert_uint_eq(dataset.count, 1797);
    ck_assert_uint_eq(dataset.train_count, 1442);
    static const unsigned counts[DATASET_CLASSES] = {178, 182, 177, 183, 181, 182, 181, 179, 174, 180};
    unsigned all[DATASET_CLASSES] = {0}, test[DATASET_CLASSES] = {0};
    for (size_t i = 0; i < dataset.count; i++) {
        all[dataset.labels[i]]++;
        test[dataset.labels[i]] += i >= dataset.train_count;
    }
    for (int d = 0; d < DATASET_CLASSES; d++) {
        ck_assert_uint_eq(all[d], counts[d]);
        ck_assert_uint_eq(test[d], counts[d] / DATASET_TEST_EVERY);
    }
    dataset_destroy(&dataset);
    dataset_destroy(&dataset);
}
END_TEST

START_TEST(every_fifth_image_of_a_digit_is_for_testing)
{
    char text[8192] = "";
    for (unsigned i = 0; i < 6; i++) {
        add_line(text, i, 3);
        if (i < 2) {
            add_line(text, 16, 7);
        }
    }
    text[strlen(text) - 1] = '\0'; /* the last line may lack its end */
    struct dataset dataset;
    ck_assert_int_eq(read_bytes(&dataset, text, strlen(text)), 0);
    ck_assert_uint_eq(dataset.count, 8);
    ck_assert_uint_eq(dataset.train_count, 7);
    ck_assert_uint_eq(dataset.labels[7], 3);
    ck_assert_float_eq(dataset.pixels[7 * DATASET_PIXELS], 4.0F / 16); /* the fifth 3 */
    ck_assert_float_eq(dataset.pixels[6 * DATASET_PIXELS], 5.0F / 16);
    ck_assert_float_eq(dataset.pixels[DATASET_PIXELS], 1.0F);
    ck_assert_uint_eq(dataset.labels[1], 7);
    dataset_destroy(&dataset);
}
END_TEST

START_TEST(bad_lines_are_refused_with_their_number)
{
    static const char *const tails[] = {"-1,0", "+1,0", " 1,0", "17,0", "1.5,0", ",0", "x,0", "99999999999999999999,0"};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        char text[4096] = "";
        add_line(text, 0, 1);
        strcat(text, tails[i]);
        expect_refused(text, strlen(text), "test.csv:2: ");
    }
    char text[4096] = "";
    add_line(text, 0, 10);
    expect_refused(text, strlen(text), "test.csv:1: the last value");
    strcpy(text, "");
    add_line(text, 0, 1);
    strcpy(text + strlen(text) - 1, ",4\n");
    expect_refused(text, strlen(text), "65 values");
    expect_refused("1,2,3\n", 6, "test.csv:1: ");
    expect_refused("\n", 1, "test.csv:1: ");
}
END_TEST

START_TEST(no_images_long_lines_and_binary_are_refused)
{
    static char big[5000];
    memset(big, '1', sizeof big);
    expect_refused(big, sizeof big, "too long");
    char nul[4096] = "";
    add_line(nul, 0, 1);
    nul[5] = '\0';
    expect_refused(nul, 140, "test.csv:1: ");
    struct dataset dataset;
    FILE *empty = fopen("/dev/null", "r");
    ck_assert_int_eq(dataset_read(&dataset, empty, "test.csv", error, sizeof error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error, "no images"));
    fclose(empty);
    ck_assert_int_eq(dataset_load(&dataset, "/nonexistent/digits.csv", error, sizeof error), -ENOENT);
    ck_assert_ptr_nonnull(strstr(error, "/nonexistent/digits.csv: "));
    ck_assert_int_ne(dataset_load(&dataset, "/", error, sizeof error), 0);
}
END_TEST

START_TEST(a_file_without_any_image_for_testing_is_refused_where_both_parts_are_wanted)
{
    const char *base = getenv("TMPDIR");
    char path[256], text[4096] = "";
    struct dataset dataset;
    snprintf(path, sizeof path, "%s/expertd-digits.XXXXXX", base ? base : "/tmp");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    for (int i = 1; i <= DATASET_TEST_EVERY; i++) {
        text[0] = '\0';
        add_line(text, 1, 3);
        ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
        int rc = dataset_load_parts(&dataset, path, error, sizeof error);
        ck_assert_int_eq(rc, i < DATASET_TEST_EVERY ? -EINVAL : 0);
        ck_assert(rc == 0 || strstr(error, "too few images"));
        ck_assert_uint_eq(dataset.count, rc == 0 ? (size_t)i : 0);
        dataset_destroy(&dataset);
    }
    close(fd);
    unlink(path);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("dataset");
    tcase_add_test(all, the_shipped_file_is_whole_and_split_by_digit);
    tcase_add_test(all, every_fifth_image_of_a_digit_is_for_testing);
    tcase_add_test(all, bad_lines_are_refused_with_their_number);
    tcase_add_test(all, no_images_long_lines_and_binary_are_refused);
    tcase_add_test(all, a_file_without_any_image_for_testing_is_refused_where_both_parts_are_wanted);
    Suite *suite = suite_create("dataset");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
