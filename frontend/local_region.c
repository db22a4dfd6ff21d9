#include "frontend/local_region.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

static struct local_region *regions;

/* A page of a mapped region cannot be had. mmap is a system call, which a handler may make; the access is then made
 * again, and finds zeros. */
static void on_bus_error(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    const uintptr_t at = (uintptr_t)info->si_addr;
    for (struct local_region *region = regions; region; region = region->next) {
        if (at - (uintptr_t)region->base >= region->bytes)
            continue;
        const int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, all = PROT_READ | PROT_WRITE;
        /* cppcheck-suppress invalidFunctionArg */
        const void *zeros = mmap(region->base, region->bytes, all, flags, -1, 0);
        if (zeros == MAP_FAILED)
            break;
        region->lost = true;
        return;
    }
    signal(signal_number, SIG_DFL); /* somebody else's: the access, made again, ends the process as ever */
}

static int watch(void)
{
    static bool watching;
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    if (watching)
        return 0;
    sigemptyset(&action.sa_mask);
    watching = sigaction(SIGBUS, &action, NULL) == 0;
    return watching ? 0 : -errno;
}

int local_region_map(struct local_region *region, int fd, uint64_t bytes, const char **why)
{
    struct stat status;
    *region = (struct local_region){0};
    *why = "the descriptor is none of a file";
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
        return -EINVAL;
    const int seals = fcntl(fd, F_GET_SEALS);
    *why = "the memory may shrink (F_SEAL_SHRINK)";
    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return -EPERM;
    *why = "the memory is smaller than announced";
    if (bytes == 0 || bytes > (uint64_t)status.st_size || bytes > SIZE_MAX)
        return -EINVAL;
    *why = "the memory cannot be mapped";
    int rc = watch();
    if (rc < 0)
        return rc;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    region->base = base;
    region->bytes = bytes;
    region->next = regions;
    regions = region;
    *why = NULL;
    return 0;
}

void local_region_unmap(struct local_region *region)
{
    if (!region->base)
        return;
    struct local_region **link = &regions;
    while (*link != region)
        link = &(*link)->next;
    *link = region->next;
    munmap(region->base, region->bytes);
    *region = (struct local_region){0};
}
