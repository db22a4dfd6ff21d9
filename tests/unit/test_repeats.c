#include <check.h>
#include <string.h>

#include "frontend/buffer.h"
#include "frontend/repeats.h"
#include "frontend/request.h"

static struct buffers *buffers;
static struct repeats *repeats;
static struct request requests[4];

static void setup(void)
{
    ck_assert_int_eq(buffers_create(&buffers, 1 << 20), 0);
    ck_assert_int_eq(repeats_create(&repeats, 10 * 2300), 0); /* ten small answers */
}

static void teardown(void)
{
    repeats_destroy(&repeats);
    repeats_destroy(&repeats);
    buffers_destroy(&buffers);
}

static struct repeat_key key(uint64_t id)
{
    return (struct repeat_key){.uid_hash = 77, .client = {1, 2}, .request_id = id};
}

static void keep(uint64_t id)
{
    const struct repeat_key k = key(id);
    struct buffer *buffer = buffers_take(buffers, 100);
    memcpy(buffer->data, &id, sizeof id);
    repeats_keep(repeats, &k, buffer);
    buffer_release(buffer);
}

static bool has(uint64_t id)
{
    const struct repeat_key k = key(id);
    const struct buffer *kept = repeats_find(repeats, &k).kept;
    if (kept)
        ck_assert_mem_eq(kept->data, &id, sizeof id);
    return kept != NULL;
}

START_TEST(a_running_request_is_met_until_it_ends)
{
    const struct repeat_key one = key(1), two = key(2);
    ck_assert_int_eq(repeats_begin(repeats, &one, &requests[0]), 0);
    ck_assert_ptr_eq(repeats_find(repeats, &one).running, &requests[0]);
    ck_assert_ptr_null(repeats_find(repeats, &two).running);
    repeats_end(repeats, &one, &requests[1]); /* not that one */
    ck_assert_ptr_eq(repeats_find(repeats, &one).running, &requests[0]);
    ck_assert_int_eq(repeats_begin(repeats, &one, &requests[1]), 0);
    repeats_end(repeats, &one, &requests[0]); /* it is not the running one any more */
    ck_assert_ptr_eq(repeats_find(repeats, &one).running, &requests[1]);
    repeats_end(repeats, &one, &requests[1]);
    ck_assert_ptr_null(repeats_find(repeats, &one).running);
}
END_TEST

START_TEST(the_least_recently_asked_answers_go_first)
{
    for (uint64_t id = 0; id < 10; id++)
        keep(id);
    ck_assert_uint_eq(repeats_kept(repeats), 10);
    ck_assert(has(0));
    keep(10);
    keep(11);
    ck_assert(has(0));
    ck_assert(!has(1));
    ck_assert(!has(2));
    ck_assert(has(3));
    ck_assert(has(11));
    ck_assert_uint_le(repeats_kept_bytes(repeats), 10 * 2300);
}
END_TEST

START_TEST(an_answer_outlives_its_request_and_stays_the_first)
{
    const struct repeat_key one = key(1);
    ck_assert_int_eq(repeats_begin(repeats, &one, &requests[0]), 0);
    keep(1);
    ck_assert_ptr_null(repeats_find(repeats, &one).running);
    repeats_end(repeats, &one, &requests[0]);
    ck_assert(has(1));
    keep(1);
    ck_assert_uint_eq(repeats_kept(repeats), 1);
}
END_TEST

START_TEST(an_answer_larger_than_all_is_not_kept)
{
    const struct repeat_key one = key(1);
    struct buffer *buffer = buffers_take(buffers, 100000);
    keep(2);
    repeats_keep(repeats, &one, buffer);
    buffer_release(buffer);
    ck_assert(!has(1));
    ck_assert(has(2));
}
END_TEST

START_TEST(different_experts_and_clients_are_different_requests)
{
    const struct repeat_key variants[] = {{78, {1, 2}, 1}, {77, {2, 2}, 1}, {77, {1, 3}, 1}, {77, {1, 2}, 2}};
    keep(1);
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++)
        ck_assert_ptr_null(repeats_find(repeats, &variants[i]).kept);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("repeats");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_running_request_is_met_until_it_ends);
    tcase_add_test(all, the_least_recently_asked_answers_go_first);
    tcase_add_test(all, an_answer_outlives_its_request_and_stays_the_first);
    tcase_add_test(all, an_answer_larger_than_all_is_not_kept);
    tcase_add_test(all, different_experts_and_clients_are_different_requests);
    Suite *suite = suite_create("repeats");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
