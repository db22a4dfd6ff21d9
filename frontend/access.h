/* What a client may do: by the key that its connection proves, and the role that this key has (common/keyring.h). Where
 * the server has no key, everybody may do everything. One thread. */
#ifndef EXPERTD_FRONTEND_ACCESS_H
#define EXPERTD_FRONTEND_ACCESS_H

#include "frontend/server.h"

/* The message in server->incoming is the peer's. True: it may use the method. Else *why is a sentence, and *known says
 * whether its key is still known here at all. */
bool access_allows(struct server *server, struct client_peer *peer, Expertd__Method method, const char **why,
                   bool *known);

#endif
