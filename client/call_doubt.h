/* What earlier attempts of a backward leave in doubt. A server that refuses a request says that it has done nothing
 * with that one; whether another one under the same id was applied before, of which the answer was lost, it did not
 * look. So such a refusal, or that a request was never sent, is no reason to believe that the expert has not changed.
 * Of a call for many experts each part is in doubt by itself. The client's thread. */
#ifndef EXPERTD_CLIENT_CALL_DOUBT_H
#define EXPERTD_CLIENT_CALL_DOUBT_H

#include "client/call.h"

/* The part (0 of a call for one expert) goes under an id that was used before, by another call. */
void call_doubt_part(struct expertd_call *call, size_t part);
/* An ended call is sent again, under its id: what it says now of what was applied is kept. */
void call_doubt_before(struct expertd_call *call);
/* The call has its status, and its parts theirs: what is in doubt is not called "not applied". */
void call_doubt_at_end(struct expertd_call *call);

#endif
