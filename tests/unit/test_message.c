#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/message.h"

static _Alignas(16) unsigned char memory[MESSAGE_REQUEST_ARENA];
static struct message_arena arena;
static unsigned char wire[2 * MESSAGE_REPLY_MAX];
static const char *why;

static void setup(void)
{
    message_arena_init(&arena, memory, sizeof memory);
}

/* A request with `count` tensors of `dims` dimensions, encoded into wire. */
static size_t request_of(size_t count, size_t dims)
{
    uint64_t shape[32] = {2, 64};
    Expertd__Tensor tensor = EXPERTD__TENSOR__INIT, *tensors[64];
    tensor.dtype = EXPERTD__DTYPE__FLOAT32;
    tensor.n_shape = dims;
    tensor.shape = shape;
    for (size_t i = 0; i < count; i++)
        tensors[i] = &tensor;
    Expertd__RequestHeader header = EXPERTD__REQUEST_HEADER__INIT;
    header.version = MESSAGE_VERSION;
    header.request_id = 77;
    header.method = EXPERTD__METHOD__FORWARD;
    char uid[] = "ffn.4.17";
    header.uid = uid;
    header.n_tensors = count;
    header.tensors = tensors;
    long size = message_encode_request(&header, wire, sizeof wire);
    ck_assert_int_gt(size, 0);
    return (size_t)size;
}

START_TEST(a_request_comes_back_as_it_was_sent)
{
    size_t size = request_of(2, 2);
    Expertd__RequestHeader *header;
    ck_assert_int_eq(message_decode_request(&arena, wire, size, &header, &why), 0);
    ck_assert_uint_eq(header->version, 1);
    ck_assert_uint_eq(header->request_id, 77);
    ck_assert_int_eq(header->method, EXPERTD__METHOD__FORWARD);
    ck_assert_str_eq(header->uid, "ffn.4.17");
    ck_assert_uint_eq(header->n_tensors, 2);
    uint64_t bytes;
    ck_assert(message_tensor_bytes(header->tensors[1], &bytes));
    ck_assert_uint_eq(bytes, 2 * 64 * 4);
}
END_TEST

START_TEST(the_bytes_in_the_documentation_are_right)
{
    static const unsigned char documented[] = "\x08\x01\x10\x08\x18\x04\x22\x08\x66\x66\x6e\x2e\x34\x2e\x31\x37\x2a"
                                              "\x06\x08\x01\x12\x02\x02\x40\x30\xd0\x0f";
    Expertd__RequestHeader *header;
    ck_assert_int_eq(message_decode_request(&arena, documented, sizeof documented - 1, &header, &why), 0);
    ck_assert_uint_eq(header->deadline_ms, 2000);
    ck_assert_uint_eq(header->request_id, 8);
    ck_assert_str_eq(header->uid, "ffn.4.17");
    ck_assert_uint_eq(header->tensors[0]->shape[1], 64);
}
END_TEST

START_TEST(an_arena_is_used_again_and_again)
{
    size_t size = request_of(MESSAGE_MAX_TENSORS, MESSAGE_MAX_DIMS);
    Expertd__RequestHeader *header;
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(message_decode_request(&arena, wire, size, &header, &why), 0);
    ck_assert((void *)header >= (void *)memory);
    ck_assert((void *)header < (void *)(memory + sizeof memory));
}
END_TEST

START_TEST(more_than_the_bounds_is_refused_but_still_has_its_id)
{
    Expertd__RequestHeader *header;
    ck_assert_int_eq(message_decode_request(&arena, wire, request_of(17, 2), &header, &why), -E2BIG);
    ck_assert_uint_eq(header->request_id, 77);
    ck_assert_ptr_nonnull(strstr(why, "tensors"));
    ck_assert_int_eq(message_decode_request(&arena, wire, request_of(1, 8), &header, &why), -E2BIG);
    ck_assert_uint_eq(header->request_id, 77);
    ck_assert_ptr_nonnull(strstr(why, "dimensions"));
}
END_TEST

