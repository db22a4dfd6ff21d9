/* Calls for many experts by the library, against a real frontend, over ZeroMQ and through shared memory. */
#include <errno.h>
#include <stdlib.h>

#include "client/call.h"
#include "client/call_parts.h"
#include "client/expertd.h"
#include "unit/task_world.h"

static struct expertd_client *client;
static float values[2 * RIG_MAX_BATCH * RIG_COLUMNS];

static void open_client(bool local)
{
    struct expertd_client_options options;
    struct expertd_call *call;
    setup();
    expertd_client_options_init(&options);
    options.impatient = true;
    options.local_off = !local;
    ck_assert_int_eq(expertd_client_new(&client, rig.endpoint, &options), 0);
    const struct expertd_tensor input = expertd_tensor_f32(values, 1, RIG_COLUMNS);
    do {
        ck_assert_int_eq(expertd_forward(client, "nop.0", &input, 1, 0, &call), 0);
        ck_assert_int_eq(expertd_call_wait(call, -1), 0);
        ck_assert_int_eq(expertd_call_status(call), EXPERTD_OK);
        expertd_call_release(&call);
    } while (expertd_client_local(client) != local);
}

static void setup_local(void)
{
    open_client(true);
}

static void setup_remote(void)
{
    open_client(false);
}

static void teardown_client(void)
{
    expertd_client_destroy(&client);
    teardown();
}

/* Rows of the first part are base + 1, of the second base + 2, ... */
static struct expertd_call *ask(bool backward, const struct expertd_part *parts, size_t count, float base)
{
    struct expertd_call *call;
    uint64_t rows = 0;
    for (size_t p = 0; parts && p < count; p++) {
        for (uint32_t r = 0; r < parts[p].rows; r++, rows++)
            for (int c = 0; c < RIG_COLUMNS && rows < 2 * RIG_MAX_BATCH; c++)
                values[rows * RIG_COLUMNS + (uint64_t)c] = base + (float)p + 1;
    }
    const struct expertd_tensor input = expertd_tensor_f32(values, rows, RIG_COLUMNS);
    if (backward)
        ck_assert_int_eq(expertd_backward_parts(client, parts, count, &input, 1, &input, 1, 0, &call), 0);
    else
        ck_assert_int_eq(expertd_forward_parts(client, parts, count, &input, 1, 0, &call), 0);
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    return call;
}

static void expect_rows(const struct expertd_call *call, unsigned from, unsigned rows, float value)
{
    const struct expertd_tensor *output = expertd_call_output(call, 0);
    ck_assert_ptr_nonnull(output);
    ck_assert_uint_ge(output->shape[0], from + rows);
    for (unsigned i = from * RIG_COLUMNS; i < (from + rows) * RIG_COLUMNS; i++)
        ck_assert_float_eq(((const float *)output->data)[i], value);
}

START_TEST(parts_come_back_in_order_with_a_status_each)
{
    const struct expertd_part parts[] = {{"nop.1", 2, 0}, {"nop.9", 1, 0}, {"nop.0", 3, 0}};
    for (int i = 0; i < 20; i++) {
        struct expertd_call *call = ask(false, parts, 3, (float)i);
        ck_assert_msg(expertd_call_status(call) == EXPERTD_OK, "%s", expertd_call_message(call));
        ck_assert_uint_eq(expertd_call_part_count(call), 3);
        ck_assert_int_eq(expertd_call_part_status(call, 0), EXPERTD_OK);
        ck_assert_str_eq(expertd_call_part_message(call, 0), "");
        ck_assert_int_eq(expertd_call_part_status(call, 1), EXPERTD_NOT_FOUND);
        ck_assert_ptr_nonnull(strstr(expertd_call_part_message(call, 1), "nop.9"));
        ck_assert_int_eq(expertd_call_part_status(call, 3), EXPERTD_INVALID_ARGUMENT);
        expect_rows(call, 0, 2, (float)(i + 1));
        expect_rows(call, 2, 1, 0);
        expect_rows(call, 3, 3, (float)(i + 3));
        expertd_call_release(&call);
    }
    ck_assert(ask_counter(&one, "frontend.parts") == 60);
}
END_TEST

