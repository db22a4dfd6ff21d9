/* Reads and writes files of compiled kernels. */
#include "runtime/device/program_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A driver's own checks of a binary may be none: what a full disk or a crash has left must not come that far. */
struct header {
    char magic[8];
    uint64_t length, hash; /* of what follows */
};
static const char magic[8] = "expertd1";

uint64_t program_file_hash(uint64_t hash, const void *bytes, size_t size)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static int read_all(int fd, void *to, size_t size)
{
    for (size_t done = 0; done < size;) {
        const ssize_t n = read(fd, (char *)to + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EBADMSG;
        done += (size_t)n;
    }
    return 0;
}

static int read_program(int fd, unsigned char **bytes, size_t *length)
{
    struct stat status;
    struct header header;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return -EPERM;
    const int result = read_all(fd, &header, sizeof header);
    if (result != 0)
        return result;
    if (memcmp(header.magic, magic, sizeof magic) != 0 || header.length == 0 ||
        header.length > PROGRAM_FILE_MAX_BYTES || (uint64_t)status.st_size != sizeof header + header.length)
        return -EBADMSG;
    *length = (size_t)header.length;
    *bytes = malloc(*length);
    if (*bytes == NULL)
        return -ENOMEM;
    const int read = read_all(fd, *bytes, *length);
    if (read != 0)
        return read;
    return program_file_hash(PROGRAM_FILE_HASH, *bytes, *length) == header.hash ? 0 : -EBADMSG;
}

int program_file_read(const char *path, unsigned char **bytes, size_t *length)
{
    *bytes = NULL;
    *length = 0;
    /* Without waiting: the other end of a pipe may never come. */
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return errno == ELOOP || errno == ENXIO ? -EPERM : -errno;
    const int result = read_program(fd, bytes, length);
    close(fd);
    if (result != 0) {
        free(*bytes);
        *bytes = NULL;
        *length = 0;
    }
    return result;
}

int program_file_write(const char *path, const unsigned char *bytes, size_t length)
{
    char temporary[4096];
    if (length == 0 || length > PROGRAM_FILE_MAX_BYTES)
        return -EINVAL;
    struct header header = {.length = length, .hash = program_file_hash(PROGRAM_FILE_HASH, bytes, length)};
    memcpy(header.magic, magic, sizeof magic);
    if (snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid()) >= (int)sizeof temporary)
        return -ENAMETOOLONG;
    unlink(temporary); /* of one that crashed and had our number */
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (file == NULL) {
        const int result = -errno;
        if (fd >= 0)
            close(fd);
        return result;
    }
    int result = fwrite(&header, sizeof header, 1, file) == 1 && fwrite(bytes, 1, length, file) == length ? 0 : -EIO;
    if (fclose(file) != 0 && result == 0)
        result = -errno;
    if (result == 0 && rename(temporary, path) != 0)
        result = -errno;
    if (result != 0)
        unlink(temporary);
    return result;
}
