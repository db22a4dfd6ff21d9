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
#include "runtime/state/safetensors.h"

enum { STEP_DIGITS = 20 };

static const char suffix[] = ".safetensors";
static const char damaged_suffix[] = ".damaged";

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

/* The steps of the files "<step>.safetensors<end>", newest first; a folder that is not there has none. Free items. */
static int list_steps(const char *folder, const char *end, struct steps *steps)
{
    int rc = 0;
    *steps = (struct steps){0};
    DIR *directory = opendir(folder);
    if (!directory)
        return errno == ENOENT ? 0 : -errno;
    const struct dirent *entry;
    while (rc == 0 && (entry = readdir(directory)) != NULL) {
        uint64_t step;
        if (parse_name(entry->d_name, end, &step))
            rc = add_step(steps, step);
    }
    closedir(directory);
    if (steps->count > 0)
        qsort(steps->items, steps->count, sizeof *steps->items, compare_newest_first);
    if (rc < 0)
        free(steps->items);
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
            log_info("removed '%s', which a run that was killed had left", path);
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

/* What the expert needs of the file is there and of the right shape; else logs and returns -EINVAL. */
static int check_tensors(const struct expert *expert, const struct safetensors *file, const char *path,
                         bool parameters_only)
{
    for (unsigned i = 0; i < expert_tensors(expert); i++) {
        char expected[96], found[192];
        struct expert_tensor wanted;
        expert_tensor(expert, i, &wanted);
        const struct safetensors_tensor *tensor = safetensors_find(file, wanted.name);
        if (!wanted.is_parameter && (parameters_only || !tensor))
            continue;
        safetensors_shape_format("F32", wanted.dims, wanted.ndim, expected, sizeof expected);
        if (!tensor) {
            log_error("'%s' does not fit the expert: it has no tensor '%s' (expected %s)", path, wanted.name, expected);
            return -EINVAL;
        }
        if (tensor->ndim != wanted.ndim || memcmp(tensor->dims, wanted.dims, wanted.ndim * sizeof *wanted.dims) != 0) {
            log_error("'%s' does not fit the expert: tensor '%s' is %s, expected %s (is hidden_dim as it was?)", path,
                      wanted.name,
                      safetensors_shape_format(tensor->format, tensor->dims, tensor->ndim, found, sizeof found),
                      expected);
            return -EINVAL;
        }
    }
    return 0;
}

static int load_tensor(struct expert *expert, unsigned index, const struct expert_tensor *wanted,
                       const struct safetensors *file, const char *path)
{
    char error[SAFETENSORS_ERROR_SIZE];
    const struct safetensors_tensor *tensor = safetensors_find(file, wanted->name);
    float *values = calloc(wanted->count, sizeof *values);
    if (!values)
        return -ENOMEM;
    int rc = tensor ? safetensors_read_floats(file, tensor, values, error) : 0;
    if (rc < 0) {
        log_error("cannot load '%s': %s", path, error);
    } else {
        rc = expert_tensor_write(expert, index, values);
        if (rc < 0)
            log_error("cannot load tensor '%s' of '%s' into the device: %s", wanted->name, path,
                      device_error(expert->device));
    }
    free(values);
    return rc;
}

static int load_tensors(struct expert *expert, const struct safetensors *file, const char *path, bool parameters_only)
{
    unsigned missing = 0;
    int rc = check_tensors(expert, file, path, parameters_only);
    for (unsigned i = 0; i < expert_tensors(expert) && rc == 0; i++) {
        struct expert_tensor wanted;
        expert_tensor(expert, i, &wanted);
        if (parameters_only && !wanted.is_parameter)
            continue;
        if (!wanted.is_parameter && !safetensors_find(file, wanted.name))
            missing++;
        rc = load_tensor(expert, i, &wanted, file, path);
    }
    if (rc == 0 && missing > 0)
        log_warning("'%s' has not all of the optimizer's state: %u tensors of it start at zero", path, missing);
    return rc;
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

static void load_counters(struct expert *expert, const struct safetensors *file, uint64_t step)
{
    const struct expert_counters counters = {
        .updates = metadata_number(file, "update_count", step),
        .examples = metadata_number(file, "examples", 0),
        .skipped = metadata_number(file, "skipped", 0),
    };
    const uint64_t accumulated = metadata_number(file, "accumulated", 0);
    expert_set_counters(expert, &counters,
                        accumulated < expert->optimizer.grad_accumulation ? (unsigned)accumulated : 0);
}

/* 1: loaded; 0: it is damaged, and has been set aside; -errno, logged. */
static int load_step(struct expert *expert, const char *folder, uint64_t step)
{
    char path[PATH_MAX], aside[PATH_MAX], error[SAFETENSORS_ERROR_SIZE];
    struct safetensors *file;
    int rc = make_file_path(path, folder, step, "");
    if (rc == 0)
        rc = make_file_path(aside, folder, step, damaged_suffix);
    if (rc < 0)
        return rc;
    rc = safetensors_open(&file, path, error);
    if (rc == 0)
        rc = safetensors_verify(file, error);
    if (rc == 0) {
        rc = load_tensors(expert, file, path, false);
        if (rc == 0)
            load_counters(expert, file, step);
        safetensors_close(&file);
        return rc < 0 ? rc : 1;
    }
    if (rc != -EPROTO) {
        log_error("cannot load '%s': %s", path, error);
    } else {
        log_warning("checkpoint '%s' is damaged (%s): set aside as '%s'", path, error, aside);
        if (rename(path, aside) != 0)
            log_warning("cannot rename '%s': %s", path, strerror(errno));
        rc = 0;
    }
    safetensors_close(&file);
    return rc;
}

int checkpoint_load(struct expert *expert, const char *dir, const char *uid)
{
    char folder[PATH_MAX];
    struct steps steps;
    if (expert_tensors(expert) == 0)
        return 0;
    int rc = make_folder_path(folder, dir, uid);
    if (rc == 0)
        rc = list_steps(folder, "", &steps);
    if (rc < 0) {
        log_error("cannot look for checkpoints of '%s' in '%s': %s", uid, dir, strerror(-rc));
        return rc;
    }
    remove_temporaries(folder);
    for (unsigned i = 0; i < steps.count && rc == 0; i++)
        rc = load_step(expert, folder, steps.items[i]);
    if (rc == 0 && steps.count > 0) {
        log_error("all %u checkpoints in '%s' are damaged: restore one, or move the folder away to start anew",
                  steps.count, folder);
        rc = -EPROTO;
    }
    free(steps.items);
    return rc;
}

static int replace_uid(char path[PATH_MAX], const char *weights, const char *uid)
{
    static const char mark[] = "{uid}";
    char name[NAME_MAX + 1];
    int rc = checkpoint_uid_name(uid, name, sizeof name);
    size_t used = 0;
    while (rc == 0 && *weights) {
        const bool marked = strncmp(weights, mark, strlen(mark)) == 0;
        const size_t length = marked ? strlen(name) : 1;
        if (used + length >= PATH_MAX)
            return -ENAMETOOLONG;
        memcpy(path + used, marked ? name : weights, length);
        used += length;
        weights += marked ? strlen(mark) : 1;
    }
    path[used] = 0;
    return rc;
}

int checkpoint_load_weights(struct expert *expert, const char *weights, const char *uid)
{
    char path[PATH_MAX], error[SAFETENSORS_ERROR_SIZE];
    struct safetensors *file;
    if (expert_tensors(expert) == 0)
        return 0;
    int rc = replace_uid(path, weights, uid);
    if (rc < 0) {
        log_error("weights of '%s': the path '%s' becomes too long", uid, weights);
        return rc;
    }
    rc = safetensors_open(&file, path, error);
    if (rc == 0)
        rc = safetensors_verify(file, error);
    if (rc < 0)
        log_error("cannot load the weights of '%s' from '%s': %s", uid, path, error);
    else
        rc = load_tensors(expert, file, path, true);
    safetensors_close(&file);
    return rc;
}

/* --- writing ---------------------------------------------------------------------------------------------------------
 */

enum { PAIRS = 9, NUMBER_SIZE = 24 };

static int open_writer(struct safetensors_writer **writer, const char *path, const struct expert *expert,
                       const struct expert_snapshot *snapshot, const char *uid, const struct expert_tensor *named)
{
    char numbers[5][NUMBER_SIZE];
    const uint64_t values[5] = {expert->config->hidden_dim, snapshot->counters.updates, snapshot->counters.examples,
                                snapshot->counters.skipped, snapshot->accumulated};
    for (int i = 0; i < 5; i++)
        snprintf(numbers[i], NUMBER_SIZE, "%" PRIu64, values[i]);
    const struct safetensors_pair pairs[PAIRS] = {
        {"format", "expertd.checkpoint.1"}, {"uid", uid},
        {"block", expert->config->block},   {"optimizer", expert->config->optimizer},
        {"hidden_dim", numbers[0]},         {"update_count", numbers[1]},
        {"examples", numbers[2]},           {"skipped", numbers[3]},
        {"accumulated", numbers[4]},
    };
    const unsigned count = expert_tensors(expert);
    struct safetensors_tensor *tensors = calloc(count, sizeof *tensors);
    if (!tensors)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        tensors[i] = (struct safetensors_tensor){.name = named[i].name, .dtype = DTYPE_FLOAT32, .ndim = named[i].ndim};
        memcpy(tensors[i].dims, named[i].dims, named[i].ndim * sizeof *named[i].dims);
    }
    const int rc = safetensors_writer_open(writer, path, tensors, count, pairs, PAIRS);
    free(tensors);
    return rc;
}

static int write_file(const char *path, const struct expert *expert, const struct expert_snapshot *snapshot,
                      const char *uid)
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
    int rc = named && values ? open_writer(&writer, path, expert, snapshot, uid, named) : -ENOMEM;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        expert_snapshot_tensor(expert, snapshot, i, values);
        rc = safetensors_writer_append(writer, values, named[i].count * sizeof *values);
    }
    if (rc == 0)
        rc = safetensors_writer_commit(&writer);
    safetensors_writer_abort(&writer);
    free(values);
    free(named);
    return rc;
}

/* mkdir -p of the last two levels: <dir>, whose parent must be there, and <uid>. */
static int make_folders(const char *dir, const char *folder)
{
    if (mkdir(dir, 0777) != 0 && errno != EEXIST)
        return -errno;
    return mkdir(folder, 0777) == 0 || errno == EEXIST ? 0 : -errno;
}

int checkpoint_write(const struct expert *expert, const struct expert_snapshot *snapshot, const char *dir,
                     const char *uid, unsigned keep)
{
    char folder[PATH_MAX], path[PATH_MAX];
    const uint64_t step = snapshot->counters.updates;
    int rc = make_folder_path(folder, dir, uid);
    if (rc == 0)
        rc = make_file_path(path, folder, step, "");
    if (rc == 0)
        rc = make_folders(dir, folder);
    if (rc == 0)
        rc = write_file(path, expert, snapshot, uid);
    if (rc == 0)
        rc = prune_kind(folder, "", step, keep);
    if (rc == 0)
        rc = prune_kind(folder, damaged_suffix, step, keep);
    return rc;
}
