/* Replies through a ROUTER to clients that have not read yet. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zmq.h>

#include "frontend/buffer.h"
#include "frontend/client_peer.h"
#include "frontend/counters.h"
#include "frontend/reply.h"
#include "proto/message.h"

enum { ROWS = 10, LARGE = 10 << 20 /* floats: a block of its own for malloc */ };

static void *context, *router, *clients[2];
static struct client_peers *peers;
static struct buffers *buffers;
static struct counters counters;
static struct replier replier;
static struct client_peer *peer[2];

static void setup(void)
{
    context = zmq_ctx_new();
    router = zmq_socket(context, ZMQ_ROUTER);
    ck_assert_int_eq(zmq_bind(router, "inproc://reply"), 0);
    ck_assert_int_eq(client_peers_create(&peers, 16, SIZE_MAX), 0);
    ck_assert_int_eq(buffers_create(&buffers, 0), 0);
    replier = (struct replier){.socket = router, .peers = peers, .buffers = buffers, .counters = &counters};
    for (int i = 0; i < 2; i++) {
        unsigned char id[64];
        clients[i] = zmq_socket(context, ZMQ_DEALER);
        ck_assert_int_eq(zmq_connect(clients[i], "inproc://reply"), 0);
        ck_assert_int_eq(zmq_send(clients[i], "here", 4, 0), 4);
        const int size = zmq_recv(router, id, sizeof id, 0);
        ck_assert_int_gt(size, 0);
        ck_assert_int_eq(zmq_recv(router, id + size, 4, 0), 4);
        peer[i] = client_peers_find(peers, id, (size_t)size);
        ck_assert_ptr_nonnull(peer[i]);
    }
}

static void teardown(void)
{
    for (int i = 0; i < 2; i++) {
        zmq_close(clients[i]);
        client_peer_release(peer[i]);
    }
    zmq_close(router);
    zmq_ctx_term(context);
    client_peers_destroy(&peers);
    buffers_destroy(&buffers);
}

/* The rows count from `first` on. */
static struct buffer *build(uint32_t columns, float first)
{
    struct schema schema = {.count = 1};
    schema.tensors[0] = (struct tensor_desc){.dtype = DTYPE_FLOAT32, .ndim = 1, .dims = {columns}};
    float *values = malloc((size_t)ROWS * columns * sizeof *values);
    for (size_t i = 0; i < (size_t)ROWS * columns; i++)
        values[i] = first + (float)i;
    const void *data[] = {values};
    const uint8_t codecs[] = {0};
    struct buffer *built = reply_build(&replier, 7, &schema, ROWS, data, codecs, 0);
    ck_assert_ptr_nonnull(built);
    free(values);
    return built;
}

static void send_to(int client, struct buffer *built)
{
    const struct reply_to to = {.peer = peer[client], .request_id = 7};
    reply_send(&replier, &to, built);
}

/* The next reply's status; its first value and message. */
static int receive(int client, float *first, char message[128])
{
    unsigned char header[4096];
    const int size = zmq_recv(clients[client], header, sizeof header, 0);
    ck_assert_int_gt(size, 0);
    Expertd__ReplyHeader *reply = expertd__reply_header__unpack(NULL, (size_t)size, header);
    ck_assert_ptr_nonnull(reply);
    ck_assert_uint_eq(reply->request_id, 7);
    const int status = (int)reply->status;
    snprintf(message, 128, "%s", reply->message);
    expertd__reply_header__free_unpacked(reply, NULL);
    int more = 0;
    size_t more_size = sizeof more;
    zmq_getsockopt(clients[client], ZMQ_RCVMORE, &more, &more_size);
    *first = -1;
    if (more) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        ck_assert_int_ge(zmq_msg_recv(&frame, clients[client], 0), (int)sizeof *first);
        memcpy(first, zmq_msg_data(&frame), sizeof *first);
        zmq_msg_close(&frame);
    }
    return status;
}

static void expect(int client, int status, float value, const char *says)
{
    char message[128];
    float first;
    ck_assert_int_eq(receive(client, &first, message), status);
    ck_assert_float_eq(first, value);
    ck_assert_msg(strstr(message, says) != NULL, "%s", message);
}

START_TEST(an_answer_goes_out_as_often_as_it_is_asked_for)
{
    struct buffer *built = build(4, 3);
    send_to(0, built);
    send_to(1, built); /* while it is on its way to the other one */
    send_to(0, built);
    ck_assert_uint_gt(client_peers_unsent(peers), 0);
    expect(0, STATUS_OK, 3, "");
    expect(0, STATUS_OK, 3, "");
    expect(1, STATUS_OK, 3, "");
    buffer_release(built);
    ck_assert_uint_eq(client_peers_unsent(peers), 0);
}
END_TEST

static uint64_t address_space(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    ck_assert_int_eq(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The one to whom it is on its way gets it; the other is told what it may do: it was applied, so not that nothing was.
 */
START_TEST(where_there_is_no_memory_for_a_copy_the_repeat_is_told_to_come_again)
{
    struct rlimit before, tight;
    struct buffer *built = build(LARGE / ROWS, 5);
    send_to(0, built);
    ck_assert_int_eq(getrlimit(RLIMIT_AS, &before), 0);
    tight = before;
    tight.rlim_cur = address_space() + (8 << 20);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &tight), 0);
    send_to(1, built);
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &before), 0);
    expect(1, STATUS_UNAVAILABLE, -1, "no memory for the answer now; repeat");
    send_to(1, built);
    expect(1, STATUS_OK, 5, "");
    expect(0, STATUS_OK, 5, "");
    buffer_release(built);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("reply"), *memory = tcase_create("memory");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, an_answer_goes_out_as_often_as_it_is_asked_for);
    tcase_add_checked_fixture(memory, setup, teardown);
#ifndef __SANITIZE_ADDRESS__ /* whose allocator ends the process where memory is refused */
    tcase_add_test(memory, where_there_is_no_memory_for_a_copy_the_repeat_is_told_to_come_again);
#else
    (void)where_there_is_no_memory_for_a_copy_the_repeat_is_told_to_come_again;
#endif
    Suite *suite = suite_create("reply");
    suite_add_tcase(suite, all);
    suite_add_tcase(suite, memory);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
