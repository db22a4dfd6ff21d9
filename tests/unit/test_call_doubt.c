/* Backwards that are sent again after an attempt that may have been applied, by a server that says what the test wants.
 */
#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/support_session.h"

/* What is answered to the next attempts: of each part, or of the one expert the first. */
enum { PARTS = 2 };
static atomic_int says[PARTS];
static atomic_int came;
static atomic_bool silent; /* says nothing, to whatever comes */

static void answer(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ReplyHeader__PartResult results[PARTS], *pointers[PARTS];
    (void)context;
    atomic_fetch_add(&came, header->method == EXPERTD__METHOD__BACKWARD);
    if (atomic_load(&silent) && header->method == EXPERTD__METHOD__BACKWARD)
        return;
    if (header->method == EXPERTD__METHOD__PING || says[0] == EXPERTD_OK) {
        router_nop(NULL, request);
        return;
    }
    ck_assert_uint_le(header->n_parts, PARTS);
    reply.status = (Expertd__Status)says[0];
    reply.message = (char *)(uintptr_t) "told to";
    for (size_t p = 0; p < header->n_parts; p++) {
        expertd__reply_header__part_result__init(&results[p]);
        results[p].status = (Expertd__Status)says[p];
        reply.status = says[p] == EXPERTD_UNAVAILABLE ? EXPERTD__STATUS__UNAVAILABLE : reply.status;
        pointers[p] = &results[p];
    }
    reply.parts = pointers;
    reply.n_parts = header->n_parts;
    router_reply(request, header, &reply, NULL, 0);
}

static void set_up(void)
{
    session_open();
    atomic_store(&came, 0);
    atomic_store(&silent, false);
}

static void again(enum expertd_status status)
{
    atomic_store(&says[0], (int)status);
    ck_assert_int_eq(expertd_call_retry(session.call, SESSION_LONG_MS), 0);
    session_finish_as(session.call, status);
}

static void first(enum expertd_status status)
{
    atomic_store(&says[0], (int)status);
    session_backward(SESSION_LONG_MS, &session.call);
    session_finish_as(session.call, status);
}

/* Of what the server says without a look at what it has applied before. */
static const enum expertd_status refusals[] = {EXPERTD_INVALID_ARGUMENT, EXPERTD_NOT_FOUND, EXPERTD_PERMISSION_DENIED,
                                               EXPERTD_RESOURCE_EXHAUSTED, EXPERTD_UNIMPLEMENTED};
static const enum expertd_status leave_doubt[] = {EXPERTD_UNAVAILABLE, EXPERTD_DEADLINE_EXCEEDED, EXPERTD_OK};

START_TEST(a_refusal_tells_nothing_of_the_attempt_before)
{
    session_start(answer, NULL);
    for (size_t d = 0; d < sizeof leave_doubt / sizeof leave_doubt[0]; d++) {
        for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
            first(leave_doubt[d]);
            ck_assert(!expertd_call_not_applied(session.call));
            for (int times = 0; times < 3; times++) {
                again(refusals[i]);
                ck_assert(!expertd_call_not_applied(session.call));
            }
            expertd_call_release(&session.call);
        }
    }
}
END_TEST

START_TEST(what_becomes_of_the_batch_tells_it)
{
    static const enum expertd_status of_the_batch[] = {EXPERTD_ABORTED, EXPERTD_INTERNAL};
    session_start(answer, NULL);
    for (int i = 0; i < 2; i++) {
        first(EXPERTD_UNAVAILABLE);
        again(EXPERTD_RESOURCE_EXHAUSTED);
        again(of_the_batch[i]);
        ck_assert(expertd_call_not_applied(session.call));
        again(EXPERTD_RESOURCE_EXHAUSTED); /* after it nothing is in doubt */
        ck_assert(expertd_call_not_applied(session.call));
        expertd_call_release(&session.call);
    }
    first(EXPERTD_RESOURCE_EXHAUSTED);
    again(EXPERTD_NOT_FOUND);
    ck_assert(expertd_call_not_applied(session.call));
    again(EXPERTD_UNAVAILABLE);
    expertd_call_release(&session.call);
    first(EXPERTD_NOT_FOUND); /* of the memory of a call that is over */
    ck_assert(expertd_call_not_applied(session.call));
}
END_TEST

static char named[256];

static void name_another(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    (void)context;
    reply.status = EXPERTD__STATUS__NOT_FOUND;
    reply.message = (char *)(uintptr_t) "it is at another frontend";
    reply.endpoint = named;
    router_reply(request, header, &reply, NULL, 0);
}

/* The first attempt came to another frontend of the server; the second does not leave, as that has gone. */
START_TEST(what_is_not_sent_again_may_have_been_applied_before)
{
    struct router *there = router_start(NULL, answer, NULL);
    snprintf(named, sizeof named, "%s", router_endpoint(there));
    session_start(name_another, NULL);
    first(EXPERTD_UNAVAILABLE);
    ck_assert_int_eq(atomic_load(&came), 1);
    router_stop(&there);
    const struct expertd_client *sibling = expertd_client_frontend(session.client, named);
    ck_assert_ptr_nonnull(sibling);
    while (expertd_client_connected(sibling))
        ck_assert_int_ge(expertd_poll(session.client, 1), 0);
    uint32_t deadline_ms = 100;
    do { /* until there was time to be sent there */
        deadline_ms *= 2;
        ck_assert_int_eq(expertd_call_retry(session.call, deadline_ms), 0);
        session_wait(session.call);
        ck_assert(!expertd_call_not_applied(session.call));
    } while (!strstr(expertd_call_message(session.call), named));
    ck_assert_int_eq(expertd_call_status(session.call), EXPERTD_UNAVAILABLE);
}
END_TEST

