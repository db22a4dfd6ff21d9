/* expertd-http: metrics and health of a server over HTTP. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>

#include "common/config.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/process.h"
#include "http/web.h"

enum {
    EXIT_USAGE = 2,
    LEAST_FILES = 48,
    FILES_PER_THREAD = 12,
    FILES_PER_FRONTEND = 6,
    LEAST_THREADS = 6,
    THREADS_PER_THREAD = 3
};

static const char *const sections[] = {"server", "http", "metrics", "frontend", "dht", NULL};
static const struct config_program program = {
    .name = "expertd-http",
    .purpose =
        "Shows a server over HTTP: /metrics for Prometheus, /livez and /readyz for probes, and forwards by the Open "
        "Inference Protocol under /v2. Exit status: 0 "
        "after a stop signal, 1 when it cannot start, 2 for a wrong flag or configuration.",
    .sections = sections,
    .needs = CONFIG_ASKS_FRONTEND | CONFIG_ASKS_DHT,
};

static int serve(const struct config *config)
{
    struct web *web = NULL;
    notify_open();
    sigset_t all, before;
    /* Signals are this thread's: the others wait for answers. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    const int rc = web_create(&web, config);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc < 0)
        return rc;
    log_info("listens at http://%s for the frontend at %s", config->http.listen, config->http.frontend);
    notify_ready("listens at http://%s", config->http.listen);
    struct pollfd stop = {.fd = process_stop_fd(), .events = POLLIN};
    while (!process_stopping())
        (void)poll(&stop, 1, -1);
    notify_stopping();
    web_destroy(&web);
    log_info("stopped");
    return 0;
}

int main(int argc, char **argv)
{
    struct config config;
    if (config_load(&config, &program, argc, argv) < 0)
        return EXIT_USAGE;
    int rc = process_init(program.name);
    if (rc ==
        0) /* each thread has a connection to the frontend, and to the others if there are some; the history, too */
        rc = process_need_files(LEAST_FILES + (FILES_PER_THREAD + FILES_PER_FRONTEND * config.frontends_count) *
                                                  ((unsigned)config.http.threads + 1));
    if (rc == 0)
        rc = process_need_threads(LEAST_THREADS + THREADS_PER_THREAD * ((unsigned)config.http.threads + 1));
    if (rc == 0)
        rc = serve(&config);
    config_destroy(&config);
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
