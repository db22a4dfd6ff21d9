/* Which experts there are, changed while the server runs: what is live, and who has asked for LOAD, UNLOAD, SET and
 * RELOAD. One change at a time runs (frontend/change.h); it is somebody's who has asked, or brings a runtime that began
 * with other experts to what is live, or gives a lost device's experts to others (frontend/moves.h).
 *
 * What is loaded may be a program, so changes are taken from those alone who could start one as well: the server's own
 * user and root, over the UNIX socket <run_dir>/<server>.socket; or, where clients have keys, from operators. One
 * thread. */
#ifndef EXPERTD_FRONTEND_CHANGES_H
#define EXPERTD_FRONTEND_CHANGES_H

#include "frontend/server.h"

struct changes;

/* Reads what is live, into server->live. -ENOMEM. */
int changes_create(struct changes **changes, struct server *server);
void changes_destroy(struct changes **changes);
/* Binds the socket that changes are taken on; without it, which is logged, there are none. */
void changes_listen(struct server *server);
/* How the configuration is to be read again, and which of its frontends (NULL: the one there is) this is; all are kept.
 * Without it RELOAD is UNIMPLEMENTED. */
void changes_can_reload(struct server *server, const struct config_program *program, int argc, char **argv,
                        const char *frontend);

/* fd: of the connection that it came over. */
void changes_begin(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header, int fd,
                   uint64_t now_ns);
/* Goes on with the one that runs, or begins the next. Cheap when there is none. */
void changes_look(struct server *server);
/* Now and then: brings a runtime that has other experts than what is live to that, and moves a lost device's. */
void changes_bring(struct server *server);
/* Another frontend has read a newer configuration: what that says of the others is taken over, as far as it can be
 * read. */
void changes_refresh_elsewhere(struct server *server);
/* How many wait or run. */
uint32_t changes_running(const struct server *server);
void changes_expire(struct server *server, struct request *request);
/* Answers all that wait, and ends the one that runs. */
void changes_fail(struct server *server, enum status status, const char *message);

#endif
