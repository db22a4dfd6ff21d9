/* expertd-dht: publishes this server's experts in a distributed hash table, and answers look-ups in it. */
#include <stdlib.h>

#include "common/config.h"
#include "common/log.h"
#include "common/owner.h"
#include "common/process.h"
#include "dht/loop.h"

enum { EXIT_USAGE = 2, LEAST_FILES = 48 };

static const char *const sections[] = {"server", "dht", "frontend", NULL};
static const struct config_program program = {
    .name = "expertd-dht",
    .purpose =
        "Publishes this server's experts in a distributed hash table, and answers look-ups in it. Exit status: 0 "
        "after a stop signal, 1 when it cannot start, 2 for a wrong flag or configuration.",
    .sections = sections,
};

int main(int argc, char **argv)
{
    struct config config;
    enum log_level level = LOG_LEVEL_INFO;
    log_open(program.name, level);
    if (config_load(&config, &program, argc, argv) < 0)
        return EXIT_USAGE;
    if (log_level_parse(config.server.log_level, &level) == 0)
        log_open(program.name, level);

    struct loop *loop = NULL;
    int rc = process_init(program.name);
    if (rc == 0)
        rc = owner_prepare_run_dir(config.server.run_dir);
    /* The lock is let go of by the process's end. */
    if (rc == 0)
        rc = owner_acquire(config.server.run_dir, config.server.name, "dht");
    const int owner_fd = rc;
    if (rc >= 0)
        rc = process_need_files(LEAST_FILES); /* each client is one more */
    if (rc == 0)
        rc = loop_create(&loop, &config, owner_fd);
    if (rc == 0)
        rc = loop_run(loop);
    loop_destroy(&loop);
    config_destroy(&config);
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