START_TEST(a_whole_refusal_is_each_part_s)
{
    const struct expertd_part twice[] = {{"nop.0", 1, 0}, {"nop.0", 1, 0}}, none[] = {{"nop.8", 1, 0}, {"nop.9", 1, 0}};
    struct expertd_call *call = ask(false, twice, 2, 0);
    ck_assert_int_eq(expertd_call_status(call), EXPERTD_INVALID_ARGUMENT);
    ck_assert_int_eq(expertd_call_part_status(call, 1), EXPERTD_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(expertd_call_part_message(call, 1), "twice"));
    expertd_call_release(&call);
    call = ask(false, none, 2, 0);
    ck_assert_int_eq(expertd_call_status(call), EXPERTD_NOT_FOUND);
    ck_assert_uint_eq(expertd_call_output_count(call), 0);
    ck_assert_ptr_nonnull(strstr(expertd_call_part_message(call, 1), "nop.9"));
    expertd_call_release(&call);
}
END_TEST

START_TEST(what_is_no_request_does_not_leave)
{
    static struct expertd_part many[EXPERTD_MAX_PARTS + 1];
    static char text[EXPERTD_MAX_UID + 2];
    memset(text, 'a', EXPERTD_MAX_UID + 1);
    const double before = ask_counter(&one, "frontend.requests.forward");
    const struct expertd_part nameless[] = {{NULL, 1, 0}}, long_one[] = {{text, 1, 0}};
    const struct {
        const struct expertd_part *parts;
        size_t count;
        const char *says;
    } cases[] = {{many, 0, "1 to 512 parts"},       {NULL, 0, "1 to 512 parts"},
                 {NULL, 3, "1 to 512 parts"},       {many, EXPERTD_MAX_PARTS + 1, "1 to 512 parts"},
                 {nameless, 1, "uid has 1 to 127"}, {long_one, 1, "uid has 1 to 127"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct expertd_call *call = ask(false, cases[i].parts, cases[i].count, 0);
        ck_assert_int_eq(expertd_call_status(call), EXPERTD_INVALID_ARGUMENT);
        ck_assert_msg(strstr(expertd_call_message(call), cases[i].says), "%s", expertd_call_message(call));
        expertd_call_release(&call);
    }
    /* Uids that are too long together. */
    text[EXPERTD_MAX_UID] = 0;
    for (int p = 0; p < EXPERTD_MAX_PARTS; p++)
        many[p] = (struct expertd_part){text, 0, 0};
    struct expertd_call *call = ask(false, many, EXPERTD_MAX_PARTS, 0);
    ck_assert_ptr_nonnull(strstr(expertd_call_message(call), "no one request"));
    expertd_call_release(&call);
    ck_assert(ask_counter(&one, "frontend.requests.forward") == before);
}
END_TEST

START_TEST(what_failed_is_repeated_alone_and_nothing_is_applied_twice)
{
    struct expertd_part parts[] = {{"nop.1", 2, 0}, {"away.0", 1, 0}, {"nop.0", 1, 0}};
    struct expertd_call *call = ask(true, parts, 3, 0), *again;
    ck_assert_int_eq(expertd_call_status(call), EXPERTD_OK);
    ck_assert_int_eq(expertd_call_part_status(call, 1), EXPERTD_UNAVAILABLE);
    ck_assert(!expertd_call_part_not_applied(call, 1) && !expertd_call_part_not_applied(call, 0));
    ck_assert_uint_eq(rig.knobs->applied, 2);
    /* All of it, as the library repeats it. */
    ck_assert_int_eq(expertd_call_retry(call, 0), 0);
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    ck_assert_int_eq(expertd_call_status(call), EXPERTD_OK);
    expect_rows(call, 0, 2, 1);
    expect_rows(call, 3, 1, 3);
    /* One part, in another call, under its id. */
    parts[0] = (struct expertd_part){"nop.0", 1, expertd_call_request_id(call)};
    again = ask(true, parts, 1, 60);
    ck_assert_int_eq(expertd_call_status(again), EXPERTD_OK);
    expect_rows(again, 0, 1, 3);
    ck_assert_uint_eq(rig.knobs->applied, 2);
    expertd_call_release(&again);
    expertd_call_release(&call);
}
END_TEST

START_TEST(a_full_pool_says_when_to_come_back)
{
    const struct expertd_part parts[] = {{"nop.0", 1, 0}, {"nop.1", 1, 0}};
    struct expertd_call *call, *calls[RIG_QUEUE_TASKS];
    const struct expertd_tensor input = expertd_tensor_f32(values, 1, RIG_COLUMNS),
                                two_rows = expertd_tensor_f32(values, 2, RIG_COLUMNS);
    rig.knobs->hold = 1;
    for (int i = 0; i < RIG_QUEUE_TASKS; i++)
        ck_assert_int_eq(expertd_forward(client, "nop.0", &input, 1, 0, &calls[i]), 0);
    RIG_WAIT(ask_counter(&one, "frontend.in_flight") == RIG_QUEUE_TASKS);
    ck_assert_int_eq(expertd_forward_parts(client, parts, 2, &two_rows, 1, 0, &call), 0);
    RIG_WAIT(ask_counter(&one, "frontend.in_flight") == RIG_QUEUE_TASKS + 1);
    rig.knobs->hold = 0;
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    ck_assert_int_eq(expertd_call_status(call), EXPERTD_OK);
    ck_assert_int_eq(expertd_call_part_status(call, 0), EXPERTD_RESOURCE_EXHAUSTED);
    ck_assert(expertd_call_part_not_applied(call, 0));
    ck_assert_uint_gt(expertd_call_part_retry_after_ms(call, 0), 0);
    expertd_call_release(&call);
    for (int i = 0; i < RIG_QUEUE_TASKS; i++)
        expertd_call_release(&calls[i]);
}
END_TEST

/* A reply's own parts, of a server that is not ours. */
START_TEST(statuses_and_texts_of_a_stranger_are_made_harmless)
{
    Expertd__ReplyHeader header = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ReplyHeader__PartResult results[2], *pointers[] = {&results[0], &results[1]};
    void *taken = NULL;
    for (int p = 0; p < 2; p++)
        expertd__reply_header__part_result__init(&results[p]);
    results[0].status = (Expertd__Status)77;
    results[1].status = EXPERTD__STATUS__UNAVAILABLE;
    results[1].message = (char *)(uintptr_t) "\033[2Jgone";
    header.n_parts = 2;
    header.parts = pointers;
    ck_assert(call_parts_take(&taken, &header, true));
    const struct call_parts *parts = taken;
    ck_assert_int_eq(parts->parts[0].status, EXPERTD_INTERNAL);
    ck_assert_str_eq(parts->parts[0].message, "the server gives no reason");
    ck_assert_str_eq(parts->parts[1].message, "?[2Jgone");
    free(taken);
}
END_TEST

/* All parts at the one frontend that the reply names, which each of them has a copy of. */
START_TEST(an_endpoint_that_is_none_is_not_copied_for_each_part)
{
    enum { LONGEST = CALL_ENDPOINT_SIZE - 1 };
    static char endpoint[LONGEST + 2];
    char *endpoints[] = {endpoint};
    Expertd__ReplyHeader header = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ReplyHeader__PartResult result = EXPERTD__REPLY_HEADER__PART_RESULT__INIT,
                                     *pointers[] = {&result, &result};
    void *taken = NULL;
    result.status = EXPERTD__STATUS__NOT_FOUND;
    result.frontend = 1;
    header.n_parts = 2;
    header.parts = pointers;
    header.n_endpoints = 1;
    header.endpoints = endpoints;
    for (size_t more = 0; more < 2; more++) {
        memset(endpoint, 'e', LONGEST + more);
        ck_assert(call_parts_take(&taken, &header, true));
        const struct call_parts *parts = taken;
        ck_assert_int_eq(parts->parts[1].status, EXPERTD_NOT_FOUND);
        ck_assert_str_eq(parts->parts[1].endpoint, more ? "" : endpoint);
    }
    free(taken);
}
END_TEST

int main(void)
{
    TCase *remote = tcase_create("remote"), *local = tcase_create("local"), *bare = tcase_create("bare");
    TCase *const both[] = {remote, local};
    tcase_add_checked_fixture(remote, setup_remote, teardown_client);
    tcase_add_checked_fixture(local, setup_local, teardown_client);
    for (int i = 0; i < 2; i++) {
        tcase_add_test(both[i], parts_come_back_in_order_with_a_status_each);
        tcase_add_test(both[i], what_failed_is_repeated_alone_and_nothing_is_applied_twice);
        tcase_add_test(both[i], a_full_pool_says_when_to_come_back);
    }
    tcase_add_test(remote, a_whole_refusal_is_each_part_s);
    tcase_add_test(remote, what_is_no_request_does_not_leave);
    tcase_add_test(bare, statuses_and_texts_of_a_stranger_are_made_harmless);
    tcase_add_test(bare, an_endpoint_that_is_none_is_not_copied_for_each_part);
    Suite *suite = suite_create("call_parts");
    suite_add_tcase(suite, remote);
    suite_add_tcase(suite, local);
    suite_add_tcase(suite, bare);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
