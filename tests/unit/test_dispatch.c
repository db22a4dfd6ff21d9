/* Every kind of wrong request, thrown at a real frontend: each gets its status and a message that helps, and the server
 * goes on serving others. */
#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "unit/support_ask.h"

static struct rig rig;
static struct asker bad, good; /* who sends wrong requests, and who must not notice */
static struct question question;
static struct answer answer;

static void setup(void)
{
    rig_open(&rig, "  max_message: 1048576\n");
    rig_start_frontend(&rig);
    rig_start_runtime(&rig, false);
    ask_open(&bad, &rig, ZMQ_DEALER);
    ask_open(&good, &rig, ZMQ_DEALER);
    ask_until_up(&good);
}

static void teardown(void)
{
    ask_alive(&good);
    ask_close(&bad);
    ask_close(&good);
    ck_assert_int_eq(rig_end(&rig.frontend, SIGTERM), 0);
    rig_close(&rig);
}

static void forward(uint64_t rows)
{
    ask_prepare(&bad, &question, EXPERTD__METHOD__FORWARD, "nop.0", rows, 1);
}

static void expect(enum status status, const char *text)
{
    ask_call(&bad, &question, &answer, status);
    ck_assert_msg(strstr(answer.header->message, text), "\"%s\" does not say \"%s\"", answer.header->message, text);
    ask_alive(&good);
}

static void expect_raw(const void *const *frames, const size_t *bytes, unsigned count, uint64_t id, const char *text)
{
    ask_send_raw(&bad, frames, bytes, count);
    ask_receive(&bad, &answer);
    ck_assert_int_eq((int)answer.header->status, STATUS_INVALID_ARGUMENT);
    ck_assert_uint_eq(answer.header->request_id, id);
    ck_assert_msg(strstr(answer.header->message, text), "\"%s\" does not say \"%s\"", answer.header->message, text);
    ask_alive(&good);
}

START_TEST(an_unknown_uid_is_not_found)
{
    forward(1);
    strcpy(question.uid, "nop.77");
    expect(STATUS_NOT_FOUND, "no expert \"nop.77\"");
    forward(1);
    memset(question.uid, 'x', 199);
    expect(STATUS_NOT_FOUND, "no expert \"xxx");
    forward(1);
    question.uid[0] = 0;
    expect(STATUS_NOT_FOUND, "no expert \"\"");
    forward(1);
    strcpy(question.uid, "a\x1b[2J\xff.1"); /* must not reach anybody's terminal, nor break a UTF-8 field */
    expect(STATUS_NOT_FOUND, "no expert \"a?[2J?.1\"");
    ask_prepare(&bad, &question, EXPERTD__METHOD__INFO, "nop.77", 0, 0);
    expect(STATUS_NOT_FOUND, "no expert");
    ask_prepare(&bad, &question, EXPERTD__METHOD__CHECKPOINT, "nop.77", 0, 0);
    expect(STATUS_NOT_FOUND, "no expert");
}
END_TEST

START_TEST(a_uid_with_a_zero_byte_is_not_the_expert_before_it)
{
    /* BACKWARD to "nop.0\0x" with request_id 77 and two tensors [1, 16]: it must not train nop.0. */
    static const char header[] =
        "\x08\x01\x10\x4d\x18\x05\x22\x07nop.0\0x\x2a\x06\x08\x01\x12\x02\x01\x10\x2a\x06\x08\x01\x12\x02\x01\x10";
    static const float row[RIG_COLUMNS];
    const void *const frames[] = {header, row, row};
    const size_t bytes[] = {sizeof header - 1, sizeof row, sizeof row};
    expect_raw(frames, bytes, 3, 77, "zero byte");
    ck_assert_uint_eq(rig.knobs->applied, 0);
}
END_TEST

START_TEST(an_expert_whose_device_is_not_up_is_unavailable)
{
    forward(1);
    strcpy(question.uid, "away.0");
    expect(STATUS_UNAVAILABLE, "device 'other' is not up");
    ask_prepare(&bad, &question, EXPERTD__METHOD__INFO, "away.0", 0, 0);
    expect(STATUS_UNAVAILABLE, "device 'other' is not up");
}
END_TEST

