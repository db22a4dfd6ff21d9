/* When the calls of one expert go on that a full server has refused, and those made after them, which stand behind. A
 * server refuses a client that has its share of the pool, or more: so an answer says that there is a place, and one
 * call goes for each that is served. As there may be more places by now, some are tried from time to time: at first as
 * many as are with the server, or all where none is; each try of which some were refused makes the next one later
 * (backoff.h) and half as large. After one that went well the next is much sooner and larger, and two go for each that
 * is served, until one is refused: a server that has been full for long is soon made use of again. Pure. */
#ifndef EXPERTD_CLIENT_COMEBACK_H
#define EXPERTD_CLIENT_COMEBACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed is new. */
struct comeback {
    uint32_t waiting;  /* the caller's count of those that wait */
    uint32_t failures; /* tries that were refused; halved by one that was not */
    uint32_t hint_ms;
    bool tried;   /* and none was refused since */
    size_t older; /* of those with the server, were there before the try, of which their answers do not tell */
    uint64_t due_ns;
};

/* One was refused, and is not counted as waiting yet; `flying` others are with the server. due_ns is set. */
void comeback_refused(struct comeback *comeback, uint32_t hint_ms, size_t flying, uint64_t now_ns, uint64_t *random);
/* At due_ns: so many of those that wait go, at least one. The next try's due_ns is set. */
uint32_t comeback_try(struct comeback *comeback, size_t flying, uint64_t now_ns, uint64_t *random);
/* One was served: so many of those that wait go. */
uint32_t comeback_answered(struct comeback *comeback);

#endif
