// timeout: 600
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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
        for (uint64_t j = 0; j < tensor.count && tensor.least == 0; j++)
            values[j] = fabsf(values[j]); /* Adam's second moments */
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

static struct checkpoint_window window;              /* that was loaded last */
static const struct checkpoint_window *saved_window; /* that save() writes */
static bool start_anew;

static int load(struct expert *expert, const char *uid)
{
    return checkpoint_load(expert, dir, uid, start_anew, &window);
}

static int save(struct expert *expert, const char *uid, uint64_t updates, unsigned keep)
{
    const struct expert_counters counters = {.updates = updates, .examples = 10 * updates, .skipped = 1};
    expert_set_counters(expert, &counters, 0);
    struct expert_snapshot snapshot = {.memory = malloc(expert_snapshot_bytes(expert))};
    ck_assert_int_eq(expert_snapshot_take(expert, &snapshot), 0);
    const int rc = checkpoint_write(expert, &snapshot, saved_window, dir, uid, keep);
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
    ck_assert_int_eq(load(b, "ffn.0"), 0); /* there is none yet */
    ck_assert_int_eq(save(a, "ffn.0", 7, 3), 0);
    ck_assert_int_eq(load(b, "ffn.0"), 1);
    ck_assert_uint_eq(b->counters.updates, 7);
    ck_assert_uint_eq(b->counters.examples, 70);
    expect_same(a, b);
    expert_destroy(&a);
    expert_destroy(&b);
}
END_TEST

/* Of weights in fp16 the masters are in it, not the halves that products read; of an optimizer all that it keeps. */
static const char *const trained[][2] = {
    {"precision: fp16", "optimizer: adam, learning_rate: 0.0001"},
    {"", "optimizer: adamw, amsgrad: true, beta2: 0.5, weight_decay: 0.1, schedule: cosine, total_steps: 20"},
    {"", "optimizer: sgd, momentum: 0.9, weight_decay: 0.1"},
};

