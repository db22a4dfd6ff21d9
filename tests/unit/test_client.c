#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/expertd.h"
#include "common/clock.h"
#include "tests/unit/support_router.h"

enum { LONG_MS = 50000, SHORT_MS = 50 };

static struct router *router;
static struct expertd_client *client;
static struct expertd_call *call;
static float floats[64];

static void setup(void)
{
    for (size_t i = 0; i < 64; i++)
        floats[i] = (float)i;
    call = NULL;
    client = NULL;
    router = NULL;
}

static void teardown(void)
{
    expertd_client_destroy(&client);
    router_stop(&router);
}

static void start(router_handler *handler, void *context)
{
    router = router_start(NULL, handler, context);
    ck_assert_int_eq(expertd_client_new(&client, router_endpoint(router), NULL), 0);
}

static struct expertd_tensor rows_of_4(uint64_t rows)
{
    return expertd_tensor_f32(floats, rows, 4);
}

static void forward(uint64_t rows, uint32_t deadline_ms, struct expertd_call **result)
{
    struct expertd_tensor input = rows_of_4(rows);
    ck_assert_int_eq(expertd_forward(client, "nop.0", &input, 1, deadline_ms, result), 0);
}

static void backward(uint32_t deadline_ms, struct expertd_call **result)
{
    struct expertd_tensor input = rows_of_4(2);
    ck_assert_int_eq(expertd_backward(client, "nop.0", &input, 1, &input, 1, deadline_ms, result), 0);
}

static void finish_as(struct expertd_call *which, enum expertd_status status)
{
    ck_assert_int_eq(expertd_call_wait(which, -1), 0);
    ck_assert(expertd_call_done(which));
    ck_assert_msg(expertd_call_status(which) == status, "%s: %s", expertd_status_name(expertd_call_status(which)),
                  expertd_call_message(which));
    ck_assert((expertd_call_message(which)[0] == 0) == (status == EXPERTD_OK));
}

/* The answer of a ping: what was sent before it has been received by the server. */
static void ping(void)
{
    struct expertd_call *one;
    ck_assert_int_eq(expertd_ping(client, LONG_MS, &one), 0);
    finish_as(one, EXPERTD_OK);
    expertd_call_release(&one);
}

