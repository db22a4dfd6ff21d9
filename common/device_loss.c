#include "common/device_loss.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

static int make_path(char path[PATH_MAX], const char *run_dir, const char *server, const char *device)
{
    const int length = snprintf(path, PATH_MAX, "%s/%s.%s.lost", run_dir, server, device);
    return length < 0 || length >= PATH_MAX ? -ENAMETOOLONG : 0;
}

void device_loss_note(const char *run_dir, const char *server, const char *device)
{
    char path[PATH_MAX];
    int rc = make_path(path, run_dir, server, device);
    if (rc == 0) {
        const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, S_IRUSR | S_IWUSR);
        rc = fd < 0 ? -errno : 0;
        if (fd >= 0)
            close(fd);
    }
    if (rc < 0)
        log_warning("cannot leave word that device '%s' is lost in '%s': %s", device, run_dir, strerror(-rc));
}

void device_loss_forget(const char *run_dir, const char *server, const char *device)
{
    char path[PATH_MAX];
    int rc = make_path(path, run_dir, server, device);
    if (rc == 0 && unlink(path) != 0 && errno != ENOENT)
        rc = -errno;
    if (rc < 0)
        log_warning("cannot take back in '%s' that device '%s' is lost: %s", run_dir, device, strerror(-rc));
}

bool device_loss_noted(const char *run_dir, const char *server, const char *device)
{
    char path[PATH_MAX];
    struct stat found;
    return make_path(path, run_dir, server, device) == 0 && lstat(path, &found) == 0 && S_ISREG(found.st_mode);
}
