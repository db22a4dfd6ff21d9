#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/uid.h"
#include "runtime/state/checkpoint.h"
#include "runtime/state/safetensors.h"
#include "unit/support_training.h"

static struct support_device support;
static char dir[128], log_path[160];
static int real_stderr = -1;

static void set_up(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/checkpoint.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(log_path, sizeof log_path, "%s.log", dir);
    support_device_open(&support, "cpu", false, "", "block: ffn, hidden_dim: 40, optimizer: adam");
}

static void tear_down(void)
{
    char command[sizeof dir + sizeof log_path + 16];
    support_device_close(&support);
    snprintf(command, sizeof command, "rm -rf '%s' '%s'", dir, log_path);
    ck_assert_int_eq(system(command), 0);
}

/* What was logged between the two calls. */
static void log_capture(void)
{
    const int fd = open(log_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    real_stderr = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

static const char *log_captured(void)
{
    static char text[8192];
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    FILE *file = fopen(log_path, "r");
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    return text;
}

static void expect_logged(const char *what)
{
    const char *text = log_captured();
    ck_assert_msg(strstr(text, what), "\"%s\" was not logged, but: %s", what, text);
}

/* An expert whose every tensor is filled with numbers that depend on `stream`. */
static struct expert *make_expert(unsigned stream)
{
    struct expert *expert = support_expert(&support);
    for (unsigned i = 0; i < expert_tensors(expert); i++) {
        struct expert_tensor tensor;
        expert_tensor(expert, i, &tensor);
        float *values = calloc(tensor.count, sizeof *values);
        support_random(values, tensor.count, 50 * stream + i, 3);
        ck_assert_int_eq(expert_tensor_write(expert, i, values), 0);
        free(values);
    }
    return expert;
}

static void expect_same(struct expert *a, struct expert *b)
{
    ck_assert_uint_eq(expert_tensors(a), expert_tensors(b));
    for (unsigned i = 0; i < expert_tensors(a); i++) {
        struct expert_tensor tensor;
        expert_tensor(a, i, &tensor);
        float *x = calloc(tensor.count, sizeof *x), *y = calloc(tensor.count, sizeof *y);
        ck_assert_int_eq(expert_tensor_read(a, i, x), 0);
        ck_assert_int_eq(expert_tensor_read(b, i, y), 0);
        ck_assert_msg(memcmp(x, y, tensor.count * sizeof *x) == 0, "%s differs", tensor.name);
        free(x);
        free(y);
    }
    ck_assert_mem_eq(&a->counters, &b->counters, sizeof a->counters);
}

static int save(struct expert *expert, const char *uid, uint64_t updates, unsigned keep)
{
    const struct expert_counters counters = {.updates = updates, .examples = 10 * updates, .skipped = 1};
    expert_set_counters(expert, &counters, 0);
    struct expert_snapshot snapshot = {.memory = malloc(expert_snapshot_bytes(expert))};
    ck_assert_int_eq(expert_snapshot_take(expert, &snapshot), 0);
    const int rc = checkpoint_write(expert, &snapshot, dir, uid, keep);
    free(snapshot.memory);
    return rc;
}

/* The names in <dir>/<uid>, sorted, with a space behind each. */
static const char *files_of(const char *uid)
{
    static char text[2048];
    char path[256];
    struct dirent **entries;
    text[0] = 0;
    snprintf(path, sizeof path, "%s/%s", dir, uid);
    const int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.')
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", entries[i]->d_name + 17);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return text;
}

static void path_of(char path[256], const char *uid, unsigned step)
{
    snprintf(path, 256, "%s/%s/%020u.safetensors", dir, uid, step);
}

START_TEST(what_is_saved_is_loaded_with_the_optimizers_state)
{
    struct expert *a = make_expert(1), *b = make_expert(2);
    ck_assert_int_eq(checkpoint_load(b, dir, "ffn.0"), 0); /* there is none yet */
    ck_assert_int_eq(save(a, "ffn.0", 7, 3), 0);
    ck_assert_int_eq(checkpoint_load(b, dir, "ffn.0"), 1);
    ck_assert_uint_eq(b->counters.updates, 7);
    ck_assert_uint_eq(b->counters.examples, 70);
    expect_same(a, b);
    expert_destroy(&a);
    expert_destroy(&b);
}
END_TEST

/* The masters are in it, not the halves that products read. */
START_TEST(training_with_weights_in_fp16_goes_on_from_its_file_bit_for_bit)
{
    struct training training;
    training_open(&training, "cpu", false, "precision: fp16", 40, 9, "optimizer: adam, learning_rate: 0.0001");
    for (unsigned step = 0; step < 3; step++)
        training_step(&training, step);
    struct expert *restarted = training_twin(&training);
    ck_assert_int_eq(save(training.expert, "ffn.0", 3, 3), 0);
    ck_assert_int_eq(checkpoint_load(restarted, dir, "ffn.0"), 1);
    for (unsigned step = 3; step < 6; step++) {
        training_step(&training, step);
        training_backward(&training, restarted, 0, training.rows);
    }
    expect_same(training.expert, restarted);
    expert_destroy(&restarted);
    training_close(&training);
}
END_TEST

START_TEST(the_file_says_what_it_is)
{
    char path[256], error[SAFETENSORS_ERROR_SIZE];
    struct safetensors *file;
    struct expert *expert = make_expert(1);
    ck_assert_int_eq(save(expert, "ffn.0", 7, 3), 0);
    path_of(path, "ffn.0", 7);
    ck_assert_int_eq(safetensors_open(&file, path, error), 0);
    ck_assert_str_eq(safetensors_metadata(file, "format"), "expertd.checkpoint.1");
    ck_assert_str_eq(safetensors_metadata(file, "uid"), "ffn.0");
    ck_assert_str_eq(safetensors_metadata(file, "block"), "ffn");
    ck_assert_str_eq(safetensors_metadata(file, "hidden_dim"), "40");
    ck_assert_str_eq(safetensors_metadata(file, "optimizer"), "adam");
    ck_assert_str_eq(safetensors_metadata(file, "update_count"), "7");
    ck_assert_str_eq(safetensors_metadata(file, "examples"), "70");
    const struct safetensors_tensor *weight = safetensors_find(file, "ffn.weight");
    ck_assert(weight && weight->ndim == 2 && weight->dims[0] == 160 && weight->dims[1] == 40);
    ck_assert_ptr_nonnull(safetensors_find(file, "optimizer.exp_avg_sq.layer_norm.bias"));
    safetensors_close(&file);
    expert_destroy(&expert);
}
END_TEST

START_TEST(the_history_is_bounded_and_the_newest_is_loaded)
{
    struct expert *expert = make_expert(1);
    for (unsigned step = 8; step <= 12; step++)
        ck_assert_int_eq(save(expert, "ffn.0", step, 2), 0);
    ck_assert_str_eq(files_of("ffn.0"), "011.safetensors 012.safetensors ");
    ck_assert_int_eq(save(expert, "ffn.0", 12, 2), 0); /* the same step again */
    ck_assert_str_eq(files_of("ffn.0"), "011.safetensors 012.safetensors ");
    expert_set_counters(expert, &(struct expert_counters){0}, 0);
    ck_assert_int_eq(checkpoint_load(expert, dir, "ffn.0"), 1);
    ck_assert_uint_eq(expert->counters.updates, 12);
    expert_destroy(&expert);
}
END_TEST

START_TEST(a_damaged_newest_one_is_set_aside_and_the_one_before_is_taken)
{
    char path[256];
    struct expert *a = make_expert(1), *b = make_expert(2);
    ck_assert_int_eq(save(b, "ffn.0", 5, 3), 0);
    ck_assert_int_eq(save(b, "ffn.0", 6, 3), 0);
    ck_assert_int_eq(save(a, "ffn.0", 4, 3), 0);
    path_of(path, "ffn.0", 6); /* half of it is lost */
    ck_assert_int_eq(truncate(path, 20000), 0);
    path_of(path, "ffn.0", 5); /* a byte in it has changed */
    const int fd = open(path, O_WRONLY);
    ck_assert_int_eq(pwrite(fd, "x", 1, 30000), 1);
    close(fd);
    log_capture();
    ck_assert_int_eq(checkpoint_load(b, dir, "ffn.0"), 1);
    expect_logged("00006.safetensors' is damaged");
    expect_same(a, b);
    ck_assert_str_eq(files_of("ffn.0"), "004.safetensors 005.safetensors.damaged 006.safetensors.damaged ");
    /* Training goes on, and passes them. */
    for (unsigned step = 5; step <= 12; step++)
        ck_assert_int_eq(save(a, "ffn.0", step, 1), 0);
    ck_assert_str_eq(files_of("ffn.0"), "006.safetensors.damaged 012.safetensors ");
    expert_destroy(&a);
    expert_destroy(&b);
}
END_TEST

START_TEST(when_all_are_damaged_nothing_is_started_anew)
{
    char path[256];
    struct expert *expert = make_expert(1);
    ck_assert_int_eq(save(expert, "ffn.0", 5, 3), 0);
    path_of(path, "ffn.0", 5);
    ck_assert_int_eq(truncate(path, 0), 0);
    log_capture();
    ck_assert_int_eq(checkpoint_load(expert, dir, "ffn.0"), -EPROTO);
    expect_logged("all 1 checkpoints");
    expert_destroy(&expert);
}
END_TEST

static void write_tensor(const char *path, const char *name, uint64_t rows, uint64_t columns)
{
    const struct safetensors_tensor tensor = {.name = name, .dtype = DTYPE_FLOAT32, .ndim = 2, .dims = {rows, columns}};
    struct safetensors_writer *writer;
    float *zeros = calloc(rows * columns, sizeof *zeros);
    ck_assert_int_eq(safetensors_writer_open(&writer, path, &tensor, 1, NULL, 0), 0);
    ck_assert_int_eq(safetensors_writer_append(writer, zeros, rows * columns * sizeof *zeros), 0);
    ck_assert_int_eq(safetensors_writer_commit(&writer), 0);
    free(zeros);
}

START_TEST(a_tensor_of_another_shape_is_named_with_both_shapes)
{
    char path[256];
    struct expert *expert = make_expert(1);
    ck_assert_int_eq(save(expert, "ffn.0", 5, 3), 0);
    path_of(path, "ffn.0", 6);
    write_tensor(path, "ffn.weight", 32, 8);
    log_capture();
    ck_assert_int_eq(checkpoint_load(expert, dir, "ffn.0"), -EINVAL);
    expect_logged("'ffn.weight' is F32[32, 8], expected F32[160, 40]");
    ck_assert_str_eq(files_of("ffn.0"), "005.safetensors 006.safetensors "); /* it is not damaged */
    write_tensor(path, "ffn.weight", 160, 40);
    log_capture();
    ck_assert_int_eq(checkpoint_load(expert, dir, "ffn.0"), -EINVAL);
    expect_logged("has no tensor 'ffn.bias' (expected F32[160])");
    expert_destroy(&expert);
}
END_TEST

START_TEST(weights_are_taken_alone_and_by_uid)
{
    char pattern[256], path[256];
    struct expert *a = make_expert(1), *b = make_expert(2), *c = make_expert(2);
    ck_assert_int_eq(save(a, "ffn.%25.7", 1, 1), 0);
    snprintf(pattern, sizeof pattern, "%s/{uid}/%020u.safetensors", dir, 1);
    path_of(path, "ffn.%2525.7", 1); /* the uid's own '%' was escaped */
    ck_assert_int_eq(access(path, R_OK), 0);
    ck_assert_int_eq(checkpoint_load_weights(b, pattern, "ffn.%25.7"), 0);
    ck_assert_uint_eq(b->counters.updates, 0);
    for (unsigned i = 0; i < expert_tensors(a); i++) {
        struct expert_tensor tensor;
        float x[160 * 40], y[160 * 40];
        expert_tensor(a, i, &tensor);
        ck_assert_int_eq(expert_tensor_read(b, i, x), 0);
        ck_assert_int_eq(expert_tensor_read(tensor.is_parameter ? a : c, i, y), 0);
        ck_assert_mem_eq(x, y, tensor.count * sizeof *x);
    }
    log_capture();
    ck_assert_int_eq(checkpoint_load_weights(b, pattern, "ffn.8"), -ENOENT);
    expect_logged("ffn.8/00000000000000000001.safetensors': it cannot be opened: No such file");
    expert_destroy(&a);
    expert_destroy(&b);
    expert_destroy(&c);
}
END_TEST

START_TEST(a_file_without_optimizer_state_starts_it_at_zero)
{
    char path[256];
    struct expert *a = make_expert(1);
    snprintf(path, sizeof path, "%s/ffn.0", dir);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    path_of(path, "ffn.0", 3);
    struct expert *none = NULL;
    struct config_expert plain = support.config.experts[0];
    plain.optimizer = "none";
    ck_assert_int_eq(expert_create(&none, support.device, &plain, 1), 0);
    ck_assert_int_eq(save(none, "ffn.0", 3, 1), 0);
    log_capture();
    ck_assert_int_eq(checkpoint_load(a, dir, "ffn.0"), 1);
    expect_logged("start at zero");
    ck_assert_uint_eq(a->counters.updates, 3);
    float values[40];
    const int index = expert_tensor_find(a, "optimizer.exp_avg.ffn_output.bias");
    ck_assert_int_ge(index, 0);
    ck_assert_int_eq(expert_tensor_read(a, (unsigned)index, values), 0);
    ck_assert(values[0] == 0 && values[39] == 0);
    expert_destroy(&none);
    expert_destroy(&a);
}
END_TEST

START_TEST(a_uid_cannot_leave_the_folder)
{
    char name[256], longest[UID_SIZE];
    ck_assert_int_eq(checkpoint_uid_name("/etc/x%2F.1", name, sizeof name), 0);
    ck_assert_str_eq(name, "%2Fetc%2Fx%252F.1");
    memset(longest, '/', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    ck_assert_int_eq(checkpoint_uid_name(longest, name, sizeof name), -ENAMETOOLONG);
    struct expert *expert = make_expert(1);
    ck_assert_int_eq(save(expert, "a/b.1", 1, 1), 0);
    ck_assert_str_eq(files_of("a%2Fb.1"), "001.safetensors ");
    ck_assert_int_eq(checkpoint_load(expert, dir, "a/b.1"), 1);
    expert_destroy(&expert);
}
END_TEST

START_TEST(a_folder_that_cannot_be_written_is_an_error)
{
    struct expert *expert = make_expert(1);
    char path[256];
    snprintf(path, sizeof path, "%s/ffn.0", dir);
    FILE *file = fopen(path, "w");
    fclose(file);
    ck_assert_int_eq(save(expert, "ffn.0", 1, 1), -ENOTDIR);
    expert_destroy(&expert);
}
END_TEST

/* Writes checkpoints until it is killed. It forks, so it calls nothing of OpenCL. */
static void write_for_ever(const struct expert *expert, struct expert_snapshot *snapshot)
{
    for (;;) {
        snapshot->counters.updates++;
        if (checkpoint_write(expert, snapshot, dir, "ffn.0", 2) < 0)
            _exit(1);
    }
}

START_TEST(a_kill_in_the_middle_of_a_write_leaves_a_valid_newest_one)
{
    struct expert *expert = make_expert(1), *loaded = make_expert(2);
    struct expert_snapshot snapshot = {.memory = malloc(expert_snapshot_bytes(expert))};
    ck_assert_int_eq(save(expert, "ffn.0", 1, 2), 0);
    ck_assert_int_eq(expert_snapshot_take(expert, &snapshot), 0);
    for (int round = 0; round < 12; round++) {
        const pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0)
            write_for_ever(expert, &snapshot);
        const uint64_t until_ns = clock_now_ns() + (uint64_t)(1 + round * 5) * NS_PER_MS;
        while (clock_now_ns() < until_ns)
            ;
        kill(child, SIGKILL);
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status));
        ck_assert_int_eq(checkpoint_load(loaded, dir, "ffn.0"), 1);
        ck_assert_ptr_null(strstr(files_of("ffn.0"), "tmp"));
        ck_assert_ptr_null(strstr(files_of("ffn.0"), "damaged"));
        snapshot.counters.updates = loaded->counters.updates;
        loaded->counters = expert->counters;
        expect_same(expert, loaded);
    }
    free(snapshot.memory);
    expert_destroy(&expert);
    expert_destroy(&loaded);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("checkpoint");
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, what_is_saved_is_loaded_with_the_optimizers_state);
    tcase_add_test(all, training_with_weights_in_fp16_goes_on_from_its_file_bit_for_bit);
    tcase_add_test(all, the_file_says_what_it_is);
    tcase_add_test(all, the_history_is_bounded_and_the_newest_is_loaded);
    tcase_add_test(all, a_damaged_newest_one_is_set_aside_and_the_one_before_is_taken);
    tcase_add_test(all, when_all_are_damaged_nothing_is_started_anew);
    tcase_add_test(all, a_tensor_of_another_shape_is_named_with_both_shapes);
    tcase_add_test(all, weights_are_taken_alone_and_by_uid);
    tcase_add_test(all, a_file_without_optimizer_state_starts_it_at_zero);
    tcase_add_test(all, a_uid_cannot_leave_the_folder);
    tcase_add_test(all, a_folder_that_cannot_be_written_is_an_error);
    tcase_add_test(all, a_kill_in_the_middle_of_a_write_leaves_a_valid_newest_one);
    Suite *suite = suite_create("checkpoint");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
