#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertd.h"
#include "client/method_answer.h"
#include "common/tensor.h"

static char uid[] = "ffn.0.1", odd[] = "a\x1b[2J", no_uid[] = "ffn..1", empty[] = "";

START_TEST(a_pong_is_copied_and_printable)
{
    Expertd__Pong pong = EXPERTD__PONG__INIT;
    void *answer = NULL;
    pong.server = odd;
    pong.software = uid;
    pong.experts = 7;
    ck_assert_ptr_null(method_answer_take_pong(&answer, &pong));
    const struct expertd_pong *taken = answer;
    ck_assert_str_eq(taken->server, "a?[2J");
    ck_assert_ptr_ne(taken->software, uid);
    ck_assert_uint_eq(taken->experts, 7);
    free(answer);
}
END_TEST

START_TEST(a_list_has_uids_or_is_refused)
{
    Expertd__ExpertList list = EXPERTD__EXPERT_LIST__INIT;
    Expertd__ExpertList__Entry entries[2], *pointers[2] = {&entries[0], &entries[1]};
    void *answer = NULL;
    ck_assert_ptr_null(method_answer_take_list(&answer, &list));
    ck_assert_uint_eq(((const struct expertd_list *)answer)->count, 0);
    free(answer);
    answer = NULL;
    for (int i = 0; i < 2; i++) {
        expertd__expert_list__entry__init(&entries[i]);
        entries[i].uid = uid;
        entries[i].device = odd;
    }
    entries[1].alive = 1;
    list.n_experts = 2;
    list.experts = pointers;
    list.total = 9;
    ck_assert_ptr_null(method_answer_take_list(&answer, &list));
    const struct expertd_list *taken = answer;
    ck_assert_str_eq(taken->entries[1].uid, uid);
    ck_assert_str_eq(taken->entries[0].device, "a?[2J");
    ck_assert(!taken->entries[0].alive && taken->entries[1].alive);
    ck_assert_uint_eq(taken->total, 9);
    free(answer);
    answer = NULL;
    entries[1].uid = no_uid;
    ck_assert_ptr_nonnull(method_answer_take_list(&answer, &list));
    ck_assert_ptr_null(answer);
}
END_TEST

static Expertd__Schema__Field field, *fields[SCHEMA_MAX_TENSORS + 1];
static Expertd__Schema schema;
static Expertd__ExpertInfo info;
static uint64_t shape[TENSOR_MAX_DIMS + 1];

static void good_info(void)
{
    expertd__schema__field__init(&field);
    field.name = uid;
    field.dtype = EXPERTD__DTYPE__FLOAT32;
    field.row_shape = shape;
    field.n_row_shape = 2;
    shape[0] = 3;
    shape[1] = 5;
    expertd__schema__init(&schema);
    for (size_t i = 0; i < SCHEMA_MAX_TENSORS + 1; i++)
        fields[i] = &field;
    schema.n_tensors = SCHEMA_MAX_TENSORS;
    schema.tensors = fields;
    expertd__expert_info__init(&info);
    info.uid = uid;
    info.block = info.device = info.optimizer = info.schedule = empty;
    info.forward_schema = info.outputs_schema = &schema;
}

static void refused(void)
{
    void *answer = NULL;
    ck_assert_ptr_nonnull(method_answer_take_info(&answer, &info));
    ck_assert_ptr_null(answer);
    good_info();
}

START_TEST(an_info_of_the_largest_schemas_is_copied)
{
    void *answer = NULL;
    good_info();
    Expertd__ExpertInfo__Argument arguments[2], *pointers[2] = {&arguments[0], &arguments[1]};
    expertd__expert_info__argument__init(&arguments[0]);
    expertd__expert_info__argument__init(&arguments[1]);
    arguments[0].name = (char[]){"heads"};
    arguments[0].value = 16;
    arguments[1].name = (char[]){"activation"};
    arguments[1].text = (char[]){"silu"};
    info.arguments = pointers;
    info.n_arguments = 2;
    info.update_count = 77;
    info.compression = (Expertd__Codec)99; /* of a later version */
    ck_assert_ptr_null(method_answer_take_info(&answer, &info));
    const struct expertd_info *taken = answer;
    ck_assert_uint_eq(taken->arguments_count, 2);
    ck_assert_str_eq(taken->arguments[0].name, "heads");
    ck_assert_double_eq(taken->arguments[0].value, 16);
    ck_assert_str_eq(taken->arguments[0].text, "");
    ck_assert_str_eq(taken->arguments[1].text, "silu");
    ck_assert_uint_eq(taken->forward_schema.count, SCHEMA_MAX_TENSORS);
    ck_assert_uint_eq(taken->backward_schema.count, 2 * SCHEMA_MAX_TENSORS);
    ck_assert_uint_eq(taken->backward_schema.fields[2 * SCHEMA_MAX_TENSORS - 1].row_shape[1], 5);
    ck_assert_uint_eq(taken->update_count, 77);
    ck_assert_int_eq(taken->compression, EXPERTD_CODEC_NONE);
    info.n_arguments = 0;
    info.arguments = NULL;
    free(answer);
}
END_TEST

START_TEST(schemas_that_no_expert_has_are_refused)
{
    good_info();
    info.uid = no_uid;
    refused();
    info.forward_schema = NULL;
    refused();
    schema.n_tensors = 0;
    refused();
    schema.n_tensors = SCHEMA_MAX_TENSORS + 1;
    refused();
    field.dtype = (Expertd__DType)77;
    refused();
    field.n_row_shape = TENSOR_MAX_DIMS + 1;
    refused();
    shape[1] = 0;
    refused();
    shape[0] = shape[1] = UINT64_C(1) << 40;
    refused();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("method_answer");
    TCase *tests = tcase_create("method_answer");
    tcase_add_test(tests, a_pong_is_copied_and_printable);
    tcase_add_test(tests, a_list_has_uids_or_is_refused);
    tcase_add_test(tests, an_info_of_the_largest_schemas_is_copied);
    tcase_add_test(tests, schemas_that_no_expert_has_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
