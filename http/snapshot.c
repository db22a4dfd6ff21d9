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

static void fill(struct snapshot *snapshot, const struct frontends *frontends)
{
    struct frontends_look *look = &snapshot->look;
    snapshot->pong = frontends_pong(look, 0);
    snapshot->stats = snapshot->pong && frontends_stats(look, 0) ? frontends_sum(look) : NULL;
    snapshot->frontends_count = look->count > 1 ? look->count : 0;
    for (size_t f = 0; f < look->count; f++) {
        const struct expertd_pong *pong = frontends_pong(look, f);
        snapshot->experts += pong ? pong->experts : 0;
        snapshot->experts_alive += pong ? pong->experts_alive : 0;
        snapshot->frontends[f].name = pong ? pong->server : expertd_client_endpoint(frontends->clients[f]);
        snapshot->frontends[f].stats = frontends_stats(look, f);
    }
}

void snapshot_take(struct snapshot *snapshot, struct expertd_client *client, const struct config *config,
                   uint32_t experts, uint32_t timeout_ms)
{
    struct timespec now;
    struct statvfs shm;
    struct frontends frontends;
    *snapshot = (struct snapshot){0};
    frontends_begin(&frontends, client);
    if (frontends_look(&frontends, &snapshot->look, NULL, experts > 0 ? experts : FRONTENDS_NO_EXPERTS, timeout_ms) ==
        0)
        fill(snapshot, &frontends);
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
    frontends_release(&snapshot->look);
}
