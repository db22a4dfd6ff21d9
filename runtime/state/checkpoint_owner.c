#include "runtime/state/checkpoint_owner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/uid.h"
#include "runtime/state/checkpoint.h"

struct checkpoint_owner {
    const char *dir;
    int fd;        /* -1: nothing was claimed yet */
    off_t *places; /* of what is claimed */
    size_t count, capacity;
};

static int make_path(const struct checkpoint_owner *owner, char path[PATH_MAX])
{
    const int n = snprintf(path, PATH_MAX, "%s/.lock", owner->dir);
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int open_lock(const struct checkpoint_owner *owner, int *fd)
{
    char path[PATH_MAX];
    int rc = make_path(owner, path);
    if (rc == 0)
        rc = checkpoint_make_folder(owner->dir);
    if (rc < 0)
        return rc;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, S_IRUSR | S_IWUSR);
    return *fd < 0 ? -errno : 0;
}

/* Two uids of one place would keep each other out; there are 2^62. */
static off_t place_of(const char *uid)
{
    return (off_t)(uid_hash(uid, strlen(uid)) >> 2);
}

static int lock(int fd, off_t place)
{
    struct flock claim = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = place, .l_len = 1};
    if (fcntl(fd, F_OFD_SETLK, &claim) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

int checkpoint_owner_create(struct checkpoint_owner **owner, const char *dir)
{
    *owner = calloc(1, sizeof **owner);
    if (!*owner)
        return -ENOMEM;
    (*owner)->dir = dir;
    (*owner)->fd = -1;
    return 0;
}

void checkpoint_owner_destroy(struct checkpoint_owner **owner)
{
    if (!*owner)
        return;
    if ((*owner)->fd >= 0)
        close((*owner)->fd);
    free((*owner)->places);
    free(*owner);
    *owner = NULL;
}

static int reserve(struct checkpoint_owner *owner)
{
    if (owner->count < owner->capacity)
        return 0;
    const size_t capacity = owner->capacity ? 2 * owner->capacity : 64;
    off_t *places = realloc(owner->places, capacity * sizeof *places);
    if (!places)
        return -ENOMEM;
    owner->places = places;
    owner->capacity = capacity;
    return 0;
}

int checkpoint_owner_take(struct checkpoint_owner *owner, const char *uid)
{
    const off_t place = place_of(uid);
    int rc = reserve(owner);
    if (rc == 0 && owner->fd < 0)
        rc = open_lock(owner, &owner->fd);
    if (rc == 0)
        rc = lock(owner->fd, place);
    if (rc == 0)
        owner->places[owner->count++] = place;
    else if (rc == -EBUSY)
        log_error("another running server has the checkpoints of '%s' in '%s': give each its own checkpoint.dir, or "
                  "stop the other",
                  uid, owner->dir);
    else
        log_error("cannot claim the checkpoints of '%s' in the folder '%s': %s", uid, owner->dir, strerror(-rc));
    return rc;
}

void checkpoint_owner_release(struct checkpoint_owner *owner, const char *uid)
{
    const off_t place = place_of(uid);
    struct flock claim = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = place, .l_len = 1};
    size_t kept = 0;
    for (size_t i = 0; i < owner->count; i++)
        if (owner->places[i] != place)
            owner->places[kept++] = owner->places[i];
    if (kept == owner->count)
        return;
    owner->count = kept;
    if (fcntl(owner->fd, F_OFD_SETLK, &claim) != 0)
        log_warning("cannot give up the claim of the checkpoints of '%s': %s", uid, strerror(errno));
}

static bool leads_to_it(const struct checkpoint_owner *owner)
{
    char path[PATH_MAX];
    struct stat held, named;
    return make_path(owner, path) == 0 && fstat(owner->fd, &held) == 0 && stat(path, &named) == 0 &&
           held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

int checkpoint_owner_renew(struct checkpoint_owner *owner)
{
    if (owner->fd < 0 || leads_to_it(owner))
        return 0;
    int fd;
    int rc = open_lock(owner, &fd);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < owner->count && rc == 0; i++)
        rc = lock(fd, owner->places[i]);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    close(owner->fd);
    owner->fd = fd;
    log_warning("the folder of checkpoints '%s' was removed or replaced: its experts were claimed there again",
                owner->dir);
    return 0;
}