/* A port of the loopback where nobody listens. */
static char *free_endpoint(void)
{
    static char endpoint[256];
    struct router *other = router_start(NULL, router_nop, NULL);
    strcpy(endpoint, router_endpoint(other));
    router_stop(&other);
    return endpoint;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

START_TEST(every_method_is_answered)
{
    start(router_nop, NULL);
    ck_assert_int_eq(expertd_ping(client, LONG_MS, &call), 0);
    finish_as(call, EXPERTD_OK);
    ck_assert_str_eq(expertd_call_pong(call)->server, "fake");
    ck_assert_uint_eq(expertd_call_pong(call)->experts_alive, 1);
    ck_assert_ptr_null(expertd_call_list(call));
    expertd_call_release(&call);
    ck_assert_ptr_null(call);

    ck_assert_int_eq(expertd_list(client, "nop", 0, 0, LONG_MS, &call), 0);
    finish_as(call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_list(call)->count, 1);
    ck_assert_uint_eq(expertd_call_list(call)->generation, 7);
    ck_assert_str_eq(expertd_call_list(call)->entries[0].uid, "nop.0");
    ck_assert(expertd_call_list(call)->entries[0].alive);
    expertd_call_release(&call);

    ck_assert_int_eq(expertd_info(client, "nop.0", LONG_MS, &call), 0);
    finish_as(call, EXPERTD_OK);
    const struct expertd_info *info = expertd_call_info(call);
    ck_assert_str_eq(info->uid, "nop.0");
    ck_assert_uint_eq(info->forward_schema.count, 1);
    ck_assert_str_eq(info->forward_schema.fields[0].name, "x");
    ck_assert_uint_eq(info->outputs_schema.fields[0].row_shape[0], 4);
    ck_assert_uint_eq(info->backward_schema.count, 2);
    ck_assert_str_eq(info->backward_schema.fields[1].name, "x");
    ck_assert_uint_eq(info->update_count, 3);
    expertd_call_release(&call);

    ck_assert_int_eq(expertd_stats(client, LONG_MS, &call), 0);
    finish_as(call, EXPERTD_OK);
    ck_assert_str_eq(expertd_call_stats(call)->counters[0].name, "frontend.requests.ping");
    ck_assert_double_eq(expertd_call_stats(call)->counters[0].value, 5);
    expertd_call_release(&call);

    ck_assert_int_eq(expertd_checkpoint(client, NULL, LONG_MS, &call), 0);
    finish_as(call, EXPERTD_OK);
    expertd_call_release(&call);
}
END_TEST

START_TEST(a_forward_gives_the_outputs)
{
    start(router_nop, NULL);
    forward(3, LONG_MS, &call);
    finish_as(call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_output_count(call), 1);
    const struct expertd_tensor *output = expertd_call_output(call, 0);
    ck_assert_int_eq(output->dtype, EXPERTD_FLOAT32);
    ck_assert_uint_eq(output->ndim, 2);
    ck_assert_uint_eq(output->shape[0], 3);
    ck_assert_uint_eq(output->shape[1], 4);
    ck_assert_uint_eq(output->bytes, 48);
    ck_assert_mem_eq(output->data, floats, 48);
    ck_assert_ptr_null(expertd_call_output(call, 1));
    ck_assert(expertd_call_not_applied(call));
}
END_TEST

START_TEST(outputs_are_aligned_wherever_they_came_to_lie)
{
    start(router_nop, NULL);
    for (uint64_t bytes = 1; bytes < 300; bytes += 7) {
        double numbers[3] = {1, 2, 3};
        struct expertd_tensor inputs[2] = {
            {.dtype = EXPERTD_INT8,
             .ndim = 2,
             .shape = {1, bytes},
             .data = memset(malloc(bytes), 1, bytes),
             .bytes = bytes},
            {.dtype = EXPERTD_FLOAT64, .ndim = 2, .shape = {1, 3}, .data = numbers, .bytes = sizeof numbers}};
        ck_assert_int_eq(expertd_forward(client, "nop.0", inputs, 2, LONG_MS, &call), 0);
        free((void *)(uintptr_t)inputs[0].data);
        finish_as(call, EXPERTD_OK);
        const struct expertd_tensor *output = expertd_call_output(call, 1);
        ck_assert_uint_eq((uintptr_t)output->data % 8, 0);
        ck_assert_double_eq(((const double *)output->data)[2], 3);
        expertd_call_release(&call);
    }
}
END_TEST

START_TEST(a_backward_gives_one_gradient_for_each_input)
{
    start(router_nop, NULL);
    backward(LONG_MS, &call);
    finish_as(call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_output_count(call), 1);
    ck_assert(!expertd_call_not_applied(call));
}
END_TEST

static void refuse(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    router_reply_status(request, header, *(const Expertd__Status *)context, "no\033[31m way");
}

START_TEST(the_servers_status_and_printable_message_arrive)
{
    static const struct {
        int sent;
        enum expertd_status status;
        bool not_applied;
    } cases[] = {{3, EXPERTD_INVALID_ARGUMENT, true},   {4, EXPERTD_DEADLINE_EXCEEDED, false},
                 {5, EXPERTD_NOT_FOUND, true},          {6, EXPERTD_ALREADY_EXISTS, false},
                 {8, EXPERTD_RESOURCE_EXHAUSTED, true}, {10, EXPERTD_ABORTED, true},
                 {12, EXPERTD_UNIMPLEMENTED, true},     {13, EXPERTD_INTERNAL, true},
                 {14, EXPERTD_UNAVAILABLE, false},      {99, EXPERTD_INTERNAL, false}};
    Expertd__Status status = EXPERTD__STATUS__OK;
    start(refuse, &status);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        status = (Expertd__Status)cases[i].sent;
        backward(LONG_MS, &call);
        finish_as(call, cases[i].status);
        ck_assert_ptr_nonnull(strstr(expertd_call_message(call), "no?[31m way"));
        ck_assert_int_eq(expertd_call_not_applied(call), cases[i].not_applied);
        ck_assert_uint_eq(expertd_call_output_count(call), 0);
        expertd_call_release(&call);
    }
}
END_TEST

