#include "unit/support_ask.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

static float row_values[RIG_MAX_BATCH * RIG_COLUMNS * 4];

void ask_open(struct asker *asker, const struct rig *rig, int socket_type)
{
    static unsigned number;
    const int none = 0;
    *asker = (struct asker){.context = zmq_ctx_new()};
    snprintf((char *)asker->client_id, sizeof asker->client_id, "%d.%u", (int)getpid(), ++number);
    asker->socket = zmq_socket(asker->context, socket_type);
    ck_assert_ptr_nonnull(asker->socket);
    zmq_setsockopt(asker->socket, ZMQ_LINGER, &none, sizeof none);
    ck_assert_int_eq(zmq_connect(asker->socket, rig->endpoint), 0);
}

void ask_close(struct asker *asker)
{
    zmq_close(asker->socket);
    zmq_ctx_term(asker->context);
}

static void add_tensor(struct question *question, uint64_t rows)
{
    const unsigned t = question->frames++;
    expertd__tensor__init(&question->tensor[t]);
    question->tensor[t].dtype = EXPERTD__DTYPE__FLOAT32;
    question->tensor[t].n_shape = 2;
    question->tensor[t].shape = question->shape[t];
    question->shape[t][0] = rows;
    question->shape[t][1] = RIG_COLUMNS;
    question->frame[t] = row_values;
    question->frame_bytes[t] = rows * RIG_COLUMNS * sizeof(float);
    question->header.n_tensors = question->frames;
}

void ask_prepare(struct asker *asker, struct question *question, Expertd__Method method, const char *uid, uint64_t rows,
                 float value)
{
    memset(question, 0, sizeof *question);
    expertd__request_header__init(&question->header);
    snprintf(question->uid, sizeof question->uid, "%s", uid);
    question->header.version = MESSAGE_VERSION;
    question->header.request_id = ++asker->last_id;
    question->header.method = method;
    question->header.uid = question->uid;
    question->header.tensors = question->tensors;
    if (!asker->anonymous)
        question->header.client_id = (ProtobufCBinaryData){sizeof asker->client_id, asker->client_id};
    for (unsigned t = 0; t < 20; t++)
        question->tensors[t] = &question->tensor[t];
    for (size_t i = 0; i < sizeof row_values / sizeof row_values[0]; i++)
        row_values[i] = value;
    if (method == EXPERTD__METHOD__FORWARD || method == EXPERTD__METHOD__BACKWARD)
        add_tensor(question, rows);
    if (method == EXPERTD__METHOD__BACKWARD)
        add_tensor(question, rows);
}

void ask_send_raw(struct asker *asker, const void *const *frames, const size_t *bytes, unsigned count)
{
    for (unsigned f = 0; f < count; f++)
        ck_assert_int_ge(zmq_send(asker->socket, frames[f], bytes[f], f + 1 < count ? ZMQ_SNDMORE : 0), 0);
}

void ask_send(struct asker *asker, struct question *question)
{
    static unsigned char header[1 << 16];
    const long n = message_encode_request(&question->header, header, sizeof header);
    ck_assert_int_gt(n, 0);
    const void *frames[21] = {header};
    size_t bytes[21] = {(size_t)n};
    memcpy(&frames[1], question->frame, question->frames * sizeof frames[0]);
    memcpy(&bytes[1], question->frame_bytes, question->frames * sizeof bytes[0]);
    ask_send_raw(asker, frames, bytes, 1 + question->frames);
}

static void take_frame(struct answer *answer, zmq_msg_t *frame, unsigned f)
{
    const char *why;
    const size_t size = zmq_msg_size(frame);
    if (f == 0) {
        message_arena_init(&answer->arena, answer->memory, sizeof answer->memory);
        ck_assert_msg(message_decode_reply(&answer->arena, zmq_msg_data(frame), size, &answer->header, &why) == 0, "%s",
                      why);
        return;
    }
    answer->bytes[f - 1] = size;
    answer->frames = f;
    if (f == 1)
        memcpy(answer->values, zmq_msg_data(frame), size < sizeof answer->values ? size : sizeof answer->values);
    if (f == 2)
        memcpy(answer->second, zmq_msg_data(frame), size < sizeof answer->second ? size : sizeof answer->second);
}

bool ask_poll(struct asker *asker, struct answer *answer, int wait_ms)
{
    zmq_pollitem_t item = {.socket = asker->socket, .events = ZMQ_POLLIN};
    if (zmq_poll(&item, 1, wait_ms) <= 0)
        return false;
    answer->frames = 0;
    bool more = true;
    for (unsigned f = 0; more; f++) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        ck_assert_int_ge(zmq_msg_recv(&frame, asker->socket, 0), 0);
        more = zmq_msg_more(&frame);
        take_frame(answer, &frame, f);
        zmq_msg_close(&frame);
    }
    ck_assert_uint_eq(answer->header->version, MESSAGE_VERSION);
    return true;
}

void ask_receive(struct asker *asker, struct answer *answer)
{
    ck_assert_msg(ask_poll(asker, answer, 300000), "no answer");
}

void ask_call(struct asker *asker, struct question *question, struct answer *answer, enum status expected)
{
    ask_send(asker, question);
    ask_receive(asker, answer);
    ck_assert_msg(answer->header->status == (Expertd__Status)expected, "%s instead of %s: %s",
                  status_name((enum status)answer->header->status), status_name(expected), answer->header->message);
    ck_assert_uint_eq(answer->header->request_id, question->header.request_id);
    ck_assert_msg((expected == STATUS_OK) == (answer->header->message[0] == 0), "\"%s\"", answer->header->message);
    ck_assert_uint_eq(answer->frames, answer->header->n_tensors);
}

void ask_alive(struct asker *asker)
{
    struct question question;
    struct answer answer;
    const float value = (float)asker->last_id + 0.25F;
    ask_prepare(asker, &question, EXPERTD__METHOD__FORWARD, "nop.1", 1, value);
    ask_call(asker, &question, &answer, STATUS_OK);
    ck_assert_uint_eq(answer.bytes[0], RIG_COLUMNS * sizeof(float));
    for (int i = 0; i < RIG_COLUMNS; i++)
        ck_assert_float_eq(answer.values[i], value);
}

double ask_counter(struct asker *asker, const char *name)
{
    struct question question;
    struct answer answer;
    ask_prepare(asker, &question, EXPERTD__METHOD__STATS, "", 0, 0);
    ask_call(asker, &question, &answer, STATUS_OK);
    for (size_t i = 0; i < answer.header->stats->n_counters; i++) {
        if (strcmp(answer.header->stats->counters[i]->name, name) == 0)
            return answer.header->stats->counters[i]->value;
    }
    return -1;
}

void ask_until_up(struct asker *asker)
{
    RIG_WAIT(ask_counter(asker, "device.cpu0.alive") == 1);
}
