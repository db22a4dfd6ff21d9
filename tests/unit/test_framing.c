#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "proto/framing.h"

static const struct framing_limits limits = {.frames = 5, .bytes = 1000};
static struct framing framing;
static unsigned char stream[4096];
static size_t size;

static void put(const void *bytes, size_t count)
{
    ck_assert_uint_le(size + count, sizeof stream);
    memcpy(stream + size, bytes, count);
    size += count;
}

static void put_frame(unsigned flags, size_t count)
{
    static const unsigned char zeros[2048];
    put((unsigned char[]){(unsigned char)flags}, 1);
    if (flags & 2)
        put((unsigned char[]){0, 0, 0, 0, 0, 0, (unsigned char)(count >> 8), (unsigned char)count}, 8);
    else
        put((unsigned char[]){(unsigned char)count}, 1);
    put(zeros, count);
}

static void put_greeting(unsigned revision)
{
    unsigned char greeting[64] = {0xff, [9] = 0x7f, [10] = (unsigned char)revision};
    put(greeting, revision < 3 ? 12 : 64);
    if (revision >= 3)
        put_frame(4, 25); /* READY */
}

static void begin(unsigned revision)
{
    framing = (struct framing){0};
    size = 0;
    put_greeting(revision);
}

static bool take(void)
{
    const bool taken = framing_take(&framing, &limits, stream, size);
    size = 0;
    return taken;
}

/* Of each revision, whatever it is cut into. */
START_TEST(whole_messages_pass_in_any_pieces)
{
    static const unsigned revisions[] = {1, 2, 3, 4};
    for (unsigned r = 0; r < 4; r++) {
        for (size_t piece = 1; piece < 80; piece++) {
            begin(revisions[r]);
            for (unsigned message = 0; message < 3; message++) {
                for (unsigned f = 0; f < 4; f++)
                    put_frame(1, f * 10);
                put_frame(2, 700);
            }
            put_frame(4, 5); /* a heartbeat */
            put_frame(1, 77);
            for (size_t at = 0; at < size; at += piece)
                ck_assert(framing_take(&framing, &limits, stream + at, size - at < piece ? size - at : piece));
            ck_assert_uint_eq(framing.frames, 1);
            ck_assert_uint_eq(framing_bytes(&framing), 77);
        }
    }
}
END_TEST

START_TEST(a_message_of_too_many_frames_ends_at_the_first_too_many)
{
    begin(3);
    for (unsigned f = 0; f < 5; f++)
        put_frame(1, 0);
    ck_assert(take());
    put_frame(0, 0); /* whole or not */
    ck_assert(!take());
    put_frame(0, 0);
    ck_assert(!take());
}
END_TEST

START_TEST(a_message_of_too_many_bytes_ends_when_they_are_announced)
{
    begin(3);
    put_frame(3, 600);
    ck_assert(take());
    put((unsigned char[]){0, 200}, 2); /* 800 in all */
    ck_assert(take());
    ck_assert_uint_eq(framing_bytes(&framing), 600); /* of the second none came */
    begin(3);
    put_frame(3, 600);
    put((unsigned char[]){2, 0, 0, 0, 0, 0, 0, 1, 145}, 9); /* 401 */
    ck_assert(!take());
    begin(3);
    put((unsigned char[]){3, 255, 255, 255, 255, 255, 255, 255, 255}, 9);
    ck_assert(!take());
}
END_TEST

START_TEST(a_part_of_a_frame_counts_as_far_as_it_came)
{
    begin(3);
    put_frame(3, 600);
    size -= 100;
    ck_assert(take());
    ck_assert_uint_eq(framing_bytes(&framing), 500);
}
END_TEST

START_TEST(what_is_no_zmtp_2_or_3_does_not_pass)
{
    static const unsigned char others[][11] = {
        {1, 0},                                  /* ZMTP 1: an anonymous peer */
        {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0},       /* likewise, its length long */
        {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 0}, /* a signature, and the revision of ZMTP 1 */
        "GET / HTTP"};
    for (unsigned i = 0; i < 4; i++) {
        framing = (struct framing){0};
        ck_assert(!framing_take(&framing, &limits, others[i], sizeof others[i]));
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("framing");
    tcase_add_test(all, whole_messages_pass_in_any_pieces);
    tcase_add_test(all, a_message_of_too_many_frames_ends_at_the_first_too_many);
    tcase_add_test(all, a_message_of_too_many_bytes_ends_when_they_are_announced);
    tcase_add_test(all, a_part_of_a_frame_counts_as_far_as_it_came);
    tcase_add_test(all, what_is_no_zmtp_2_or_3_does_not_pass);
    Suite *suite = suite_create("framing");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