/* ---- many in flight -------------------------------------------------------------------------------------------- */

struct reverse {
    size_t count;
    uint64_t ids[100];
};

/* Holds a hundred requests and answers them backwards, each with its id as the output. */
static void answer_backwards(void *context, struct router_request *request)
{
    struct reverse *held = context;
    Expertd__RequestHeader *header = router_header(request);
    held->ids[held->count++] = header->request_id;
    if (held->count < 100)
        return;
    while (held->count > 0) {
        Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
        float value[4] = {(float)held->ids[--held->count]};
        header->request_id = held->ids[held->count];
        reply.n_tensors = 1;
        reply.tensors = header->tensors;
        router_reply(request, header, &reply, &(struct router_frame){value, sizeof value}, 1);
    }
}

START_TEST(answers_find_their_calls_in_any_order)
{
    struct reverse held = {0};
    struct expertd_call *calls[100];
    start(answer_backwards, &held);
    for (size_t i = 0; i < 100; i++) {
        forward(1, LONG_MS, &calls[i]);
        expertd_call_set_user(calls[i], &calls[i]);
    }
    size_t ended = 0;
    while (ended < 100) {
        const int n = expertd_poll(client, -1);
        ck_assert_int_gt(n, 0);
        ended += (size_t)n;
    }
    for (size_t i = 0; i < 100; i++) {
        struct expertd_call *done = expertd_next_done(client);
        ck_assert_ptr_eq(done, calls[99 - i]);
        ck_assert_ptr_eq(expertd_call_user(done), &calls[99 - i]);
        ck_assert_float_eq(*(const float *)expertd_call_output(done, 0)->data, (float)(100 - i));
    }
    ck_assert_ptr_null(expertd_next_done(client));
    ck_assert_int_eq(expertd_poll(client, -1), 0);
}
END_TEST

START_TEST(the_descriptor_tells_when_to_poll)
{
    start(router_nop, NULL);
    forward(1, LONG_MS, &call);
    while (expertd_poll(client, 0) == 0) {
        struct pollfd fd = {.fd = expertd_client_fd(client), .events = POLLIN};
        ck_assert_int_eq(poll(&fd, 1, expertd_client_timeout_ms(client)), 1);
    }
    ck_assert_ptr_eq(expertd_next_done(client), call);
    ck_assert_int_eq(expertd_client_timeout_ms(client), -1);
}
END_TEST

START_TEST(thousands_in_flight_are_all_answered)
{
    enum { CALLS = 4000 };
    static struct expertd_call *calls[CALLS];
    struct expertd_client_options options = {.queue_limit = CALLS};
    router = router_start(NULL, router_nop, NULL);
    ck_assert_int_eq(expertd_client_new(&client, router_endpoint(router), &options), 0);
    for (size_t i = 0; i < CALLS; i++)
        forward(1, LONG_MS, &calls[i]);
    for (size_t i = 0; i < CALLS; i++) {
        finish_as(calls[i], EXPERTD_OK);
        expertd_call_release(&calls[i]);
    }
}
END_TEST

/* ---- time, loss and return ------------------------------------------------------------------------------------- */

/* Counts what is no ping, and answers only pings. */
static void ignore(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    if (header->method == EXPERTD__METHOD__PING)
        router_nop(NULL, request);
    else
        ++*(atomic_int *)context;
}