START_TEST(tensors_that_do_not_fit_the_schema_are_refused)
{
    forward(4);
    question.tensor[0].dtype = EXPERTD__DTYPE__FLOAT64;
    expect(STATUS_INVALID_ARGUMENT, "input 0 (x): expected float32[rows,16], got float64[4,16]");
    forward(4);
    question.tensor[0].dtype = 77;
    expect(STATUS_INVALID_ARGUMENT, "got unknown[4,16]");
    forward(4);
    question.shape[0][1] = 512;
    expect(STATUS_INVALID_ARGUMENT, "expected float32[rows,16], got float32[4,512]");
    forward(4);
    question.tensor[0].n_shape = 1;
    expect(STATUS_INVALID_ARGUMENT, "got float32[4]");
    forward(4);
    question.tensor[0].n_shape = 0;
    expect(STATUS_INVALID_ARGUMENT, "got float32[]");
    forward(4);
    question.tensor[0].n_shape = 7;
    expect(STATUS_INVALID_ARGUMENT, "got float32[4,16,0,0,0,0,0]");
    forward(4);
    question.tensor[0].n_shape = 8;
    expect(STATUS_INVALID_ARGUMENT, "more than 7 dimensions");
    forward(4);
    question.tensor[0].codec = 77;
    expect(STATUS_UNIMPLEMENTED, "codec 77");
    forward(4);
    question.header.n_tensors = 0;
    expect(STATUS_INVALID_ARGUMENT, "expected 1 tensor (x float32[rows,16]), got 0");
    ask_prepare(&bad, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 2, 1);
    question.shape[1][0] = 3;
    question.frame_bytes[1] = 3UL * RIG_COLUMNS * 4;
    expect(STATUS_INVALID_ARGUMENT, "has 3 rows, input 0 has 2");
    ask_prepare(&bad, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 2, 1);
    question.header.n_tensors = question.frames = 1;
    expect(STATUS_INVALID_ARGUMENT, "expected 2 tensors");
}
END_TEST

START_TEST(absurd_sizes_are_refused)
{
    forward(1);
    question.shape[0][0] = 0;
    question.frame_bytes[0] = 0;
    expect(STATUS_INVALID_ARGUMENT, "0 rows");
    forward(RIG_MAX_BATCH + 1);
    expect(STATUS_INVALID_ARGUMENT, "9 rows are more than this expert's max_batch_size, 8");
    forward(1);
    question.shape[0][0] = UINT64_C(1) << 60;
    expect(STATUS_INVALID_ARGUMENT, "1152921504606846976 rows are more than");
    forward(1);
    question.shape[0][0] = question.shape[0][1] = UINT64_C(1) << 60;
    expect(STATUS_INVALID_ARGUMENT, "got float32[1152921504606846976,1152921504606846976]");
    forward(2);
    question.frame_bytes[0]--;
    expect(STATUS_INVALID_ARGUMENT, "float32[2,16] is 128 bytes, its frame has 127");
    forward(2);
    question.frame_bytes[0]++;
    expect(STATUS_INVALID_ARGUMENT, "its frame has 129");
}
END_TEST

START_TEST(missing_and_surplus_frames_are_refused)
{
    forward(1);
    question.frames = 0;
    expect(STATUS_INVALID_ARGUMENT, "the header names 1 tensor, but 0 frames came");
    forward(1);
    question.frames = 2;
    question.frame[1] = "surplus";
    question.frame_bytes[1] = 7;
    expect(STATUS_INVALID_ARGUMENT, "but 2 frames came");
    ask_prepare(&bad, &question, EXPERTD__METHOD__PING, "", 0, 0);
    question.frames = 1;
    question.frame[0] = "surplus";
    question.frame_bytes[0] = 7;
    expect(STATUS_INVALID_ARGUMENT, "takes no tensors");
    forward(1);
    question.header.n_tensors = 17;
    for (unsigned t = 1; t < 17; t++)
        expertd__tensor__init(&question.tensor[t]);
    expect(STATUS_INVALID_ARGUMENT, "more than 16 tensors");
}
END_TEST

START_TEST(thousands_of_frames_are_drained)
{
    enum { FRAMES = 4000 };
    unsigned char header[512];
    forward(1);
    const long n = message_encode_request(&question.header, header, sizeof header);
    ck_assert_int_gt(n, 0);
    zmq_send(bad.socket, header, (size_t)n, ZMQ_SNDMORE);
    for (int f = 0; f < FRAMES; f++)
        zmq_send(bad.socket, "0123456789", 10, f + 1 < FRAMES ? ZMQ_SNDMORE : 0);
    ask_receive(&bad, &answer);
    ck_assert_int_eq((int)answer.header->status, STATUS_INVALID_ARGUMENT);
    ck_assert_uint_eq(answer.header->request_id, question.header.request_id);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "4000 frames came"));
    ask_alive(&good);
    forward(1); /* and the same connection goes on */
    ask_call(&bad, &question, &answer, STATUS_OK);
}
END_TEST

START_TEST(garbage_instead_of_a_header_is_refused)
{
    static unsigned char garbage[100000];
    memset(garbage, 0xee, sizeof garbage);
    const void *frames[] = {garbage, garbage, garbage};
    expect_raw(frames, (size_t[]){1}, 1, 0, "not a header");
    expect_raw(frames, (size_t[]){5000, 3}, 2, 0, "not a header");
    expect_raw(frames, (size_t[]){100000}, 1, 0, "too long");
    expect_raw(frames, (size_t[]){4, 9, 9}, 3, 0, "not a header");
    srand(7);
    for (int i = 0; i < 200; i++) {
        const size_t size = 1 + (size_t)rand() % 64;
        for (size_t b = 0; b < size; b++)
            garbage[b] = (unsigned char)rand();
        ask_send_raw(&bad, frames, (size_t[]){size, 10}, 1 + i % 2);
        ask_receive(&bad, &answer);
        ck_assert_int_ne((int)answer.header->status, STATUS_OK);
    }
}
END_TEST

