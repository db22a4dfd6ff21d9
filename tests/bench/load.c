/* The same clients as echo.c, against a server's experts: FORWARD or BACKWARD of so many rows. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "bench/support_flags.h"
#include "client/keys.h"
#include "common/process.h"
#include "common/uid.h"
#include "proto/local_record.h"
#include "proto/message.h"

enum { TURNS = 1 << 16 };

struct load {
    struct flags flags;
    const char *uid; /* or a pattern */
    Expertd__Method method;
    uint64_t rows;
    struct uid_pattern experts;
    uint64_t experts_count, next;
    uint32_t deadline_ms;
    bool train, local;
    unsigned char turn[TURNS]; /* of each client's requests: odd for a backward */
    unsigned inputs, tensors;  /* of a forward; of a backward, or of either */
    Expertd__Tensor tensor[TRAFFIC_MAX_FRAMES], *tensor_pointers[TRAFFIC_MAX_FRAMES];
    uint64_t shape[TRAFFIC_MAX_FRAMES][MESSAGE_MAX_DIMS];
    unsigned complained;
};

static _Alignas(16) unsigned char memory[MESSAGE_REPLY_ARENA];
static struct message_arena arena;

/* A trainer asks for a forward, then for the backward of the same rows. */
static bool is_forward(struct load *load, unsigned client, uint64_t id)
{
    if (!load->train)
        return load->method == EXPERTD__METHOD__FORWARD;
    return (load->turn[(client * TRAFFIC_MAX_IN_FLIGHT + id) % TURNS]++ & 1) == 0;
}

static size_t header(void *context, unsigned client, uint64_t id, unsigned char *bytes, size_t size, unsigned *frames)
{
    struct load *load = context;
    char uid[UID_SIZE];
    /* Clients begin at different experts, so that all are asked evenly from the start. */
    uid_pattern_nth(&load->experts, (load->next++ + client * 7919ULL) % load->experts_count, uid);
    Expertd__RequestHeader request = EXPERTD__REQUEST_HEADER__INIT;
    request.version = MESSAGE_VERSION;
    request.request_id = id;
    const bool forward = is_forward(load, client, id);
    *frames = forward ? load->inputs : load->tensors;
    request.method = forward ? EXPERTD__METHOD__FORWARD : EXPERTD__METHOD__BACKWARD;
    request.uid = uid;
    request.n_tensors = *frames;
    request.tensors = load->tensor_pointers;
    request.deadline_ms = load->deadline_ms;
    const long n = message_encode_request(&request, bytes, size);
    return n > 0 ? (size_t)n : 0;
}

static uint64_t reply(void *context, const void *bytes, size_t size)
{
    struct load *load = context;
    Expertd__ReplyHeader *answer;
    const char *why;
    if (message_decode_reply(&arena, bytes, size, &answer, &why) < 0)
        return UINT64_MAX;
    if (answer->status == EXPERTD__STATUS__OK)
        return answer->request_id;
    if (load->complained++ == 0)
        fprintf(stderr, "status %d: %s\n", (int)answer->status, answer->message);
    return answer->request_id | (uint64_t)answer->retry_after_ms << TRAFFIC_HINT_SHIFT | TRAFFIC_FAILED;
}

/* Asks for a header; NULL after a message. */
static Expertd__ReplyHeader *ask(const char *endpoint, Expertd__Method method, const char *uid)
{
    static unsigned char frame[1 << 16];
    const int wait_ms = 5000, none = 0;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    Expertd__RequestHeader request = EXPERTD__REQUEST_HEADER__INIT;
    request.version = MESSAGE_VERSION;
    request.method = method;
    request.uid = (char *)(uintptr_t)uid;
    const long n = message_encode_request(&request, frame, sizeof frame);
    int size = -1;
    struct keys keys;
    if (keys_take(&keys, NULL, NULL) == 0 && keys_set(&keys, socket) == 0 && zmq_connect(socket, endpoint) == 0 &&
        zmq_send(socket, frame, (size_t)n, 0) >= 0)
        size = zmq_recv(socket, frame, sizeof frame, 0);
    zmq_close(socket);
    zmq_ctx_term(context);
    Expertd__ReplyHeader *answer = NULL;
    const char *why = "no answer";
    if (size >= 0 && (size_t)size <= sizeof frame &&
        message_decode_reply(&arena, frame, (size_t)size, &answer, &why) == 0 && answer->status == EXPERTD__STATUS__OK)
        return answer;
    fprintf(stderr, "%s %s: %s\n", endpoint, uid, answer ? answer->message : why);
    return NULL;
}

/* Where the server's shared memory is. */
static int ask_local(struct load *load)
{
    static char path[128];
    static unsigned char instance[LOCAL_INSTANCE];
    const Expertd__ReplyHeader *answer = ask(load->flags.traffic.endpoint, EXPERTD__METHOD__PING, "");
    if (!answer)
        return -1;
    if (!answer->pong || !answer->pong->local || answer->pong->local->instance.len != sizeof instance) {
        fprintf(stderr, "the server has no shared memory for clients (frontend.local)\n");
        return -1;
    }
    snprintf(path, sizeof path, "%s", answer->pong->local->path);
    memcpy(instance, answer->pong->local->instance.data, sizeof instance);
    load->flags.traffic.local_path = path;
    load->flags.traffic.local_instance = instance;
    return 0;
}