START_TEST(a_call_without_answer_ends_at_its_deadline)
{
    atomic_int ignored = 0;
    start(ignore, &ignored);
    ping();
    const uint64_t start_ns = clock_now_ns();
    forward(1, SHORT_MS, &call);
    ck_assert_int_eq(expertd_call_wait(call, 0), -ETIMEDOUT);
    finish_as(call, EXPERTD_DEADLINE_EXCEEDED);
    ck_assert(clock_now_ns() - start_ns >= SHORT_MS * NS_PER_MS);
    expertd_call_release(&call);
    backward(SHORT_MS, &call);
    finish_as(call, EXPERTD_DEADLINE_EXCEEDED);
    ck_assert(!expertd_call_not_applied(call));
    ping();
    ck_assert_int_eq(ignored, 2);
}
END_TEST

START_TEST(a_wait_shorter_than_the_deadline_leaves_the_call_in_flight)
{
    atomic_int ignored = 0;
    start(ignore, &ignored);
    forward(1, LONG_MS, &call);
    ck_assert_int_eq(expertd_call_wait(call, 20), -ETIMEDOUT);
    ck_assert_int_eq(expertd_poll(client, 20), 0);
    ck_assert(!expertd_call_done(call));
}
END_TEST

static void answer_late(void *context, struct router_request *request)
{
    static Expertd__RequestHeader first;
    const Expertd__RequestHeader *header = router_header(request);
    (void)context;
    if (header->method != EXPERTD__METHOD__PING) {
        first = *header; /* only its id is used */
        return;
    }
    router_reply_status(request, &first, EXPERTD__STATUS__OK, "");
    router_nop(NULL, request);
}

START_TEST(the_answer_to_a_given_up_call_is_dropped)
{
    struct expertd_client_counters counters;
    start(answer_late, NULL);
    forward(1, LONG_MS, &call);
    expertd_call_release(&call);
    ping();
    forward(1, 1, &call);
    finish_as(call, EXPERTD_DEADLINE_EXCEEDED);
    ping();
    expertd_client_counters(client, &counters);
    ck_assert_uint_eq(counters.late_replies, 2);
    ck_assert_uint_eq(counters.in_flight, 0);
    ck_assert_uint_eq(counters.calls, 4);
}
END_TEST

START_TEST(without_a_server_a_call_ends_unavailable_and_was_not_applied)
{
    ck_assert_int_eq(expertd_client_new(&client, free_endpoint(), NULL), 0);
    backward(SHORT_MS, &call);
    finish_as(call, EXPERTD_UNAVAILABLE);
    ck_assert(expertd_call_not_applied(call));
    ck_assert(!expertd_client_connected(client));
}
END_TEST

START_TEST(a_call_waits_for_a_server_that_starts_later)
{
    char *endpoint = free_endpoint();
    ck_assert_int_eq(expertd_client_new(&client, endpoint, NULL), 0);
    forward(1, LONG_MS, &call);
    ck_assert_int_eq(expertd_call_wait(call, 30), -ETIMEDOUT);
    router = router_start(endpoint, router_nop, NULL);
    finish_as(call, EXPERTD_OK);
    ck_assert(expertd_client_connected(client));
}
END_TEST

START_TEST(a_request_that_expired_unsent_is_never_sent)
{
    atomic_int received = 0;
    char *endpoint = free_endpoint();
    ck_assert_int_eq(expertd_client_new(&client, endpoint, NULL), 0);
    backward(SHORT_MS, &call);
    finish_as(call, EXPERTD_UNAVAILABLE);
    router = router_start(endpoint, ignore, &received);
    ping();
    ck_assert_int_eq(received, 0);
}
END_TEST

START_TEST(a_lost_connection_ends_what_was_sent)
{
    atomic_int ignored = 0;
    struct expertd_call *other;
    start(ignore, &ignored);
    ping();
    backward(LONG_MS, &call);
    forward(1, LONG_MS, &other);
    ping();
    router_stop(&router);
    finish_as(call, EXPERTD_UNAVAILABLE);
    finish_as(other, EXPERTD_UNAVAILABLE);
    ck_assert(!expertd_call_not_applied(call));
    ck_assert(expertd_call_not_applied(other));
}
END_TEST