START_TEST(garbage_and_cut_headers_are_refused)
{
    Expertd__RequestHeader *header;
    memset(wire, 0xff, 256);
    ck_assert_int_eq(message_decode_request(&arena, wire, 256, &header, &why), -EBADMSG);
    ck_assert_ptr_null(header);
    size_t size = request_of(2, 2);
    ck_assert_int_eq(message_decode_request(&arena, wire, size - 1, &header, &why), -EBADMSG);
    ck_assert_int_eq(message_decode_request(&arena, wire, MESSAGE_REQUEST_MAX + 1, &header, &why), -EBADMSG);
    ck_assert_ptr_nonnull(strstr(why, "too long"));
}
END_TEST

START_TEST(a_header_of_many_unknown_fields_costs_no_more_than_the_arena)
{
    /* Field 127 as a varint, 21,845 times. */
    size_t size = 0;
    while (size + 3 <= MESSAGE_REQUEST_MAX) {
        memcpy(wire + size, "\xf8\x07\x01", 3);
        size += 3;
    }
    Expertd__RequestHeader *header;
    ck_assert_int_eq(message_decode_request(&arena, wire, size, &header, &why), -ENOBUFS);
    ck_assert_ptr_null(header);
    ck_assert_int_eq(message_decode_request(&arena, wire, 3 * 20, &header, &why), 0); /* a newer client's */
}
END_TEST

START_TEST(what_does_not_fit_the_buffer_is_not_encoded)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    char message[] = "a sentence";
    reply.version = 1;
    reply.request_id = 3;
    reply.status = EXPERTD__STATUS__NOT_FOUND;
    reply.message = message;
    long size = message_encode_reply(&reply, wire, sizeof wire);
    ck_assert_int_gt(size, 0);
    ck_assert_int_eq(message_encode_reply(&reply, wire, (size_t)size - 1), -ENOBUFS);
    ck_assert_int_eq(message_encode_reply(&reply, wire, (size_t)size), size);
    Expertd__ReplyHeader *again;
    ck_assert_int_eq(message_decode_reply(&arena, wire, (size_t)size, &again, &why), 0);
    ck_assert_int_eq(again->status, EXPERTD__STATUS__NOT_FOUND);
    ck_assert_str_eq(again->message, "a sentence");
}
END_TEST

START_TEST(sizes_of_absurd_tensors_are_unknown)
{
    uint64_t shape[8] = {UINT64_C(1) << 60, 16}, bytes;
    Expertd__Tensor tensor = EXPERTD__TENSOR__INIT;
    tensor.dtype = EXPERTD__DTYPE__FLOAT32;
    tensor.shape = shape;
    ck_assert(!message_tensor_bytes(&tensor, &bytes)); /* no dimension */
    tensor.n_shape = 2;
    ck_assert(!message_tensor_bytes(&tensor, &bytes)); /* 2^66 */
    tensor.n_shape = 1;
    ck_assert(message_tensor_bytes(&tensor, &bytes));
    ck_assert_uint_eq(bytes, UINT64_C(1) << 62);
    tensor.dtype = 11;
    ck_assert(!message_tensor_bytes(&tensor, &bytes));
    tensor.dtype = EXPERTD__DTYPE__BOOL;
    tensor.codec = 1;
    ck_assert(!message_tensor_bytes(&tensor, &bytes));
}
END_TEST

START_TEST(text_of_others_is_made_printable)
{
    char text[] = "a\x1b[31mb\xff\x7f\n";
    ck_assert_str_eq(message_clean(text), "a?[31mb???");
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("message");
    tcase_add_checked_fixture(all, setup, NULL);
    tcase_add_test(all, a_request_comes_back_as_it_was_sent);
    tcase_add_test(all, the_bytes_in_the_documentation_are_right);
    tcase_add_test(all, an_arena_is_used_again_and_again);
    tcase_add_test(all, more_than_the_bounds_is_refused_but_still_has_its_id);
    tcase_add_test(all, garbage_and_cut_headers_are_refused);
    tcase_add_test(all, a_header_of_many_unknown_fields_costs_no_more_than_the_arena);
    tcase_add_test(all, what_does_not_fit_the_buffer_is_not_encoded);
    tcase_add_test(all, sizes_of_absurd_tensors_are_unknown);
    tcase_add_test(all, text_of_others_is_made_printable);
    Suite *suite = suite_create("message");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
