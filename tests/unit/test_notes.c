/* Metadata and traces: as they are read, and as they come back from a real frontend whatever the answer is. */
#include <stdlib.h>

#include "frontend/notes.h"
#include "unit/task_world.h"

static const char trace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

static bool takes_trace(const char *text)
{
    Expertd__RequestHeader header = EXPERTD__REQUEST_HEADER__INIT;
    struct notes notes;
    header.traceparent = (char *)(uintptr_t)text;
    ck_assert(notes_read(&notes, &header));
    return notes.trace != NULL;
}

START_TEST(a_trace_is_what_the_standard_says)
{
    char other[sizeof trace];
    ck_assert(takes_trace(trace));
    ck_assert(!takes_trace(""));
    ck_assert(!takes_trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"));
    ck_assert(!takes_trace("00-00000000000000000000000000000000-b7ad6b7169203331-01"));
    ck_assert(!takes_trace("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"));
    ck_assert(!takes_trace("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    for (size_t i = 0; i < sizeof trace - 1; i++) {
        memcpy(other, trace, sizeof trace);
        other[i] = '\n';
        ck_assert(!takes_trace(other));
        other[i] = 'A';
        ck_assert(!takes_trace(other));
    }
}
END_TEST

START_TEST(kept_notes_outlive_their_header)
{
    Expertd__RequestHeader header = EXPERTD__REQUEST_HEADER__INIT;
    struct notes notes;
    char text[NOTES_TEXT_SIZE], *own = strdup(trace);
    unsigned char *bytes = malloc(3);
    memcpy(bytes,
           "a\x1b"
           "b",
           3);
    header.traceparent = own;
    header.metadata = (ProtobufCBinaryData){3, bytes};
    ck_assert(notes_read(&notes, &header));
    notes_keep(&notes);
    free(own);
    free(bytes);
    ck_assert_str_eq(notes.trace, trace);
    ck_assert_mem_eq(notes.metadata,
                     "a\x1b"
                     "b",
                     3);
    ck_assert_ptr_nonnull(strstr(notes_text(&notes, text), "metadata \"a?b\""));
    notes_free(&notes);
    ck_assert(!notes_any(&notes));
    notes_keep(&notes);
    notes_free(&notes);
    header.metadata.len = MESSAGE_METADATA_MAX + 1;
    ck_assert(!notes_read(&notes, &header));
}
END_TEST

static char metadata[MESSAGE_METADATA_MAX + 1];

static void ask_with(struct asker *asker, Expertd__Method method, const char *uid, size_t bytes, enum status status)
{
    ask_prepare(asker, &question, method, uid, 1, 7);
    memset(metadata, (int)('a' + bytes % 26), sizeof metadata);
    question.header.metadata = (ProtobufCBinaryData){bytes, (unsigned char *)metadata};
    ask_call(asker, &question, &answer, status);
    if (bytes <= MESSAGE_METADATA_MAX) {
        ck_assert_uint_eq(answer.header->metadata.len, bytes);
        ck_assert(bytes == 0 || memcmp(answer.header->metadata.data, metadata, bytes) == 0);
    }
}

START_TEST(metadata_comes_back_with_every_answer)
{
    static const size_t sizes[] = {0, 1, 127, 128, 1000, MESSAGE_METADATA_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        ask_with(&one, EXPERTD__METHOD__FORWARD, "nop.0", sizes[i], STATUS_OK);
        expect_value(7);
        ask_with(&one, EXPERTD__METHOD__BACKWARD, "nop.0", sizes[i], STATUS_OK);
        ask_with(&one, EXPERTD__METHOD__FORWARD, "nop.9", sizes[i], STATUS_NOT_FOUND);
        ask_with(&one, EXPERTD__METHOD__FORWARD, "away.0", sizes[i], STATUS_UNAVAILABLE);
    }
    ask_with(&one, EXPERTD__METHOD__FORWARD, "nop.0", MESSAGE_METADATA_MAX + 1, STATUS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "1024"));
    rig.knobs->fail = 1;
    ask_with(&one, EXPERTD__METHOD__FORWARD, "nop.0", 500, STATUS_INTERNAL);
}
END_TEST

START_TEST(a_repeat_gets_its_own_back)
{
    ask_with(&one, EXPERTD__METHOD__BACKWARD, "nop.0", 100, STATUS_OK);
    const uint64_t id = one.last_id;
    one.last_id--;
    ask_with(&one, EXPERTD__METHOD__BACKWARD, "nop.0", 40, STATUS_OK);
    ck_assert_uint_eq(rig.knobs->applied, 1);
    /* One that takes the place of its first, which waits. */
    rig.knobs->hold = 1;
    ask_prepare(&one, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 1, 7);
    question.header.metadata = (ProtobufCBinaryData){30, (unsigned char *)metadata};
    ask_send(&one, &question);
    RIG_WAIT(ask_counter(&two, "device.cpu0.in_flight") == 1);
    question.header.metadata.len = 20;
    ask_send(&one, &question);
    RIG_WAIT(ask_counter(&two, "frontend.replay.joined") == 1);
    rig.knobs->hold = 0;
    expect(&one, id + 1, STATUS_OK);
    ck_assert_uint_eq(answer.header->metadata.len, 20);
}
END_TEST

int main(void)
{
    TCase *pure = tcase_create("pure"), *all = tcase_create("notes");
    tcase_add_test(pure, a_trace_is_what_the_standard_says);
    tcase_add_test(pure, kept_notes_outlive_their_header);
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 300);
    tcase_add_test(all, metadata_comes_back_with_every_answer);
    tcase_add_test(all, a_repeat_gets_its_own_back);
    Suite *suite = suite_create("notes");
    suite_add_tcase(suite, pure);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