START_TEST(training_goes_on_from_its_file_bit_for_bit)
{
    struct training training;
    training_open(&training, "cpu", false, trained[_i][0], 40, 9, trained[_i][1]);
    for (unsigned step = 0; step < 3; step++)
        training_step(&training, step);
    struct expert *restarted = training_twin(&training);
    ck_assert_int_eq(save(training.expert, "ffn.0", 3, 3), 0);
    ck_assert_int_eq(load(restarted, "ffn.0"), 1);
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
    ck_assert_str_eq(safetensors_metadata(file, "format"), "expertd.checkpoint.2");
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
    ck_assert_int_eq(load(expert, "ffn.0"), 1);
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
    ck_assert_int_eq(load(b, "ffn.0"), 1);
    expect_logged("00006.safetensors' is set aside");
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

START_TEST(one_that_is_called_after_more_updates_than_it_has_does_not_stay_the_newest)
{
    char from[256], to[256];
    struct expert *expert = make_expert(1);
    ck_assert_int_eq(save(expert, "ffn.0", 5, 3), 0);
    path_of(from, "ffn.0", 5);
    path_of(to, "ffn.0", 900);
    ck_assert_int_eq(link(from, to), 0);
    log_capture();
    ck_assert_int_eq(load(expert, "ffn.0"), 1);
    expect_logged("00900.safetensors' is after 5 updates");
    ck_assert_uint_eq(expert->counters.updates, 5);
    ck_assert_int_eq(save(expert, "ffn.0", 6, 3), 0);
    ck_assert_int_eq(load(expert, "ffn.0"), 1);
    ck_assert_uint_eq(expert->counters.updates, 6);
    expert_destroy(&expert);
}
END_TEST

/* A person goes back to 5 from where training went wrong, by a copy of it (or a link to it) that is the newest. */
START_TEST(one_that_was_gone_back_to_stays_the_newest_at_later_starts)
{
    char from[256], to[256], command[600], left[200];
    struct expert *good = make_expert(1), *bad = make_expert(2), *expert = make_expert(3);
    ck_assert_int_eq(save(good, "ffn.0", 4, 9), 0);
    ck_assert_int_eq(save(bad, "ffn.0", 20, 9), 0);
    ck_assert_int_eq(save(bad, "ffn.0", 7, 9), 0);
    ck_assert_int_eq(save(good, "ffn.0", 5, 9), 0);
    path_of(from, "ffn.0", 5);
    path_of(to, "ffn.0", 900);
    snprintf(command, sizeof command, "%s '%s' '%s'", _i ? "cp" : "ln", from, to);
    ck_assert_int_eq(system(command), 0);
    path_of(to, "ffn.0", 300);
    if (_i == 0) /* and another, which is not to be the newest later on */
        ck_assert_int_eq(link(from, to), 0);
    if (_i == 2) /* what has the right name is another one: it is not written over */
        ck_assert_int_eq(save(bad, "ffn.0", 5, 9), 0);
    for (int start = 0; start < 2; start++) {
        log_capture();
        ck_assert_int_eq(load(expert, "ffn.0"), 1);
        const char *text = log_captured();
        ck_assert_msg((strstr(text, "00020.safetensors' is set aside as") != NULL) == (start == 0), "%s", text);
        ck_assert_uint_eq(expert->counters.updates, 5);
        good->counters = expert->counters;
        expect_same(good, expert);
        snprintf(left, sizeof left,
                 "004.safetensors 005.safetensors %s007.safetensors.superseded 020.safetensors.superseded %s",
                 _i ? "005.safetensors.superseded " : "", _i ? "" : "300.safetensors.superseded ");
        ck_assert_str_eq(files_of("ffn.0"), left);
    }
    /* Training passes them, and they go. */
    ck_assert_int_eq(save(good, "ffn.0", 19, 1), 0);
    ck_assert_str_eq(files_of("ffn.0"), _i ? "019.safetensors 020.safetensors.superseded "
                                           : "019.safetensors 020.safetensors.superseded 300.safetensors.superseded ");
    ck_assert_int_eq(save(good, "ffn.0", 21, 1), 0);
    ck_assert_int_eq(load(expert, "ffn.0"), 1);
    ck_assert_uint_eq(expert->counters.updates, 21);
    expert_destroy(&good);
    expert_destroy(&bad);
    expert_destroy(&expert);
}
END_TEST

/* It is still the newest where what it took the place of cannot be set aside. */
START_TEST(one_that_was_gone_back_to_keeps_its_name_while_others_keep_theirs)
{
    char from[256], to[256];
    struct expert *expert = make_expert(1);
    ck_assert_int_eq(save(expert, "ffn.0", 5, 9), 0);
    ck_assert_int_eq(save(expert, "ffn.0", 20, 9), 0);
    path_of(from, "ffn.0", 5);
    path_of(to, "ffn.0", 900);
    ck_assert_int_eq(link(from, to), 0);
    snprintf(to, sizeof to, "%s/ffn.0/%020u.safetensors.superseded", dir, 20);
    ck_assert_int_eq(mkdir(to, 0700), 0);
    for (int start = 0; start < 2; start++) {
        log_capture();
        ck_assert_int_eq(load(expert, "ffn.0"), 1);
        expect_logged("cannot rename");
        ck_assert_uint_eq(expert->counters.updates, 5);
    }
    ck_assert_int_eq(rmdir(to), 0);
    for (int start = 0; start < 2; start++) {
        ck_assert_int_eq(load(expert, "ffn.0"), 1);
        ck_assert_uint_eq(expert->counters.updates, 5);
    }
    ck_assert_str_eq(files_of("ffn.0"), "005.safetensors 020.safetensors.superseded ");
    expert_destroy(&expert);
}
END_TEST

static void truncate_step(unsigned step, off_t length)
{
    char path[256];
    path_of(path, "ffn.0", step);
    ck_assert_int_eq(truncate(path, length), 0);
}

static void expect_refused(struct expert *expert)
{
    log_capture();
    const int rc = load(expert, "ffn.0");
    expect_logged("all are damaged");
    ck_assert_int_eq(rc, -EPROTO);
}

/* A refusal does not remove what it rests on. */
START_TEST(when_all_are_damaged_every_start_is_refused)
{
    char path[256], aside[300];
    struct expert *expert = make_expert(1);
    ck_assert_int_eq(save(expert, "ffn.0", 5, 3), 0);
    ck_assert_int_eq(save(expert, "ffn.0", 6, 3), 0);
    truncate_step(6, 20000);
    log_capture();
    ck_assert_int_eq(load(expert, "ffn.0"), 1);
    (void)log_captured();
    ck_assert_str_eq(files_of("ffn.0"), "005.safetensors 006.safetensors.damaged ");
    truncate_step(5, 0);
    for (int start = 0; start < 3; start++)
        expect_refused(expert);
    ck_assert_str_eq(files_of("ffn.0"), "005.safetensors 006.safetensors.damaged ");
    /* What an earlier start has set aside is evidence as well. */
    path_of(path, "ffn.0", 5);
    snprintf(aside, sizeof aside, "%s.damaged", path);
    ck_assert_int_eq(rename(path, aside), 0);
    expect_refused(expert);
    expect_refused(expert);
    expert_destroy(&expert);
}
END_TEST

START_TEST(a_person_may_decide_to_start_anew)
{
    char command[300];
    struct expert *expert = make_expert(1), *untouched = make_expert(1);
    ck_assert_int_eq(save(expert, "ffn.0", 5, 3), 0);
    expert_set_counters(expert, &(struct expert_counters){0}, 0);
    truncate_step(5, 20000);
    expect_refused(expert);
    start_anew = true;
    log_capture();
    ck_assert_int_eq(load(expert, "ffn.0"), 0);
    start_anew = false;
    expect_logged("starts anew");
    expect_same(expert, untouched);
    ck_assert_str_eq(files_of("ffn.0"), "005.safetensors.damaged ");
    expect_refused(expert); /* until something is saved */
    ck_assert_int_eq(save(expert, "ffn.0", 1, 3), 0);
    ck_assert_int_eq(load(expert, "ffn.0"), 1);
    snprintf(command, sizeof command, "rm '%s'/ffn.0/*", dir); /* the other way: an emptied folder */
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(load(expert, "ffn.0"), 0);
    expert_destroy(&expert);
    expert_destroy(&untouched);
}
END_TEST

/* Any bit of a header, and some of the data: the one before is loaded, whatever the bit made of it. */
START_TEST(a_flipped_bit_of_a_header_makes_it_a_damaged_one)
{
    char path[256], aside[300];
    uint64_t header_bytes;
    struct expert *old = make_expert(1), *new = make_expert(2), *loaded = make_expert(3);
    ck_assert_int_eq(save(old, "ffn.0", 5, 3), 0);
    ck_assert_int_eq(save(new, "ffn.0", 6, 3), 0);
    path_of(path, "ffn.0", 6);
    snprintf(aside, sizeof aside, "%s.damaged", path);
    const int fd = open(path, O_RDWR);
    ck_assert_int_eq(pread(fd, &header_bytes, sizeof header_bytes, 0), sizeof header_bytes);
    for (uint64_t at = 0; at < header_bytes + 8; at += at < 200 ? 1 : 17) {
        unsigned char byte, flipped;
        ck_assert_int_eq(pread(fd, &byte, 1, (off_t)at), 1);
        flipped = byte ^ (unsigned char)(1u << at % 8);
        ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)at), 1);
        log_capture();
        const int rc = load(loaded, "ffn.0");
        const char *said = log_captured();
        ck_assert_msg(rc == 1 && loaded->counters.updates == 5, "byte %u: %d, %s", (unsigned)at, rc, said);
        ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
        ck_assert_int_eq(rename(aside, path), 0);
    }
    close(fd);
    expect_same(old, loaded);
    expert_destroy(&old);
    expert_destroy(&new);
    expert_destroy(&loaded);
}
END_TEST