START_TEST(a_restarted_server_is_found_again)
{
    char endpoint[256];
    struct expertd_client_counters counters;
    start(router_nop, NULL);
    strcpy(endpoint, router_endpoint(router));
    for (int i = 0; i < 5; i++) {
        ping();
        router_stop(&router);
        router = router_start(endpoint, router_nop, NULL);
        /* The loss that happened while the client looked elsewhere is not blamed on the next call: at worst it ends
         * with the old connection, if that had not been seen to break. */
        do {
            expertd_call_release(&call);
            forward(1, LONG_MS, &call);
            ck_assert_int_eq(expertd_call_wait(call, -1), 0);
        } while (expertd_call_status(call) == EXPERTD_UNAVAILABLE);
        ck_assert_int_eq(expertd_call_status(call), EXPERTD_OK);
    }
    expertd_client_counters(client, &counters);
    ck_assert_uint_eq(counters.connects, 6);
    ck_assert_uint_eq(counters.disconnects, 5);
}
END_TEST

START_TEST(more_unsent_requests_than_the_limit_are_refused)
{
    struct expertd_client_options options = {.queue_limit = 2};
    struct expertd_call *calls[3];
    ck_assert_int_eq(expertd_client_new(&client, free_endpoint(), &options), 0);
    for (size_t i = 0; i < 3; i++)
        forward(1, LONG_MS, &calls[i]);
    ck_assert(!expertd_call_done(calls[1]));
    finish_as(calls[2], EXPERTD_RESOURCE_EXHAUSTED);
    expertd_call_release(&calls[0]);
    forward(1, LONG_MS, &calls[2]);
    ck_assert(!expertd_call_done(calls[2]));
}
END_TEST

START_TEST(a_handshake_that_fails_is_named)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    char endpoint[64];
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, size), 0);
    ck_assert_int_eq(listen(listener, 8), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
    ck_assert_int_eq(expertd_client_new(&client, endpoint, NULL), 0);
    forward(1, 500, &call);
    const int connection = accept(listener, NULL, NULL);
    /* ZMTP 3.0's greeting, of a peer that wants names and passwords. */
    static const char greeting[64] = "\xff\0\0\0\0\0\0\0\1\x7f\3\0PLAIN";
    ck_assert_int_eq(write(connection, greeting, sizeof greeting), sizeof greeting);
    finish_as(call, EXPERTD_UNAVAILABLE);
    ck_assert_msg(strstr(expertd_call_message(call), "handshake"), "%s", expertd_call_message(call));
    close(connection);
    close(listener);
}
END_TEST

START_TEST(a_client_with_calls_in_flight_can_be_destroyed)
{
    atomic_int ignored = 0;
    start(ignore, &ignored);
    forward(1, LONG_MS, &call);
    backward(LONG_MS, &call);
    ping();
    forward(1, LONG_MS, &call);
    expertd_client_destroy(&client);
    ck_assert_ptr_null(client);
    expertd_client_destroy(&client);
}
END_TEST

START_TEST(an_endpoint_that_is_none_is_refused)
{
    static const char *const endpoints[] = {"", "127.0.0.1:1", "tcp://", "tcp://127.0.0.1", "ftp://a:1"};
    for (size_t i = 0; i < sizeof endpoints / sizeof endpoints[0]; i++) {
        ck_assert_msg(expertd_client_new(&client, endpoints[i], NULL) == -EINVAL, "%s", endpoints[i]);
        ck_assert_ptr_null(client);
    }
}
END_TEST

/* ---- at most once ---------------------------------------------------------------------------------------------- */

struct seen {
    uint64_t request_id;
    unsigned char client_id[MESSAGE_CLIENT_ID_SIZE];
    uint32_t deadline_ms;
    int count, same;
    unsigned char data[32];
};

