#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/support_session.h"

static struct {
    Expertd__Method method;
    char uid[64], prefix[64];
    uint32_t offset, limit, deadline_ms;
    size_t tensors, frames;
    bool has_list;
} seen;

static void note(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    (void)context;
    memset(&seen, 0, sizeof seen);
    seen.method = header->method;
    seen.deadline_ms = header->deadline_ms;
    seen.tensors = header->n_tensors;
    seen.frames = request->count - 1;
    snprintf(seen.uid, sizeof seen.uid, "%s", header->uid);
    seen.has_list = header->list != NULL;
    if (header->list) {
        snprintf(seen.prefix, sizeof seen.prefix, "%s", header->list->prefix);
        seen.offset = header->list->offset;
        seen.limit = header->list->limit;
    }
    router_nop(NULL, request);
}

static void finished(Expertd__Method method, const char *uid)
{
    session_finish_as(session.call, EXPERTD_OK);
    expertd_call_release(&session.call);
    ck_assert_int_eq(seen.method, method);
    ck_assert_str_eq(seen.uid, uid);
    ck_assert_uint_eq(seen.deadline_ms, SESSION_LONG_MS);
}

START_TEST(each_method_asks_what_it_was_told)
{
    struct expertd_tensor tensors[3];
    for (int i = 0; i < 3; i++)
        tensors[i] = session_rows_of_4(2);
    session_start(note, NULL);
    ck_assert_int_eq(expertd_ping(session.client, SESSION_LONG_MS, &session.call), 0);
    finished(EXPERTD__METHOD__PING, "");
    ck_assert_int_eq(expertd_list(session.client, "nop.", 0, 7, SESSION_LONG_MS, &session.call), 0);
    finished(EXPERTD__METHOD__LIST, "");
    ck_assert_str_eq(seen.prefix, "nop.");
    ck_assert_uint_eq(seen.limit, 7);
    ck_assert_int_eq(expertd_list(session.client, NULL, 3, 0, SESSION_LONG_MS, &session.call), 0);
    finished(EXPERTD__METHOD__LIST, "");
    ck_assert_str_eq(seen.prefix, "");
    ck_assert_uint_eq(seen.offset, 3);
    ck_assert_int_eq(expertd_info(session.client, "nop.0", SESSION_LONG_MS, &session.call), 0);
    finished(EXPERTD__METHOD__INFO, "nop.0");
    ck_assert_int_eq(expertd_stats(session.client, SESSION_LONG_MS, &session.call), 0);
    finished(EXPERTD__METHOD__STATS, "");
    ck_assert(!seen.has_list);
    ck_assert_int_eq(expertd_checkpoint(session.client, NULL, SESSION_LONG_MS, &session.call), 0);
    finished(EXPERTD__METHOD__CHECKPOINT, "");
    ck_assert_int_eq(expertd_checkpoint(session.client, "nop.0", SESSION_LONG_MS, &session.call), 0);
    finished(EXPERTD__METHOD__CHECKPOINT, "nop.0");
    ck_assert_int_eq(expertd_forward(session.client, "nop.0", tensors, 3, SESSION_LONG_MS, &session.call), 0);
    finished(EXPERTD__METHOD__FORWARD, "nop.0");
    ck_assert_uint_eq(seen.tensors, 3);
    ck_assert_uint_eq(seen.frames, 3);
    ck_assert_int_eq(
        expertd_backward(session.client, "nop.0", tensors, 1, tensors + 1, 1, SESSION_LONG_MS, &session.call), 0);
    finished(EXPERTD__METHOD__BACKWARD, "nop.0");
    ck_assert_uint_eq(seen.tensors, 2);
}
END_TEST

START_TEST(names_that_are_too_long_are_refused_here)
{
    char name[EXPERTD_MAX_UID + 2];
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = 0;
    session_start(note, NULL);
    ck_assert_int_eq(expertd_info(session.client, name, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_INVALID_ARGUMENT);
    expertd_call_release(&session.call);
    ck_assert_int_eq(expertd_list(session.client, name, 0, 0, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_INVALID_ARGUMENT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("call_methods");
    TCase *tests = tcase_create("call_methods");
    tcase_add_checked_fixture(tests, session_open, session_close);
    tcase_add_test(tests, each_method_asks_what_it_was_told);
    tcase_add_test(tests, names_that_are_too_long_are_refused_here);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