/* One value of a tensor of the expert. */
static void set_value(struct expert *expert, const char *name, unsigned element, float value)
{
    struct expert_tensor tensor;
    const int index = expert_tensor_find(expert, name);
    ck_assert_int_ge(index, 0);
    expert_tensor(expert, (unsigned)index, &tensor);
    float *values = calloc(tensor.count, sizeof *values);
    ck_assert_int_eq(expert_tensor_read(expert, (unsigned)index, values), 0);
    values[element] = value;
    ck_assert_int_eq(expert_tensor_write(expert, (unsigned)index, values), 0);
    free(values);
}

START_TEST(what_no_expert_may_have_is_not_loaded_and_named)
{
    static const struct {
        const char *tensor, *said;
        float value;
    } bad[] = {
        {"ffn.weight", "element 3 of tensor 'ffn.weight' is nan", NAN},
        {"layer_norm.bias", "element 3 of tensor 'layer_norm.bias' is -inf", -INFINITY},
        {"optimizer.exp_avg.ffn_output.weight", "'optimizer.exp_avg.ffn_output.weight' is inf", INFINITY},
        {"optimizer.exp_avg_sq.ffn.bias", "'optimizer.exp_avg_sq.ffn.bias' is -1", -1},
    };
    char pattern[256];
    struct expert *good = make_expert(1), *expert = make_expert(2), *other = make_expert(3);
    snprintf(pattern, sizeof pattern, "%s/{uid}/%020u.safetensors", dir, 6);
    ck_assert_int_eq(save(good, "ffn.0", 5, 3), 0);
    set_value(other, bad[_i].tensor, 3, bad[_i].value);
    ck_assert_int_eq(save(other, "ffn.0", 6, 3), 0);
    log_capture();
    ck_assert_int_eq(checkpoint_load_weights(expert, pattern, "ffn.0"), -EPROTO);
    expect_logged(bad[_i].said);
    struct expert *untouched = make_expert(2);
    expect_same(expert, untouched); /* nothing of it was taken */
    expert_destroy(&untouched);
    log_capture();
    ck_assert_int_eq(load(expert, "ffn.0"), 1);
    expect_logged(bad[_i].said);
    expect_same(expert, good);
    expert_destroy(&good);
    expert_destroy(&expert);
    expert_destroy(&other);
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
    ck_assert_int_eq(load(expert, "ffn.0"), -EINVAL);
    expect_logged("'ffn.weight' is F32[32, 8], expected F32[160, 40]");
    ck_assert_str_eq(files_of("ffn.0"), "005.safetensors 006.safetensors "); /* it is not damaged */
    write_tensor(path, "ffn.weight", 160, 40);
    log_capture();
    ck_assert_int_eq(load(expert, "ffn.0"), -EINVAL);
    expect_logged("has no tensor 'ffn.bias' (expected F32[160])");
    expert_destroy(&expert);
}
END_TEST

