#include "common/run_dir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int run_dir_default(char *path, size_t size)
{
    const char *runtime_dir = getenv("XDG_RUNTIME_DIR");
    int length;
    if (geteuid() == 0)
        length = snprintf(path, size, "/run/expertd");
    else if (runtime_dir && runtime_dir[0] == '/')
        length = snprintf(path, size, "%s/expertd", runtime_dir);
    else
        length = snprintf(path, size, "/tmp/expertd-%u", (unsigned)geteuid());
    return length < 0 || (size_t)length >= size ? -ENAMETOOLONG : 0;
}
