#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "client/call_reply.h"
#include "proto/codec.h"

static struct decoder decoder;
static struct expertd_call call;
static zmq_msg_t frames[1 + EXPERTD_MAX_TENSORS];
static size_t n_frames;
static uint64_t shape[MESSAGE_MAX_DIMS];
static Expertd__Tensor tensors[EXPERTD_MAX_TENSORS], *pointers[2 * EXPERTD_MAX_TENSORS];
static Expertd__ReplyHeader header;

/* A good reply to a forward of 2 rows: two tensors of [2, 3] floats. Tests break it. */
static void setup(void)
{
    memset(&call, 0, sizeof call);
    call.method = EXPERTD__METHOD__FORWARD;
    call.rows = 2;
    call.n_gradients = 2;
    expertd__reply_header__init(&header);
    header.version = MESSAGE_VERSION;
    header.n_tensors = 2;
    header.tensors = pointers;
    shape[0] = 2;
    shape[1] = 3;
    for (size_t i = 0; i < EXPERTD_MAX_TENSORS; i++) {
        expertd__tensor__init(&tensors[i]);
        tensors[i].dtype = EXPERTD__DTYPE__FLOAT32;
        tensors[i].n_shape = 2;
        tensors[i].shape = shape;
        pointers[i] = &tensors[i];
    }
    n_frames = 3;
    for (size_t i = 1; i < n_frames; i++) {
        ck_assert_int_eq(zmq_msg_init_size(&frames[i], 24), 0);
        memset(zmq_msg_data(&frames[i]), 0, 24);
    }
}

static void teardown(void)
{
    for (size_t i = 1; i < n_frames; i++)
        zmq_msg_close(&frames[i]);
    call_drop_answer(&call);
    decoder_clear(&decoder);
}

static bool take(void)
{
    const char *why;
    const size_t room = expertd__reply_header__get_packed_size(&header);
    ck_assert_int_eq(zmq_msg_init_size(&frames[0], room), 0);
    message_encode_reply(&header, zmq_msg_data(&frames[0]), room);
    const Expertd__ReplyHeader *decoded = call_reply_decode(&decoder, &frames[0], &why);
    ck_assert_ptr_nonnull(decoded);
    const bool good = call_reply_take(&call, decoded, frames + 1, n_frames - 1, why);
    zmq_msg_close(&frames[0]);
    return good;
}

static void refused(const char *says)
{
    ck_assert(!take());
    ck_assert_int_eq(expertd_call_status(&call), EXPERTD_INTERNAL);
    ck_assert_msg(strstr(expertd_call_message(&call), says), "%s", expertd_call_message(&call));
    ck_assert_uint_eq(expertd_call_output_count(&call), 0);
    ck_assert_ptr_null(call.answer);
}

START_TEST(a_good_reply_is_taken)
{
    ck_assert(take());
    ck_assert_int_eq(expertd_call_status(&call), EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_output_count(&call), 2);
    ck_assert_uint_eq(expertd_call_output(&call, 1)->bytes, 24);
}
END_TEST

START_TEST(a_frame_that_contradicts_its_shape_is_refused)
{
    shape[1] = 4;
    refused("size");
}
END_TEST

START_TEST(a_shape_beyond_all_memory_is_refused)
{
    shape[1] = UINT64_C(1) << 62;
    refused("shape");
}
END_TEST

START_TEST(a_shape_that_wraps_to_the_right_size_is_refused)
{
    shape[0] = UINT64_C(1) << 61;
    shape[1] = 8;
    refused("shape");
}
END_TEST

static void encoded(enum codec codec, const void *frame, size_t bytes)
{
    teardown();
    setup();
    tensors[1].codec = (Expertd__Codec)codec;
    zmq_msg_close(&frames[2]);
    ck_assert_int_eq(zmq_msg_init_size(&frames[2], bytes), 0);
    memcpy(zmq_msg_data(&frames[2]), frame, bytes);
}

START_TEST(an_encoded_tensor_is_decoded)
{
    const uint16_t halves[6] = {0x3c00, 0xc000, 0, 0x3800, 0x7bff, 0x3c00};
    const float right[6] = {1, -2, 0, 0.5F, 65504, 1};
    encoded(CODEC_FLOAT16, halves, sizeof halves);
    ck_assert(take());
    const struct expertd_tensor *output = expertd_call_output(&call, 1);
    ck_assert_uint_eq(output->bytes, 24);
    ck_assert_int_eq(output->dtype, EXPERTD_FLOAT32);
    ck_assert_int_eq(output->codec, EXPERTD_CODEC_FLOAT16);
    ck_assert_mem_eq(output->data, right, sizeof right);
    ck_assert_int_eq(expertd_call_output(&call, 0)->codec, EXPERTD_CODEC_NONE);
}
END_TEST

