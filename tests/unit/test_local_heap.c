#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/local_heap.h"

enum { BYTES = 1 << 20 };
static struct local_heap *heap;

static void setup(void)
{
    ck_assert_int_eq(local_heap_new(&heap, BYTES), 0);
}

static void teardown(void)
{
    local_heap_release(&heap);
    local_heap_release(&heap);
}

START_TEST(the_file_cannot_shrink_and_costs_nothing_yet)
{
    struct stat status;
    ck_assert(fcntl(local_heap_fd(heap), F_GET_SEALS) & F_SEAL_SHRINK);
    ck_assert_int_eq(fstat(local_heap_fd(heap), &status), 0);
    ck_assert_int_eq(status.st_size, BYTES);
    ck_assert_int_eq(status.st_blocks, 0);
}
END_TEST

START_TEST(blocks_do_not_overlap_and_are_aligned)
{
    struct local_block *blocks[64];
    for (unsigned i = 0; i < 64; i++) {
        blocks[i] = local_heap_take(heap, 1 + i * 97);
        ck_assert_ptr_nonnull(blocks[i]);
        ck_assert_uint_ge(local_block_bytes(blocks[i]), 1 + i * 97);
        ck_assert_uint_eq(local_block_at(blocks[i]) % 64, 0);
        memset(local_block_data(blocks[i]), (int)i, local_block_bytes(blocks[i]));
    }
    for (unsigned i = 0; i < 64; i++) {
        const unsigned char *data = local_block_data(blocks[i]);
        uint64_t at;
        ck_assert(local_heap_has(heap, data, local_block_bytes(blocks[i]), &at));
        ck_assert_uint_eq(at, local_block_at(blocks[i]));
        ck_assert_uint_eq(data[0], i);
        ck_assert_uint_eq(data[local_block_bytes(blocks[i]) - 1], i);
        local_block_release(blocks[i]);
    }
    uint64_t at;
    ck_assert(!local_heap_has(heap, &at, 1, &at));
}
END_TEST

START_TEST(what_is_free_is_taken_again_and_full_is_an_answer)
{
    struct local_block *blocks[16];
    for (int turn = 0; turn < 1000; turn++) {
        for (int i = 0; i < 8; i++)
            ck_assert_ptr_nonnull(blocks[i] = local_heap_take(heap, 100000));
        for (int i = 0; i < 8; i++)
            local_block_release(blocks[i]);
    }
    ck_assert_ptr_null(local_heap_take(heap, BYTES + 1));
    ck_assert_ptr_null(local_heap_take(heap, UINT64_MAX));
    struct local_block *all = local_heap_take(heap, BYTES); /* cut anew, as nothing is in use */
    ck_assert_ptr_nonnull(all);
    ck_assert_ptr_null(local_heap_take(heap, 1));
    local_block_release(all);
    all = local_heap_take(heap, 1); /* a larger one is better than none */
    ck_assert_ptr_nonnull(all);
    local_block_release(all);
}
END_TEST

START_TEST(messages_hold_their_block_and_the_block_its_heap)
{
    zmq_msg_t message, copy;
    ck_assert(local_heap_message(heap, 5000, &message));
    uint64_t at;
    ck_assert(local_heap_has(heap, zmq_msg_data(&message), 5000, &at));
    zmq_msg_init(&copy);
    zmq_msg_copy(&copy, &message);
    zmq_msg_close(&message);
    local_heap_release(&heap);
    memset(zmq_msg_data(&copy), 1, zmq_msg_size(&copy));
    zmq_msg_close(&copy);
    ck_assert(local_heap_message(NULL, 10, &message)); /* ZeroMQ's memory */
    zmq_msg_close(&message);
}
END_TEST

static void *take_and_release(void *context)
{
    (void)context;
    for (unsigned i = 0; i < 20000; i++) {
        struct local_block *block = local_heap_take(heap, 64 + i % 4096);
        ck_assert_ptr_nonnull(block);
        memset(local_block_data(block), 7, 64);
        local_block_hold(block);
        local_block_release(block);
        local_block_release(block);
    }
    return NULL;
}

START_TEST(threads_may_take_and_release_at_once)
{
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, take_and_release, NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("local_heap");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 120);
    tcase_add_test(all, the_file_cannot_shrink_and_costs_nothing_yet);
    tcase_add_test(all, blocks_do_not_overlap_and_are_aligned);
    tcase_add_test(all, what_is_free_is_taken_again_and_full_is_an_answer);
    tcase_add_test(all, messages_hold_their_block_and_the_block_its_heap);
    tcase_add_test(all, threads_may_take_and_release_at_once);
    Suite *suite = suite_create("local_heap");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
