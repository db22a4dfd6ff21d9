#include "common/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

/* What is tried again and again is not said each time. */
#define SAY(...)                                                                                                       \
    do {                                                                                                               \
        if (say)                                                                                                       \
            log_error(__VA_ARGS__);                                                                                    \
    } while (0)

/* `say`: log why not. */
static int prepare(const char *run_dir, bool say)
{
    int rc = 0;
    struct stat info;
    const bool made = mkdir(run_dir, S_IRWXU) == 0;
    if (!made && errno != EEXIST) {
        rc = -errno;
        SAY("cannot make the run folder '%s': %s (set server.run_dir)", run_dir, strerror(-rc));
        return rc;
    }
    /* The default may lie in /tmp, where anyone can have put a link or a folder of that name. */
    const int fd = open(run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) {
        rc = -errno;
        SAY("cannot use '%s' as run folder: %s (set server.run_dir)", run_dir, strerror(-rc));
    } else if (info.st_uid != geteuid()) {
        rc = -EPERM;
        SAY("run folder '%s' belongs to user %u, not to this one: set server.run_dir", run_dir, (unsigned)info.st_uid);
    } else if (made && fchmod(fd, S_IRWXU) != 0) {
        rc = -errno;
        SAY("cannot set the mode of run folder '%s': %s", run_dir, strerror(-rc));
    } else if (!made && (info.st_mode & (S_IWGRP | S_IWOTH))) {
        rc = -EPERM;
        SAY("others may write to the run folder '%s': chmod 700 it, or set server.run_dir", run_dir);
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

int owner_prepare_run_dir(const char *run_dir)
{
    return prepare(run_dir, true);
}

static int lock_path(char path[PATH_MAX], const char *run_dir, const char *server, const char *role)
{
    if (strchr(server, '/') || strchr(role, '/'))
        return -EINVAL;
    const int n = snprintf(path, PATH_MAX, "%s/%s.%s.lock", run_dir, server, role);
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* Lock files are never removed by us: a lock on a file that has lost its name would exclude nobody. */
static int open_lock_file(const char *run_dir, const char *server, const char *role, int flags)
{
    char path[PATH_MAX];
    struct stat info;
    const int rc = lock_path(path, run_dir, server, role);
    if (rc < 0)
        return rc;
    const int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, S_IRUSR | S_IWUSR);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode))
        return fd;
    close(fd);
    return -EPERM;
}

long owner_watch_pid(int watch_fd)
{
    char text[32] = {0};
    return pread(watch_fd, text, sizeof text - 1, 0) > 0 ? strtol(text, NULL, 10) : 0;
}

static bool leads_to(const char *run_dir, const char *server, const char *role, int fd)
{
    char path[PATH_MAX];
    struct stat named, held;
    return lock_path(path, run_dir, server, role) == 0 && lstat(path, &named) == 0 && fstat(fd, &held) == 0 &&
           named.st_ino == held.st_ino && named.st_dev == held.st_dev;
}

static void write_pid(int fd)
{
    char text[32];
    const int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    static struct log_burst burst;
    /* The lock is what excludes others; the pid tells them, and who watches, whose it is. */
    if ((ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) &&
        log_burst_allows(&burst, NULL, strerror(errno)))
        log_warning("cannot write the pid to the lock file: %s", strerror(errno));
}

static int acquire(const char *run_dir, const char *server, const char *role, bool say)
{
    const int fd = open_lock_file(run_dir, server, role, O_RDWR | O_CREAT);
    if (fd < 0) {
        SAY("cannot open the lock file %s/%s.%s.lock: %s", run_dir, server, role, strerror(-fd));
        return fd;
    }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
        write_pid(fd);
        return fd;
    }
    int rc = -errno;
    if (rc == -EAGAIN || rc == -EACCES) {
        rc = -EBUSY;
        SAY("server '%s' has a running %s already (process %ld): stop it, or give this one another server.name", server,
            role, owner_watch_pid(fd));
    } else {
        SAY("cannot lock %s/%s.%s.lock: %s", run_dir, server, role, strerror(-rc));
    }
    close(fd);
    return rc;
}

static int take(const char *run_dir, const char *server, const char *role, bool say)
{
    const int rc = prepare(run_dir, say);
    return rc == 0 ? acquire(run_dir, server, role, say) : rc;
}

int owner_acquire(const char *run_dir, const char *server, const char *role)
{
    return take(run_dir, server, role, true);
}

/* A failure that lasts is said when it begins, and then once in so long a time. */
static bool says_again(int error)
{
    static const uint64_t pause_ns = 60 * NS_PER_S;
    static int last;
    static uint64_t next_ns;
    const uint64_t now_ns = clock_now_ns();
    if (error == last && now_ns < next_ns)
        return false;
    last = error;
    next_ns = now_ns + pause_ns;
    return error != 0;
}

int owner_keep(int *owner_fd, const char *run_dir, const char *server, const char *role)
{
    if (leads_to(run_dir, server, role, *owner_fd)) {
        /* The frontend takes a runtime for the one that made the segments by this pid: who emptied the file? */
        if (owner_watch_pid(*owner_fd) != (long)getpid())
            write_pid(*owner_fd);
        (void)says_again(0);
        return 0;
    }
    /* A parent that is gone too (that of a user who has logged out) is not ours to make. */
    if (mkdir(run_dir, S_IRWXU) != 0 && errno != EEXIST) {
        const int rc = -errno;
        if (says_again(rc))
            log_warning("the run folder '%s' was removed, and cannot be made anew: %s; what is running goes on, but "
                        "nothing else of server '%s' finds it (server.run_dir)",
                        run_dir, strerror(-rc), server);
        return rc;
    }
    int fd = take(run_dir, server, role, false);
    if (fd < 0 && says_again(fd))
        fd = take(run_dir, server, role, true);
    if (fd < 0)
        return fd;
    log_warning("the lock file %s/%s.%s.lock was removed: made anew", run_dir, server, role);
    close(*owner_fd);
    *owner_fd = fd;
    return 0;
}

bool owner_alive(const char *run_dir, const char *server, const char *role)
{
    const int fd = owner_watch(run_dir, server, role);
    const bool alive = owner_watch_alive(fd);
    if (fd >= 0)
        close(fd);
    return alive;
}

int owner_watch(const char *run_dir, const char *server, const char *role)
{
    return open_lock_file(run_dir, server, role, O_RDONLY);
}

bool owner_watch_alive(int watch_fd)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    return watch_fd >= 0 && fcntl(watch_fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

void owner_watch_keep(int *watch_fd, const char *run_dir, const char *server, const char *role)
{
    if (*watch_fd >= 0 && leads_to(run_dir, server, role, *watch_fd))
        return;
    const int fd = owner_watch(run_dir, server, role);
    if (fd < 0)
        return;
    if (*watch_fd >= 0 && owner_watch_alive(*watch_fd) && !owner_watch_alive(fd)) {
        close(fd); /* its owner will take the new one in a moment */
        return;
    }
    if (*watch_fd >= 0)
        close(*watch_fd);
    *watch_fd = fd;
}
