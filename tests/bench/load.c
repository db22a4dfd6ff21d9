/* The same clients as echo.c, against a server's experts: FORWARD or BACKWARD of so many rows. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "bench/support_traffic.h"
#include "common/process.h"
#include "common/uid.h"
#include "proto/message.h"

enum { TURNS = 1 << 16 };

struct load {
    Expertd__Method method;
    uint64_t rows;
    struct uid_pattern experts;
    uint64_t experts_count, next;
    uint32_t deadline_ms;
    bool train;
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
    return answer->request_id | UINT64_C(1) << 63;
}

/* Asks for the schema of one expert. */
static int ask_info(const char *endpoint, const char *uid, Expertd__ExpertInfo **info)
{
    static unsigned char frame[1 << 16];
    const int wait_ms = 5000, none = 0;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    Expertd__RequestHeader request = EXPERTD__REQUEST_HEADER__INIT;
    request.version = MESSAGE_VERSION;
    request.method = EXPERTD__METHOD__INFO;
    request.uid = (char *)(uintptr_t)uid;
    const long n = message_encode_request(&request, frame, sizeof frame);
    int size = -1;
    if (zmq_connect(socket, endpoint) == 0 && zmq_send(socket, frame, (size_t)n, 0) >= 0)
        size = zmq_recv(socket, frame, sizeof frame, 0);
    zmq_close(socket);
    zmq_ctx_term(context);
    Expertd__ReplyHeader *answer;
    const char *why = "no answer";
    if (size < 0 || (size_t)size > sizeof frame ||
        message_decode_reply(&arena, frame, (size_t)size, &answer, &why) < 0 || !answer->info) {
        fprintf(stderr, "INFO %s: %s\n", uid, size >= 0 && answer ? answer->message : why);
        return -1;
    }
    *info = answer->info;
    return 0;
}

/* Small values that are not all the same; bytes that are 0 or 1 for a mask. */
static void *make_values(uint32_t dtype, size_t bytes)
{
    unsigned char *values = malloc(bytes + 8);
    for (size_t i = 0; values && i < bytes; i++)
        values[i] = (i * 2654435761U >> 16) & 1;
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
        uint64_t bytes;
        if (!message_tensor_bytes(tensor, &bytes))
            return -1;
        content->frame[t] = make_values((uint32_t)tensor->dtype, bytes);
        content->frame_bytes[t] = bytes;
        if (!content->frame[t])
            return -1;
    }
    content->frames = load->tensors;
    return 0;
}

static int prepare(struct load *load, const char *endpoint, const char *experts, struct traffic_content *content)
{
    char error[256], uid[UID_SIZE];
    if (uid_pattern_parse(&load->experts, experts, error, sizeof error) < 0) {
        fprintf(stderr, "%s\n", error);
        return -1;
    }
    load->experts_count = uid_pattern_count(&load->experts);
    uid_pattern_nth(&load->experts, 0, uid);
    Expertd__ExpertInfo *info;
    if (ask_info(endpoint, uid, &info) < 0 || !info->forward_schema || !info->outputs_schema)
        return -1;
    int rc = add_tensors(load, info->forward_schema, content);
    load->inputs = load->tensors;
    if (rc == 0 && load->method == EXPERTD__METHOD__BACKWARD)
        rc = add_tensors(load, info->outputs_schema, content);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct option flags[] = {
        {"endpoint", 1, NULL, 'e'}, {"uid", 1, NULL, 'u'},       {"backward", 0, NULL, 'b'},  {"rows", 1, NULL, 'r'},
        {"clients", 1, NULL, 'c'},  {"processes", 1, NULL, 'P'}, {"in-flight", 1, NULL, 'i'}, {"seconds", 1, NULL, 's'},
        {"warmup", 1, NULL, 'w'},   {"deadline", 1, NULL, 'd'},  {"train", 0, NULL, 't'},     {"json", 0, NULL, 'j'},
        {"help", 0, NULL, 'h'},     {NULL, 0, NULL, 0},
    };
    struct traffic_options options = {
        .endpoint = "tcp://127.0.0.1:31330", .clients = 1, .in_flight = 1, .seconds = 2, .warmup_s = 0.5};
    static struct load load = {.method = EXPERTD__METHOD__FORWARD, .rows = 1};
    const char *experts = "nop.0";
    bool json = false;
    int flag;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        switch (flag) {
        case 'e':
            options.endpoint = optarg;
            break;
        case 'u':
            experts = optarg;
            break;
        case 'b':
            load.method = EXPERTD__METHOD__BACKWARD;
            break;
        case 't':
            load.method = EXPERTD__METHOD__BACKWARD;
            load.train = true;
            break;
        case 'r':
            load.rows = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            options.clients = (unsigned)atoi(optarg);
            break;
        case 'P':
            options.processes = (unsigned)atoi(optarg);
            break;
        case 'i':
            options.in_flight = (unsigned)atoi(optarg);
            break;
        case 's':
            options.seconds = atof(optarg);
            break;
        case 'w':
            options.warmup_s = atof(optarg);
            break;
        case 'd':
            load.deadline_ms = (uint32_t)atoi(optarg);
            break;
        case 'j':
            json = true;
            break;
        default:
            puts("load [--endpoint E] [--uid UID or pattern] [--backward | --train (forward, backward, ...)] [--rows "
                 "N] [--clients N] [--processes N]\n"
                 "     [--in-flight N] [--seconds S] [--warmup S] [--deadline MS] [--json]");
            return flag == 'h' ? 0 : 2;
        }
    }
    process_init("load");
    message_arena_init(&arena, memory, sizeof memory);
    struct traffic_content content = {.header = header, .reply = reply, .context = &load};
    struct traffic_result result;
    if (prepare(&load, options.endpoint, experts, &content) < 0 || traffic_run(&options, &content, &result) < 0)
        return 1;
    traffic_print(load.train                                 ? "train"
                  : load.method == EXPERTD__METHOD__BACKWARD ? "backward"
                                                             : "forward",
                  &options, &result, result.rate * (double)load.rows, "rows_per_s", json);
    for (unsigned f = 0; f < content.frames; f++)
        free((void *)(uintptr_t)content.frame[f]);
    return result.errors ? 1 : 0;
}
