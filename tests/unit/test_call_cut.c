#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "client/call_cut.h"
#include "client/call_request.h"
#include "proto/codec.h"

enum { ROWS = 9, COLUMNS = CODEC_BLOCK };

static struct expertd_call whole, cut;
static const struct expertd_part parts[] = {{"e.0", 2, 0}, {"e.1", 3, 17}, {"e.2", 1, 0}, {"e.3", 3, 0}};
static const uint32_t numbers[] = {1, 3};                  /* of these, */
static const uint64_t rows_of_them[] = {2, 3, 4, 6, 7, 8}; /* whose rows are */
static const unsigned char client_id[MESSAGE_CLIENT_ID_SIZE] = {1, 2, 3};
static float x[ROWS * COLUMNS];
static size_t columns; /* of each row: at most COLUMNS */
static void *memory[2];

static Expertd__RequestHeader *header_of(struct expertd_call *call)
{
    Expertd__RequestHeader *decoded;
    struct message_arena arena;
    const char *why;
    void **own = &memory[call == &cut];
    free(*own);
    *own = malloc(MESSAGE_REQUEST_ARENA);
    message_arena_init(&arena, *own, MESSAGE_REQUEST_ARENA);
    ck_assert_int_eq(message_decode_request(&arena, zmq_msg_data(&call->request[0]), zmq_msg_size(&call->request[0]),
                                            &decoded, &why),
                     0);
    return decoded;
}

static void make(enum expertd_codec codec)
{
    static const bool requires_grad[] = {true};
    struct expertd_tensor tensors[2];
    memset(&whole, 0, sizeof whole);
    memset(&cut, 0, sizeof cut);
    for (size_t row = 0, i = 0; row < ROWS; row++)
        for (size_t c = 0; c < columns; c++, i++)
            x[i] = (float)(i * 37 % 101 + row) / 64;
    tensors[0] = tensors[1] = expertd_tensor_f32(x, ROWS, columns);
    tensors[1].codec = codec;
    const struct call_request request = {.method = EXPERTD__METHOD__BACKWARD,
                                         .many = true,
                                         .parts = parts,
                                         .n_parts = 4,
                                         .tensors = {tensors, tensors + 1},
                                         .count = {1, 1},
                                         .requires_grad = requires_grad,
                                         .metadata = "note",
                                         .metadata_bytes = 4,
                                         .reply_codec = CODEC_FLOAT16,
                                         .client_id = client_id};
    whole.request_id = 5;
    cut.request_id = 6;
    whole.deadline_ms = 100;
    ck_assert_int_eq(call_request_make(&whole, &request), EXPERTD_OK);
}

static void tear_down(void)
{
    call_drop_request(&whole);
    call_drop_request(&cut);
    for (int i = 0; i < 2; i++) {
        free(memory[i]);
        memory[i] = NULL;
    }
}

/* What the second tensor of the whole request says, decoded. */
static void decode_whole(const Expertd__RequestHeader *header, float *to)
{
    if (header->tensors[1]->codec == EXPERTD__CODEC__RAW)
        memcpy(to, zmq_msg_data(&whole.request[2]), ROWS * columns * sizeof *to);
    else
        codec_decode((uint32_t)header->tensors[1]->codec, zmq_msg_data(&whole.request[2]), ROWS * columns, columns, to);
}

