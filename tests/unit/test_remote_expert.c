#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "client/dht.h"
#include "tests/unit/support_experts.h"

START_TEST(what_is_no_uid_or_no_endpoint_is_no_expert)
{
    struct expertd_dht *dht;
    struct expertd_expert *expert;
    ck_assert_int_eq(expertd_dht_new(&dht, NULL, NULL), 0);
    ck_assert_int_eq(expertd_expert_new(&expert, dht, "ffn.0"), -EINVAL); /* nobody to look it up */
    ck_assert_int_eq(expertd_expert_at(&expert, dht, NULL, "ffn.0"), -EINVAL);
    ck_assert_int_eq(expertd_expert_at(&expert, dht, "nowhere", "ffn.0"), -EINVAL);
    ck_assert_int_eq(expertd_expert_at(&expert, dht, "tcp://127.0.0.1:1", "ffn..0"), -EINVAL);
    ck_assert_ptr_null(expert);
    expertd_expert_destroy(&expert);
    ck_assert_uint_eq(dht->servers.count, 0);
    expertd_dht_destroy(&dht);
}
END_TEST

START_TEST(an_expert_holds_its_server_and_its_tasks_outlive_it)
{
    struct experts server = {0};
    struct expertd_dht *dht;
    struct expertd_expert *expert;
    struct expertd_task *forward, *backward;
    float x[EXPERTS_IN] = {1, 2, 3}, g[EXPERTS_OUT] = {1, 1}, y[EXPERTS_OUT];
    experts_start(&server, NULL);
    ck_assert_int_eq(expertd_dht_new(&dht, NULL, NULL), 0);
    ck_assert_int_eq(expertd_expert_at(&expert, dht, router_endpoint(server.router), "ffn.7"), 0);
    ck_assert_uint_eq(TAILQ_FIRST(&dht->servers.servers)->refs, 1);
    const struct expertd_tensor input = expertd_tensor_f32(x, 1, EXPERTS_IN),
                                gradient = expertd_tensor_f32(g, 1, EXPERTS_OUT);
    ck_assert_int_eq(expertd_expert_forward(expert, &input, 1, 500000, &forward), 0);
    ck_assert_int_eq(expertd_expert_backward(expert, &input, 1, &gradient, 1, 500000, &backward), 0);
    expertd_expert_destroy(&expert);
    ck_assert_ptr_null(expert);
    ck_assert_int_eq(expertd_task_wait(forward, -1), 0);
    ck_assert_int_eq(expertd_task_wait(backward, -1), 0);
    ck_assert_int_eq(expertd_task_status(forward), EXPERTD_OK);
    ck_assert_int_eq(expertd_task_status(backward), EXPERTD_OK);
    experts_forward("ffn.7", x, y);
    ck_assert_mem_eq(expertd_task_output(forward, 0)->data, y, sizeof y);
    ck_assert_uint_eq(expertd_task_output(backward, 0)->bytes, sizeof x);
    expertd_task_release(&forward);
    expertd_task_release(&backward);
    ck_assert_uint_eq(TAILQ_FIRST(&dht->servers.servers)->refs, 0);
    expertd_dht_destroy(&dht);
    experts_stop(&server);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("remote_expert");
    TCase *tests = tcase_create("remote_expert");
    tcase_add_test(tests, what_is_no_uid_or_no_endpoint_is_no_expert);
    tcase_add_test(tests, an_expert_holds_its_server_and_its_tasks_outlive_it);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