/* Small values that are not all the same; masks, of bool or int64, are of 0 and 1. */
static void *make_values(uint32_t dtype, size_t bytes)
{
    unsigned char *values = malloc(bytes + 8);
    const size_t step = dtype == DTYPE_INT64 ? sizeof(int64_t) : 1; /* little-endian, as all tensors are sent */
    for (size_t i = 0; values && i < bytes; i++)
        values[i] = i % step == 0 && (i / step * 2654435761U >> 16) & 1;
    if (values && dtype == DTYPE_FLOAT32) {
        for (size_t i = 0; i < bytes / 4; i++)
            ((float *)(void *)values)[i] = (float)(i * 2654435761U % 1000) / 500.0F - 1.0F;
    }
    return values;
}

static int add_tensors(struct load *load, const Expertd__Schema *schema, struct traffic_content *content)
{
    for (size_t i = 0; i < schema->n_tensors && load->tensors < TRAFFIC_MAX_FRAMES; i++) {
        const Expertd__Schema__Field *field = schema->tensors[i];
        const unsigned t = load->tensors++;
        Expertd__Tensor *tensor = load->tensor_pointers[t] = &load->tensor[t];
        expertd__tensor__init(tensor);
        tensor->dtype = field->dtype;
        tensor->shape = load->shape[t];
        tensor->n_shape = field->n_row_shape + 1;
        load->shape[t][0] = load->rows;
        if (tensor->n_shape > MESSAGE_MAX_DIMS)
            return -1;
        memcpy(&load->shape[t][1], field->row_shape, field->n_row_shape * sizeof(uint64_t));
        struct message_tensor_size size;
        if (!message_tensor_size(tensor, &size))
            return -1;
        content->frame[t] = make_values((uint32_t)tensor->dtype, size.bytes);
        content->frame_bytes[t] = size.bytes;
        if (!content->frame[t])
            return -1;
    }
    content->frames = load->tensors;
    return 0;
}

static int prepare(struct load *load, struct traffic_content *content)
{
    char error[256], uid[UID_SIZE];
    if (uid_pattern_parse(&load->experts, load->uid, error, sizeof error) < 0) {
        fprintf(stderr, "%s\n", error);
        return -1;
    }
    load->experts_count = uid_pattern_count(&load->experts);
    uid_pattern_nth(&load->experts, 0, uid);
    if (load->local && ask_local(load) < 0)
        return -1;
    const Expertd__ReplyHeader *answer = ask(load->flags.traffic.endpoint, EXPERTD__METHOD__INFO, uid);
    const Expertd__ExpertInfo *info = answer ? answer->info : NULL;
    if (!info || !info->forward_schema || !info->outputs_schema)
        return -1;
    int rc = add_tensors(load, info->forward_schema, content);
    load->inputs = load->tensors;
    if (rc == 0 && load->method == EXPERTD__METHOD__BACKWARD)
        rc = add_tensors(load, info->outputs_schema, content);
    return rc;
}

enum { ENDPOINT = 0x200, UID, ROWS, BACKWARD, TRAIN, DEADLINE, LOCAL, SPIN };

static const struct argp_option options[] = {
    {"endpoint", ENDPOINT, "URL", 0, "of the server's frontend (tcp://127.0.0.1:31330)", 0},
    {"uid", UID, "UID", 0, "of the expert; a pattern: of several, in turn (nop.0)", 0},
    {"rows", ROWS, "N", 0, "of each request (1)", 0},
    {"backward", BACKWARD, NULL, 0, "ask for backwards, not forwards", 0},
    {"train", TRAIN, NULL, 0, "ask for a forward, then its backward", 0},
    {"local", LOCAL, NULL, 0, "through the server's shared memory", 0},
    {"spin", SPIN, "US", 0, "look for answers for so long before sleeping (0)", 0},
    {"deadline", DEADLINE, "MS", 0, "of each request (0: none)", 0},
    {0},
};

static error_t take(int key, char *text, struct argp_state *state)
{
    struct load *load = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &load->flags;
        return 0;
    case ENDPOINT:
        load->flags.traffic.endpoint = text;
        return 0;
    case UID:
        load->uid = text;
        return 0;
    case ROWS:
        load->rows = flags_number(state, text, UINT32_MAX);
        return 0;
    case TRAIN:
        load->train = true;
        load->method = EXPERTD__METHOD__BACKWARD;
        return 0;
    case LOCAL:
        load->local = true;
        return 0;
    case SPIN:
        load->flags.traffic.spin_us = (unsigned)flags_number(state, text, 1000000);
        return 0;
    case BACKWARD:
        load->method = EXPERTD__METHOD__BACKWARD;
        return 0;
    case DEADLINE:
        load->deadline_ms = (uint32_t)flags_number(state, text, UINT32_MAX);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {.options = options, .parser = take, .children = flags_children};
    static struct load load = {
        .flags.traffic =
            {.endpoint = "tcp://127.0.0.1:31330", .clients = 1, .in_flight = 1, .seconds = 2, .warmup_s = 0.5},
        .uid = "nop.0",
        .method = EXPERTD__METHOD__FORWARD,
        .rows = 1,
    };
    const struct traffic_options *traffic = &load.flags.traffic;
    flags_parse(&argp, argc, argv, &load);
    process_init("load");
    message_arena_init(&arena, memory, sizeof memory);
    struct traffic_content content = {.header = header, .reply = reply, .context = &load};
    struct traffic_result result;
    if (prepare(&load, &content) < 0 || traffic_run(traffic, &content, &result) < 0)
        return 1;
    traffic_print(load.train                                 ? "train"
                  : load.method == EXPERTD__METHOD__BACKWARD ? "backward"
                                                             : "forward",
                  traffic, &result, result.rate * (double)load.rows, "rows_per_s", load.flags.json);
    for (unsigned f = 0; f < content.frames; f++)
        free((void *)(uintptr_t)content.frame[f]);
    return result.errors ? 1 : 0;
}
