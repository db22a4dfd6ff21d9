#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "pools/control.h"
#include "unit/support_ask.h"

static struct rig rig;
static struct asker one;
static struct question question;
static struct answer answer;

static void setup(void)
{
    rig_open(&rig, NULL);
    rig_start_frontend(&rig);
    rig_start_runtime(&rig, false);
    ask_open(&one, &rig, ZMQ_DEALER);
    ask_until_up(&one);
}

static void teardown(void)
{
    ask_close(&one);
    ck_assert_int_eq(rig_end(&rig.frontend, SIGTERM), 0);
    rig_close(&rig);
}

static Expertd__ExpertList *list(const char *prefix, uint32_t offset, uint32_t limit)
{
    char text[64];
    Expertd__ListQuery query = EXPERTD__LIST_QUERY__INIT;
    snprintf(text, sizeof text, "%s", prefix);
    query.prefix = text;
    query.offset = offset;
    query.limit = limit;
    ask_prepare(&one, &question, EXPERTD__METHOD__LIST, "", 0, 0);
    question.header.list = &query;
    ask_call(&one, &question, &answer, STATUS_OK);
    return answer.header->list;
}

START_TEST(ping_tells_name_version_and_how_many_live)
{
    ask_prepare(&one, &question, EXPERTD__METHOD__PING, "", 0, 0);
    ask_call(&one, &question, &answer, STATUS_OK);
    ck_assert_str_eq(answer.header->pong->server, rig.name);
    ck_assert_str_eq(answer.header->pong->software, "expertd " EXPERTD_VERSION);
    ck_assert_uint_eq(answer.header->pong->experts, 4);
    ck_assert_uint_eq(answer.header->pong->experts_alive, 3);
}
END_TEST

START_TEST(list_has_all_experts_and_says_who_lives)
{
    static const char *const uids[] = {"nop.0", "nop.1", "mask.0", "away.0"};
    ask_prepare(&one, &question, EXPERTD__METHOD__LIST, "", 0, 0); /* no query: all */
    ask_call(&one, &question, &answer, STATUS_OK);
    ck_assert_uint_eq(answer.header->list->total, 4);
    ck_assert_uint_eq(answer.header->list->n_experts, 4);
    for (int i = 0; i < 4; i++) {
        const Expertd__ExpertList__Entry *entry = answer.header->list->experts[i];
        ck_assert_str_eq(entry->uid, uids[i]);
        ck_assert_int_eq(entry->alive, i < 3);
        ck_assert_str_eq(entry->device, i < 3 ? "cpu0" : "other");
    }
}
END_TEST

START_TEST(list_filters_and_pages)
{
    ck_assert_uint_eq(list("nop.", 0, 0)->total, 2);
    ck_assert_uint_eq(answer.header->list->n_experts, 2);
    ck_assert_uint_eq(list("zzz", 0, 0)->total, 0);
    const Expertd__ExpertList *page = list("", 1, 2);
    ck_assert_uint_eq(page->total, 4);
    ck_assert_uint_eq(page->n_experts, 2);
    ck_assert_str_eq(page->experts[0]->uid, "nop.1");
    ck_assert_uint_eq(list("", 4, 2)->n_experts, 0);
    ck_assert_uint_eq(list("", UINT32_MAX, UINT32_MAX)->n_experts, 0);
    ck_assert_uint_eq(list("nop.0", 0, 1)->experts[0]->alive, 1);
}
END_TEST

START_TEST(the_generation_of_the_list_changes_with_it)
{
    const uint64_t before = list("", 0, 0)->generation;
    ck_assert_uint_eq(list("", 0, 0)->generation, before);
    rig_end(&rig.runtime, SIGKILL);
    RIG_WAIT(ask_counter(&one, "device.cpu0.alive") == 0);
    ck_assert_uint_ne(list("", 0, 0)->generation, before);
    ck_assert(!answer.header->list->experts[0]->alive);
}
END_TEST