/* The first backward gets no answer; a repeated one does. */
static void answer_repeated(void *context, struct router_request *request)
{
    struct seen *seen = context;
    const Expertd__RequestHeader *header = router_header(request);
    if (header->method == EXPERTD__METHOD__BACKWARD) {
        ck_assert_uint_eq(header->client_id.len, MESSAGE_CLIENT_ID_SIZE);
        if (seen->count++ == 0) {
            seen->request_id = header->request_id;
            memcpy(seen->client_id, header->client_id.data, MESSAGE_CLIENT_ID_SIZE);
            memcpy(seen->data, zmq_msg_data(&request->frames[2]), sizeof seen->data);
            return;
        }
        seen->same += seen->request_id == header->request_id &&
                      memcmp(seen->client_id, header->client_id.data, MESSAGE_CLIENT_ID_SIZE) == 0 &&
                      memcmp(seen->data, zmq_msg_data(&request->frames[2]), sizeof seen->data) == 0;
        seen->deadline_ms = header->deadline_ms;
    }
    router_nop(NULL, request);
}

START_TEST(a_retried_backward_is_the_same_request)
{
    struct seen seen = {0};
    start(answer_repeated, &seen);
    ping();
    backward(SHORT_MS, &call);
    ck_assert_int_eq(expertd_call_retry(call, 0), -EINVAL);
    finish_as(call, EXPERTD_DEADLINE_EXCEEDED);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(expertd_call_retry(call, LONG_MS + 1), 0);
        ck_assert(!expertd_call_done(call));
        ck_assert_uint_eq(expertd_call_output_count(call), 0);
        finish_as(call, EXPERTD_OK);
        ck_assert_mem_eq(expertd_call_output(call, 0)->data, floats, 32);
    }
    ping();
    ck_assert_int_eq(seen.same, 2);
    ck_assert_uint_eq(seen.deadline_ms, LONG_MS + 1);
}
END_TEST

START_TEST(only_a_backward_can_be_retried)
{
    start(router_nop, NULL);
    forward(1, LONG_MS, &call);
    finish_as(call, EXPERTD_OK);
    ck_assert_int_eq(expertd_call_retry(call, 0), -EINVAL);
}
END_TEST

START_TEST(two_clients_have_different_ids)
{
    struct seen seen[2] = {0};
    for (int i = 0; i < 2; i++) {
        start(answer_repeated, &seen[i]);
        backward(LONG_MS, &call);
        ping();
        teardown();
    }
    ck_assert_mem_ne(seen[0].client_id, seen[1].client_id, MESSAGE_CLIENT_ID_SIZE);
}
END_TEST

/* ---- what programs give ---------------------------------------------------------------------------------------- */

static atomic_int freed;
static void count_free(void *data, void *hint)
{
    ck_assert_ptr_eq(hint, &freed);
    free(data);
    freed++;
}

static struct expertd_tensor borrowed(uint64_t rows)
{
    struct expertd_tensor tensor = rows_of_4(rows);
    float *copy = malloc(tensor.bytes);
    memcpy(copy, tensor.data, tensor.bytes);
    tensor.data = copy;
    tensor.free_fn = count_free;
    tensor.hint = &freed;
    return tensor;
}

START_TEST(borrowed_data_is_freed_once)
{
    freed = 0;
    start(router_nop, NULL);
    struct expertd_tensor inputs[2] = {borrowed(16), borrowed(16)};
    ck_assert_int_eq(expertd_forward(client, "nop.0", inputs, 2, LONG_MS, &call), 0);
    finish_as(call, EXPERTD_OK);
    ck_assert_mem_eq(expertd_call_output(call, 0)->data, floats, 256);
    expertd_client_destroy(&client);
    ck_assert_int_eq(freed, 2);
}
END_TEST