START_TEST(an_encoded_tensor_that_lies_is_refused)
{
    unsigned char frame[8 + 1024 + 6] = {0, 1};
    encoded(CODEC_UNIFORM_8BIT, frame, sizeof frame);
    ck_assert(take());
    call_drop_answer(&call);
    memset(frame + 8 + 4 * 77, 0xff, 4); /* a NaN */
    encoded(CODEC_UNIFORM_8BIT, frame, sizeof frame);
    refused("NaN or Inf");
    frame[0] = 1;
    encoded(CODEC_QUANTILE_8BIT, frame, sizeof frame);
    refused("256 numbers");
    encoded(CODEC_QUANTILE_8BIT, frame, sizeof frame - 1);
    refused("size");
    teardown();
    setup();
    tensors[0].dtype = EXPERTD__DTYPE__INT32;
    tensors[0].codec = EXPERTD__CODEC__CODEC_FLOAT16;
    refused("codec");
}
END_TEST

START_TEST(an_unknown_dtype_or_codec_or_no_shape_is_refused)
{
    tensors[1].dtype = (Expertd__DType)50;
    refused("dtype");
    tensors[1].dtype = EXPERTD__DTYPE__FLOAT32;
    tensors[1].codec = (Expertd__Codec)1;
    setup();
    tensors[0].codec = (Expertd__Codec)50;
    refused("codec");
    setup();
    tensors[0].codec = EXPERTD__CODEC__CODEC_FLOAT16; /* whose frame would be half as long */
    refused("size");
    setup();
    tensors[0].n_shape = 0;
    refused("shape");
}
END_TEST

START_TEST(rows_that_were_not_asked_for_are_refused)
{
    shape[0] = 3;
    shape[1] = 2;
    refused("rows");
}
END_TEST

START_TEST(too_few_and_too_many_frames_are_refused)
{
    header.n_tensors = 1;
    refused("frame");
    header.n_tensors = 3;
    refused("frame");
    n_frames = 1;
    header.n_tensors = 0;
    refused("no tensors");
}
END_TEST

START_TEST(too_many_tensors_and_dimensions_are_refused)
{
    for (size_t i = 0; i < EXPERTD_MAX_TENSORS + 1; i++)
        pointers[i] = &tensors[0];
    header.n_tensors = EXPERTD_MAX_TENSORS + 1;
    refused("more than 16");
    header.n_tensors = 2;
    uint64_t many[MESSAGE_MAX_DIMS + 1] = {2, 3, 1, 1, 1, 1, 1, 1};
    tensors[0].shape = many;
    tensors[0].n_shape = MESSAGE_MAX_DIMS + 1;
    refused("dimensions");
}
END_TEST

START_TEST(another_number_of_gradients_than_is_wanted_is_refused)
{
    call.method = EXPERTD__METHOD__BACKWARD;
    call.n_gradients = 1;
    refused("gradient");
    ck_assert(!expertd_call_not_applied(&call));
}
END_TEST

START_TEST(another_version_is_named)
{
    header.version = 2;
    refused("version 2");
}
END_TEST

START_TEST(an_answer_without_its_message_is_refused)
{
    static const Expertd__Method methods[] = {EXPERTD__METHOD__PING, EXPERTD__METHOD__LIST, EXPERTD__METHOD__INFO,
                                              EXPERTD__METHOD__STATS};
    header.n_tensors = 0;
    n_frames = 1;
    for (size_t i = 0; i < 4; i++) {
        call.method = methods[i];
        refused("it has no");
    }
}
END_TEST

