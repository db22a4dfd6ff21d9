/* What has come of a call's legs, put together again: of what client/call_cut.h took apart, or of all of it. The
 * client's thread. */
#ifndef EXPERTD_CLIENT_CALL_JOIN_H
#define EXPERTD_CLIENT_CALL_JOIN_H

#include "client/call.h"

/* A part's rows among the call's. */
struct call_join_rows {
    uint64_t first;
    uint32_t count;
};

/* The leg's outputs are the call's. */
void call_join_all(struct expertd_call *call, struct expertd_call *leg);
/* The rows of the leg's `count` parts, if it is OK, to where they are among the call's; what others leave out is zeros.
 * What is wrong with them; NULL. */
const char *call_join_parts(struct expertd_call *call, struct expertd_call *leg, const struct call_join_rows *rows,
                            size_t count);
/* What the call says once there is an answer for each part: OK if one is, and else what the worst of them is. */
void call_join_status(struct expertd_call *call);

#endif