START_TEST(borrowed_data_of_a_backward_lives_for_its_retry)
{
    struct seen seen = {0};
    freed = 0;
    start(answer_repeated, &seen);
    ping();
    struct expertd_tensor input = borrowed(16), gradient = borrowed(16);
    ck_assert_int_eq(expertd_backward(client, "nop.0", &input, 1, &gradient, 1, SHORT_MS, &call), 0);
    finish_as(call, EXPERTD_DEADLINE_EXCEEDED);
    ck_assert_int_eq(freed, 0);
    ck_assert_int_eq(expertd_call_retry(call, LONG_MS), 0);
    finish_as(call, EXPERTD_OK);
    ck_assert_mem_eq(expertd_call_output(call, 0)->data, floats, 256);
    ck_assert_int_eq(freed, 0);
    expertd_call_release(&call);
    expertd_client_destroy(&client);
    ck_assert_int_eq(freed, 2);
}
END_TEST

START_TEST(borrowed_data_is_freed_when_nothing_is_sent)
{
    freed = 0;
    ck_assert_int_eq(expertd_client_new(&client, free_endpoint(), NULL), 0);
    struct expertd_tensor input = borrowed(16);
    ck_assert_int_eq(expertd_forward(client, "nop.0", &input, 1, SHORT_MS, &call), 0);
    finish_as(call, EXPERTD_UNAVAILABLE);
    ck_assert_int_eq(freed, 1);
    struct expertd_tensor wrong[2] = {borrowed(16), borrowed(1)};
    wrong[1].bytes++;
    expertd_call_release(&call);
    ck_assert_int_eq(expertd_forward(client, "nop.0", wrong, 2, SHORT_MS, &call), 0);
    finish_as(call, EXPERTD_INVALID_ARGUMENT);
    ck_assert_int_eq(freed, 3);
}
END_TEST

START_TEST(tensors_that_contradict_themselves_are_refused_here)
{
    struct expertd_tensor good = rows_of_4(2), tensors[8], many[EXPERTD_MAX_TENSORS + 1];
    for (size_t i = 0; i < 8; i++)
        tensors[i] = good;
    tensors[0].bytes = 31;
    tensors[1].dtype = (enum expertd_dtype)77;
    tensors[2].ndim = 0;
    tensors[3].ndim = EXPERTD_MAX_DIMS + 1;
    tensors[4].shape[0] = UINT64_MAX / 2;
    tensors[5].data = NULL;
    tensors[6].ndim = 100;
    tensors[7].shape[1] = 0;
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++)
        many[i] = good;
    start(router_nop, NULL);
    for (size_t i = 0; i < 8; i++) {
        ck_assert_int_eq(expertd_forward(client, "nop.0", &tensors[i], 1, LONG_MS, &call), 0);
        ck_assert(expertd_call_done(call));
        finish_as(call, EXPERTD_INVALID_ARGUMENT);
        expertd_call_release(&call);
        ck_assert_int_eq(expertd_backward(client, "nop.0", &good, 1, &tensors[i], 1, LONG_MS, &call), 0);
        finish_as(call, EXPERTD_INVALID_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(expertd_call_message(call), "grad_output 0"));
        ck_assert(expertd_call_not_applied(call));
        ck_assert_int_eq(expertd_call_retry(call, 0), -EINVAL);
        expertd_call_release(&call);
    }
    ck_assert_int_eq(expertd_forward(client, "nop.0", many, EXPERTD_MAX_TENSORS + 1, LONG_MS, &call), 0);
    finish_as(call, EXPERTD_INVALID_ARGUMENT);
    expertd_call_release(&call);
    ck_assert_int_eq(expertd_backward(client, "nop.0", many, EXPERTD_MAX_TENSORS, many, 1, LONG_MS, &call), 0);
    finish_as(call, EXPERTD_INVALID_ARGUMENT);
    expertd_call_release(&call);
    char uid[200];
    memset(uid, 'a', sizeof uid);
    uid[199] = 0;
    ck_assert_int_eq(expertd_forward(client, uid, &good, 1, LONG_MS, &call), 0);
    finish_as(call, EXPERTD_INVALID_ARGUMENT);
}
END_TEST