static void parts_are(const struct expertd_part parts[PARTS], int one, int other)
{
    atomic_store(&says[0], one);
    atomic_store(&says[1], other);
    const struct expertd_tensor input = session_rows_of_4(PARTS);
    if (session.call)
        ck_assert_int_eq(expertd_call_retry(session.call, SESSION_LONG_MS), 0);
    else
        ck_assert_int_eq(
            expertd_backward_parts(session.client, parts, PARTS, &input, 1, &input, 1, SESSION_LONG_MS, &session.call),
            0);
    session_wait(session.call);
    ck_assert_int_eq(expertd_call_part_status(session.call, 0), (enum expertd_status)one);
    ck_assert_int_eq(expertd_call_part_status(session.call, 1), (enum expertd_status)other);
}

static void are_not_applied(bool all, bool one, bool other)
{
    ck_assert_int_eq(expertd_call_not_applied(session.call), all);
    ck_assert_int_eq(expertd_call_part_not_applied(session.call, 0), one);
    ck_assert_int_eq(expertd_call_part_not_applied(session.call, 1), other);
}

START_TEST(each_part_is_in_doubt_by_itself)
{
    static const struct expertd_part parts[] = {{"nop.0", 1, 0}, {"nop.1", 1, 0}};
    session_start(answer, NULL);
    parts_are(parts, EXPERTD_NOT_FOUND, EXPERTD_UNAVAILABLE);
    are_not_applied(false, true, false);
    parts_are(parts, EXPERTD_RESOURCE_EXHAUSTED, EXPERTD_RESOURCE_EXHAUSTED);
    are_not_applied(false, true, false);
    parts_are(parts, EXPERTD_ABORTED, EXPERTD_NOT_FOUND);
    are_not_applied(false, true, false);
    parts_are(parts, EXPERTD_NOT_FOUND, EXPERTD_ABORTED);
    are_not_applied(true, true, true);
    parts_are(parts, EXPERTD_NOT_FOUND, EXPERTD_NOT_FOUND);
    are_not_applied(true, true, true);
}
END_TEST

START_TEST(a_part_with_an_id_of_before_is_a_repeat)
{
    static const struct expertd_part parts[] = {{"nop.0", 1, 0}, {"nop.1", 1, 71}};
    session_start(answer, NULL);
    parts_are(parts, EXPERTD_NOT_FOUND, EXPERTD_RESOURCE_EXHAUSTED);
    are_not_applied(false, true, false);
    expertd_call_release(&session.call);
    parts_are(parts, EXPERTD_NOT_FOUND, EXPERTD_ABORTED);
    are_not_applied(true, true, true);
}
END_TEST

/* One attempt more, that gets no answer before its deadline; and has come. */
static void not_in_time(const struct expertd_part *parts)
{
    const struct expertd_tensor input = session_rows_of_4(PARTS);
    const int before = atomic_load(&came);
    session_ping(); /* it can be sent at once */
    atomic_store(&silent, true);
    if (session.call)
        ck_assert_int_eq(expertd_call_retry(session.call, SESSION_SHORT_MS), 0);
    else if (parts)
        ck_assert_int_eq(
            expertd_backward_parts(session.client, parts, PARTS, &input, 1, &input, 1, SESSION_SHORT_MS, &session.call),
            0);
    else
        session_backward(SESSION_SHORT_MS, &session.call);
    session_finish_as(session.call, EXPERTD_DEADLINE_EXCEEDED);
    ck_assert(!expertd_call_not_applied(session.call));
    session_ping();
    atomic_store(&silent, false);
    ck_assert_int_eq(atomic_load(&came), before + 1);
}

/* What comes may be the first's answer, while the second, under the same id, goes on. */
START_TEST(a_late_answer_tells_nothing_of_the_attempt_that_it_ends)
{
    static const enum expertd_status of_the_batch[] = {EXPERTD_ABORTED, EXPERTD_INTERNAL};
    session_start(answer, NULL);
    for (int i = 0; i < 2; i++) {
        for (int times = 1; times <= 2; times++) {
            not_in_time(NULL);
            again(of_the_batch[i]);
            ck_assert(!expertd_call_not_applied(session.call));
            again(EXPERTD_UNAVAILABLE);
            again(of_the_batch[i]);
            ck_assert(!expertd_call_not_applied(session.call));
        }
        again(EXPERTD_OK);
        expertd_call_release(&session.call);
        first(of_the_batch[i]); /* of the memory of a call that is over */
        ck_assert(expertd_call_not_applied(session.call));
        expertd_call_release(&session.call);
    }
}
END_TEST

START_TEST(a_late_answer_tells_nothing_of_parts_either)
{
    static const struct expertd_part parts[] = {{"nop.0", 1, 0}, {"nop.1", 1, 0}};
    session_start(answer, NULL);
    not_in_time(parts);
    parts_are(parts, EXPERTD_ABORTED, EXPERTD_INTERNAL);
    are_not_applied(false, false, false);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("call_doubt");
    TCase *tests = tcase_create("call_doubt");
    tcase_add_checked_fixture(tests, set_up, session_close);
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, a_late_answer_tells_nothing_of_the_attempt_that_it_ends);
    tcase_add_test(tests, a_late_answer_tells_nothing_of_parts_either);
    tcase_add_test(tests, a_refusal_tells_nothing_of_the_attempt_before);
    tcase_add_test(tests, what_becomes_of_the_batch_tells_it);
    tcase_add_test(tests, what_is_not_sent_again_may_have_been_applied_before);
    tcase_add_test(tests, each_part_is_in_doubt_by_itself);
    tcase_add_test(tests, a_part_with_an_id_of_before_is_a_repeat);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
