/* Messages of several frames, also of more than anybody of ours sends. */
#include <check.h>
#include <string.h>

#include "dht/frames.h"

static struct {
    void *context, *sender, *receiver;
} world;

static void begin(void)
{
    world.context = zmq_ctx_new();
    world.receiver = zmq_socket(world.context, ZMQ_PAIR);
    world.sender = zmq_socket(world.context, ZMQ_PAIR);
    ck_assert_int_eq(zmq_bind(world.receiver, "inproc://frames"), 0);
    ck_assert_int_eq(zmq_connect(world.sender, "inproc://frames"), 0);
}

static void end(void)
{
    zmq_close(world.sender);
    zmq_close(world.receiver);
    zmq_ctx_term(world.context);
}

/* Frames "0", "1" and so on. */
static void send_frames(int count)
{
    for (int i = 0; i < count; i++) {
        const char text = (char)('0' + i);
        ck_assert_int_eq(zmq_send(world.sender, &text, 1, i + 1 < count ? ZMQ_SNDMORE : 0), 1);
    }
}

START_TEST(nothing_is_no_message)
{
    struct frames frames;
    ck_assert(!frames_receive(&frames, world.receiver));
    ck_assert_int_eq(frames.count, 0);
}
END_TEST

START_TEST(each_message_comes_with_its_frames)
{
    struct frames frames;
    for (int count = 1; count <= FRAMES_KEPT + 3; count++)
        send_frames(count);
    for (int count = 1; count <= FRAMES_KEPT + 3; count++) {
        ck_assert(frames_receive(&frames, world.receiver));
        ck_assert_int_eq(frames.count, count);
        for (int i = 0; i < count && i < FRAMES_KEPT; i++) {
            ck_assert_uint_eq(zmq_msg_size(&frames.items[i]), 1);
            ck_assert_int_eq(*(const char *)zmq_msg_data(&frames.items[i]), '0' + i);
        }
        frames_close(&frames);
    }
    ck_assert(!frames_receive(&frames, world.receiver));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frames");
    TCase *tcase = tcase_create("frames");
    tcase_add_checked_fixture(tcase, begin, end);
    tcase_add_test(tcase, nothing_is_no_message);
    tcase_add_test(tcase, each_message_comes_with_its_frames);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
