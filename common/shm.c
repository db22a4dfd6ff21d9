#include "common/shm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Since Linux 5.14; the C library's header may be older than the kernel. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Where shm_open(3) keeps segments on Linux. There is no call that lists them, so shm_each reads the folder. */
static const char shm_folder[] = "/dev/shm";

int shm_name(char name[SHM_NAME_SIZE], const char *server, const char *format, ...)
{
    int n = snprintf(name, SHM_NAME_SIZE, "/expertd.%s.", server);
    if (n < 0 || n >= SHM_NAME_SIZE)
        return -ENAMETOOLONG;
    va_list args;
    va_start(args, format);
    const int rest = vsnprintf(name + n, SHM_NAME_SIZE - (size_t)n, format, args);
    va_end(args);
    if (rest < 0 || rest >= SHM_NAME_SIZE - n)
        return -ENAMETOOLONG;
    return strchr(name + 1, '/') ? -EINVAL : 0;
}

/* tmpfs gives pages or says ENOSPC; a write to a page that it could not give would be SIGBUS. */
static int commit_file(int fd, size_t offset, size_t length)
{
    while (length > 0 && fallocate(fd, 0, (off_t)offset, (off_t)length) != 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

/* The pages become this process's own, and filled: a page that was only allocated would be given back when a later,
 * overlapping fallocate fails. */
static int populate(void *mapping, size_t offset, size_t length)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t first = offset / page * page;
    const size_t end = offset + length;
    char *bytes = mapping;
    if (length == 0)
        return 0;
    if (madvise(bytes + first, shm_round_up(end, page) - first, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL)
        return errno == EFAULT ? -ENOSPC : -errno;
    /* An older kernel: a write that changes nothing, whatever the other processes do to the same word. */
    for (size_t at = first; at < end; at += page)
        atomic_fetch_or_explicit((_Atomic uint32_t *)(void *)(bytes + at), 0, memory_order_relaxed);
    return 0;
}

static int size_and_map(int fd, size_t size, size_t committed, void **mapping)
{
    /* O_CREAT's mode passes through the umask, which can only take bits away from 0600; give them back. */
    if (fchmod(fd, S_IRUSR | S_IWUSR) != 0 || ftruncate(fd, (off_t)size) != 0)
        return -errno;
    int rc = commit_file(fd, 0, committed);
    if (rc < 0)
        return rc;
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    rc = populate(map, 0, committed);
    if (rc < 0) {
        munmap(map, size);
        return rc;
    }
    *mapping = map;
    return 0;
}

int shm_create_segment(const char *name, size_t size, size_t committed, void **mapping)
{
    if (size == 0 || size > INT64_MAX || committed > size)
        return -EINVAL;
    const int fd = shm_open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0)
        return -errno;
    const int rc = size_and_map(fd, size, committed, mapping);
    close(fd);
    if (rc < 0)
        shm_unlink(name);
    return rc;
}

static int open_own_segment(const char *name, struct stat *info)
{
    const int fd = shm_open(name, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return errno == EACCES || errno == ELOOP ? -EPERM : -errno;
    int rc = 0;
    if (fstat(fd, info) != 0)
        rc = -errno;
    else if (!S_ISREG(info->st_mode) || info->st_uid != geteuid() || (info->st_mode & (S_IRWXG | S_IRWXO)))
        rc = -EPERM;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

int shm_attach_segment(const char *name, size_t least, void **mapping, size_t *size)
{
    struct stat info = {0};
    const int fd = open_own_segment(name, &info);
    if (fd < 0)
        return fd;
    int rc = 0;
    if (info.st_size <= 0 || (uint64_t)info.st_size < least) {
        rc = -EPROTO;
    } else {
        void *map = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            rc = -errno;
        } else {
            *mapping = map;
            *size = (size_t)info.st_size;
        }
    }
    close(fd);
    return rc;
}

int shm_commit(const char *name, void *mapping, size_t offset, size_t length)
{
    struct stat info = {0};
    if (length == 0)
        return 0;
    const int fd = open_own_segment(name, &info);
    if (fd < 0)
        return fd;
    /* fallocate would make the file longer than what the others have mapped. */
    int rc = info.st_size < 0 || offset > (size_t)info.st_size || length > (size_t)info.st_size - offset ? -EINVAL : 0;
    if (rc == 0)
        rc = commit_file(fd, offset, length);
    close(fd);
    return rc < 0 ? rc : populate(mapping, offset, length);
}

void shm_populate(void *mapping, size_t offset, size_t length)
{
    (void)populate(mapping, offset, length);
}

void shm_detach(void *mapping, size_t size)
{
    if (mapping)
        munmap(mapping, size);
}

const char *shm_path(const char *name, char *text)
{
    snprintf(text, SHM_NAME_SIZE + 16, "%s%s", shm_folder, name);
    return text;
}

int shm_remove(const char *name)
{
    char path[SHM_NAME_SIZE + 16];
    if (shm_unlink(name) == 0)
        return 0;
    const int rc = -errno;
    /* What was planted there, or made by mistake, is in the way like any other leftover. */
    return rc == -EISDIR && rmdir(shm_path(name, path)) == 0 ? 0 : rc;
}

bool shm_named(const char *name, size_t size, const void *content, size_t content_bytes)
{
    char path[SHM_NAME_SIZE + 16];
    struct stat info;
    if (stat(shm_path(name, path), &info) != 0 || !S_ISREG(info.st_mode) || (size_t)info.st_size != size)
        return false;
    if (!content)
        return true;
    char found[256];
    const int fd = shm_open(name, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE; /* not known: as if it did */
    const size_t bytes = content_bytes < sizeof found ? content_bytes : sizeof found;
    const bool same = pread(fd, found, bytes, 0) == (ssize_t)bytes && memcmp(found, content, bytes) == 0;
    close(fd);
    return same;
}

int shm_hold(const char *name)
{
    struct stat info = {0};
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const int fd = open_own_segment(name, &info);
    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return fd;
    const int rc = errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
    close(fd);
    return rc;
}

bool shm_held(const char *name, int hold_fd)
{
    struct stat info = {0}, held;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const int fd = open_own_segment(name, &info);
    if (fd < 0)
        return false;
    const bool own =
        hold_fd >= 0 && fstat(hold_fd, &held) == 0 && held.st_ino == info.st_ino && held.st_dev == info.st_dev;
    const bool other = !own && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    return other;
}

uint64_t shm_changes(void)
{
    struct stat info;
    if (stat(shm_folder, &info) != 0)
        return 0;
    return (uint64_t)info.st_mtim.tv_sec * UINT64_C(1000000000) + (uint64_t)info.st_mtim.tv_nsec;
}

int shm_each(const char *server, const char *prefix, int (*visit)(const char *name, void *context), void *context)
{
    char wanted[SHM_NAME_SIZE];
    int rc = shm_name(wanted, server, "%s", prefix);
    if (rc < 0)
        return rc;
    DIR *folder = opendir(shm_folder);
    if (!folder)
        return -errno;
    const size_t wanted_length = strlen(wanted) - 1;
    const struct dirent *entry;
    while (rc == 0 && (entry = readdir(folder)) != NULL) {
        char name[SHM_NAME_SIZE];
        if (strncmp(entry->d_name, wanted + 1, wanted_length) != 0)
            continue;
        const int n = snprintf(name, sizeof name, "/%s", entry->d_name);
        if (n > 0 && (size_t)n < sizeof name)
            rc = visit(name, context);
    }
    closedir(folder);
    return rc;
}
