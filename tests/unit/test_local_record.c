#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/local_record.h"

enum { REGION = 4096 };
static unsigned char packet[LOCAL_PACKET_MAX];
static struct local_record record, parsed;

static void setup(void)
{
    memset(&record, 0, sizeof record);
    record.slot = 7;
    record.header = (const unsigned char *)"header";
    record.header_bytes = 6;
    record.tensors = 2;
    record.spans[0] = (struct local_span){64, 100};
    record.spans[1] = (struct local_span){REGION, 0};
    record.room = (struct local_span){1024, REGION - 1024};
}

static void expect_same(const struct local_record *a, const struct local_record *b)
{
    ck_assert_uint_eq(a->slot, b->slot);
    ck_assert_uint_eq(a->tensors, b->tensors);
    ck_assert_uint_eq(a->header_bytes, b->header_bytes);
    ck_assert_mem_eq(a->header, b->header, a->header_bytes);
    ck_assert_mem_eq(a->spans, b->spans, a->tensors * sizeof a->spans[0]);
    ck_assert_uint_eq(a->wanted, b->wanted);
}

START_TEST(what_is_written_is_read)
{
    const long bytes = local_request_write(&record, packet, sizeof packet);
    ck_assert_int_eq(bytes, 32 + 2 * 16 + 8);
    ck_assert_int_eq(local_request_parse(packet, sizeof packet, REGION, &parsed), bytes);
    expect_same(&parsed, &record);
    ck_assert_uint_eq(parsed.room.at, record.room.at);
    ck_assert_uint_eq(parsed.room.bytes, record.room.bytes);
    record.wanted = 99;
    const long reply = local_reply_write(&record, packet, sizeof packet);
    ck_assert_int_eq(reply, 24 + 2 * 16 + 8);
    ck_assert_int_eq(local_reply_parse(packet, (size_t)reply, REGION, &parsed), reply);
    expect_same(&parsed, &record);
}
END_TEST

START_TEST(what_does_not_fit_is_not_written)
{
    ck_assert_int_eq(local_request_write(&record, packet, 71), -ENOBUFS);
    record.tensors = MESSAGE_MAX_TENSORS + 1;
    ck_assert_int_eq(local_reply_write(&record, packet, sizeof packet), -ENOBUFS);
    record.tensors = 0;
    record.header_bytes = LOCAL_HEADER_MAX + 1;
    ck_assert_int_eq(local_reply_write(&record, packet, sizeof packet), -ENOBUFS);
}
END_TEST

static void refuse(void)
{
    const long bytes = local_request_write(&record, packet, sizeof packet);
    ck_assert_int_gt(bytes, 0);
    ck_assert_int_eq(local_request_parse(packet, (size_t)bytes, REGION, &parsed), -EBADMSG);
    setup();
}

START_TEST(whatever_is_out_of_bounds_is_refused)
{
    record.slot = LOCAL_SLOTS;
    refuse();
    record.spans[0].bytes = REGION;
    refuse();
    record.spans[1].at = REGION + 1;
    refuse();
    record.spans[0] = (struct local_span){UINT64_MAX, 2};
    refuse();
    record.spans[0] = (struct local_span){2, UINT64_MAX};
    refuse();
    record.room.bytes++;
    refuse();
}
END_TEST

START_TEST(no_cut_and_no_other_length_is_taken)
{
    const long bytes = local_request_write(&record, packet, sizeof packet);
    for (long cut = 0; cut < bytes; cut++) {
        unsigned char *exact = malloc((size_t)cut + 1); /* so that a sanitizer sees what is read behind it */
        memcpy(exact, packet, (size_t)cut);
        ck_assert_int_eq(local_request_parse(exact, (size_t)cut, REGION, &parsed), -EBADMSG);
        ck_assert_int_eq(local_reply_parse(exact, cut < 24 ? (size_t)cut : 23, REGION, &parsed), -EBADMSG);
        free(exact);
    }
    for (size_t field = 0; field < 4; field++) {
        uint32_t value;
        memcpy(&value, packet + 4 * field, sizeof value);
        const uint32_t wrong[] = {value + 1000000, UINT32_MAX, UINT32_MAX - 7, value + 8};
        for (size_t w = 0; w < sizeof wrong / sizeof wrong[0]; w++) {
            if (field == 2 && wrong[w] < LOCAL_SLOTS)
                continue; /* another slot is as good */
            memcpy(packet + 4 * field, &wrong[w], sizeof value);
            ck_assert_int_eq(local_request_parse(packet, (size_t)bytes, REGION, &parsed), -EBADMSG);
        }
        memcpy(packet + 4 * field, &value, sizeof value);
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("local_record");
    tcase_add_checked_fixture(all, setup, NULL);
    tcase_add_test(all, what_is_written_is_read);
    tcase_add_test(all, what_does_not_fit_is_not_written);
    tcase_add_test(all, whatever_is_out_of_bounds_is_refused);
    tcase_add_test(all, no_cut_and_no_other_length_is_taken);
    Suite *suite = suite_create("local_record");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
