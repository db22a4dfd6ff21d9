#include "common/config_live.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_diff.h"
#include "common/log.h"
#include "common/uid.h"

enum { LIVE_MAX = 64 << 20 };
static const char head[] = "# expertd live changes of ";

static int make_path(char path[PATH_MAX], const struct config *file, const char *ending)
{
    const int length = snprintf(path, PATH_MAX, "%s/%s.%s", file->server.run_dir, file->server.name, ending);
    return length < 0 || length >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* Ours alone, like all in the run folder. */
static int open_own(const char *path, size_t *size)
{
    struct stat found;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    int result = fstat(fd, &found) == 0 ? 0 : -errno;
    if (result == 0 && (!S_ISREG(found.st_mode) || found.st_uid != geteuid() || (found.st_mode & 022) != 0))
        result = -EPERM;
    if (result == 0 && found.st_size > LIVE_MAX)
        result = -EFBIG;
    if (result < 0) {
        close(fd);
        return result;
    }
    *size = (size_t)found.st_size;
    return fd;
}

static int read_text(const char *path, char **text, size_t *length)
{
    size_t size = 0, used = 0;
    const int fd = open_own(path, &size);
    if (fd < 0)
        return fd;
    int result = 0;
    *text = malloc(size + 1);
    if (!*text)
        result = -ENOMEM;
    while (result == 0 && used < size) {
        const ssize_t n = read(fd, *text + used, size - used);
        if (n > 0)
            used += (size_t)n;
        else if (n == 0 || errno != EINTR)
            result = n == 0 ? -EIO : -errno;
    }
    close(fd);
    if (result == 0) {
        (*text)[used] = 0;
        *length = used;
    } else {
        free(*text);
        *text = NULL;
    }
    return result;
}

static bool is_of(const char *text, uint64_t base)
{
    char line[sizeof head + 20];
    snprintf(line, sizeof line, "%s%016" PRIx64 "\n", head, base);
    return strncmp(text, line, strlen(line)) == 0;
}

int config_live_read(struct config *live, const struct config *file)
{
    char path[PATH_MAX], *text = NULL;
    size_t length = 0;
    int result = make_path(path, file, "live.yaml");
    if (result == 0)
        result = read_text(path, &text, &length);
    if (result == -ENOENT)
        return 0;
    if (result == 0 && !is_of(text, config_diff_fingerprint(file)))
        log_info("'%s' has changes of another configuration than this one: they count no more", path);
    else if (result < 0)
        log_error("cannot read the live changes in '%s': %s; the experts are as the configuration says", path,
                  strerror(-result));
    else if (config_parse(live, text, length, path) == 0)
        result = 1;
    free(text);
    return result == 1 ? 1 : 0;
}

uint64_t config_live_stamp(const struct config *file)
{
    char path[PATH_MAX];
    struct stat found;
    if (make_path(path, file, "live.yaml") < 0 || lstat(path, &found) < 0)
        return 0;
    const uint64_t words[] = {(uint64_t)found.st_ino, (uint64_t)found.st_mtim.tv_sec, (uint64_t)found.st_mtim.tv_nsec,
                              (uint64_t)found.st_size};
    return uid_hash(words, sizeof words) | 1;
}

int config_live_read_proposal(struct config *live, const struct config *file)
{
    char path[PATH_MAX], *text = NULL;
    size_t length = 0;
    int result = make_path(path, file, "proposal.yaml");
    if (result == 0)
        result = read_text(path, &text, &length);
    if (result < 0)
        log_error("cannot read '%s': %s", path, strerror(-result));
    else
        result = config_parse(live, text, length, path);
    free(text);
    return result;
}

static int write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        const ssize_t n = write(fd, text, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        length -= (size_t)n;
    }
    return 0;
}

int config_live_propose(const struct config *file, const struct config *base, const char *text)
{
    char path[PATH_MAX], line[sizeof head + 20];
    int result = make_path(path, file, "proposal.yaml");
    if (result < 0)
        return result;
    (void)unlink(path);
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    if (fd < 0)
        return -errno;
    snprintf(line, sizeof line, "%s%016" PRIx64 "\n", head, config_diff_fingerprint(base));
    result = write_all(fd, line, strlen(line));
    if (result == 0)
        result = write_all(fd, text, strlen(text));
    if (result == 0 && fsync(fd) != 0)
        result = -errno;
    if (close(fd) != 0 && result == 0)
        result = -errno;
    return result;
}

int config_live_accept(const struct config *file)
{
    char from[PATH_MAX] = "", to[PATH_MAX] = "";
    int result = make_path(from, file, "proposal.yaml");
    if (result == 0)
        result = make_path(to, file, "live.yaml");
    return result < 0 ? result : rename(from, to) == 0 ? 0 : -errno;
}