START_TEST(info_tells_schemas_settings_and_counters)
{
    ask_prepare(&one, &question, EXPERTD__METHOD__INFO, "mask.0", 0, 0);
    ask_call(&one, &question, &answer, STATUS_OK);
    const Expertd__ExpertInfo *info = answer.header->info;
    ck_assert_str_eq(info->uid, "mask.0");
    ck_assert_str_eq(info->block, "nop");
    ck_assert_str_eq(info->device, "cpu0");
    ck_assert_str_eq(info->optimizer, "adam");
    ck_assert_double_eq(info->learning_rate, 0.5);
    ck_assert(info->alive);
    ck_assert_uint_eq(info->max_batch_size, RIG_MAX_BATCH);
    ck_assert_uint_eq(info->hidden_dim, RIG_COLUMNS);
    ck_assert_uint_eq(info->n_arguments, 2);
    ck_assert_str_eq(info->arguments[0]->name, "sequence");
    ck_assert_double_eq(info->arguments[0]->value, 128);
    ck_assert_str_eq(info->arguments[1]->name, "activation");
    ck_assert_double_eq(info->arguments[1]->value, 1);
    ck_assert_str_eq(info->arguments[1]->text, "silu");
    ck_assert_str_eq(info->arguments[0]->text, "");
    ck_assert_uint_eq(info->forward_schema->n_tensors, 2);
    ck_assert_str_eq(info->forward_schema->tensors[1]->name, "mask");
    ck_assert_int_eq(info->forward_schema->tensors[1]->dtype, EXPERTD__DTYPE__BOOL);
    ck_assert_uint_eq(info->forward_schema->tensors[1]->n_row_shape, 1);
    ck_assert_uint_eq(info->forward_schema->tensors[1]->row_shape[0], RIG_COLUMNS);
    ck_assert_uint_eq(info->outputs_schema->n_tensors, 2);
    ck_assert_uint_eq(info->backward_schema->n_tensors, 4);
    ck_assert_str_eq(info->backward_schema->tensors[1]->name, "mask");
    ck_assert_str_eq(info->outputs_schema->tensors[1]->name, "mask");
    ck_assert_str_eq(info->backward_schema->tensors[3]->name,
                     "grad_mask"); /* two of one name would not be told apart */
    ask_prepare(&one, &question, EXPERTD__METHOD__BACKWARD, "nop.1", 3, 1);
    ask_call(&one, &question, &answer, STATUS_OK);
    ask_prepare(&one, &question, EXPERTD__METHOD__INFO, "nop.1", 0, 0);
    ask_call(&one, &question, &answer, STATUS_OK);
    ck_assert_uint_eq(answer.header->info->update_count, 1);
}
END_TEST

START_TEST(info_of_a_damaged_record_is_a_message_that_every_client_can_read)
{
    struct control *control;
    ck_assert_int_eq(control_attach(&control, rig.name, "cpu0", false), 0);
    for (uint32_t e = 0; e < control_experts_count(control); e++) {
        strcpy(control_expert(control, e)->inputs.tensors[0].name, "\xc3\n");
        strcpy(control_expert(control, e)->outputs.tensors[0].name, "\x80y");
    }
    control_detach(&control);
    ask_prepare(&one, &question, EXPERTD__METHOD__INFO, "nop.0", 0, 0);
    ask_call(&one, &question, &answer, STATUS_OK);
    const Expertd__ExpertInfo *info = answer.header->info;
    ck_assert_str_eq(info->forward_schema->tensors[0]->name, "??");
    ck_assert_str_eq(info->outputs_schema->tensors[0]->name, "?y");
    ck_assert_str_eq(info->backward_schema->tensors[1]->name, "grad_?y");
}
END_TEST

START_TEST(info_of_an_expert_whose_runtime_died_still_answers)
{
    rig_end(&rig.runtime, SIGKILL);
    RIG_WAIT(ask_counter(&one, "device.cpu0.alive") == 0);
    ask_prepare(&one, &question, EXPERTD__METHOD__INFO, "nop.0", 0, 0);
    ask_call(&one, &question, &answer, STATUS_OK);
    ck_assert(!answer.header->info->alive);
    ck_assert_uint_eq(answer.header->info->max_batch_size, RIG_MAX_BATCH);
}
END_TEST

START_TEST(stats_count_what_happened)
{
    for (int i = 0; i < 5; i++)
        ask_alive(&one);
    ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, "nop.99", 1, 1);
    ask_call(&one, &question, &answer, STATUS_NOT_FOUND);
    ck_assert(ask_counter(&one, "frontend.requests.forward") == 6);
    ck_assert(ask_counter(&one, "frontend.replies.NOT_FOUND") == 1);
    ck_assert(ask_counter(&one, "frontend.replies.OK") >= 5);
    ck_assert(ask_counter(&one, "frontend.outcomes.forward.OK") == 5);
    ck_assert(ask_counter(&one, "frontend.outcomes.forward.NOT_FOUND") == 1);
    ck_assert(ask_counter(&one, "frontend.outcomes.backward.OK") == 0);
    ck_assert(ask_counter(&one, "frontend.bytes_in") > 5 * RIG_COLUMNS * 4);
    ck_assert(ask_counter(&one, "frontend.bytes_out") > 5 * RIG_COLUMNS * 4);
    ck_assert(ask_counter(&one, "frontend.in_flight") == 0);
    ck_assert(ask_counter(&one, "frontend.max_requests") == 16384);
    ck_assert(ask_counter(&one, "frontend.page_faults") > 0);
    ck_assert(ask_counter(&one, "frontend.pid") == rig.frontend);
    ck_assert(ask_counter(&one, "device.cpu0.pid") == rig.runtime);
    ck_assert(ask_counter(&one, "device.cpu0.batches") == 5);
    ck_assert(ask_counter(&one, "device.cpu0.experts") == 3);
    ck_assert(ask_counter(&one, "device.other.attached") == 0);
}
END_TEST

