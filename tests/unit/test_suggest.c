#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "common/suggest.h"

static const char *const known[] = {"hidden_dim", "max_batch_size", "min_batch_size", "block", "beta1", "beta2"};

static const char *nearest(const char *word)
{
    struct suggest suggest;
    suggest_begin(&suggest, word);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        suggest_offer(&suggest, known[i]);
    return suggest.nearest ? suggest.nearest : "";
}

static const char *const slips[][2] = {
    {"hiden_dim", "hidden_dim"},
    {"hidden-dim", "hidden_dim"},
    {"hiddenn_dim", "hidden_dim"},
    {"max_batchsize", "max_batch_size"},
    {"blokc", "block"},
    {"bock", "block"},
    {"mim_batch_size", "min_batch_size"},
    {"beta3", "beta1"},
    {"learning_rate", ""},
    {"", ""},
    {"x", ""},
    {"blk", ""},
};

START_TEST(the_nearest_name_is_found_or_none)
{
    ck_assert_str_eq(nearest(slips[_i][0]), slips[_i][1]);
}
END_TEST

START_TEST(a_word_of_any_length_is_borne)
{
    char word[4096];
    memset(word, 'a', sizeof word - 1);
    word[sizeof word - 1] = 0;
    ck_assert_str_eq(nearest(word), "");
    struct suggest suggest;
    suggest_begin(&suggest, "block");
    suggest_offer(&suggest, word);
    suggest_offer(&suggest, "");
    ck_assert_ptr_null(suggest.nearest);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("suggest");
    TCase *tcase = tcase_create("suggest");
    tcase_add_loop_test(tcase, the_nearest_name_is_found_or_none, 0, (int)(sizeof slips / sizeof slips[0]));
    tcase_add_test(tcase, a_word_of_any_length_is_borne);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
