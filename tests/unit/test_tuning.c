/* The table of tiles that a search found, and its file, which may hold anything. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/compute/tile.h"
#include "runtime/compute/tuning.h"

static const char key[] = "0123456789abcdef a device, driver 1";
#define HEAD "expertd-tuning 1\n0123456789abcdef a device, driver 1\n"

static struct tuning table;
static char error[128];
static char text[TUNING_TEXT_BYTES];

static int parse(const char *what)
{
    error[0] = '\0';
    return tuning_parse(&table, key, what, strlen(what), error, sizeof error);
}

static void fill(void)
{
    table.count = 0;
    ck_assert_int_eq(tuning_note(&table, TUNING_FORWARD, 1, 4096, 1024, 7), 0);
    ck_assert_int_eq(tuning_note(&table, TUNING_GRADIENT, 3, 4096, 1024, 2), 0);
    ck_assert_int_eq(tuning_note(&table, TUNING_FORWARD, 0, 1024, 4096, TILE_COUNT - 1), 0);
}

static void is_filled(void)
{
    ck_assert_uint_eq(table.count, 2);
    ck_assert_int_eq(tuning_find(&table, TUNING_FORWARD, 1, 4096, 1024), 7);
    ck_assert_int_eq(tuning_find(&table, TUNING_GRADIENT, 3, 4096, 1024), 2);
    ck_assert_int_eq(tuning_find(&table, TUNING_FORWARD, 0, 1024, 4096), TILE_COUNT - 1);
    ck_assert_int_eq(tuning_find(&table, TUNING_FORWARD, 1, 1024, 4096), TUNING_NONE);
    ck_assert_int_eq(tuning_find(&table, TUNING_FORWARD, 1, 4096, 1025), TUNING_NONE);
}

START_TEST(a_class_holds_the_row_counts_up_to_its_largest)
{
    static const struct {
        uint64_t rows;
        unsigned class;
    } of[] = {{1, 0}, {16, 0}, {17, 1}, {64, 1}, {65, 2}, {256, 2}, {257, 3}, {1024, 3}, {1000000, 3}};
    for (unsigned i = 0; i < sizeof of / sizeof of[0]; i++)
        ck_assert_uint_eq(tuning_class(of[i].rows), of[i].class);
    for (unsigned class = 0; class < TUNING_CLASSES; class ++)
        ck_assert_uint_eq(tuning_class(tuning_class_rows(class)), class);
}
END_TEST

START_TEST(what_is_noted_is_found_and_the_newest_counts)
{
    fill();
    is_filled();
    ck_assert_int_eq(tuning_note(&table, TUNING_FORWARD, 1, 4096, 1024, 8), 0);
    ck_assert_int_eq(tuning_find(&table, TUNING_FORWARD, 1, 4096, 1024), 8);
}
END_TEST

START_TEST(a_full_table_takes_sizes_that_it_has_and_refuses_others)
{
    table.count = 0;
    for (unsigned i = 0; i < TUNING_SIZES; i++)
        ck_assert_int_eq(tuning_note(&table, TUNING_FORWARD, 0, i + 1, 1, 0), 0);
    ck_assert_int_eq(tuning_note(&table, TUNING_FORWARD, 0, TUNING_SIZES + 1, 1, 0), -ENOSPC);
    ck_assert_int_eq(tuning_note(&table, TUNING_GRADIENT, 2, 1, 1, 0), 0);
}
END_TEST

START_TEST(text_comes_back_as_the_table_even_a_full_one)
{
    fill();
    const size_t length = tuning_print(&table, key, text, sizeof text);
    memset(&table, 1, sizeof table);
    ck_assert_msg(tuning_parse(&table, key, text, length, error, sizeof error) == 0, "%s", error);
    is_filled();
    table.count = 0;
    for (unsigned i = 0; i < TUNING_SIZES * TUNING_PRODUCTS * TUNING_CLASSES; i++)
        ck_assert_int_eq(tuning_note(&table, i / TUNING_CLASSES % TUNING_PRODUCTS, i % TUNING_CLASSES,
                                     999999000 + i / (TUNING_CLASSES * TUNING_PRODUCTS), 999999999, TILE_COUNT - 1),
                         0);
    const size_t full = tuning_print(&table, key, text, sizeof text);
    ck_assert_uint_lt(full, sizeof text - 1);
    ck_assert_msg(tuning_parse(&table, key, text, full, error, sizeof error) == 0, "%s", error);
    ck_assert_uint_eq(table.count, TUNING_SIZES);
}
END_TEST

START_TEST(a_wrong_line_refuses_the_whole_text_and_is_named)
{
    static const struct {
        const char *text, *says;
    } wrong[] = {
        {"", "line 1"},
        {"expertd-tuning 2\n", "line 1"},
        {"expertd-tuning 1\r\n", "line 1"},
        {"expertd-tuning 1\n", "line 2"},
        {"expertd-tuning 1\n0123456789abcdee a device, driver 1\n", "line 2: of another"},
        {HEAD "forward 64 64 16 8x32-1x4-32-1", "middle"},
        {HEAD "\n", "line 3"},
        {HEAD "forward 64 64 16 8x32-1x4-32-1\nforward 64 64 16 8x32-1x4-32-1\n", "line 4: it says so"},
        {HEAD "forward 64 64 16 9x32-1x4-32-1\n", "line 3"},
        {HEAD "forward 64 64 17 8x32-1x4-32-1\n", "line 3"},
        {HEAD "backward 64 64 16 8x32-1x4-32-1\n", "line 3"},
        {HEAD "forward 0 64 16 8x32-1x4-32-1\n", "line 3"},
        {HEAD "forward 64 0 16 8x32-1x4-32-1\n", "line 3"},
        {HEAD "forward -64 64 16 8x32-1x4-32-1\n", "line 3"},
        {HEAD "forward +64 64 16 8x32-1x4-32-1\n", "line 3"},
        {HEAD "forward 064 64 16 8x32-1x4-32-1\n", "line 3"},
        {HEAD "forward  64 64 16 8x32-1x4-32-1\n", "line 3"},
        {HEAD "forward 64 64 16 8x32-1x4-32-1 \n", "line 3"},
        {HEAD "forward 64 64 16 8x32-1x4-32-1 more\n", "line 3"},
        {HEAD " forward 64 64 16 8x32-1x4-32-1\n", "line 3"},
        {HEAD "forward 99999999999999999999 64 16 8x32-1x4-32-1\n", "line 3"},
        {HEAD "forward 64 64 16\n", "line 3"},
        {HEAD "forward 64 64 16 8x32-1x4-32-1\n"
              "forward 64 64 64 8x32-1x4-32-1-----------------------------------------------------------------------"
              "---------------------------------------------\n",
         "line 4"},
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        fill();
        ck_assert_msg(parse(wrong[i].text) == -EINVAL, "%s", wrong[i].text);
        ck_assert_msg(strstr(error, wrong[i].says) != NULL, "'%s' says %s", wrong[i].text, error);
        ck_assert_uint_eq(table.count, 0);
    }
    ck_assert_int_eq(parse(HEAD), 0);
    ck_assert_int_eq(parse(HEAD "forward 64 64 16 8x32-1x4-32-1\n"), 0);
    ck_assert_uint_eq(table.count, 1);
}
END_TEST

START_TEST(more_sizes_than_a_table_holds_are_refused)
{
    size_t length = (size_t)snprintf(text, sizeof text, "%s", HEAD);
    for (unsigned i = 0; i <= TUNING_SIZES; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "forward %u 5 16 8x32-1x4-32-1\n", i + 1);
    ck_assert_int_eq(parse(text), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error, "line 67: more sizes"));
}
END_TEST

START_TEST(a_zero_byte_is_refused)
{
    static const char bytes[] = HEAD "forward 64 64 16 8x32-1x4-32-1\0\n";
    ck_assert_int_eq(tuning_parse(&table, key, bytes, sizeof bytes - 1, error, sizeof error), -EINVAL);
}
END_TEST

START_TEST(a_key_is_one_printable_line_whatever_a_driver_calls_itself)
{
    char made[TUNING_KEY_BYTES], name[600];
    tuning_key(made, 0x1234, "a\ncard\x80", "1.0\t(b)");
    ck_assert_str_eq(made, "0000000000001234 a?card?, driver 1.0?(b)");
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    tuning_key(made, 1, name, name);
    ck_assert_uint_lt(strlen(made), TUNING_KEY_BYTES);
}
END_TEST

/* --- files -------------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/expertd-tuning-XXXXXX", path[128];

static void make_folder(void)
{
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/tuning", folder);
}

static void remove_folder(void)
{
    unlink(path);
    rmdir(path);
    ck_assert_msg(rmdir(folder) == 0, "something was left in %s", folder);
}

START_TEST(a_file_comes_back_and_only_its_owner_may_read_it)
{
    struct stat status;
    make_folder();
    ck_assert_int_eq(tuning_load(&table, key, path, error, sizeof error), -ENOENT);
    for (unsigned i = 0; i < 2; i++) { /* the second replaces the first */
        fill();
        ck_assert_int_eq(tuning_save(&table, key, path), 0);
        memset(&table, 1, sizeof table);
        ck_assert_int_eq(tuning_load(&table, key, path, error, sizeof error), 0);
        is_filled();
    }
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_int_eq(status.st_mode & 0777, 0600);
    ck_assert_int_eq(tuning_load(&table, "another key", path, error, sizeof error), -EINVAL);
    ck_assert_uint_eq(table.count, 0);
    remove_folder();
}
END_TEST

