#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/call_request.h"
#include "proto/codec.h"

static struct expertd_call call;
static struct call_request request;
static struct expertd_tensor tensors[EXPERTD_MAX_TENSORS + 1];
static const unsigned char client_id[MESSAGE_CLIENT_ID_SIZE] = {1, 2, 3};
static _Alignas(16) unsigned char memory[MESSAGE_OWN_ARENA];
static struct message_arena arena;
static float x[64 * 16];
static int freed;

static void setup(void)
{
    memset(&call, 0, sizeof call);
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++)
        x[i] = (float)i / 7;
    for (size_t i = 0; i < EXPERTD_MAX_TENSORS + 1; i++)
        tensors[i] = expertd_tensor_f32(x, 64, 16);
    request = (struct call_request){.method = EXPERTD__METHOD__BACKWARD,
                                    .uid = "ffn.0",
                                    .tensors = {tensors, tensors + 1},
                                    .count = {1, 1},
                                    .client_id = client_id};
    call.request_id = 5;
    call.deadline_ms = 100;
    freed = 0;
}

static void teardown(void)
{
    call_drop_request(&call);
}

static const Expertd__RequestHeader *header(void)
{
    Expertd__RequestHeader *decoded;
    const char *why;
    message_arena_init(&arena, memory, sizeof memory);
    ck_assert_int_eq(
        message_decode_request(&arena, zmq_msg_data(&call.request[0]), zmq_msg_size(&call.request[0]), &decoded, &why),
        0);
    return decoded;
}

static void count_free(void *data, void *hint)
{
    (void)data;
    (void)hint;
    freed++;
}

START_TEST(a_backward_has_its_ids_and_frames)
{
    ck_assert_int_eq(call_request_make(&call, &request), EXPERTD_OK);
    ck_assert_uint_eq(call.n_request, 3);
    ck_assert_uint_eq(call.rows, 64);
    ck_assert_uint_eq(call.n_gradients, 1);
    ck_assert_uint_eq(header()->client_id.len, 16);
    ck_assert_uint_eq(header()->request_id, 5);
    ck_assert_uint_eq(header()->n_reply_codecs, 0);
    ck_assert_mem_eq(zmq_msg_data(&call.request[2]), x, sizeof x);
}
END_TEST

START_TEST(wanted_gradients_are_said_of_each_input)
{
    static const bool wanted[] = {false, true, false};
    request.tensors[1] = tensors + 3;
    request.count[0] = 3;
    request.requires_grad = wanted;
    ck_assert_int_eq(call_request_make(&call, &request), EXPERTD_OK);
    ck_assert_uint_eq(call.n_gradients, 1);
    call.deadline_ms = 7;
    ck_assert_int_eq(call_request_set_deadline(&call), 0);
    ck_assert_uint_eq(header()->n_requires_grad, 3);
    for (size_t i = 0; i < 3; i++)
        ck_assert_int_eq(header()->requires_grad[i], wanted[i]);
}
END_TEST

START_TEST(a_new_deadline_changes_nothing_else)
{
    request.reply_codec = CODEC_FLOAT16;
    ck_assert_int_eq(call_request_make(&call, &request), EXPERTD_OK);
    call.deadline_ms = 70000;
    ck_assert_int_eq(call_request_set_deadline(&call), 0);
    ck_assert_uint_eq(header()->deadline_ms, 70000);
    ck_assert_str_eq(header()->uid, "ffn.0");
    ck_assert_uint_eq(header()->n_tensors, 2);
    ck_assert_uint_eq(header()->n_reply_codecs, 1);
}
END_TEST