START_TEST(the_steady_state_has_no_page_fault)
{
    for (int i = 0; i < 200; i++)
        ask_alive(&one);
    const double before = ask_counter(&one, "frontend.page_faults");
    for (int i = 0; i < 500; i++)
        ask_alive(&one);
        /* STATS itself allocates, a few pages of the C library may come and go, and AddressSanitizer never reuses at
         * once. */
#ifdef __SANITIZE_ADDRESS__
    const double allowed = 5000;
#else
    const double allowed = 10;
#endif
    ck_assert(ask_counter(&one, "frontend.page_faults") - before < allowed);
}
END_TEST

START_TEST(checkpoints_are_answered_when_they_are_written)
{
    rig.knobs->hold = 1;
    ask_prepare(&one, &question, EXPERTD__METHOD__CHECKPOINT, "nop.1", 0, 0);
    ask_send(&one, &question);
    ck_assert(!ask_poll(&one, &answer, 100));
    rig.knobs->hold = 0;
    ask_receive(&one, &answer);
    ck_assert_int_eq((int)answer.header->status, STATUS_OK);
    ck_assert_uint_eq(rig.knobs->checkpoints, 1);
    ck_assert(ask_counter(&one, "frontend.in_flight") == 0);
}
END_TEST

START_TEST(a_checkpoint_that_fails_says_why)
{
    rig.knobs->checkpoint_errno = 28;
    ask_prepare(&one, &question, EXPERTD__METHOD__CHECKPOINT, "nop.1", 0, 0);
    ask_call(&one, &question, &answer, STATUS_INTERNAL);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "nop.1: No space left on device"));
}
END_TEST

START_TEST(a_checkpoint_of_all_waits_for_all_and_tells_of_devices_that_are_away)
{
    ask_prepare(&one, &question, EXPERTD__METHOD__CHECKPOINT, "", 0, 0);
    ask_call(&one, &question, &answer, STATUS_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "device 'other' is not up"));
    ck_assert_uint_eq(rig.knobs->checkpoints, 3); /* the others were written all the same */
}
END_TEST

START_TEST(a_checkpoint_has_a_deadline_and_ends_with_its_runtime)
{
    rig.knobs->hold = 1;
    ask_prepare(&one, &question, EXPERTD__METHOD__CHECKPOINT, "nop.1", 0, 0);
    question.header.deadline_ms = 50;
    ask_call(&one, &question, &answer, STATUS_DEADLINE_EXCEEDED);
    ask_prepare(&one, &question, EXPERTD__METHOD__CHECKPOINT, "nop.1", 0, 0);
    ask_send(&one, &question);
    RIG_WAIT(ask_counter(&one, "frontend.in_flight") == 1);
    rig_end(&rig.runtime, SIGKILL);
    ask_receive(&one, &answer);
    ck_assert_int_eq((int)answer.header->status, STATUS_UNAVAILABLE);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("inspect");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, ping_tells_name_version_and_how_many_live);
    tcase_add_test(all, list_has_all_experts_and_says_who_lives);
    tcase_add_test(all, list_filters_and_pages);
    tcase_add_test(all, the_generation_of_the_list_changes_with_it);
    tcase_add_test(all, info_tells_schemas_settings_and_counters);
    tcase_add_test(all, info_of_a_damaged_record_is_a_message_that_every_client_can_read);
    tcase_add_test(all, info_of_an_expert_whose_runtime_died_still_answers);
    tcase_add_test(all, stats_count_what_happened);
    tcase_add_test(all, the_steady_state_has_no_page_fault);
    tcase_add_test(all, checkpoints_are_answered_when_they_are_written);
    tcase_add_test(all, a_checkpoint_that_fails_says_why);
    tcase_add_test(all, a_checkpoint_of_all_waits_for_all_and_tells_of_devices_that_are_away);
    tcase_add_test(all, a_checkpoint_has_a_deadline_and_ends_with_its_runtime);
    Suite *suite = suite_create("inspect");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