START_TEST(messages_without_a_header_are_answered_in_their_envelope)
{
    zmq_msg_t frame;
    /* An empty frame is a delimiter, which comes back in front of the reply. */
    zmq_send(bad.socket, "", 0, 0);
    for (int f = 0; f < 2; f++) {
        zmq_msg_init(&frame);
        ck_assert_int_ge(zmq_msg_recv(&frame, bad.socket, 0), 0);
        ck_assert_int_eq(zmq_msg_more(&frame), f == 0);
        ck_assert_int_eq(zmq_msg_size(&frame) == 0, f == 0);
        zmq_msg_close(&frame);
    }
    ask_alive(&good);
}
END_TEST

START_TEST(other_versions_and_methods_are_refused)
{
    forward(1);
    question.header.version = 2;
    expect(STATUS_INVALID_ARGUMENT, "version 2 is not spoken here; version 1 is");
    forward(1);
    question.header.version = 0;
    expect(STATUS_INVALID_ARGUMENT, "version 0");
    ask_prepare(&bad, &question, 99, "nop.0", 0, 0);
    expect(STATUS_UNIMPLEMENTED, "method 99");
    ask_prepare(&bad, &question, EXPERTD__METHOD__METHOD_NONE, "nop.0", 0, 0);
    expect(STATUS_UNIMPLEMENTED, "method 0");
    ask_prepare(&bad, &question, -1, "nop.0", 0, 0);
    expect(STATUS_UNIMPLEMENTED, "method -1");
}
END_TEST

START_TEST(a_client_id_of_another_size_is_refused)
{
    ask_prepare(&bad, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 1, 1);
    question.header.client_id.len = 15;
    expect(STATUS_INVALID_ARGUMENT, "client_id has to be 16 random bytes");
    static unsigned char zero[16];
    ask_prepare(&bad, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 1, 1);
    question.header.client_id = (ProtobufCBinaryData){16, zero};
    expect(STATUS_INVALID_ARGUMENT, "client_id");
}
END_TEST

START_TEST(a_frame_above_the_limit_ends_its_connection_only)
{
    static unsigned char large[1048576 + 1];
    forward(1);
    question.frame[0] = large;
    question.frame_bytes[0] = sizeof large;
    ask_send(&bad, &question);
    ask_alive(&good);
    /* ZeroMQ connects again; what was in between is lost, so ask until an answer comes. */
    RIG_WAIT((forward(1), ask_send(&bad, &question), ask_poll(&bad, &answer, 50)));
}
END_TEST

START_TEST(masks_are_made_0_or_1)
{
    static const unsigned char hostile[RIG_COLUMNS] = {0, 1, 2, 255, 128, 0, 7};
    ask_prepare(&bad, &question, EXPERTD__METHOD__FORWARD, "mask.0", 1, 3);
    question.header.n_tensors = question.frames = 2;
    expertd__tensor__init(&question.tensor[1]);
    question.tensor[1].dtype = EXPERTD__DTYPE__BOOL;
    question.tensor[1].n_shape = 2;
    question.tensor[1].shape = question.shape[0];
    question.frame[1] = hostile;
    question.frame_bytes[1] = sizeof hostile;
    ask_call(&bad, &question, &answer, STATUS_OK);
    ck_assert_uint_eq(answer.frames, 2);
    ck_assert_uint_eq(answer.bytes[1], sizeof hostile);
    for (size_t b = 0; b < sizeof hostile; b++)
        ck_assert_uint_eq(answer.second[b], hostile[b] != 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("dispatch");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 60);
    tcase_add_test(all, an_unknown_uid_is_not_found);
    tcase_add_test(all, a_uid_with_a_zero_byte_is_not_the_expert_before_it);
    tcase_add_test(all, an_expert_whose_device_is_not_up_is_unavailable);
    tcase_add_test(all, tensors_that_do_not_fit_the_schema_are_refused);
    tcase_add_test(all, absurd_sizes_are_refused);
    tcase_add_test(all, missing_and_surplus_frames_are_refused);
    tcase_add_test(all, thousands_of_frames_are_drained);
    tcase_add_test(all, garbage_instead_of_a_header_is_refused);
    tcase_add_test(all, messages_without_a_header_are_answered_in_their_envelope);
    tcase_add_test(all, other_versions_and_methods_are_refused);
    tcase_add_test(all, a_client_id_of_another_size_is_refused);
    tcase_add_test(all, a_frame_above_the_limit_ends_its_connection_only);
    tcase_add_test(all, masks_are_made_0_or_1);
    Suite *suite = suite_create("dispatch");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
