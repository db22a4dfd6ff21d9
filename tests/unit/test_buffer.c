#include <check.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "frontend/buffer.h"

static struct buffers *buffers;

static void setup(void)
{
    ck_assert_int_eq(buffers_create(&buffers, 1 << 20), 0);
}

static void teardown(void)
{
    buffers_destroy(&buffers);
    buffers_destroy(&buffers);
}

START_TEST(a_buffer_is_large_enough_aligned_and_used_again)
{
    for (size_t bytes = 0; bytes < 100000; bytes = bytes * 2 + 1) {
        struct buffer *buffer = buffers_take(buffers, bytes);
        ck_assert_ptr_nonnull(buffer);
        ck_assert_uint_ge(buffer_capacity(buffer), bytes);
        ck_assert_uint_eq((uintptr_t)buffer->data % 64, 0);
        memset(buffer->data, 1, bytes);
        buffer_release(buffer);
        struct buffer *again = buffers_take(buffers, bytes);
        ck_assert_ptr_eq(again, buffer);
        buffer_release(again);
    }
}
END_TEST

START_TEST(the_last_reference_gives_it_back)
{
    struct buffer *buffer = buffers_take(buffers, 100);
    buffer_hold(buffer);
    buffer_release(buffer);
    struct buffer *other = buffers_take(buffers, 100);
    ck_assert_ptr_ne(other, buffer);
    buffer_release(buffer);
    struct buffer *again = buffers_take(buffers, 100);
    ck_assert_ptr_eq(again, buffer);
    buffer_release(other);
    buffer_release(again);
}
END_TEST

START_TEST(no_more_is_kept_than_wanted)
{
    struct buffer *many[64];
    for (int i = 0; i < 64; i++)
        many[i] = buffers_take(buffers, 100000);
    ck_assert_uint_ge(buffers_bytes(buffers), 64 * 100000);
    for (int i = 0; i < 64; i++)
        buffer_release(many[i]);
    buffer_release(buffers_take(buffers, 1));
    ck_assert_uint_le(buffers_bytes(buffers), (1 << 20) + 4096);
}
END_TEST

START_TEST(free_ones_are_given_back_when_asked_for)
{
    struct buffer *held = buffers_take(buffers, 100000), *free_one = buffers_take(buffers, 200000);
    buffer_release(free_one);
    buffer_release(buffers_take(buffers, 1000));
    buffers_trim(buffers, 4096); /* the largest go first */
    ck_assert_uint_eq(buffers_bytes(buffers), (128 << 10) + 2048);
    buffers_trim(buffers, 0);
    ck_assert_uint_eq(buffers_bytes(buffers), 128 << 10);
    buffer_release(held);
    buffers_trim(buffers, 0);
    ck_assert_uint_eq(buffers_bytes(buffers), 0);
}
END_TEST

START_TEST(an_absurd_size_is_refused)
{
    ck_assert_ptr_null(buffers_take(buffers, SIZE_MAX));
    ck_assert_ptr_null(buffers_take(buffers, SIZE_MAX / 2));
    ck_assert_uint_eq(buffers_bytes(buffers), 0);
}
END_TEST

/* Buffers travel to another thread and come back, as with ZeroMQ. */
enum { ROUNDS = 20000, LANE = 16 };
static _Atomic(struct buffer *) lane[LANE];

static void *releaser(void *argument)
{
    (void)argument;
    for (int released = 0; released < ROUNDS;) {
        for (int i = 0; i < LANE; i++) {
            struct buffer *buffer = atomic_exchange(&lane[i], NULL);
            if (!buffer)
                continue;
            ck_assert_int_eq(buffer->data[0], buffer->data[99]);
            buffer_release(buffer);
            released++;
        }
    }
    return NULL;
}

START_TEST(other_threads_may_let_go_of_them)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, releaser, NULL), 0);
    for (int i = 0; i < ROUNDS;) {
        for (int k = 0; k < LANE && i < ROUNDS; k++) {
            if (atomic_load(&lane[k]))
                continue;
            struct buffer *buffer = buffers_take(buffers, 100);
            memset(buffer->data, i, 100);
            atomic_store(&lane[k], buffer);
            i++;
        }
    }
    pthread_join(thread, NULL);
    ck_assert_uint_le(buffers_bytes(buffers), 2 * LANE * 4096);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("buffer");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_buffer_is_large_enough_aligned_and_used_again);
    tcase_add_test(all, the_last_reference_gives_it_back);
    tcase_add_test(all, no_more_is_kept_than_wanted);
    tcase_add_test(all, free_ones_are_given_back_when_asked_for);
    tcase_add_test(all, an_absurd_size_is_refused);
    tcase_add_test(all, other_threads_may_let_go_of_them);
    Suite *suite = suite_create("buffer");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
