#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/state/shards.h"
#include "unit/support_model.h"

static char error[SHARDS_ERROR_SIZE];
static const char *folder;
static const float numbers[] = {1, 2};

static void set_up(void)
{
    folder = support_model_folder();
}

static void write_shard(const char *file, const char *tensor)
{
    const struct support_tensor tensors[] = {{tensor, "F32", {2}, 1, numbers, sizeof numbers}};
    support_model_write(file, tensors, 1);
}

/* a in one, b in two, c in a third that is not there; one has what its name says, two has x instead of b2. */
static void write_model(void)
{
    write_shard("one.safetensors", "a");
    write_shard("two.safetensors", "b");
    support_model_write_text("model.safetensors.index.json",
                             "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"a\":\"one.safetensors\","
                             "\"b\":\"two.safetensors\",\"b2\":\"two.safetensors\",\"c\":\"three.safetensors\"}}");
}

static void expect_open_error(const char *path, int rc, const char *said)
{
    struct shards *shards;
    ck_assert_int_eq(shards_open(&shards, path, error), rc);
    ck_assert_ptr_null(shards);
    ck_assert_msg(strstr(error, said), "%s", error);
}

static void expect_found(const char *path, const char *name)
{
    float values[2];
    struct shards *shards;
    const struct safetensors *file;
    const struct safetensors_tensor *tensor;
    ck_assert_msg(shards_open(&shards, path, error) == 0, "%s", error);
    ck_assert(shards_has(shards, name));
    for (int again = 0; again < 2; again++) {
        ck_assert_msg(shards_find(shards, name, &file, &tensor, error) == 0, "%s", error);
        ck_assert_int_eq(safetensors_read_floats(file, tensor, values, error), 0);
        ck_assert_mem_eq(values, numbers, sizeof numbers);
    }
    ck_assert_int_eq(shards_find(shards, "none", &file, &tensor, error), -ENOENT);
    ck_assert_ptr_nonnull(strstr(error, "has no tensor 'none'"));
    ck_assert(!shards_has(shards, "none"));
    shards_close(&shards);
    ck_assert_ptr_null(shards);
}

START_TEST(a_model_is_a_folder_an_index_or_a_file)
{
    write_model();
    expect_found(folder, "a");
    expect_found(folder, "b");
    expect_found(support_model_path("model.safetensors.index.json"), "b");
    expect_found(support_model_path("one.safetensors"), "a");
    support_model_write_text("edited.json", "\xef\xbb\xbf{\"weight_map\":{\"a\":\"one.safetensors\"}}");
    expect_found(support_model_path("edited.json"), "a");
}
END_TEST

START_TEST(a_folder_without_an_index_has_one_file)
{
    expect_open_error(folder, -ENOENT, "has no safetensors file");
    write_shard("some.safetensors", "a");
    expect_found(folder, "a");
    write_shard("other.safetensors", "b");
    expect_open_error(folder, -EPROTO, "2 safetensors files, but no index");
    write_shard("model.safetensors", "c");
    expect_found(folder, "c");
}
END_TEST

START_TEST(a_shard_is_opened_when_it_is_asked_for_and_a_missing_one_is_named)
{
    struct shards *shards;
    const struct safetensors *file;
    const struct safetensors_tensor *tensor;
    write_model();
    ck_assert_int_eq(shards_open(&shards, folder, error), 0);
    ck_assert_int_eq(shards_find(shards, "c", &file, &tensor, error), -EPROTO);
    ck_assert_msg(strstr(error, "three.safetensors' is missing"), "%s", error);
    ck_assert_int_eq(shards_find(shards, "b2", &file, &tensor, error), -EPROTO);
    ck_assert_msg(strstr(error, "two.safetensors' has tensor 'b2', but it has not"), "%s", error);
    ck_assert_int_eq(mkfifo(support_model_path("three.safetensors"), 0600), 0);
    ck_assert_int_eq(shards_find(shards, "c", &file, &tensor, error), -EPROTO);
    ck_assert_msg(strstr(error, "no regular file"), "%s", error);
    unlink(support_model_path("three.safetensors"));
    support_model_write_text("three.safetensors", "version https://git-lfs.github.com/spec/v1\n");
    ck_assert_int_eq(shards_find(shards, "c", &file, &tensor, error), -EPROTO);
    ck_assert_msg(strstr(error, "Git LFS"), "%s", error);
    ck_assert_str_eq(shards_example(shards, "b"), "b");
    ck_assert_ptr_null(shards_example(shards, "x"));
    shards_close(&shards);
}
END_TEST

static const struct {
    const char *index, *said;
} bad[] = {
    {"", "no index of a model"},
    {"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "no index of a model: it is a Git LFS pointer"},
    {"<!doctype html>", "no index of a model: it is a web page"},
    {"Repository not found", "no index of a model: it is text, which begins 'Repository not found'"},
    {"{}", "weight_map"},
    {"{\"weight_map\":[]}", "weight_map"},
    {"{\"weight_map\":{\"a\":1}}", "names no file for tensor 'a'"},
    {"{\"weight_map\":{\"a\":\"\"}}", "no safetensors file of its folder"},
    {"{\"weight_map\":{\"a\":\"../a.safetensors\"}}", "no safetensors file of its folder"},
    {"{\"weight_map\":{\"a\":\"/etc/a.safetensors\"}}", "no safetensors file of its folder"},
    {"{\"weight_map\":{\"a\":\"b/a.safetensors\"}}", "no safetensors file of its folder"},
    {"{\"weight_map\":{\"a\":\"..\"}}", "no safetensors file of its folder"},
    {"{\"weight_map\":{\"a\":\".safetensors\"}}", "no safetensors file of its folder"},
    {"{\"weight_map\":{\"a\":\"a.bin\"}}", "no safetensors file of its folder"},
    {"{\"weight_map\":{\"a\":\"a.safetensors\",\"a\":\"b.safetensors\"}}", "twice"},
};

START_TEST(an_index_that_is_none_or_leads_elsewhere_is_refused)
{
    struct shards *shards;
    support_model_write_text("model.safetensors.index.json", bad[_i].index);
    expect_open_error(folder, -EPROTO, bad[_i].said);
    ck_assert_int_eq(shards_parse(&shards, folder, bad[_i].index, strlen(bad[_i].index), error), -EPROTO);
    ck_assert_msg(strstr(error, bad[_i].said), "%s", error);
}
END_TEST

START_TEST(a_path_that_leads_nowhere_is_named)
{
    char path[8192];
    expect_open_error(support_model_path("none"), -ENOENT, "none' cannot be opened");
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = 0;
    expect_open_error(path, -ENAMETOOLONG, "too long");
    ck_assert_int_eq(mkdir(support_model_path("a.json"), 0700), 0);
    expect_open_error(support_model_path("a.json"), -ENOENT, "no safetensors file");
    ck_assert_int_eq(mkfifo(support_model_path("b.json"), 0600), 0);
    expect_open_error(support_model_path("b.json"), -EPROTO, "no regular file");
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("shards");
    tcase_add_checked_fixture(all, set_up, support_model_remove);
    tcase_add_test(all, a_model_is_a_folder_an_index_or_a_file);
    tcase_add_test(all, a_folder_without_an_index_has_one_file);
    tcase_add_test(all, a_shard_is_opened_when_it_is_asked_for_and_a_missing_one_is_named);
    tcase_add_loop_test(all, an_index_that_is_none_or_leads_elsewhere_is_refused, 0, sizeof bad / sizeof bad[0]);
    tcase_add_test(all, a_path_that_leads_nowhere_is_named);
    Suite *suite = suite_create("shards");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
