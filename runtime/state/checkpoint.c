#include "runtime/state/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "runtime/compute/weight_format.h"
#include "runtime/state/safetensors.h"

enum { STEP_DIGITS = 20 };

static const char suffix[] = ".safetensors";
static const char damaged_suffix[] = ".damaged";
static const char superseded_suffix[] = ".superseded";

/* --- names -----------------------------------------------------------------------------------------------------------
 */

int checkpoint_uid_name(const char *uid, char *name, size_t size)
{
    size_t used = 0;
    for (; *uid; uid++) {
        const bool escape = *uid == '/' || *uid == '%';
        if (used + (escape ? 3 : 1) >= size || used > NAME_MAX - 3)
            return -ENAMETOOLONG;
        if (escape)
            used += (size_t)snprintf(name + used, size - used, "%%%02X", (unsigned)*uid);
        else
            name[used++] = *uid;
    }
    name[used] = 0;
    return 0;
}

static int make_folder_path(char path[PATH_MAX], const char *dir, const char *uid)
{
    char name[NAME_MAX + 1];
    const int rc = checkpoint_uid_name(uid, name, sizeof name);
    if (rc < 0)
        return rc;
    const int n = snprintf(path, PATH_MAX, "%s/%s", dir, name);
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int make_file_path(char path[PATH_MAX], const char *folder, uint64_t step, const char *end)
{
    const int n = snprintf(path, PATH_MAX, "%s/%0*" PRIu64 "%s%s", folder, STEP_DIGITS, step, suffix, end);
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* "<20 digits>.safetensors<end>" to its step. */
static bool parse_name(const char *name, const char *end, uint64_t *step)
{
    if (strspn(name, "0123456789") != STEP_DIGITS || strncmp(name + STEP_DIGITS, suffix, strlen(suffix)) != 0 ||
        strcmp(name + STEP_DIGITS + strlen(suffix), end) != 0)
        return false;
    errno = 0;
    *step = strtoull(name, NULL, 10);
    return errno == 0;
}

/* --- the folder ------------------------------------------------------------------------------------------------------
 */

struct steps {
    uint64_t *items;
    unsigned count;
};

static int compare_newest_first(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x > y ? -1 : x < y;
}

static int add_step(struct steps *steps, uint64_t step)
{
    uint64_t *items = realloc(steps->items, (steps->count + 1) * sizeof *items);
    if (!items)
        return -ENOMEM;
    steps->items = items;
    steps->items[steps->count++] = step;
    return 0;
}

/* The steps of the files "<step>.safetensors<end>", newest first; a folder that is not there has none, but one that a
 * link leads to may be away for a while. Free items. */
static int list_steps(const char *folder, const char *end, struct steps *steps)
{
    int rc = 0;
    struct stat link;
    *steps = (struct steps){0};
    DIR *directory = opendir(folder);
    if (!directory) {
        rc = -errno;
        return rc == -ENOENT && lstat(folder, &link) != 0 ? 0 : rc;
    }
    const struct dirent *entry;
    while (rc == 0 && (entry = readdir(directory)) != NULL) {
        uint64_t step;
        if (parse_name(entry->d_name, end, &step))
            rc = add_step(steps, step);
    }
    closedir(directory);
    if (steps->count > 0)
        qsort(steps->items, steps->count, sizeof *steps->items, compare_newest_first);
    if (rc < 0) {
        free(steps->items);
        *steps = (struct steps){0};
    }
    return rc;
}

static void remove_temporaries(const char *folder)
{
    char path[PATH_MAX];
    DIR *directory = opendir(folder);
    const struct dirent *entry;
    while (directory && (entry = readdir(directory)) != NULL) {
        uint64_t step;
        if (!parse_name(entry->d_name, SAFETENSORS_TEMPORARY_SUFFIX, &step) ||
            make_file_path(path, folder, step, SAFETENSORS_TEMPORARY_SUFFIX) < 0)
            continue;
        if (unlink(path) == 0)
            log_info("removed '%s', which a write that did not come to its end had left", path);
    }
    if (directory)
        closedir(directory);
}

/* Files of one kind that are older than `oldest` and not among the `keep` newest. */
static int prune_kind(const char *folder, const char *end, uint64_t oldest, unsigned keep)
{
    char path[PATH_MAX];
    struct steps steps;
    int rc = list_steps(folder, end, &steps);
    if (rc < 0)
        return rc;
    for (unsigned i = keep; i < steps.count; i++)
        if (steps.items[i] < oldest && make_file_path(path, folder, steps.items[i], end) == 0 && unlink(path) != 0 &&
            errno != ENOENT)
            rc = -errno;
    free(steps.items);
    return rc;
}

/* --- loading ---------------------------------------------------------------------------------------------------------
 */

static const char format_name[] = "expertd.checkpoint.2", window_name[] = "optimizer.applied";
enum { KEY_WORDS = 3 };

/* A tensor of the file has the shape that the expert's has; else logs. */
static bool has_shape(const struct safetensors_tensor *tensor, const struct expert_tensor *wanted, const char *path)
{
    char expected[96], found[192];
    if (tensor->ndim == wanted->ndim && memcmp(tensor->dims, wanted->dims, wanted->ndim * sizeof *wanted->dims) == 0)
        return true;
    log_error("'%s' does not fit the expert: tensor '%s' is %s, expected %s (is hidden_dim as it was?)", path,
              wanted->name, safetensors_shape_format(tensor->format, tensor->dims, tensor->ndim, found, sizeof found),
              safetensors_shape_format("F32", wanted->dims, wanted->ndim, expected, sizeof expected));
    return false;
}

/* Every value is one that the expert may have; else says which is not. */
static int check_values(const struct expert_tensor *wanted, const float *values, char *error)
{
    for (uint64_t i = 0; i < wanted->count; i++) {
        if (values[i] >= wanted->least && values[i] <= wanted->greatest)
            continue;
        snprintf(error, SAFETENSORS_ERROR_SIZE, "element %" PRIu64 " of tensor '%s' is %g; possible are %g to %g", i,
                 wanted->name, (double)values[i], (double)wanted->least, (double)wanted->greatest);
        return -EPROTO;
    }
    return 0;
}

/* The values of a tensor of the file, or zeros if it has none (NULL), checked; free them. */
static int read_values(const struct safetensors *file, const struct safetensors_tensor *tensor,
                       const struct expert_tensor *wanted, float **values, char *error)
{
    *values = calloc(wanted->count, sizeof **values);
    if (!*values) {
        snprintf(error, SAFETENSORS_ERROR_SIZE, "there is not enough memory to read it");
        return -ENOMEM;
    }
    int rc = tensor ? safetensors_read_floats(file, tensor, *values, error) : 0;
    if (rc == 0)
        rc = check_values(wanted, *values, error);
    if (rc < 0)
        free(*values);
    return rc;
}

/* What the expert needs of the file is there, of the right shape (else logs, -EINVAL) and of values that it may have
 * (else error says what is wrong). */
static int check_tensors(const struct expert *expert, const struct safetensors *file, const char *path, char *error)
{
    int rc = 0;
    for (unsigned i = 0; i < expert_tensors(expert) && rc == 0; i++) {
        char expected[96];
        float *values;
        struct expert_tensor wanted;
        expert_tensor(expert, i, &wanted);
        const struct safetensors_tensor *tensor = safetensors_find(file, wanted.name);
        if (!tensor && !wanted.is_parameter)
            continue;
        const struct weight_format *format = expert_tensor_format(expert, i);
        if (format) {
            log_error("'%s' does not fit the expert: it has the weights as numbers of their own, and device %s keeps "
                      "them in %s as a model's files have them (docs/models.md): set another precision, int8 or int4 "
                      "say, which round",
                      path, expert->config->device, format->precision);
            return -EINVAL;
        }
        if (!tensor) {
            log_error("'%s' does not fit the expert: it has no tensor '%s' (expected %s)", path, wanted.name,
                      safetensors_shape_format("F32", wanted.dims, wanted.ndim, expected, sizeof expected));
            return -EINVAL;
        }
        if (!has_shape(tensor, &wanted, path))
            return -EINVAL;
        rc = read_values(file, tensor, &wanted, &values, error);
        if (rc == 0)
            free(values);
    }
    return rc;
}

static int load_tensor(struct expert *expert, unsigned index, const struct expert_tensor *wanted,
                       const struct safetensors *file, const char *path, char *error)
{
    float *values;
    int rc = read_values(file, safetensors_find(file, wanted->name), wanted, &values, error);
    if (rc < 0)
        return rc;
    rc = expert_tensor_write(expert, index, values);
    if (rc < 0)
        log_error("cannot load tensor '%s' of '%s' into the device: %s", wanted->name, path,
                  device_error(expert->device));
    free(values);
    return rc;
}

/* What the file knows of an optimizer that is not this expert's must not go without a word. */
static void say_what_is_left_out(const struct expert *expert, const struct safetensors *file, const char *path)
{
    static const char state[] = "optimizer.";
    unsigned left = 0;
    for (unsigned i = 0; i < safetensors_count(file); i++) {
        const char *name = safetensors_tensor(file, i)->name;
        left += strncmp(name, state, sizeof state - 1) == 0 && strcmp(name, window_name) != 0 &&
                expert_tensor_find(expert, name) < 0;
    }
    if (left > 0)
        log_warning(
            "'%s' has %u tensors of an optimizer's state that this expert's (optimizer: %s) has no use for: they "
            "are left out",
            path, left, expert->config->optimizer);
}

/* All of it is checked before any of it is written. -EPROTO and other errors of reading: error says what is wrong; what
 * is wrong with the device or with the shapes was logged. */
static int load_tensors(struct expert *expert, const struct safetensors *file, const char *path, char *error)
{
    unsigned missing = 0, states = 0;
    int rc = check_tensors(expert, file, path, error);
    for (unsigned i = 0; i < expert_tensors(expert) && rc == 0; i++) {
        struct expert_tensor wanted;
        expert_tensor(expert, i, &wanted);
        states += !wanted.is_parameter;
        missing += !wanted.is_parameter && !safetensors_find(file, wanted.name);
        rc = load_tensor(expert, i, &wanted, file, path, error);
    }
    if (rc == 0 && missing > 0 && missing < states)
        log_warning("'%s' has not all of the optimizer's state: %u of its %u tensors start at zero", path, missing,
                    states);
    else if (rc == 0 && missing > 0)
        log_info("'%s' has none of the optimizer's state: it starts at zero", path);
    if (rc == 0)
        say_what_is_left_out(expert, file, path);
    return rc;
}

/* The file's checksums are those of what is in it, as far as it has them; ours has. */
static int verify(const struct safetensors *file, char *error)
{
    const char *format = safetensors_metadata(file, "format");
    if (format && strcmp(format, format_name) == 0 && !safetensors_metadata(file, SAFETENSORS_HEADER_CHECKSUM)) {
        snprintf(error, SAFETENSORS_ERROR_SIZE,
                 "its header has the format %s, but no " SAFETENSORS_HEADER_CHECKSUM
                 ": damaged, or changed by a program that kept the format",
                 format);
        return -EPROTO;
    }
    return safetensors_verify(file, error);
}

static uint64_t metadata_number(const struct safetensors *file, const char *key, uint64_t otherwise)
{
    const char *text = safetensors_metadata(file, key);
    if (!text || *text < '0' || *text > '9')
        return otherwise;
    char *end;
    errno = 0;
    const uint64_t value = strtoull(text, &end, 10);
    return errno == 0 && *end == 0 ? value : otherwise;
}

static void load_counters(struct expert *expert, const struct safetensors *file, const char *path, uint64_t step)
{
    const struct expert_counters counters = {
        .updates = metadata_number(file, "update_count", step),
        .examples = metadata_number(file, "examples", 0),
        .skipped = metadata_number(file, "skipped", 0),
    };
    uint64_t accumulated = metadata_number(file, "accumulated", 0);
    if (accumulated > 0 && accumulated >= expert->optimizer.grad_accumulation) {
        log_warning("the gradients of %" PRIu64
                    " batches that wait for a step in '%s' are dropped, as grad_accumulation "
                    "is %u now",
                    accumulated, path, expert->optimizer.grad_accumulation);
        accumulated = 0;
    }
    expert_set_counters(expert, &counters, (unsigned)accumulated);
}

static int load_window(const struct safetensors *file, struct checkpoint_window *window, char *error)
{
    const struct safetensors_tensor *tensor = safetensors_find(file, window_name);
    window->count = 0;
    if (!tensor)
        return 0;
    if (tensor->dtype != DTYPE_INT64 || tensor->ndim != 2 || tensor->dims[1] != KEY_WORDS ||
        tensor->dims[0] > POOL_APPLIED_RECORDS) {
        snprintf(error, SAFETENSORS_ERROR_SIZE, "tensor '%s' is no window of applied requests", window_name);
        return -EPROTO;
    }
    _Static_assert(sizeof(struct applied_key) == KEY_WORDS * sizeof(uint64_t), "a key is as it is in the file");
    const int rc = safetensors_read(file, tensor, window->keys, error);
    window->count = rc == 0 ? (uint32_t)tensor->dims[0] : 0;
    return rc;
}

/* 1: loaded; 0: it is damaged, and that was logged; -errno, logged. */
static int load_step(struct expert *expert, const char *folder, uint64_t step, struct checkpoint_window *window)
{
    char path[PATH_MAX], error[SAFETENSORS_ERROR_SIZE] = "";
    struct safetensors *file = NULL;
    int rc = make_file_path(path, folder, step, "");
    if (rc < 0)
        return rc;
    rc = safetensors_open(&file, path, error);
    if (rc == 0)
        rc = verify(file, error);
    if (rc == 0)
        rc = load_window(file, window, error);
    if (rc == 0)
        rc = load_tensors(expert, file, path, error);
    if (rc == 0) {
        load_counters(expert, file, path, step);
        log_debug("loaded '%s'", path);
        rc = 1;
    } else {
        window->count = 0;
        if (rc == -EPROTO)
            log_error("checkpoint '%s' is damaged: %s", path, error);
        else if (*error)
            log_error("cannot load '%s': %s", path, error);
        rc = rc == -EPROTO ? 0 : rc;
    }
    safetensors_close(&file);
    return rc;
}

/* The first `count` of them. */
static void set_aside(const char *folder, const struct steps *steps, unsigned count)
{
    char path[PATH_MAX], aside[PATH_MAX];
    for (unsigned i = 0; i < count; i++) {
        if (make_file_path(path, folder, steps->items[i], "") < 0 ||
            make_file_path(aside, folder, steps->items[i], damaged_suffix) < 0)
            continue;
        if (rename(path, aside) == 0)
            log_warning("damaged checkpoint '%s' is set aside as '%s'", path, aside);
        else
            log_warning("cannot rename '%s': %s", path, strerror(errno));
    }
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat of_a, of_b;
    return stat(a, &of_a) == 0 && stat(b, &of_b) == 0 && of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

/* Those from number `first` on that are after `updates` or more are of a training that `loaded` has taken the place of:
 * they get a suffix of their own, so that none of them is the newest once `loaded` has its right name, and none is
 * written over. False: one cannot be renamed, and that was logged. */
static bool supersede(const char *folder, const struct steps *steps, unsigned first, uint64_t updates,
                      const char *loaded)
{
    char path[PATH_MAX], aside[PATH_MAX];
    for (unsigned i = first; i < steps->count && steps->items[i] >= updates; i++) {
        if (make_file_path(path, folder, steps->items[i], "") < 0 ||
            make_file_path(aside, folder, steps->items[i], superseded_suffix) < 0)
            return false;
        if (steps->items[i] == updates && is_same_file(path, loaded))
            continue; /* it has the right name already */
        if (rename(path, aside) != 0) {
            log_warning("cannot rename '%s', which '%s' has taken the place of: %s", path, loaded, strerror(errno));
            return false;
        }
        log_warning("checkpoint '%s' is set aside as '%s', as '%s' was loaded in its place", path, aside, loaded);
    }
    return true;
}

/* A file that is called after more updates than it has (a copy of an older one, say, by which a person goes back) would
 * be the newest at every start, whatever is saved after it: it gets its own name. Until then it stays the newest, so
 * that a start that does not come so far, or cannot, loads it again. `tried` is the number behind the file's. */
static void correct_name(const struct expert *expert, const char *folder, const struct steps *steps, unsigned tried)
{
    char path[PATH_MAX], right[PATH_MAX];
    const uint64_t updates = expert->counters.updates, step = steps->items[tried - 1];
    if (updates >= step || make_file_path(path, folder, step, "") < 0 ||
        make_file_path(right, folder, updates, "") < 0 || !supersede(folder, steps, tried, updates, path))
        return;
    /* Of two names of one file rename(2) leaves both. */
    if (rename(path, right) == 0 && (unlink(path) == 0 || errno == ENOENT))
        log_warning("checkpoint '%s' is after %" PRIu64 " updates, and is called '%s' now", path, updates, right);
    else
        log_warning("checkpoint '%s' is after %" PRIu64 " updates, and cannot be called so: %s", path, updates,
                    strerror(errno));
}

static int refuse_damaged(const char *uid, const char *folder, unsigned count)
{
    log_error(
        "'%s' has %u checkpoints in '%s', and all are damaged: restore one there; to start anew, empty the folder, "
        "or set checkpoint.start_anew (--checkpoint-start-anew)",
        uid, count, folder);
    return -EPROTO;
}

/* What to do with what is in the folder: `damaged` were set aside by an earlier start. */
static int load_newest(struct expert *expert, const char *folder, const char *uid, const struct steps *steps,
                       unsigned damaged, bool start_anew, struct checkpoint_window *window)
{
    const bool owned = expert->optimizer.kind != OPTIMIZER_NONE;
    unsigned tried = 0;
    int rc = 0;
    while (rc == 0 && tried < steps->count)
        rc = load_step(expert, folder, steps->items[tried++], window);
    if (rc < 0)
        return rc;
    const unsigned bad = rc == 1 ? tried - 1 : tried;
    if (rc == 0 && bad + damaged > 0) {
        if (!start_anew)
            return refuse_damaged(uid, folder, bad + damaged);
        log_warning("'%s' starts anew, as checkpoint.start_anew says: all of its checkpoints are damaged", uid);
    }
    if (owned)
        set_aside(folder, steps, bad);
    if (owned && rc == 1)
        correct_name(expert, folder, steps, tried);
    return rc;
}

int checkpoint_load(struct expert *expert, const char *dir, const char *uid, bool start_anew,
                    struct checkpoint_window *window)
{
    char folder[PATH_MAX];
    struct steps steps = {0}, damaged = {0};
    window->count = 0;
    if (expert_tensors(expert) == 0)
        return 0;
    int rc = make_folder_path(folder, dir, uid);
    if (rc == 0)
        rc = list_steps(folder, "", &steps);
    if (rc == 0)
        rc = list_steps(folder, damaged_suffix, &damaged);
    if (rc < 0) {
        log_error("cannot look for checkpoints of '%s' in '%s': %s", uid, dir, strerror(-rc));
    } else {
        if (expert->optimizer.kind != OPTIMIZER_NONE)
            remove_temporaries(folder);
        rc = load_newest(expert, folder, uid, &steps, damaged.count, start_anew, window);
    }
    free(steps.items);
    free(damaged.items);
    return rc;
}

static int replace_uid(char *path, size_t size, const char *weights, const char *uid)
{
    static const char mark[] = "{uid}";
    char name[NAME_MAX + 1];
    int rc = checkpoint_uid_name(uid, name, sizeof name);
    size_t used = 0;
    while (rc == 0 && *weights) {
        const bool marked = strncmp(weights, mark, strlen(mark)) == 0;
        const size_t length = marked ? strlen(name) : 1;
        if (used + length >= size)
            return -ENAMETOOLONG;
        memcpy(path + used, marked ? name : weights, length);
        used += length;
        weights += marked ? strlen(mark) : 1;
    }
    path[used] = 0;
    return rc;
}

int checkpoint_weights_path(char *path, size_t size, const char *weights, const char *uid)
{
    const int rc = replace_uid(path, size, weights, uid);
    if (rc < 0)
        log_error("weights of '%s': the path '%s' becomes too long", uid, weights);
    return rc;
}

int checkpoint_load_weights(struct expert *expert, const char *weights, const char *uid)
{
    char path[PATH_MAX], error[SAFETENSORS_ERROR_SIZE] = "";
    struct safetensors *file = NULL;
    if (expert_tensors(expert) == 0)
        return 0;
    int rc = checkpoint_weights_path(path, sizeof path, weights, uid);
    if (rc < 0)
        return rc;
    rc = safetensors_open(&file, path, error);
    if (rc == 0)
        rc = verify(file, error);
    if (rc == 0)
        rc = load_tensors(expert, file, path, error);
    if (rc == 0) {
        load_counters(expert, file, path, 0);
        log_debug("loaded '%s' as the weights of '%s', after %" PRIu64 " updates", path, uid, expert->counters.updates);
    } else if (*error) {
        log_error("cannot load the weights of '%s' from '%s': %s", uid, path, error);
    }
    safetensors_close(&file);
    return rc;
}

/* --- writing ---------------------------------------------------------------------------------------------------------
 */

enum { PAIRS = 9, NUMBER_SIZE = 24 };

static int open_writer(struct safetensors_writer **writer, const char *path, const struct expert *expert,
                       const struct expert_snapshot *snapshot, const struct checkpoint_window *window, const char *uid,
                       const struct expert_tensor *named)
{
    char numbers[5][NUMBER_SIZE];
    const uint64_t values[5] = {expert->config->hidden_dim, snapshot->counters.updates, snapshot->counters.examples,
                                snapshot->counters.skipped, snapshot->accumulated};
    for (int i = 0; i < 5; i++)
        snprintf(numbers[i], NUMBER_SIZE, "%" PRIu64, values[i]);
    const struct safetensors_pair pairs[PAIRS] = {
        {"format", format_name},          {"uid", uid},
        {"block", expert->config->block}, {"optimizer", expert->config->optimizer},
        {"hidden_dim", numbers[0]},       {"update_count", numbers[1]},
        {"examples", numbers[2]},         {"skipped", numbers[3]},
        {"accumulated", numbers[4]},
    };
    unsigned count = expert_tensors(expert);
    struct safetensors_tensor *tensors = calloc(count + 1, sizeof *tensors);
    if (!tensors)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        tensors[i] = (struct safetensors_tensor){.name = named[i].name, .dtype = DTYPE_FLOAT32, .ndim = named[i].ndim};
        memcpy(tensors[i].dims, named[i].dims, named[i].ndim * sizeof *named[i].dims);
    }
    if (window && window->count > 0)
        tensors[count++] = (struct safetensors_tensor){
            .name = window_name, .dtype = DTYPE_INT64, .ndim = 2, .dims = {window->count, KEY_WORDS}};
    const int rc = safetensors_writer_open(writer, path, tensors, count, pairs, PAIRS);
    free(tensors);
    return rc;
}

static int write_file(const char *path, const struct expert *expert, const struct expert_snapshot *snapshot,
                      const struct checkpoint_window *window, const char *uid)
{
    uint64_t largest = 1;
    struct safetensors_writer *writer = NULL;
    const unsigned count = expert_tensors(expert);
    struct expert_tensor *named = calloc(count, sizeof *named);
    for (unsigned i = 0; i < count && named; i++) {
        expert_tensor(expert, i, &named[i]);
        largest = named[i].count > largest ? named[i].count : largest;
    }
    float *values = calloc(largest, sizeof *values);
    int rc = named && values ? open_writer(&writer, path, expert, snapshot, window, uid, named) : -ENOMEM;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        expert_snapshot_tensor(expert, snapshot, i, values);
        rc = safetensors_writer_append(writer, values, named[i].count * sizeof *values);
    }
    if (rc == 0 && window)
        rc = safetensors_writer_append(writer, window->keys, window->count * sizeof *window->keys);
    if (rc == 0)
        rc = safetensors_writer_commit(&writer);
    safetensors_writer_abort(&writer);
    free(values);
    free(named);
    return rc;
}

int checkpoint_make_folder(const char *path)
{
    return mkdir(path, S_IRWXU) == 0 || errno == EEXIST ? 0 : -errno;
}

/* <dir>, whose parent must be there, and <uid>. Before the first file is written they are on the disk with all that
 * leads to them, whoever made them: a process that did may have died before it had them there. */
static int make_folders(const char *dir, const char *folder)
{
    struct steps steps = {0};
    int rc = checkpoint_make_folder(dir);
    if (rc == 0)
        rc = checkpoint_make_folder(folder);
    if (rc == 0)
        rc = list_steps(folder, "", &steps);
    if (rc < 0)
        return rc;
    if (steps.count == 0)
        rc = safetensors_sync_folder_of(dir);
    if (rc == 0 && steps.count == 0)
        rc = safetensors_sync_folder_of(folder);
    free(steps.items);
    return rc;
}

int checkpoint_write(const struct expert *expert, const struct expert_snapshot *snapshot,
                     const struct checkpoint_window *window, const char *dir, const char *uid, unsigned keep)
{
    char folder[PATH_MAX], path[PATH_MAX];
    const uint64_t step = snapshot->counters.updates;
    int rc = make_folder_path(folder, dir, uid);
    if (rc == 0)
        rc = make_file_path(path, folder, step, "");
    if (rc == 0)
        rc = make_folders(dir, folder);
    if (rc == 0)
        rc = write_file(path, expert, snapshot, window, uid);
    if (rc == 0)
        log_debug("wrote '%s'", path);
    if (rc == 0)
        rc = prune_kind(folder, "", step, keep);
    if (rc == 0)
        rc = prune_kind(folder, damaged_suffix, step, keep);
    if (rc == 0)
        rc = prune_kind(folder, superseded_suffix, step, keep);
    if (rc == 0) /* of one from whose path the folder was away for a while, and which could not remove it */
        remove_temporaries(folder);
    return rc;
}