START_TEST(impossible_schemas_are_refused)
{
    Expertd__ExpertInfo info = EXPERTD__EXPERT_INFO__INIT;
    Expertd__Schema schema = EXPERTD__SCHEMA__INIT;
    Expertd__Schema__Field field = EXPERTD__SCHEMA__FIELD__INIT, *fields[20];
    char uid[] = "ffn.0";
    uint64_t row_shape[8] = {UINT64_C(1) << 40, UINT64_C(1) << 40};
    for (size_t i = 0; i < 20; i++)
        fields[i] = &field;
    header.n_tensors = 0;
    n_frames = 1;
    header.info = &info;
    call.method = EXPERTD__METHOD__INFO;
    refused("uid");
    info.uid = uid;
    refused("schema");
    info.forward_schema = info.outputs_schema = &schema;
    refused("schema");
    schema.tensors = fields;
    schema.n_tensors = 20;
    refused("schema");
    schema.n_tensors = 1;
    refused("dtype");
    field.dtype = EXPERTD__DTYPE__FLOAT32;
    field.row_shape = row_shape;
    field.n_row_shape = 2;
    refused("shape");
    field.n_row_shape = 8;
    refused("dimensions");
    field.n_row_shape = 1;
    ck_assert(take());
}
END_TEST

START_TEST(a_list_of_strange_uids_is_refused)
{
    Expertd__ExpertList list = EXPERTD__EXPERT_LIST__INIT;
    Expertd__ExpertList__Entry entry = EXPERTD__EXPERT_LIST__ENTRY__INIT, *entries[] = {&entry};
    char uid[] = "ffn.0\033[2J";
    entry.uid = uid;
    list.n_experts = 1;
    list.experts = entries;
    header.n_tensors = 0;
    n_frames = 1;
    header.list = &list;
    call.method = EXPERTD__METHOD__LIST;
    refused("uid");
}
END_TEST

START_TEST(a_list_of_thousands_outgrows_the_first_arena)
{
    enum { EXPERTS = 4096 };
    static Expertd__ExpertList__Entry all[EXPERTS], *entries[EXPERTS];
    static char uids[EXPERTS][16];
    Expertd__ExpertList list = EXPERTD__EXPERT_LIST__INIT;
    for (size_t i = 0; i < EXPERTS; i++) {
        expertd__expert_list__entry__init(&all[i]);
        snprintf(uids[i], sizeof uids[i], "ffn.%zu", i);
        all[i].uid = uids[i];
        entries[i] = &all[i];
    }
    list.n_experts = EXPERTS;
    list.experts = entries;
    header.n_tensors = 0;
    n_frames = 1;
    header.list = &list;
    call.method = EXPERTD__METHOD__LIST;
    ck_assert(take());
    ck_assert_uint_eq(expertd_call_list(&call)->count, EXPERTS);
    ck_assert_str_eq(expertd_call_list(&call)->entries[EXPERTS - 1].uid, "ffn.4095");
}
END_TEST

START_TEST(garbage_is_no_header)
{
    const char *why;
    unsigned char garbage[64];
    memset(garbage, 0xff, sizeof garbage);
    ck_assert_int_eq(zmq_msg_init_size(&frames[0], sizeof garbage), 0);
    memcpy(zmq_msg_data(&frames[0]), garbage, sizeof garbage);
    ck_assert_ptr_null(call_reply_decode(&decoder, &frames[0], &why));
    ck_assert_ptr_nonnull(why);
    zmq_msg_close(&frames[0]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("call_reply");
    TCase *tests = tcase_create("call_reply");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_good_reply_is_taken);
    tcase_add_test(tests, a_frame_that_contradicts_its_shape_is_refused);
    tcase_add_test(tests, a_shape_beyond_all_memory_is_refused);
    tcase_add_test(tests, a_shape_that_wraps_to_the_right_size_is_refused);
    tcase_add_test(tests, an_encoded_tensor_is_decoded);
    tcase_add_test(tests, an_encoded_tensor_that_lies_is_refused);
    tcase_add_test(tests, an_unknown_dtype_or_codec_or_no_shape_is_refused);
    tcase_add_test(tests, rows_that_were_not_asked_for_are_refused);
    tcase_add_test(tests, too_few_and_too_many_frames_are_refused);
    tcase_add_test(tests, too_many_tensors_and_dimensions_are_refused);
    tcase_add_test(tests, another_number_of_gradients_than_is_wanted_is_refused);
    tcase_add_test(tests, another_version_is_named);
    tcase_add_test(tests, an_answer_without_its_message_is_refused);
    tcase_add_test(tests, impossible_schemas_are_refused);
    tcase_add_test(tests, a_list_of_strange_uids_is_refused);
    tcase_add_test(tests, a_list_of_thousands_outgrows_the_first_arena);
    tcase_add_test(tests, garbage_is_no_header);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
