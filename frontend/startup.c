#include "frontend/startup.h"

#include "common/config_cut.h"
#include "common/log.h"

/* As it was: what the file says of it counts from the next start. */
static void set_log(const struct startup *startup, const struct config_server *server)
{
    enum log_level level;
    enum log_format format;
    if (log_level_parse(server->log_level, &level) == 0)
        log_open(startup->program->name, level);
    if (log_format_parse(server->log_format, &format) == 0)
        log_set_format(format);
}

int startup_read(const struct startup *startup, const struct config *running, struct config *whole)
{
    const int rc = config_load(whole, startup->program, startup->argc, startup->argv);
    set_log(startup, &running->server);
    return rc;
}

int startup_cut(const struct startup *startup, struct config *whole, struct elsewhere **others)
{
    struct config part;
    const struct config *chosen;
    int rc = config_cut_frontend(&chosen, &part, whole, startup->frontend);
    if (rc == 0)
        rc = elsewhere_create(others, whole, chosen->server.name);
    if (rc == 0 && chosen == whole)
        return 0;
    config_destroy(whole);
    if (rc == 0)
        *whole = part;
    else
        config_destroy(&part);
    return rc;
}
