/* How the program was started, by which a frontend reads its configuration again while it runs. One thread. */
#ifndef EXPERTD_FRONTEND_STARTUP_H
#define EXPERTD_FRONTEND_STARTUP_H

#include "common/config.h"
#include "frontend/elsewhere.h"

struct startup {
    const struct config_program *program; /* NULL: there is no configuration that could be read again */
    int argc;
    char **argv;
    const char *frontend; /* which of several it is; NULL: the one there is */
};

/* The whole configuration, as file and flags say it now; the log goes on as `running` has it. *whole is to be
 * destroyed. 0 or -errno, logged. */
int startup_read(const struct startup *startup, const struct config *running, struct config *whole);
/* Makes it the part that is this frontend's, and *others what the other frontends have (NULL: there are none). 0; or
 * -errno, logged, and then there is neither a part nor a whole any more. */
int startup_cut(const struct startup *startup, struct config *whole, struct elsewhere **others);

#endif
