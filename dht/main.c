/* expertd-dht: publishes this server's experts in a distributed hash table, and answers look-ups in it. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/config_cut.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/owner.h"
#include "common/process.h"
#include "dht/loop.h"
#include "dht/trust.h"

/* EXIT_CONFLICT, sysexits.h's EX_TEMPFAIL: started again it may come through, once the other server has gone. */
enum { EXIT_USAGE = 2, EXIT_CONFLICT = 75, LEAST_FILES = 48, LEAST_THREADS = 10 };

static const char *const sections[] = {"server", "dht", "frontend", "frontends", NULL};
static const char *vouch, *flag_frontend;
static const struct config_flag flags[] = {
    {"frontend", "NAME", "whose experts it publishes, where the configuration has several frontends", &flag_frontend},
    {"vouch", "SERVER_ID", "print what dht.identity_file's key says for that server, for its dht.voucher, and end",
     &vouch},
    {0},
};
static const struct config_program program = {
    .name = "expertd-dht",
    .purpose =
        "Publishes this server's experts in a distributed hash table, and answers look-ups in it. Exit status: 0 "
        "after a stop signal, 1 when it cannot start, 2 for a wrong flag or configuration, 75 when an older server has "
        "its identity.",
    .sections = sections,
    .flags = flags,
    .needs = CONFIG_PUBLISHES,
};

/* For a key that others trust: what makes them trust a server's. */
static int print_voucher(const struct config *config)
{
    uint8_t id[SERVER_ID_SIZE];
    char text[VOUCHER_TEXT];
    struct identity *signer = NULL;
    struct voucher voucher;
    if (!config->dht.identity_file[0] || server_id_parse(id, vouch) < 0) {
        log_error("--vouch takes a server's id, 64 hexadecimal digits, and the key of dht.identity_file");
        return EXIT_USAGE;
    }
    int rc = identity_create(&signer, config->dht.identity_file);
    if (rc == 0)
        rc = voucher_make(&voucher, signer, id);
    if (rc == 0)
        printf("%s\n", voucher_format(&voucher, text));
    identity_destroy(&signer);
    return rc == 0 && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int serve(const struct config *config)
{
    struct loop *loop = NULL;
    bool conflict = false;
    int rc = process_init(program.name);
    /* The lock is let go of by the process's end. */
    if (rc == 0)
        rc = owner_acquire(config->server.run_dir, config->server.name, "dht");
    const int owner_fd = rc;
    if (rc >= 0)
        rc = process_need_files(LEAST_FILES); /* each client is one more */
    if (rc == 0)
        rc = process_need_threads(LEAST_THREADS);
    if (rc == 0)
        rc = loop_create(&loop, config, owner_fd);
    if (rc == 0) {
        notify_ready("answers at %s", config->dht.listen);
        rc = loop_run(loop);
        conflict = rc == -EEXIST;
    }
    loop_destroy(&loop);
    return conflict ? EXIT_CONFLICT : rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct config whole, cut = {0};
    const struct config *config = &whole;
    if (config_load(&whole, &program, argc, argv) < 0)
        return EXIT_USAGE;
    /* One that publishes nothing is nobody's. */
    const bool publishes = strcmp(whole.dht.frontend, "none") != 0;
    int status = EXIT_USAGE;
    notify_open();
    if (vouch)
        status = print_voucher(&whole);
    else if (!(publishes || flag_frontend) || config_cut_frontend(&config, &cut, &whole, flag_frontend) == 0)
        status = serve(config);
    config_destroy(&cut);
    config_destroy(&whole);
    return status;
}
