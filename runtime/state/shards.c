#include "runtime/state/shards.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/state/json_text.h"

enum { MAX_DEPTH = 5, SHOWN = 400 };

static const char index_suffix[] = ".safetensors.index.json", file_suffix[] = ".safetensors";

struct shard {
    const char *name; /* the index's, or the whole path */
    struct safetensors *file;
};

struct shards {
    char path[PATH_MAX];
    char folder[PATH_MAX];
    struct json_object *index; /* owns names; NULL: one file */
    struct json_object *map;
    struct shard *items; /* files that were opened */
    unsigned count;
};

static int refuse(char *error, int rc, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int refuse(char *error, int rc, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, SHARDS_ERROR_SIZE, format, args);
    va_end(args);
    return rc;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), wanted = strlen(end);
    return length >= wanted && strcmp(text + length - wanted, end) == 0;
}

/* --- the index ---------------------------------------------------------------------------------------------------- */

/* A file of the index's own folder, as its writer names it; nothing that leads elsewhere, or is hidden. */
static bool is_plain_name(const char *name)
{
    return *name && *name != '.' && strchr(name, '/') == NULL && strlen(name) <= NAME_MAX &&
           ends_with(name, file_suffix);
}

static int check_map(struct shards *shards, char *error)
{
    if (!json_object_object_get_ex(shards->index, "weight_map", &shards->map) ||
        !json_object_is_type(shards->map, json_type_object))
        return refuse(error, -EPROTO, "'%.*s' is no index of a model: it has no \"weight_map\"", SHOWN, shards->path);
    json_object_object_foreach(shards->map, name, file)
    {
        if (!json_object_is_type(file, json_type_string))
            return refuse(error, -EPROTO, "'%.*s' names no file for tensor '%.200s'", SHOWN, shards->path, name);
        if (!is_plain_name(json_object_get_string(file)))
            return refuse(error, -EPROTO,
                          "'%.*s' says that tensor '%.200s' is in '%.200s', which is no safetensors file of its folder",
                          SHOWN, shards->path, name, json_object_get_string(file));
    }
    return 0;
}

static int parse_index(struct shards *shards, const char *bytes, size_t length, char *error)
{
    static const char mark[] = "\xef\xbb\xbf"; /* of UTF-8, which some editors leave */
    char problem[SAFETENSORS_ERROR_SIZE];
    const size_t lead = length >= strlen(mark) && memcmp(bytes, mark, strlen(mark)) == 0 ? strlen(mark) : 0;
    bytes += lead;
    length -= lead;
    const int rc = json_text_parse(&shards->index, bytes, length, MAX_DEPTH, "it", problem, sizeof problem);
    if (rc == -ENOMEM)
        return refuse(error, rc, "there is not enough memory for the index '%.*s'", SHOWN, shards->path);
    if (rc < 0) {
        char what[SAFETENSORS_ERROR_SIZE];
        const bool other = length > 0 && *bytes != '{' && safetensors_other(bytes, length, what);
        return refuse(error, rc, "'%.*s' is no index of a model: %s", SHOWN, shards->path, other ? what : problem);
    }
    return check_map(shards, error);
}

