/* Blocking calls to one remote expert whose rows are `width` floats, in and out, and which bear a server that is
 * starting, busy or being restarted: they try again for a bounded time. A client is used by one thread at a time. */
#ifndef EXPERTD_EXAMPLES_DIGITS_REMOTE_H
#define EXPERTD_EXAMPLES_DIGITS_REMOTE_H

#include <stddef.h>

#include "client/expertd.h"

enum { REMOTE_LOST = 1 };

/* y (rows x width) of x; they may be the same. 0; or -errno after the reason was printed to stderr. */
int remote_forward(struct expertd_client *client, const char *uid, const float *x, size_t rows, size_t width, float *y);
/* The expert learns from grad_y (rows x width) at x; grad_x is what to pass on. 0; REMOTE_LOST when the expert
 * has learnt, or has skipped a gradient that was not finite, but there is no grad_x; or -errno after the reason was
 * printed. Trying again never makes the expert learn twice: the server knows the request. */
int remote_backward(struct expertd_client *client, const char *uid, const float *x, const float *grad_y, size_t rows,
                    size_t width, float *grad_x);
/* Has the server write the expert's checkpoint. 0; or -errno after the reason was printed. */
int remote_checkpoint(struct expertd_client *client, const char *uid);
/* The output if the call ended well with exactly one of rows x width floats, else NULL, and the reason was printed. */
const float *remote_output(const struct expertd_call *call, const char *uid, size_t rows, size_t width);

#endif
