#include "dht/watch.h"
#include "dht_world.h"
#include "proto/expertd.pb-c.h"

static struct watch *watch;
static struct moment now = {1000 * NS_PER_S, 1};

static void setup(void)
{
    watch = watch_deaf(1);
    ck_assert_ptr_nonnull(watch);
}

static void teardown(void)
{
    watch_destroy(&watch);
}

/* The frontend's answer to the question with this id; uids as "ffn.0.0 !ffn.0.1". */
static enum watch_news answer(uint64_t id, uint64_t generation, uint32_t total, const char *uids)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ExpertList list = EXPERTD__EXPERT_LIST__INIT;
    Expertd__ExpertList__Entry entries[8], *all[8];
    static uint8_t frame[4096];
    static char elsewhere[] = "tcp://127.0.0.1:2";
    char *text = strdup(uids), *rest = text;
    for (char *uid; (uid = strsep(&rest, " "));) {
        if (!*uid)
            continue;
        all[list.n_experts] = &entries[list.n_experts];
        expertd__expert_list__entry__init(all[list.n_experts]);
        all[list.n_experts]->uid = uid + (*uid == '!' || *uid == '@');
        all[list.n_experts]->endpoint = *uid == '@' ? elsewhere : all[list.n_experts]->endpoint;
        all[list.n_experts++]->alive = *uid != '!';
    }
    list.experts = all;
    list.total = total;
    list.generation = generation;
    reply.version = 1;
    reply.request_id = id;
    reply.list = &list;
    const size_t size = expertd__reply_header__pack(&reply, frame);
    free(text);
    return watch_hear(watch, frame, size, now);
}

START_TEST(a_new_generation_is_listed_page_by_page)
{
    ck_assert_int_eq(answer(1, 5, 3, "ffn.0.0"), WATCH_NOTHING); /* asks for the list */
    ck_assert_int_eq(answer(2, 5, 3, "ffn.0.0 !ffn.0.1"), WATCH_NOTHING);
    ck_assert_int_eq(answer(3, 5, 3, "ffn.1.0"), WATCH_CHANGED);
    struct catalog catalog = watch_take(watch);
    ck_assert_uint_eq(catalog.experts, 3);
    ck_assert_uint_eq(catalog.alive, 2);
    catalog_destroy(&catalog);
}
END_TEST

/* They have a directory of their own. */
START_TEST(what_another_frontend_has_is_not_published)
{
    ck_assert_int_eq(answer(1, 5, 4, "ffn.0.0"), WATCH_NOTHING);
    ck_assert_int_eq(answer(2, 5, 4, "ffn.0.0 @ffn.0.1"), WATCH_NOTHING);
    ck_assert_int_eq(answer(3, 5, 4, "@ffn.0.2 ffn.0.3"), WATCH_CHANGED);
    struct catalog catalog = watch_take(watch);
    ck_assert_uint_eq(catalog.experts, 2);
    ck_assert_uint_eq(catalog.alive, 2);
    catalog_destroy(&catalog);
}
END_TEST

START_TEST(a_list_that_changes_meanwhile_is_begun_again)
{
    answer(1, 5, 3, "ffn.0.0");
    ck_assert_int_eq(answer(2, 5, 3, "ffn.0.0 ffn.0.1"), WATCH_NOTHING);
    ck_assert_int_eq(answer(3, 6, 1, "ffn.9.9"), WATCH_NOTHING);
    ck_assert_int_eq(answer(4, 6, 1, "ffn.9.9"), WATCH_CHANGED);
    struct catalog catalog = watch_take(watch);
    ck_assert_uint_eq(catalog.experts, 1);
    catalog_destroy(&catalog);
}
END_TEST

/* What is known of the frontend is known since it was asked, however long its answer took. */
START_TEST(a_confirmation_is_as_old_as_its_question)
{
    const uint64_t begin_ns = now.ns, tenth_ns = NS_PER_S / 10;
    uint64_t due_ns;
    answer(1, 5, 1, "ffn.0.0"); /* asks for the list */
    now.ns += tenth_ns;
    answer(2, 6, 1, "ffn.0.0"); /* which has changed meanwhile: asks again, and is as old as that question */
    now.ns += tenth_ns;
    ck_assert_int_eq(answer(3, 6, 1, "ffn.0.0"), WATCH_CHANGED);
    ck_assert_uint_eq(watch_confirmed_ns(watch), begin_ns);
    ck_assert_int_eq(watch_step(watch, now, &due_ns), WATCH_NOTHING); /* asks whether it is still so */
    now.ns += tenth_ns;
    ck_assert_int_eq(answer(4, 6, 1, "ffn.0.0"), WATCH_CONFIRMED);
    ck_assert_uint_eq(watch_confirmed_ns(watch), begin_ns + 2 * tenth_ns);
    now.ns = begin_ns;
}
END_TEST

START_TEST(answers_to_other_questions_do_not_count)
{
    ck_assert_int_eq(answer(9, 5, 1, "ffn.0.0"), WATCH_NOTHING);
    ck_assert_int_eq(answer(2, 5, 1, "ffn.0.0"), WATCH_NOTHING);
    answer(1, 5, 1, "ffn.0.0");
    ck_assert_int_eq(answer(1, 5, 1, "ffn.0.0"), WATCH_NOTHING);
    ck_assert_int_eq(answer(2, 5, 1, "ffn.0.0 no-uid"), WATCH_CHANGED);
    ck_assert_int_eq(answer(2, 5, 1, "ffn.0.0"), WATCH_NOTHING);
}
END_TEST

START_TEST(garbage_and_refusals_are_no_news)
{
    ck_assert_int_eq(watch_hear(watch, "garbage", 7, now), WATCH_NOTHING);
    ck_assert_int_eq(watch_hear(watch, "", 0, now), WATCH_NOTHING);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    uint8_t frame[64];
    reply.request_id = 1;
    reply.status = EXPERTD__STATUS__UNIMPLEMENTED;
    ck_assert_int_eq(watch_hear(watch, frame, expertd__reply_header__pack(&reply, frame), now), WATCH_NOTHING);
    ck_assert_int_eq(answer(1, 5, 1, "ffn.0.0"), WATCH_NOTHING);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("watch");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_new_generation_is_listed_page_by_page);
    tcase_add_test(all, what_another_frontend_has_is_not_published);
    tcase_add_test(all, a_list_that_changes_meanwhile_is_begun_again);
    tcase_add_test(all, a_confirmation_is_as_old_as_its_question);
    tcase_add_test(all, answers_to_other_questions_do_not_count);
    tcase_add_test(all, garbage_and_refusals_are_no_news);
    return world_run(all, "watch");
}
