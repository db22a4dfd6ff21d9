/* What the other sides of ZeroMQ's connections have sent that is no whole message yet, counted where its threads read
 * it, and the end of those whose message is too large. socket_calls.c tells of each connection and each read. Until
 * there are limits it lets all through. Any thread; each connection is read by one at a time. */
#ifndef EXPERTD_PROTO_GATE_H
#define EXPERTD_PROTO_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Far more than any message has; the refusal of one with fewer says what is wrong with it. */
enum { GATE_FRAMES = 4096 };

/* Frames and bytes that a message may have. Sealed: what connections send may be encrypted, so that where a message
 * ends is not seen; all that was read since gate_heard() is then counted as one that has not, and ended when it is more
 * than `unheard`; 0: that is not done here. Before the first connection. */
void gate_set(uint32_t frames, uint64_t bytes, bool sealed, uint64_t unheard);
/* ZeroMQ has handed on a whole message of that connection. */
void gate_heard(int fd);
/* A connection with this descriptor was accepted, or is about to be made. */
void gate_opened(int fd);
/* These bytes were read from it. False: it is to be ended. True for what was never opened. */
bool gate_read(int fd, const void *bytes, size_t size);
/* What its unfinished message takes so far, and what ZeroMQ needs for each of its frames. False: it is not counted. */
bool gate_unfinished(int fd, uint64_t *bytes);
/* How many it has ended. */
uint64_t gate_ended(void);

#endif