START_TEST(the_largest_request_fits_its_header)
{
    struct expertd_tensor most[EXPERTD_MAX_TENSORS];
    char uid[EXPERTD_MAX_UID + 1];
    for (size_t i = 0; i < EXPERTD_MAX_TENSORS; i++)
        most[i] = (struct expertd_tensor){.dtype = EXPERTD_BOOL,
                                          .ndim = EXPERTD_MAX_DIMS,
                                          .shape = {1, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, 0}};
    for (size_t i = 0; i < EXPERTD_MAX_TENSORS; i++)
        most[i].shape[1] = 0; /* so that the rest multiplies to nothing */
    memset(uid, 'a', sizeof uid);
    uid[EXPERTD_MAX_UID] = 0;
    start(router_nop, NULL);
    ck_assert_int_eq(expertd_forward(client, uid, most, EXPERTD_MAX_TENSORS, LONG_MS, &call), 0);
    finish_as(call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_output_count(call), EXPERTD_MAX_TENSORS);
}
END_TEST

START_TEST(names_are_those_of_the_protocol)
{
    ck_assert_str_eq(expertd_status_name(EXPERTD_UNAVAILABLE), "UNAVAILABLE");
    ck_assert_str_eq(expertd_status_name((enum expertd_status)99), "UNKNOWN");
    ck_assert_str_eq(expertd_dtype_name(EXPERTD_BFLOAT16), "bfloat16");
    ck_assert_uint_eq(expertd_dtype_size(EXPERTD_INT64), 8);
    ck_assert_uint_eq(expertd_dtype_size((enum expertd_dtype)99), 0);
    expertd_tune_allocator();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client");
    TCase *tests = tcase_create("client");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, every_method_is_answered);
    tcase_add_test(tests, a_forward_gives_the_outputs);
    tcase_add_test(tests, outputs_are_aligned_wherever_they_came_to_lie);
    tcase_add_test(tests, a_backward_gives_one_gradient_for_each_input);
    tcase_add_test(tests, the_servers_status_and_printable_message_arrive);
    tcase_add_test(tests, answers_find_their_calls_in_any_order);
    tcase_add_test(tests, the_descriptor_tells_when_to_poll);
    tcase_add_test(tests, thousands_in_flight_are_all_answered);
    tcase_add_test(tests, a_call_without_answer_ends_at_its_deadline);
    tcase_add_test(tests, a_wait_shorter_than_the_deadline_leaves_the_call_in_flight);
    tcase_add_test(tests, the_answer_to_a_given_up_call_is_dropped);
    tcase_add_test(tests, without_a_server_a_call_ends_unavailable_and_was_not_applied);
    tcase_add_test(tests, a_call_waits_for_a_server_that_starts_later);
    tcase_add_test(tests, a_request_that_expired_unsent_is_never_sent);
    tcase_add_test(tests, a_lost_connection_ends_what_was_sent);
    tcase_add_test(tests, a_restarted_server_is_found_again);
    tcase_add_test(tests, more_unsent_requests_than_the_limit_are_refused);
    tcase_add_test(tests, a_handshake_that_fails_is_named);
    tcase_add_test(tests, a_client_with_calls_in_flight_can_be_destroyed);
    tcase_add_test(tests, an_endpoint_that_is_none_is_refused);
    tcase_add_test(tests, a_retried_backward_is_the_same_request);
    tcase_add_test(tests, only_a_backward_can_be_retried);
    tcase_add_test(tests, two_clients_have_different_ids);
    tcase_add_test(tests, borrowed_data_is_freed_once);
    tcase_add_test(tests, borrowed_data_of_a_backward_lives_for_its_retry);
    tcase_add_test(tests, borrowed_data_is_freed_when_nothing_is_sent);
    tcase_add_test(tests, tensors_that_contradict_themselves_are_refused_here);
    tcase_add_test(tests, the_largest_request_fits_its_header);
    tcase_add_test(tests, names_are_those_of_the_protocol);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
