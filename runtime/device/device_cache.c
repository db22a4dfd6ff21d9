/* The folder where a device's compiled kernels are kept: one for each process, and empty after a start that did not
 * come through the compilation. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "runtime/device/device_private.h"

enum { MAX_CACHES = 64, OPEN_FOLDERS = 16 };

static char opened[DEVICE_PATH_SIZE]; /* a process has one: PoCL reads the variable once */

static int make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const int made = mkdir(path, 0700);
        *slash = '/';
        if (made != 0 && errno != EEXIST)
            return -errno;
    }
    return mkdir(path, 0700) != 0 && errno != EEXIST ? -errno : 0;
}

/* Locks <path>/lock for the life of the process (the descriptor is left open for that). */
static int lock_folder(const char *path)
{
    char name[DEVICE_PATH_SIZE + 8];
    snprintf(name, sizeof name, "%s/lock", path);
    const int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0; /* cppcheck-suppress resourceLeak */
    const int result = -errno;
    close(fd);
    return result;
}

/* The first folder below the base that no other process has. Two processes that shared a PoCL cache have crashed. */
static int take_folder(const char *base, const char *name, char path[DEVICE_PATH_SIZE])
{
    int result = -EBUSY;
    for (unsigned i = 0; i < MAX_CACHES && result == -EBUSY; i++) {
        if (i == 0)
            snprintf(path, DEVICE_PATH_SIZE, "%s/%s", base, name);
        else
            snprintf(path, DEVICE_PATH_SIZE, "%s/%s.%u", base, name, i);
        result = make_folders(path);
        if (result == 0)
            result = lock_folder(path);
        if (result == -EWOULDBLOCK)
            result = -EBUSY;
    }
    return result;
}

static void cache_base(const struct config_device *config, char *path, size_t size)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (config->cache_dir[0] != '\0')
        snprintf(path, size, "%s", config->cache_dir);
    else if (xdg != NULL && xdg[0] == '/')
        snprintf(path, size, "%s/expertd", xdg);
    else
        snprintf(path, size, "%s/.cache/expertd", home != NULL && home[0] == '/' ? home : "/tmp");
}

/* Where nothing may be written, PoCL finds no device at all: so it gets a folder of ours where temporary ones are, if
 * it can be had. */
static int take_spare(const char *name, char path[DEVICE_PATH_SIZE])
{
    char base[DEVICE_PATH_SIZE / 2];
    struct stat found;
    const char *temporary = getenv("TMPDIR");
    snprintf(base, sizeof base, "%s/expertd-cache-%u", temporary != NULL && temporary[0] == '/' ? temporary : "/tmp",
             (unsigned)geteuid());
    if (mkdir(base, 0700) != 0 && errno != EEXIST)
        return -errno;
    if (lstat(base, &found) != 0 || !S_ISDIR(found.st_mode) || found.st_uid != geteuid() || (found.st_mode & 022) != 0)
        return -EPERM;
    return take_folder(base, name, path);
}

void device_cache_open(const struct config_device *config, char path[DEVICE_PATH_SIZE])
{
    char base[DEVICE_PATH_SIZE / 2];
    if (opened[0] != '\0') {
        memcpy(path, opened, DEVICE_PATH_SIZE);
        return;
    }
    cache_base(config, base, sizeof base);
    int result = take_folder(base, config->name, path);
    if (result != 0) {
        char wanted[DEVICE_PATH_SIZE];
        memcpy(wanted, path, sizeof wanted);
        const int spare = take_spare(config->name, path);
        log_warning("device %s: no folder for compiled kernels at %s: %s%s%s (cache_dir names another)", config->name,
                    wanted, strerror(-result),
                    spare == 0 ? "; they are kept in " : "; they are compiled at every start", spare == 0 ? path : "");
        result = spare;
    }
    if (result != 0) {
        path[0] = '\0';
        return;
    }
    memcpy(opened, path, DEVICE_PATH_SIZE);
    setenv("POCL_CACHE_DIR", path, 1);
}

