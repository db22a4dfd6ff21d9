#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "client/decoder.h"

START_TEST(memory_grows_by_steps_up_to_the_limit)
{
    struct decoder decoder = {0};
    ck_assert(decoder_ready(&decoder));
    ck_assert_uint_eq(decoder.size, MESSAGE_REPLY_ARENA);
    void *first = decoder.memory;
    ck_assert(decoder_ready(&decoder));
    ck_assert_ptr_eq(decoder.memory, first);
    ck_assert(decoder_grow(&decoder, 1 << 20));
    ck_assert_uint_eq(decoder.size, 4 * MESSAGE_REPLY_ARENA);
    ck_assert(decoder_grow(&decoder, 1 << 20));
    ck_assert(!decoder_grow(&decoder, 1 << 20));
    ck_assert_uint_eq(decoder.size, 16 * MESSAGE_REPLY_ARENA); /* as it was */
    ck_assert_ptr_eq(decoder.arena.memory, decoder.memory);
    ck_assert_uint_eq(decoder.arena.size, decoder.size);
    decoder_clear(&decoder);
    ck_assert_ptr_null(decoder.memory);
    decoder_clear(&decoder);
}
END_TEST

/* A header that does not fit is decoded once there is room. */
START_TEST(what_did_not_fit_fits_later)
{
    enum { COUNTERS = 4000 };
    static Expertd__Stats__Counter counters[COUNTERS], *pointers[COUNTERS];
    static unsigned char wire[1 << 20];
    char name[] = "a";
    Expertd__Stats stats = EXPERTD__STATS__INIT;
    Expertd__ReplyHeader header = EXPERTD__REPLY_HEADER__INIT, *decoded;
    struct decoder decoder = {0};
    const char *why;
    for (int i = 0; i < COUNTERS; i++) {
        expertd__stats__counter__init(&counters[i]);
        counters[i].name = name;
        counters[i].value = i;
        pointers[i] = &counters[i];
    }
    stats.n_counters = COUNTERS;
    stats.counters = pointers;
    header.stats = &stats;
    const long size = message_encode_reply(&header, wire, sizeof wire);
    ck_assert(size > 0);
    ck_assert(decoder_ready(&decoder));
    int rc, tries = 0;
    while ((rc = message_decode_reply(&decoder.arena, wire, (size_t)size, &decoded, &why)) == -ENOBUFS) {
        ck_assert(decoder_grow(&decoder, 64 << 20));
        tries++;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_int_gt(tries, 0);
    ck_assert_double_eq(decoded->stats->counters[COUNTERS - 1]->value, COUNTERS - 1);
    decoder_clear(&decoder);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("decoder");
    TCase *tests = tcase_create("decoder");
    tcase_add_test(tests, memory_grows_by_steps_up_to_the_limit);
    tcase_add_test(tests, what_did_not_fit_fits_later);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