START_TEST(what_is_no_plain_file_of_a_modest_size_is_not_read)
{
    make_folder();
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(tuning_load(&table, key, path, error, sizeof error), -EFBIG);
    unlink(path);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(tuning_load(&table, key, path, error, sizeof error), -EFBIG);
    rmdir(path);
    ck_assert_int_eq(symlink("/dev/zero", path), 0);
    ck_assert_int_eq(tuning_load(&table, key, path, error, sizeof error), -ELOOP);
    unlink(path);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fclose(file);
    ck_assert_int_eq(truncate(path, TUNING_TEXT_BYTES + 1), 0);
    ck_assert_int_eq(tuning_load(&table, key, path, error, sizeof error), -EFBIG);
    ck_assert_int_eq(truncate(path, TUNING_TEXT_BYTES), 0);
    ck_assert_int_eq(tuning_load(&table, key, path, error, sizeof error), -EINVAL);
    remove_folder();
}
END_TEST

START_TEST(a_folder_that_is_gone_is_an_error_and_leaves_nothing)
{
    fill();
    ck_assert_int_eq(tuning_save(&table, key, "/nonexistent/folder/tuning"), -ENOENT);
    make_folder();
    ck_assert_int_eq(mkdir(path, 0700), 0); /* where the file should go */
    ck_assert_int_eq(tuning_save(&table, key, path), -EISDIR);
    remove_folder();
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("tuning");
    tcase_add_test(all, a_class_holds_the_row_counts_up_to_its_largest);
    tcase_add_test(all, what_is_noted_is_found_and_the_newest_counts);
    tcase_add_test(all, a_full_table_takes_sizes_that_it_has_and_refuses_others);
    tcase_add_test(all, text_comes_back_as_the_table_even_a_full_one);
    tcase_add_test(all, a_wrong_line_refuses_the_whole_text_and_is_named);
    tcase_add_test(all, more_sizes_than_a_table_holds_are_refused);
    tcase_add_test(all, a_zero_byte_is_refused);
    tcase_add_test(all, a_key_is_one_printable_line_whatever_a_driver_calls_itself);
    tcase_add_test(all, a_file_comes_back_and_only_its_owner_may_read_it);
    tcase_add_test(all, what_is_no_plain_file_of_a_modest_size_is_not_read);
    tcase_add_test(all, a_folder_that_is_gone_is_an_error_and_leaves_nothing);
    Suite *suite = suite_create("tuning");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
