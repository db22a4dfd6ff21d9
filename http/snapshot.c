#include "http/snapshot.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "common/shm.h"

static int add_segment(const char *name, void *context)
{
    struct snapshot *snapshot = context;
    char path[SHM_NAME_SIZE + 16];
    struct stat status;
    snprintf(path, sizeof path, "/dev/shm%s", name);
    if (stat(path, &status) == 0)
        snapshot->shm.used_bytes += (uint64_t)status.st_blocks * 512;
    return 0;
}

void snapshot_take(struct snapshot *snapshot, struct expertd_client *client, const struct config *config,
                   uint32_t experts, uint32_t timeout_ms)
{
    struct timespec now;
    struct statvfs shm;
    *snapshot = (struct snapshot){0};
    if (expertd_ping(client, timeout_ms, &snapshot->calls[0]) == 0 && upstream_wait(snapshot->calls[0]))
        snapshot->pong = expertd_call_pong(snapshot->calls[0]);
    if (snapshot->pong &&
        (experts > 0 ? expertd_stats_experts(client, NULL, experts, timeout_ms, &snapshot->calls[1])
                     : expertd_stats(client, timeout_ms, &snapshot->calls[1])) == 0 &&
        upstream_wait(snapshot->calls[1]))
        snapshot->stats = expertd_call_stats(snapshot->calls[1]);
    clock_gettime(CLOCK_REALTIME, &now);
    snapshot->wall_s = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    (void)shm_each(config->server.name, "", add_segment, snapshot);
    for (unsigned i = 0; i < config->frontends_count; i++) {
        char name[2 * SHM_NAME_SIZE];
        snprintf(name, sizeof name, "%s-%s", config->server.name, config->frontends[i].name);
        (void)shm_each(name, "", add_segment, snapshot);
    }
    if (statvfs("/dev/shm", &shm) == 0)
        snapshot->shm.free_bytes = (uint64_t)shm.f_bavail * shm.f_frsize;
}

void snapshot_release(struct snapshot *snapshot)
{
    expertd_call_release(&snapshot->calls[0]);
    expertd_call_release(&snapshot->calls[1]);
}
