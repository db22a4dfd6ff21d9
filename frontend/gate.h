/* What connections have sent that is no whole message yet, counted where ZeroMQ's threads read it, and the end of those
 * whose message is too large. socket_calls.c tells of each connection and each read. Until there are limits it lets all
 * through. Any thread; each connection is read by one at a time. */
#ifndef EXPERTD_FRONTEND_GATE_H
#define EXPERTD_FRONTEND_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Far more than any message has; the refusal of one with fewer says what is wrong with it. */
enum { GATE_FRAMES = 4096 };

/* Frames and bytes that a message may have. Sealed: what connections send is encrypted, so that where a message ends is
 * not seen; all that was read since gate_heard() is then counted as one that has not, but not ended here. Before the
 * first connection. */
void gate_set(uint32_t frames, uint64_t bytes, bool sealed);
/* ZeroMQ has handed on a whole message of that connection. */
void gate_heard(int fd);
/* A connection was accepted with this descriptor. */
void gate_accepted(int fd);
/* These bytes were read from it. False: it is to be ended. True for what was never accepted. */
bool gate_read(int fd, const void *bytes, size_t size);
/* What its unfinished message takes so far, and what ZeroMQ needs for each of its frames. False: it is not counted. */
bool gate_unfinished(int fd, uint64_t *bytes);
/* How many it has ended. */
uint64_t gate_ended(void);

#endif
