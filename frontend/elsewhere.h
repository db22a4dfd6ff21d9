/* What the server's other frontends have: uid -> endpoint of the frontend that answers for it, as the configuration
 * says and, where one of them was changed while it ran, what is live there (common/config_live.h). Nobody is asked, so
 * whether those experts are alive is not known here. One thread. */
#ifndef EXPERTD_FRONTEND_ELSEWHERE_H
#define EXPERTD_FRONTEND_ELSEWHERE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"

struct elsewhere;

/* own: the name of this frontend's part (config_cut). NULL into *elsewhere where there is one frontend alone; the
 * functions below take that. `whole` is not kept. 0 or -errno, logged. */
int elsewhere_create(struct elsewhere **elsewhere, const struct config *whole, const char *own);
void elsewhere_destroy(struct elsewhere **elsewhere);
/* Whether another frontend has other experts since; then that is known. */
bool elsewhere_look(struct elsewhere *elsewhere);
/* Whether one of them has, as far as is known, read another configuration than this is of. */
bool elsewhere_outdated(const struct elsewhere *elsewhere);

/* One of them, good until the next look. */
struct elsewhere_expert {
    const char *uid, *device, *endpoint;
    const char *server; /* the frontend's server.name: of its socket, for who changes experts */
};
/* False: none of them has it. */
bool elsewhere_find(const struct elsewhere *elsewhere, const char *uid, struct elsewhere_expert *expert);
/* What is said of an expert that is not here, into why; and the endpoint of the frontend of this server that has it,
 * good until the next look at the others, or NULL. */
const char *elsewhere_where(const struct elsewhere *elsewhere, const char *uid, char *why, size_t size);
uint32_t elsewhere_count(const struct elsewhere *elsewhere);
void elsewhere_at(const struct elsewhere *elsewhere, uint32_t i, struct elsewhere_expert *expert);
/* The frontends themselves, by number from 0 on; false behind the last. */
bool elsewhere_frontend(const struct elsewhere *elsewhere, unsigned i, const char **server, const char **endpoint);
/* The server.name of the frontend that has the expert in the configuration, live or not; NULL. */
const char *elsewhere_server_of_entry(const struct elsewhere *elsewhere, const char *uid);
/* The server.name of the frontend that has the device; NULL. */
const char *elsewhere_server_of(const struct elsewhere *elsewhere, const char *device);
/* That of one whose experts the newer configuration has changed; NULL. */
const char *elsewhere_changed(const struct elsewhere *older, const struct elsewhere *newer);

#endif
