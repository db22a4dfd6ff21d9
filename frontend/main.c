/* expertd-frontend: answers clients over ZeroMQ from the experts of this server's runtimes. */
#include <stdlib.h>

#include "common/config.h"
#include "common/config_cut.h"
#include "common/notify.h"
#include "common/owner.h"
#include "common/process.h"
#include "frontend/changes.h"
#include "frontend/frontend.h"
#include "frontend/loop.h"

enum { EXIT_USAGE = 2, LEAST_FILES = 48, LEAST_THREADS = 6 };

static const char *const sections[] = {"server", "frontend", "frontends", "devices", "experts", NULL};
static const char *flag_frontend;
static const struct config_flag flags[] = {
    {"frontend", "NAME", "which entry of the list `frontends` this is, where the configuration has several",
     &flag_frontend},
    {NULL, NULL, NULL, NULL}};
static const struct config_program program = {
    .name = "expertd-frontend",
    .purpose =
        "Answers clients over ZeroMQ from the experts of this server's runtimes. Exit status: 0 after a stop signal, "
        "1 when it cannot start or go on, 2 for a wrong flag or configuration.",
    .sections = sections,
    .flags = flags,
};

static int run(const struct config *config, const struct config *whole, int argc, char **argv)
{
    struct server *server = NULL;
    int rc = process_init(program.name);
    /* The lock is let go of by the process's end. */
    if (rc == 0)
        rc = owner_acquire(config->server.run_dir, config->server.name, "frontend");
    const int owner_fd = rc;
    if (rc >= 0)
        rc = process_need_files(LEAST_FILES); /* each client is one more */
    if (rc == 0)
        rc = process_need_threads(LEAST_THREADS + (unsigned)config->frontend.io_threads +
                                  (unsigned)config->frontend.copy_threads);
    if (rc == 0)
        rc = frontend_create(&server, config, whole, owner_fd);
    if (rc == 0) {
        notify_ready("answers at %s", config->frontend.listen.count ? config->frontend.listen.items[0] : "no endpoint");
        changes_can_reload(server, &program, argc, argv, flag_frontend);
        rc = loop_run(server);
    }
    frontend_destroy(&server);
    return rc;
}

int main(int argc, char **argv)
{
    struct config whole, cut = {0};
    const struct config *config;
    if (config_load(&whole, &program, argc, argv) < 0)
        return EXIT_USAGE;
    int status = EXIT_USAGE;
    notify_open();
    if (config_cut_frontend(&config, &cut, &whole, flag_frontend) == 0)
        status = run(config, &whole, argc, argv) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    config_destroy(&cut);
    config_destroy(&whole);
    return status;
}
