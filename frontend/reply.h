/* Replies: headers are encoded, tensors are copied out of the pool's rows into a recycled buffer and sent from there
 * without a further copy. Sending never waits: a client that is gone, or does not read, is counted. One thread.
 *
 * Why not from the rows themselves: the copy is a seventh of the frontend's time for 1 MiB replies, and nothing that
 * can be measured for small ones; but ZeroMQ cannot be made to give memory back, and a pool's rows come back in order,
 * so that one client that does not read would fill the pool for all. */
#ifndef EXPERTD_FRONTEND_REPLY_H
#define EXPERTD_FRONTEND_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/copier.h"
#include "common/status.h"
#include "common/tensor.h"
#include "frontend/buffer.h"
#include "frontend/counters.h"
#include "frontend/client_peer.h"
#include "frontend/local_client.h"
#include "frontend/notes.h"
#include "proto/message.h"

/* What a socket type puts between routing id and header, and wants back. */
enum reply_envelope_kind { REPLY_BARE, REPLY_DELIMITED, REPLY_CORRELATED };
struct reply_envelope {
    enum reply_envelope_kind kind;
    uint32_t correlate; /* REPLY_CORRELATED: 4 bytes as they came */
};

/* Whom a reply goes to. */
struct reply_to {
    struct client_peer *peer;
    uint64_t request_id;
    unsigned method; /* its number, below COUNTERS_METHODS; 0: another, or none */
    struct reply_envelope envelope;
    /* Of a client on this host: the request's slot, and where in the client's memory its tensors may be put. */
    uint32_t slot;
    struct local_span room;
    struct notes notes; /* that the request came with */
};

struct replier {
    void *socket;
    struct client_peers *peers;
    struct buffers *buffers;
    struct counters *counters;
    struct copier *copier; /* of large tensors; NULL */
    bool sent;             /* something was sent since the owner set this to false */
};

/* A reply without tensors; message may be NULL. */
void reply_status(struct replier *replier, const struct reply_to *to, enum status status, const char *message);
/* The same for a refusal that is worth coming back from after so many milliseconds. */
void reply_refusal(struct replier *replier, const struct reply_to *to, enum status status, const char *message,
                   uint32_t retry_after_ms);
/* NOT_FOUND, as it is at another frontend of this server. */
void reply_elsewhere(struct replier *replier, const struct reply_to *to, const char *message, const char *endpoint);
/* The header of an OK without tensors; version and request_id are filled in here. */
void reply_header(struct replier *replier, const struct reply_to *to, Expertd__ReplyHeader *header);

/* An OK with tensors, ready to be sent, as often as one likes: header and `rows` rows of each tensor, which are copied
 * from data[i], encoded with codecs[i] where that can say it in less bytes. `unwanted` are the outputs that the schema
 * leaves out, a bit each. The caller's reference; NULL: no memory. */
struct buffer *reply_build(struct replier *replier, uint64_t request_id, const struct schema *schema, uint32_t rows,
                           const void *const *data, const uint8_t *codecs, uint32_t unwanted);
void reply_send(struct replier *replier, const struct reply_to *to, struct buffer *built);
/* reply_send to one who asked for what was applied before: if that one leaves out other outputs, the answer is not its,
 * and it is told so: ALREADY_EXISTS, reply_other_first. */
void reply_send_kept(struct replier *replier, const struct reply_to *to, struct buffer *built, uint32_t unwanted);
extern const char reply_other_first[];

/* The same for rows that come one by one: all tensors as they are, their content to be written before it is sent. */
struct buffer *reply_open(struct replier *replier, uint64_t request_id, const struct schema *schema, uint32_t rows);
unsigned char *reply_tensor(struct buffer *built, uint32_t tensor);
/* reply_send with more of the header: at most REPLY_MORE_MAX bytes of an encoded ReplyHeader, of which what is no list
 * counts before the OK's own. */
enum { REPLY_MORE_MAX = 14 << 10 }; /* so that a client on this host can have it */
void reply_send_parts(struct replier *replier, const struct reply_to *to, struct buffer *built, const void *more,
                      size_t bytes);
/* Whether a built answer is of so many rows (0: of any), and leaves out the same. */
bool reply_answers(const struct buffer *built, uint32_t rows, uint32_t unwanted);
/* Whether a built answer is of such tensors and so many rows, and leaves out the same; then, a tensor of it, decoded.
 */
bool reply_fits(const struct buffer *built, const struct schema *schema, uint32_t rows, uint32_t unwanted);
void reply_decode(const struct buffer *built, uint32_t tensor, void *to);

/* Whether the tensors of such a reply find room where the asker, if it is on this host, has made some. If not, it is
 * told how much that takes, so that it asks again: then this was its reply. */
bool reply_has_room(struct replier *replier, const struct reply_to *to, const struct schema *schema, uint32_t rows);
/* Whether reply_rows() spares a copy: its tensors go from the pool's rows right into the asker's memory. */
bool reply_goes_straight(const struct reply_to *to);
/* reply_build and reply_send in one, for those; nothing of it is kept. */
void reply_rows(struct replier *replier, const struct reply_to *to, const struct schema *schema, uint32_t rows,
                const void *const *data, const uint8_t *codecs);
/* No reply will come: somebody else is the asker now. */
void reply_withdraw(struct replier *replier, const struct reply_to *to);

#endif