static int read_whole(int fd, char *bytes, size_t length)
{
    size_t done = 0;
    while (done < length) {
        const ssize_t n = read(fd, bytes + done, length - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EPROTO;
        done += (size_t)n;
    }
    return 0;
}

static int read_index(struct shards *shards, const char *path, char *error)
{
    struct stat info = {0};
    /* O_NONBLOCK: opening a FIFO must not hang. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = fd < 0 || fstat(fd, &info) != 0 ? -errno : 0;
    char *bytes = NULL;
    if (rc < 0)
        refuse(error, rc, "'%.*s' cannot be opened: %s", SHOWN, path, strerror(-rc));
    else if (!S_ISREG(info.st_mode) || info.st_size > SHARDS_MAX_INDEX)
        rc = refuse(error, -EPROTO, "'%.*s' is no index of a model: it is %s", SHOWN, path,
                    S_ISREG(info.st_mode) ? "far too long" : "no regular file");
    if (rc == 0) {
        bytes = malloc((size_t)info.st_size + 1);
        rc = bytes ? read_whole(fd, bytes, (size_t)info.st_size) : -ENOMEM;
        if (rc < 0)
            refuse(error, rc, "'%.*s' cannot be read: %s", SHOWN, path,
                   rc == -EPROTO ? "it was shortened while it was read" : strerror(-rc));
    }
    if (rc == 0)
        rc = parse_index(shards, bytes, (size_t)info.st_size, error);
    free(bytes);
    if (fd >= 0)
        close(fd);
    return rc;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

/* The open file; name: what the index says, or for a model of one file its path. */
static int open_shard(struct shards *shards, const char *name, const struct safetensors **file, char *error)
{
    char path[2 * PATH_MAX], problem[SAFETENSORS_ERROR_SIZE];
    for (unsigned i = 0; i < shards->count; i++) {
        if (strcmp(shards->items[i].name, name) == 0) {
            *file = shards->items[i].file;
            return 0;
        }
    }
    struct shard *items = realloc(shards->items, (shards->count + 1) * sizeof *items);
    if (!items)
        return refuse(error, -ENOMEM, "there is not enough memory");
    shards->items = items;
    if (shards->index)
        snprintf(path, sizeof path, "%s/%s", shards->folder, name);
    else
        snprintf(path, sizeof path, "%s", name);
    struct shard *shard = &items[shards->count];
    *shard = (struct shard){.name = name};
    const int rc = safetensors_open(&shard->file, path, problem);
    if (rc == -ENOENT && shards->index)
        return refuse(error, rc, "'%.*s' is missing, which '%s' names (was it downloaded?)", SHOWN, path,
                      strrchr(shards->path, '/') ? strrchr(shards->path, '/') + 1 : shards->path);
    if (rc < 0)
        return refuse(error, rc, "'%.*s': %s", SHOWN, path, problem);
    shards->count++;
    *file = shard->file;
    return 0;
}

static int open_one(struct shards *shards, const char *path, char *error)
{
    const struct safetensors *file;
    if (path != shards->path)
        snprintf(shards->path, sizeof shards->path, "%s", path);
    return open_shard(shards, shards->path, &file, error);
}

/* --- a folder ----------------------------------------------------------------------------------------------------- */

/* The names in the folder that end so: how many, and one of them. */
static unsigned count_names(const char *folder, const char *end, char found[NAME_MAX + 1])
{
    unsigned count = 0;
    DIR *directory = opendir(folder);
    const struct dirent *entry;
    while (directory && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.' || !ends_with(entry->d_name, end))
            continue;
        count++;
        snprintf(found, NAME_MAX + 1, "%s", entry->d_name);
    }
    if (directory)
        closedir(directory);
    return count;
}

static bool exists(const char *folder, const char *name)
{
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

/* The usual names first, and then the only one of its kind. */
static int open_folder(struct shards *shards, const char *folder, char *error)
{
    char name[NAME_MAX + 1] = "model.safetensors.index.json", path[PATH_MAX + NAME_MAX + 2];
    unsigned count = exists(folder, name) ? 1 : count_names(folder, index_suffix, name);
    const bool indexed = count > 0;
    if (!indexed) {
        snprintf(name, sizeof name, "model.safetensors");
        count = exists(folder, name) ? 1 : count_names(folder, file_suffix, name);
    }
    if (count == 0)
        return refuse(error, -ENOENT, "'%.*s' has no safetensors file", SHOWN, folder);
    if (count > 1)
        return refuse(error, -EPROTO, "'%.*s' has %u %s and none that is called model%s: give one of them", SHOWN,
                      folder, count, indexed ? "indices" : "safetensors files, but no index,",
                      indexed ? index_suffix : file_suffix);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (strlen(path) >= PATH_MAX)
        return refuse(error, -ENAMETOOLONG, "'%.*s...' is too long", SHOWN, path);
    if (!indexed)
        return open_one(shards, path, error);
    memcpy(shards->path, path, strlen(path) + 1);
    snprintf(shards->folder, sizeof shards->folder, "%s", folder);
    return read_index(shards, shards->path, error);
}

static void folder_of(const char *path, char folder[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(folder, PATH_MAX, ".");
    else
        snprintf(folder, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

bool shards_is_index(const struct shards *shards)
{
    return ends_with(shards->path, ".json");
}

static int open_path(struct shards *shards, char *error)
{
    struct stat info;
    char folder[PATH_MAX];
    if (stat(shards->path, &info) != 0)
        return refuse(error, -errno, "'%.*s' cannot be opened: %s", SHOWN, shards->path, strerror(errno));
    if (S_ISDIR(info.st_mode)) {
        memcpy(folder, shards->path, sizeof folder);
        return open_folder(shards, folder, error);
    }
    if (!shards_is_index(shards))
        return open_one(shards, shards->path, error);
    folder_of(shards->path, shards->folder);
    return read_index(shards, shards->path, error);
}

int shards_open(struct shards **shards, const char *path, char error[SHARDS_ERROR_SIZE])
{
    error[0] = 0;
    *shards = calloc(1, sizeof **shards);
    if (!*shards)
        return refuse(error, -ENOMEM, "there is not enough memory");
    int rc = strlen(path) < PATH_MAX ? 0 : refuse(error, -ENAMETOOLONG, "'%.*s...' is too long", SHOWN, path);
    if (rc == 0) {
        memcpy((*shards)->path, path, strlen(path) + 1);
        rc = open_path(*shards, error);
    }
    if (rc < 0)
        shards_close(shards);
    return rc;
}

int shards_parse(struct shards **shards, const char *folder, const char *bytes, size_t length,
                 char error[SHARDS_ERROR_SIZE])
{
    error[0] = 0;
    *shards = calloc(1, sizeof **shards);
    if (!*shards)
        return refuse(error, -ENOMEM, "there is not enough memory");
    snprintf((*shards)->folder, sizeof(*shards)->folder, "%s", folder);
    snprintf((*shards)->path, sizeof(*shards)->path, "%s/model%s", folder, index_suffix);
    const int rc = parse_index(*shards, bytes, length, error);
    if (rc < 0)
        shards_close(shards);
    return rc;
}

void shards_close(struct shards **shards)
{
    if (!*shards)
        return;
    for (unsigned i = 0; i < (*shards)->count; i++)
        safetensors_close(&(*shards)->items[i].file);
    free((*shards)->items);
    json_object_put((*shards)->index);
    free(*shards);
    *shards = NULL;
}

/* --- tensors ------------------------------------------------------------------------------------------------------ */

int shards_find(struct shards *shards, const char *name, const struct safetensors **file,
                const struct safetensors_tensor **tensor, char error[SHARDS_ERROR_SIZE])
{
    struct json_object *value = NULL;
    const char *shard = shards->path;
    error[0] = 0;
    *tensor = NULL;
    if (shards->index && !json_object_object_get_ex(shards->map, name, &value))
        return refuse(error, -ENOENT, "'%.*s' has no tensor '%.200s'", SHOWN, shards->path, name);
    if (value)
        shard = json_object_get_string(value);
    const int rc = open_shard(shards, shard, file, error);
    if (rc < 0)
        return rc == -ENOENT ? -EPROTO : rc; /* a file that is not there is no tensor that is not */
    *tensor = safetensors_find(*file, name);
    if (*tensor)
        return 0;
    return value ? refuse(error, -EPROTO, "'%.*s' says that '%s' has tensor '%.200s', but it has not", SHOWN,
                          shards->path, shard, name)
                 : refuse(error, -ENOENT, "'%.*s' has no tensor '%.200s'", SHOWN, shards->path, name);
}

bool shards_has(const struct shards *shards, const char *name)
{
    if (shards->index)
        return json_object_object_get_ex(shards->map, name, NULL);
    return shards->count > 0 && safetensors_find(shards->items[0].file, name) != NULL;
}

const char *shards_path(const struct shards *shards)
{
    return shards->path;
}

const char *shards_example(const struct shards *shards, const char *prefix)
{
    const size_t length = strlen(prefix);
    for (unsigned i = 0; !shards->index && i < safetensors_count(shards->items[0].file); i++) {
        const char *name = safetensors_tensor(shards->items[0].file, i)->name;
        if (strncmp(name, prefix, length) == 0)
            return name;
    }
    if (!shards->index)
        return NULL;
    json_object_object_foreach(shards->map, name, file)
    {
        (void)file;
        if (strncmp(name, prefix, length) == 0)
            return name;
    }
    return NULL;
}