START_TEST(weights_are_taken_by_uid_with_what_the_optimizer_knows)
{
    char pattern[256], path[256];
    struct expert *a = make_expert(1), *b = make_expert(2);
    ck_assert_int_eq(save(a, "ffn.%25.7", 9, 1), 0);
    snprintf(pattern, sizeof pattern, "%s/{uid}/%020u.safetensors", dir, 9);
    path_of(path, "ffn.%2525.7", 9); /* the uid's own '%' was escaped */
    ck_assert_int_eq(access(path, R_OK), 0);
    ck_assert_int_eq(checkpoint_load_weights(b, pattern, "ffn.%25.7"), 0);
    ck_assert_uint_eq(b->counters.updates, 9);
    expect_same(a, b);
    log_capture();
    ck_assert_int_eq(checkpoint_load_weights(b, pattern, "ffn.8"), -ENOENT);
    expect_logged("ffn.8/00000000000000000009.safetensors': it cannot be opened: No such file");
    expert_destroy(&a);
    expert_destroy(&b);
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
    ck_assert_int_eq(load(a, "ffn.0"), 1);
    expect_logged("starts at zero");
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

START_TEST(what_the_file_knows_of_another_optimizer_is_said_to_be_left_out)
{
    struct expert *adam = make_expert(1), *other = NULL;
    struct config_expert plain = support.config.experts[0];
    char path[256];
    snprintf(path, sizeof path, "%s/ffn.0", dir);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(save(adam, "ffn.0", 3, 1), 0);
    log_capture();
    ck_assert_int_eq(load(adam, "ffn.0"), 1);
    ck_assert_ptr_null(strstr(log_captured(), "left out"));
    plain.optimizer = "sgd";
    ck_assert_int_eq(expert_create(&other, support.device, &plain, 1), 0);
    log_capture();
    ck_assert_int_eq(load(other, "ffn.0"), 1);
    expect_logged("(optimizer: sgd) has no use for");
    expert_destroy(&other);
    expert_destroy(&adam);
}
END_TEST

/* Two of four batches have come; the step is made when the other two have. */
START_TEST(gradients_that_wait_for_their_step_are_loaded_with_their_number)
{
    struct training training;
    training_open(&training, "cpu", false, "", 40, 9, "optimizer: sgd, grad_accumulation: 4");
    for (unsigned step = 0; step < 2; step++)
        training_step(&training, step);
    struct expert *restarted = training_twin(&training);
    struct expert_snapshot snapshot = {.memory = malloc(expert_snapshot_bytes(restarted))};
    ck_assert_int_eq(expert_snapshot_take(training.expert, &snapshot), 0);
    ck_assert_int_eq(checkpoint_write(training.expert, &snapshot, NULL, dir, "ffn.0", 1), 0);
    ck_assert_int_eq(load(restarted, "ffn.0"), 1);
    ck_assert_uint_eq(restarted->accumulated, 2);
    ck_assert_uint_eq(restarted->counters.examples, 18);
    for (unsigned step = 2; step < 4; step++) {
        training_step(&training, step);
        const struct expert_batch batch = training_backward(&training, restarted, 0, training.rows);
        ck_assert_int_eq(batch.step, step < 3 ? EXPERT_STEP_ACCUMULATED : EXPERT_STEP_APPLIED);
    }
    expect_same(training.expert, restarted);
    free(snapshot.memory);
    expert_destroy(&restarted);
    training_close(&training);
}
END_TEST

START_TEST(the_window_of_applied_requests_travels_in_the_file)
{
    static struct checkpoint_window full;
    struct expert *expert = make_expert(1);
    for (uint32_t i = 0; i < POOL_APPLIED_RECORDS; i++)
        full.keys[i] = (struct applied_key){{UINT64_MAX - i, i}, UINT64_C(1) << 63 | i};
    for (full.count = 0; full.count <= POOL_APPLIED_RECORDS; full.count += POOL_APPLIED_RECORDS / 2) {
        saved_window = &full;
        ck_assert_int_eq(save(expert, "ffn.0", 1 + full.count, 1), 0);
        saved_window = NULL;
        window.count = 77;
        ck_assert_int_eq(load(expert, "ffn.0"), 1);
        ck_assert_uint_eq(window.count, full.count);
        ck_assert_mem_eq(window.keys, full.keys, full.count * sizeof full.keys[0]);
    }
    expert_destroy(&expert);
}
END_TEST

/* What reached the disk when. Calls of this program come here instead of to the library. */
static char synced[4096];

int fsync(int fd)
{
    char link[64], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0)
        return -1;
    const char *end = strncmp(path, dir, strlen(dir)) == 0 ? path + strlen(dir) : "?";
    snprintf(synced + strlen(synced), sizeof synced - strlen(synced), "fsync:%s ", end);
    return (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    snprintf(synced + strlen(synced), sizeof synced - strlen(synced), "rename ");
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* Until its folders' names are on the disk as well, a file is nowhere. */
START_TEST(what_is_reported_as_written_is_on_the_disk_with_all_that_leads_to_it)
{
    static const char *const files = "fsync:/new/ffn.0/%020u.safetensors.tmp rename fsync:/new/ffn.0 ";
    char sub[200], expected[300];
    struct expert *expert = make_expert(1);
    const struct expert_counters counters = {.updates = 5};
    struct expert_snapshot snapshot = {.memory = malloc(expert_snapshot_bytes(expert))};
    snprintf(sub, sizeof sub, "%s/new", dir);
    expert_set_counters(expert, &counters, 0);
    ck_assert_int_eq(expert_snapshot_take(expert, &snapshot), 0);
    for (unsigned step = 5; step <= 6; step++) {
        synced[0] = 0;
        snapshot.counters.updates = step;
        ck_assert_int_eq(checkpoint_write(expert, &snapshot, NULL, sub, "ffn.0", 3), 0);
        snprintf(expected, sizeof expected, files, step);
        ck_assert_msg(strstr(synced, expected), "%s is not in %s", expected, synced);
        if (step > 5)
            continue;
        *strstr(synced, expected) = 0; /* before that */
        ck_assert_msg(strstr(synced, "fsync: ") && strstr(synced, "fsync:/new "), "%s", synced);
    }
    free(snapshot.memory);
    expert_destroy(&expert);
}
END_TEST

START_TEST(folders_and_files_are_for_their_owner_alone)
{
    char path[256], sub[300];
    struct stat info;
    struct expert *expert = make_expert(1);
    const mode_t before = umask(0);
    ck_assert_int_eq(save(expert, "ffn.0", 5, 3), 0);
    snprintf(sub, sizeof sub, "%s/made", dir);
    ck_assert_int_eq(checkpoint_make_folder(sub), 0);
    umask(before);
    path_of(path, "ffn.0", 5);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    *strrchr(path, '/') = 0;
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0700);
    ck_assert_int_eq(stat(sub, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0700);
    expert_destroy(&expert);
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
    ck_assert_int_eq(load(expert, "a/b.1"), 1);
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

START_TEST(a_folder_that_is_away_is_not_one_that_is_empty)
{
    struct expert *expert = make_expert(1);
    char link[256], place[300];
    snprintf(link, sizeof link, "%s/ffn.0", dir);
    snprintf(place, sizeof place, "%s/mounted", dir);
    ck_assert_int_eq(symlink(place, link), 0);
    log_capture();
    ck_assert_int_eq(load(expert, "ffn.0"), -ENOENT);
    expect_logged("cannot look for checkpoints of 'ffn.0'");
    ck_assert_int_eq(save(expert, "ffn.0", 1, 1), -ENOENT);
    ck_assert_int_eq(mkdir(place, 0700), 0);
    ck_assert_int_eq(load(expert, "ffn.0"), 0);
    ck_assert_int_eq(save(expert, "ffn.0", 1, 1), 0);
    ck_assert_int_eq(load(expert, "ffn.0"), 1);
    expert_destroy(&expert);
}
END_TEST

START_TEST(what_lies_under_a_temporary_name_is_in_nobodys_way)
{
    struct expert *expert = make_expert(1);
    char path[256], temporary[300];
    ck_assert_int_eq(save(expert, "ffn.0", 1, 3), 0);
    path_of(path, "ffn.0", 2);
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    ck_assert_int_eq(mkfifo(temporary, 0600), 0); /* a writer would wait for its reader */
    ck_assert_int_eq(save(expert, "ffn.0", 2, 3), 0);
    ck_assert_int_eq(symlink("/nowhere", temporary), 0);
    ck_assert_int_eq(save(expert, "ffn.0", 2, 3), 0);
    ck_assert_int_eq(mkdir(temporary, 0700), 0);
    ck_assert_int_eq(save(expert, "ffn.0", 2, 3), 0);
    ck_assert_str_eq(files_of("ffn.0"), "001.safetensors 002.safetensors ");
    expert_destroy(&expert);
}
END_TEST

/* Writes checkpoints until it is killed. It forks, so it calls nothing of OpenCL. */
static void write_for_ever(const struct expert *expert, struct expert_snapshot *snapshot)
{
    for (;;) {
        snapshot->counters.updates++;
        if (checkpoint_write(expert, snapshot, NULL, dir, "ffn.0", 2) < 0)
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
        ck_assert_int_eq(load(loaded, "ffn.0"), 1);
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

START_TEST(what_an_earlier_write_could_not_remove_goes_with_the_next)
{
    struct expert *expert = make_expert(1);
    char path[PATH_MAX];
    ck_assert_int_eq(save(expert, "ffn.0", 1, 2), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/ffn.0/%s", dir,
                 i ? "00000000000000000007.safetensors.mine" : "00000000000000000007.safetensors.tmp");
        FILE *file = fopen(path, "w");
        ck_assert_ptr_nonnull(file);
        ck_assert_int_eq(fclose(file), 0);
    }
    ck_assert_int_eq(save(expert, "ffn.0", 2, 2), 0);
    ck_assert_ptr_null(strstr(files_of("ffn.0"), "safetensors.tmp"));
    ck_assert_ptr_nonnull(strstr(files_of("ffn.0"), "007.safetensors.mine"));
    expert_destroy(&expert);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("checkpoint");
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, what_is_saved_is_loaded_with_the_optimizers_state);
    tcase_add_loop_test(all, training_goes_on_from_its_file_bit_for_bit, 0, sizeof trained / sizeof trained[0]);
    tcase_add_test(all, the_file_says_what_it_is);
    tcase_add_test(all, the_history_is_bounded_and_the_newest_is_loaded);
    tcase_add_test(all, a_damaged_newest_one_is_set_aside_and_the_one_before_is_taken);
    tcase_add_test(all, one_that_is_called_after_more_updates_than_it_has_does_not_stay_the_newest);
    tcase_add_loop_test(all, one_that_was_gone_back_to_stays_the_newest_at_later_starts, 0, 3);
    tcase_add_test(all, one_that_was_gone_back_to_keeps_its_name_while_others_keep_theirs);
    tcase_add_test(all, when_all_are_damaged_every_start_is_refused);
    tcase_add_test(all, a_person_may_decide_to_start_anew);
    tcase_add_test(all, a_flipped_bit_of_a_header_makes_it_a_damaged_one);
    tcase_add_loop_test(all, what_no_expert_may_have_is_not_loaded_and_named, 0, 4);
    tcase_add_test(all, gradients_that_wait_for_their_step_are_loaded_with_their_number);
    tcase_add_test(all, the_window_of_applied_requests_travels_in_the_file);
    tcase_add_test(all, what_is_reported_as_written_is_on_the_disk_with_all_that_leads_to_it);
    tcase_add_test(all, folders_and_files_are_for_their_owner_alone);
    tcase_add_test(all, a_tensor_of_another_shape_is_named_with_both_shapes);
    tcase_add_test(all, weights_are_taken_by_uid_with_what_the_optimizer_knows);
    tcase_add_test(all, a_file_without_optimizer_state_starts_it_at_zero);
    tcase_add_test(all, what_the_file_knows_of_another_optimizer_is_said_to_be_left_out);
    tcase_add_test(all, a_uid_cannot_leave_the_folder);
    tcase_add_test(all, a_folder_that_cannot_be_written_is_an_error);
    tcase_add_test(all, a_folder_that_is_away_is_not_one_that_is_empty);
    tcase_add_test(all, what_lies_under_a_temporary_name_is_in_nobodys_way);
    tcase_add_test(all, a_kill_in_the_middle_of_a_write_leaves_a_valid_newest_one);
    tcase_add_test(all, what_an_earlier_write_could_not_remove_goes_with_the_next);
    Suite *suite = suite_create("checkpoint");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
