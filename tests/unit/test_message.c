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
    struct message_tensor_size tensor;
    ck_assert(message_tensor_size(header->tensors[1], &tensor));
    ck_assert_uint_eq(tensor.bytes, 2 * 64 * 4);
    ck_assert_uint_eq(tensor.frame_bytes, tensor.bytes);
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

/* Field 127 as a varint, so often. */
static size_t unknown_fields(size_t count)
{
    for (size_t i = 0; i < count; i++)
        memcpy(wire + 3 * i, "\xf8\x07\x01", 3);
    return 3 * count;
}

START_TEST(a_newer_client_may_have_many_fields_that_are_not_known_here)
{
    Expertd__RequestHeader *header;
    static const size_t counts[] = {20, 500, 5000, MESSAGE_REQUEST_FIELDS};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        ck_assert_int_eq(message_decode_request(&arena, wire, unknown_fields(counts[i]), &header, &why), 0);
    const size_t size = unknown_fields(MESSAGE_REQUEST_FIELDS + 1);
    ck_assert_int_eq(message_decode_request(&arena, wire, size, &header, &why), -EBADMSG);
    ck_assert_ptr_null(header);
    ck_assert_ptr_nonnull(strstr(why, "too many fields"));
}
END_TEST

START_TEST(a_header_may_be_as_long_as_the_page_says)
{
    Expertd__RequestHeader *header, request = EXPERTD__REQUEST_HEADER__INIT;
    request.uid = malloc(MESSAGE_REQUEST_MAX + 1);
    for (size_t length = 30000; length <= MESSAGE_REQUEST_MAX - 4; length += length == 65000 ? 532 : 5000) {
        memset(request.uid, 'u', length);
        request.uid[length] = 0;
        const long size = message_encode_request(&request, wire, sizeof wire);
        ck_assert_int_eq(message_decode_request(&arena, wire, (size_t)size, &header, &why), 0);
        ck_assert_str_eq(header->uid, request.uid);
    }
    free(request.uid);
}
END_TEST

START_TEST(whatever_stays_within_the_bounds_fits_the_arena)
{
    Expertd__RequestHeader *header;
    /* As many tensors as there may be fields, and the rest of the room dimensions of one byte each. */
    size_t size = 0;
    for (size_t i = 0; i < MESSAGE_REQUEST_FIELDS - 2; i++, size += 2)
        memcpy(wire + size, "\x2a\x00", 2);
    const size_t packed = MESSAGE_REQUEST_MAX - size - 8;
    unsigned char tensor[8] = {0x2a, 0, 0, 0, 0x12}; /* both lengths as three bytes */
    for (unsigned i = 0; i < 3; i++) {
        tensor[1 + i] = (unsigned char)((packed + 4) >> (7 * i) & 0x7f) | (i < 2 ? 0x80 : 0);
        tensor[5 + i] = (unsigned char)(packed >> (7 * i) & 0x7f) | (i < 2 ? 0x80 : 0);
    }
    memcpy(wire + size, tensor, sizeof tensor);
    memset(wire + size + sizeof tensor, 1, packed);
    ck_assert_int_eq(message_decode_request(&arena, wire, MESSAGE_REQUEST_MAX, &header, &why), -E2BIG);
    ck_assert_uint_eq(header->n_tensors, MESSAGE_REQUEST_FIELDS - 1);
    /* And as many unknown ones, each with some bytes. */
    const size_t each = MESSAGE_REQUEST_MAX / MESSAGE_REQUEST_FIELDS;
    for (size = 0; size < MESSAGE_REQUEST_MAX; size += each) {
        memcpy(wire + size, "\x7a\x06", 2);
        memset(wire + size + 2, 'x', each - 2);
    }
    ck_assert_int_eq(message_decode_request(&arena, wire, MESSAGE_REQUEST_MAX, &header, &why), 0);
}
END_TEST

START_TEST(a_name_with_a_zero_byte_is_no_other_name)
{
    Expertd__RequestHeader *header;
    static const char hidden[] = "\x10\x4d\x18\x05\x22\x07nop.0\0x";
    ck_assert_int_eq(message_decode_request(&arena, hidden, sizeof hidden - 1, &header, &why), -EINVAL);
    ck_assert_uint_eq(header->request_id, 77);
    ck_assert_ptr_nonnull(strstr(why, "zero byte"));
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
    uint64_t shape[8] = {UINT64_C(1) << 60, 16};
    struct message_tensor_size size;
    Expertd__Tensor tensor = EXPERTD__TENSOR__INIT;
    tensor.dtype = EXPERTD__DTYPE__FLOAT32;
    tensor.shape = shape;
    ck_assert(!message_tensor_size(&tensor, &size)); /* no dimension */
    tensor.n_shape = 2;
    ck_assert(!message_tensor_size(&tensor, &size)); /* 2^66 */
    tensor.n_shape = 1;
    ck_assert(message_tensor_size(&tensor, &size));
    ck_assert_uint_eq(size.bytes, UINT64_C(1) << 62);
    tensor.codec = EXPERTD__CODEC__CODEC_FLOAT16;
    ck_assert(message_tensor_size(&tensor, &size));
    ck_assert_uint_eq(size.frame_bytes, UINT64_C(1) << 61);
    tensor.codec = EXPERTD__CODEC__RAW;
    tensor.dtype = 11;
    ck_assert(!message_tensor_size(&tensor, &size));
    tensor.dtype = EXPERTD__DTYPE__BOOL;
    tensor.codec = 1;
    ck_assert(!message_tensor_size(&tensor, &size));
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
    tcase_add_test(all, a_newer_client_may_have_many_fields_that_are_not_known_here);
    tcase_add_test(all, a_header_may_be_as_long_as_the_page_says);
    tcase_add_test(all, whatever_stays_within_the_bounds_fits_the_arena);
    tcase_add_test(all, a_name_with_a_zero_byte_is_no_other_name);
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