void device_cache_prepare(const struct config_device *config)
{
    char path[DEVICE_PATH_SIZE];
    device_cache_open(config, path);
}

/* --- starts that did not come through ----------------------------------------------------------------------------- */

/* This process has written the mark, and what it then found in the folder is of starts that came through. */
static bool begun;

static bool mark_path(char path[DEVICE_PATH_SIZE + 16])
{
    snprintf(path, DEVICE_PATH_SIZE + 16, "%s/compiling", opened);
    return opened[0] != '\0';
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path) == 0 || errno == ENOENT ? 0 : -errno;
}

/* Removes what is in the folder: all but our lock and what was measured, which is checked when it is read; or only the
 * temporary files that PoCL leaves, and more of them when it is killed. Links are removed, not followed. */
static int clean_folder(bool all)
{
    char path[DEVICE_PATH_SIZE + NAME_MAX + 2];
    DIR *folder = opendir(opened);
    int result = folder == NULL ? -errno : 0;
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        const char *name = entry->d_name;
        const bool ours = strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "lock") == 0 ||
                          strncmp(name, "tuning-", strlen("tuning-")) == 0;
        if (ours || !(all || strncmp(name, "tempfile", strlen("tempfile")) == 0))
            continue;
        snprintf(path, sizeof path, "%s/%s", opened, name);
        if (nftw(path, remove_entry, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) != 0 && result == 0)
            result = -EIO;
    }
    if (folder != NULL)
        closedir(folder);
    return result;
}

void device_cache_begin(const struct config_device *config)
{
    char mark[DEVICE_PATH_SIZE + 16];
    device_cache_prepare(config);
    if (!mark_path(mark))
        return;
    const bool marked = access(mark, F_OK) == 0;
    const int result = clean_folder(marked);
    if (marked)
        log_warning(
            "device %s: the last start ended while it compiled kernels, perhaps of those it had kept: begins with "
            "none of them (%s)%s%s",
            config->name, opened,
            result == 0 ? "" : ", of which some cannot be removed: ", result == 0 ? "" : strerror(-result));
    const int fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    begun = fd >= 0 && (!marked || result == 0);
    if (fd >= 0)
        close(fd);
    else
        log_warning("device %s: cannot write %s: %s", config->name, mark, strerror(errno));
}

/* --- drivers that came through ------------------------------------------------------------------------------------ */

static bool drivers_path(char path[DEVICE_PATH_SIZE + 16])
{
    snprintf(path, DEVICE_PATH_SIZE + 16, "%s/drivers", opened);
    return opened[0] != '\0';
}

bool device_cache_knows_drivers(uint64_t print)
{
    char path[DEVICE_PATH_SIZE + 16];
    uint64_t known = 0;
    /* Who writes no mark neither empties the folder after a start that they ended, nor has the next one empty it. */
    if (!begun || !drivers_path(path))
        return false;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
    const bool read = file != NULL && fscanf(file, "%" SCNx64, &known) == 1;
    if (file != NULL)
        fclose(file);
    else if (fd >= 0)
        close(fd);
    return read && known == print;
}

void device_cache_note_drivers(uint64_t print)
{
    char path[DEVICE_PATH_SIZE + 16];
    if (!drivers_path(path))
        return;
    /* Not written, or cut short, it is another number: they are tried again. */
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd >= 0) {
        dprintf(fd, "%016" PRIx64 "\n", print);
        close(fd);
    }
}

void device_cache_settled(void)
{
    char mark[DEVICE_PATH_SIZE + 16];
    begun = false;
    if (mark_path(mark) && unlink(mark) != 0 && errno != ENOENT)
        log_warning("cannot remove %s: %s", mark, strerror(errno));
}

void device_cache_end(void)
{
    if (opened[0] != '\0')
        (void)clean_folder(false);
}
