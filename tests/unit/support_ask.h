/* A client for tests of the frontend: it sends what it is told to, right or wrong, and checks what comes back. */
#ifndef EXPERTD_TESTS_SUPPORT_ASK_H
#define EXPERTD_TESTS_SUPPORT_ASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "proto/message.h"
#include "unit/support_rig.h"

struct asker {
    void *context, *socket;
    uint64_t last_id;
    unsigned char client_id[16];
    bool anonymous; /* send no client_id */
};

/* A request that is right, to be made wrong by the test before it is sent. */
struct question {
    Expertd__RequestHeader header;
    Expertd__Tensor tensor[20], *tensors[20];
    uint64_t shape[20][10];
    const void *frame[20];
    size_t frame_bytes[20];
    unsigned frames;
    char uid[200];
};

struct answer {
    Expertd__ReplyHeader *header;
    unsigned frames;
    float values[RIG_MAX_BATCH * RIG_COLUMNS]; /* of the first frame */
    size_t bytes[16];
    unsigned char second[256]; /* of the second frame */
    struct message_arena arena;
    _Alignas(16) unsigned char memory[1 << 18];
};

void ask_open(struct asker *asker, const struct rig *rig, int socket_type);
void ask_close(struct asker *asker);

/* The next request_id. Tensors are for nop: `rows` rows of value, in as many tensors as the method has. */
void ask_prepare(struct asker *asker, struct question *question, Expertd__Method method, const char *uid, uint64_t rows,
                 float value);
void ask_send(struct asker *asker, struct question *question);
void ask_send_raw(struct asker *asker, const void *const *frames, const size_t *bytes, unsigned count);
/* Waits, bounded; false: nothing came within the milliseconds (a test that has to get an answer waits 20 s). */
bool ask_poll(struct asker *asker, struct answer *answer, int wait_ms);
void ask_receive(struct asker *asker, struct answer *answer);

/* The above in one, with a check of id and status. */
void ask_call(struct asker *asker, struct question *question, struct answer *answer, enum status expected);
/* FORWARD of one row, to see that the server serves. */
void ask_alive(struct asker *asker);
/* One counter of STATS; -1 if there is none. */
double ask_counter(struct asker *asker, const char *name);
/* Waits until the device is up. */
void ask_until_up(struct asker *asker);

#endif