START_TEST(parts_keep_their_rows_and_ids_with_every_codec)
{
    static float all[ROWS * COLUMNS], some[6 * COLUMNS];
    const int codec = _i % CODEC_COUNT;
    columns = _i < CODEC_COUNT ? 512 : COLUMNS; /* rows that share a block, or have some of their own */
    make((enum expertd_codec)codec);
    const Expertd__RequestHeader *header = header_of(&whole);
    ck_assert_int_eq(header->tensors[1]->codec, codec);
    ck_assert(call_cut_possible(&whole, header));
    ck_assert(call_cut(&cut, &whole, header, numbers, 2, NULL));
    const Expertd__RequestHeader *own = header_of(&cut);
    ck_assert_uint_eq(own->request_id, 6);
    ck_assert_mem_eq(own->client_id.data, client_id, sizeof client_id);
    ck_assert_uint_eq(own->n_requires_grad, 1);
    ck_assert_uint_eq(own->metadata.len, 4);
    ck_assert_int_eq(own->reply_codecs[0], CODEC_FLOAT16);
    ck_assert_uint_eq(own->n_parts, 2);
    ck_assert_str_eq(own->parts[0]->uid, "e.1");
    ck_assert_uint_eq(own->parts[0]->request_id, 17);
    ck_assert_uint_eq(own->parts[1]->request_id, 5);
    ck_assert_str_eq(own->parts[1]->uid, "e.3");
    ck_assert_uint_eq(cut.rows, 6);
    ck_assert_uint_eq(cut.n_parts, 2);
    ck_assert_uint_eq(cut.n_gradients, whole.n_gradients);
    for (size_t i = 0; i < own->n_tensors; i++) {
        struct message_tensor_size size;
        ck_assert_uint_eq(own->tensors[i]->shape[0], 6);
        ck_assert(message_tensor_size(own->tensors[i], &size));
        ck_assert_uint_eq(size.frame_bytes, zmq_msg_size(&cut.request[1 + i]));
    }
    decode_whole(header, all);
    const bool shared = codec == CODEC_BLOCKWISE_8BIT && columns < CODEC_BLOCK;
    ck_assert_int_eq(own->tensors[1]->codec, shared ? CODEC_NONE : codec);
    if (own->tensors[1]->codec == EXPERTD__CODEC__RAW) {
        memcpy(some, zmq_msg_data(&cut.request[2]), zmq_msg_size(&cut.request[2]));
    } else {
        ck_assert_ptr_null(codec_check((uint32_t)codec, zmq_msg_data(&cut.request[2]), 6 * columns));
        codec_decode((uint32_t)codec, zmq_msg_data(&cut.request[2]), 6 * columns, columns, some);
    }
    for (size_t r = 0; r < 6; r++) {
        ck_assert_mem_eq(&some[r * columns], &all[rows_of_them[r] * columns], columns * sizeof(float));
        ck_assert_mem_eq((const float *)zmq_msg_data(&cut.request[1]) + r * columns, &x[rows_of_them[r] * columns],
                         columns * sizeof(float));
    }
}
END_TEST

/* Of rows that are so short that a codebook for some of them alone would be more than they are. */
START_TEST(what_would_not_pay_is_decoded)
{
    static float all[ROWS * COLUMNS];
    columns = 56;
    make(EXPERTD_CODEC_UNIFORM_8BIT);
    const Expertd__RequestHeader *header = header_of(&whole);
    ck_assert_int_eq(header->tensors[1]->codec, CODEC_UNIFORM_8BIT);
    decode_whole(header, all);
    ck_assert(call_cut(&cut, &whole, header, numbers, 2, NULL));
    ck_assert_int_eq(header_of(&cut)->tensors[1]->codec, CODEC_NONE);
    for (size_t r = 0; r < 6; r++)
        ck_assert_mem_eq((const float *)zmq_msg_data(&cut.request[2]) + r * columns, &all[rows_of_them[r] * columns],
                         columns * sizeof(float));
}
END_TEST

START_TEST(what_contradicts_itself_is_not_cut)
{
    columns = 512;
    make(EXPERTD_CODEC_NONE);
    Expertd__RequestHeader *header = header_of(&whole);
    header->parts[2]->rows++;
    ck_assert(!call_cut_possible(&whole, header));
    header->parts[2]->rows--;
    header->tensors[0]->shape[0]--;
    ck_assert(!call_cut_possible(&whole, header));
    header->tensors[0]->shape[0]++;
    ck_assert(call_cut_possible(&whole, header));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("call_cut");
    TCase *tests = tcase_create("call_cut");
    tcase_add_checked_fixture(tests, NULL, tear_down);
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, parts_keep_their_rows_and_ids_with_every_codec, 0, 2 * CODEC_COUNT);
    tcase_add_test(tests, what_would_not_pay_is_decoded);
    tcase_add_test(tests, what_contradicts_itself_is_not_cut);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