START_TEST(tensors_travel_as_they_say_or_as_the_client_does)
{
    float y[64 * 16];
    tensors[0].codec = EXPERTD_CODEC_UNIFORM_8BIT;
    request.codec = CODEC_FLOAT16;
    request.reply_codec = CODEC_BFLOAT16;
    ck_assert_int_eq(call_request_make(&call, &request), EXPERTD_OK);
    ck_assert_int_eq(header()->tensors[0]->codec, EXPERTD__CODEC__CODEC_UNIFORM_8BIT);
    ck_assert_int_eq(header()->tensors[1]->codec, EXPERTD__CODEC__CODEC_FLOAT16);
    ck_assert_int_eq(header()->reply_codecs[0], EXPERTD__CODEC__CODEC_BFLOAT16);
    ck_assert_uint_eq(zmq_msg_size(&call.request[2]), 64 * 16 * 2);
    codec_decode(CODEC_FLOAT16, zmq_msg_data(&call.request[2]), 64 * 16, 16, y);
    for (int i = 0; i < 64 * 16; i++)
        ck_assert_float_eq_tol(y[i], x[i], 0.07F);
}
END_TEST

START_TEST(what_a_codec_cannot_say_or_shrink_travels_as_it_is)
{
    int32_t numbers[4] = {1, 2, 3, 4};
    x[5] = NAN;
    request.codec = CODEC_UNIFORM_8BIT;
    tensors[1] =
        (struct expertd_tensor){.dtype = EXPERTD_INT32, .ndim = 2, .shape = {64, 0}, .data = numbers, .bytes = 0};
    ck_assert_int_eq(call_request_make(&call, &request), EXPERTD_OK);
    ck_assert_int_eq(header()->tensors[0]->codec, EXPERTD__CODEC__RAW);
    ck_assert_int_eq(header()->tensors[1]->codec, EXPERTD__CODEC__RAW);
    ck_assert_mem_eq(zmq_msg_data(&call.request[1]), x, sizeof x);
    call_drop_request(&call);
    x[5] = 1;
    tensors[1] = tensors[0] = expertd_tensor_f32(x, 1, 16);
    ck_assert_int_eq(call_request_make(&call, &request), EXPERTD_OK);
    ck_assert_int_eq(header()->tensors[0]->codec, EXPERTD__CODEC__RAW);
}
END_TEST

START_TEST(borrowed_data_is_freed_once_whether_it_is_encoded_or_not)
{
    tensors[0].free_fn = tensors[1].free_fn = count_free;
    tensors[0].codec = EXPERTD_CODEC_FLOAT16;
    ck_assert_int_eq(call_request_make(&call, &request), EXPERTD_OK);
    ck_assert_int_eq(freed, 1); /* the encoded one is no longer read */
    call_drop_request(&call);
    ck_assert_int_eq(freed, 2);
    tensors[1].codec = (enum expertd_codec)99;
    ck_assert_int_eq(call_request_make(&call, &request), EXPERTD_INVALID_ARGUMENT);
    ck_assert_int_eq(freed, 4);
    ck_assert_ptr_nonnull(strstr(call.message, "grad_output 0: its codec"));
}
END_TEST

START_TEST(a_codec_of_another_dtype_is_refused)
{
    tensors[0].dtype = EXPERTD_INT32;
    tensors[0].codec = EXPERTD_CODEC_FLOAT16;
    ck_assert_int_eq(call_request_make(&call, &request), EXPERTD_INVALID_ARGUMENT);
    ck_assert_uint_eq(call.n_request, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("call_request");
    TCase *tests = tcase_create("call_request");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_backward_has_its_ids_and_frames);
    tcase_add_test(tests, wanted_gradients_are_said_of_each_input);
    tcase_add_test(tests, a_new_deadline_changes_nothing_else);
    tcase_add_test(tests, tensors_travel_as_they_say_or_as_the_client_does);
    tcase_add_test(tests, what_a_codec_cannot_say_or_shrink_travels_as_it_is);
    tcase_add_test(tests, borrowed_data_is_freed_once_whether_it_is_encoded_or_not);
    tcase_add_test(tests, a_codec_of_another_dtype_is_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
