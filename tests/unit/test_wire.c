#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "proto/dht.pb-c.h"
#include "proto/expertd.pb-c.h"
#include "proto/wire.h"

static unsigned char wire[4096];
static const ProtobufCMessageDescriptor *const request = &expertd__request_header__descriptor;

/* As a string literal has it, with its zeros, but without its last one. */
#define FAULT_OF(type, literal) wire_check(type, literal, sizeof(literal) - 1, SIZE_MAX)

static size_t pack(const ProtobufCMessage *message)
{
    ck_assert_uint_le(protobuf_c_message_get_packed_size(message), sizeof wire);
    return protobuf_c_message_pack(message, wire);
}

START_TEST(a_string_with_a_zero_byte_is_found_wherever_it_stands)
{
    ck_assert_int_eq(FAULT_OF(request, "\x08\x01\x22\x05nop.0"), WIRE_SOUND);
    ck_assert_int_eq(FAULT_OF(request, "\x08\x01\x22\x07nop.0\0x"), WIRE_NUL);
    ck_assert_int_eq(FAULT_OF(request, "\x22\x06nop.0\0"), WIRE_NUL);
    ck_assert_int_eq(FAULT_OF(request, "\x22\x01\0\x22\x05nop.0"), WIRE_NUL); /* the last one counts for protobuf-c */
    ck_assert_int_eq(FAULT_OF(request, "\x42\x05\x0a\x03"
                                       "a\0b"),
                     WIRE_NUL); /* list.prefix */
    ck_assert_int_eq(FAULT_OF(request, "\x3a\x10"
                                       "0123\0\0\0\0\0\0\0\0\0\0\0\0"),
                     WIRE_SOUND); /* client_id: bytes */
    ck_assert_int_eq(FAULT_OF(request, "\xf2\x7f\x03"
                                       "a\0b"),
                     WIRE_SOUND); /* of a field that is not known */
    ck_assert_int_eq(FAULT_OF(&expertd__dht__request__descriptor, "\x2a\x03"
                                                                  "a\0b"),
                     WIRE_NUL); /* uids */
    ck_assert_int_eq(FAULT_OF(&expertd__dht__tell__content__descriptor, "\x0a\x03"
                                                                        "f\0."),
                     WIRE_NUL);
    ck_assert_int_eq(FAULT_OF(&expertd__reply_header__descriptor, "\x32\x03\x0a\x01\0"), WIRE_NUL); /* info.uid */
    ck_assert_int_eq(wire_check(request, wire, 0, 0), WIRE_SOUND);
}
END_TEST

START_TEST(what_is_no_message_is_malformed)
{
    static const char *const bad[] = {"\x08",
                                      "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                                      "\x22\x05nop",
                                      "\x22",
                                      "\x0b\x0c",
                                      "\x09\x01",
                                      "\x0d\x01\x01",
                                      "\xff\xff\xff\xff\xff\x01\x01",
                                      "\x22\xff\xff\xff\xff\x0f",
                                      "\x2a\x02\x08",
                                      "\x06",
                                      "\x02"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_int_eq(wire_check(request, bad[i], strlen(bad[i]), SIZE_MAX), WIRE_MALFORMED);
    ck_assert_int_eq(FAULT_OF(request, "\x00\x01"), WIRE_MALFORMED); /* field 0 */
    ck_assert_ptr_null(wire_unpack(request, NULL, 1, "\x08"));
}
END_TEST

START_TEST(fields_are_counted_with_those_within)
{
    Expertd__Tensor tensor = EXPERTD__TENSOR__INIT, *tensors[4] = {&tensor, &tensor, &tensor, &tensor};
    Expertd__RequestHeader header = EXPERTD__REQUEST_HEADER__INIT;
    header.version = 1;
    tensor.dtype = EXPERTD__DTYPE__FLOAT32;
    header.n_tensors = 4;
    header.tensors = tensors;
    const size_t size = pack(&header.base);
    ck_assert_int_eq(wire_check(request, wire, size, 9), WIRE_SOUND);
    ck_assert_int_eq(wire_check(request, wire, size, 8), WIRE_FIELDS);
}
END_TEST

START_TEST(only_sound_bytes_are_unpacked)
{
    Expertd__RequestHeader header = EXPERTD__REQUEST_HEADER__INIT;
    char uid[] = "ffn.4.17";
    header.uid = uid;
    size_t size = pack(&header.base);
    Expertd__RequestHeader *again = wire_unpack(request, NULL, size, wire);
    ck_assert_ptr_nonnull(again);
    ck_assert_str_eq(again->uid, uid);
    protobuf_c_message_free_unpacked(&again->base, NULL);
    wire[size - 3] = 0;
    ck_assert_ptr_null(wire_unpack(request, NULL, size, wire));
}
END_TEST

START_TEST(any_bytes_end_somewhere)
{
    srand((unsigned)_i);
    for (int round = 0; round < 2000; round++) {
        const size_t size = (size_t)rand() % 64;
        for (size_t i = 0; i < size; i++)
            wire[i] = (unsigned char)(rand() % 4 ? rand() % 0x50 : rand());
        unsigned char *copy = malloc(size + 1); /* a block of its own, so that a sanitizer sees its end */
        memcpy(copy, wire, size);
        Expertd__RequestHeader *header = wire_unpack(request, NULL, size, copy);
        if (header)
            protobuf_c_message_free_unpacked(&header->base, NULL);
        free(copy);
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("wire");
    tcase_add_test(all, a_string_with_a_zero_byte_is_found_wherever_it_stands);
    tcase_add_test(all, what_is_no_message_is_malformed);
    tcase_add_test(all, fields_are_counted_with_those_within);
    tcase_add_test(all, only_sound_bytes_are_unpacked);
    tcase_add_loop_test(all, any_bytes_end_somewhere, 0, 8);
    Suite *suite = suite_create("wire");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
