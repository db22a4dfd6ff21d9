#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_cut.h"
#include "unit/support_stderr.h"

#define HEX_64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define VOUCHER HEX_64 HEX_64 HEX_64

static struct config whole, cut;
static const struct config *chosen;

static const char two[] =
    "server: {name: box, run_dir: /r}\n"
    "frontend: {max_requests: 77}\n"
    "devices: [{name: a}, {name: b, spare_experts: 5}, {name: c}]\n"
    "blocks: [{name: own, layers: [{name: y, layer: linear, input: x, size: 8}], inputs: [{name: x, shape: "
    "[hidden_dim]}], outputs: [{name: y, value: y}]}]\n"
    "experts:\n"
    "  - {uid: \"l.[0:2]\", device: a, hidden_dim: 8}\n"
    "  - {uid: \"r.[0:3]\", device: b, hidden_dim: 8, block: own}\n"
    "  - {uid: m.0, device: c, hidden_dim: 8, block: transformer, arguments: {sequence: 4, heads: 2}}\n"
    "frontends:\n"
    "  - {name: left, devices: [a], listen: [\"tcp://127.0.0.1:1\"]}\n"
    "  - {name: right, devices: [c, b], listen: [\"tcp://127.0.0.1:2\", \"ipc:///x\"], local_path: /l}\n";

static void parse(const char *text)
{
    ck_assert_msg(config_parse(&whole, text, strlen(text), "text") == 0, "%s", stderr_text());
}

static void set_up(void)
{
    stderr_capture();
    memset(&cut, 0, sizeof cut);
}

static void tear_down(void)
{
    config_destroy(&cut);
    config_destroy(&whole);
    stderr_release();
}

START_TEST(a_part_has_its_own_devices_experts_endpoints_and_name)
{
    parse(two);
    ck_assert_int_eq(config_cut_frontend(&chosen, &cut, &whole, "right"), 0);
    ck_assert_ptr_eq(chosen, &cut);
    ck_assert_str_eq(cut.server.name, "box-right");
    ck_assert_str_eq(cut.server.run_dir, "/r");
    ck_assert_uint_eq(cut.frontend.max_requests, 77);
    ck_assert_uint_eq(cut.frontend.listen.count, 2);
    ck_assert_str_eq(cut.frontend.listen.items[1], "ipc:///x");
    ck_assert_str_eq(cut.frontend.advertise, "tcp://127.0.0.1:2");
    ck_assert_str_eq(cut.frontend.local_path, "/l");
    ck_assert_uint_eq(cut.frontends_count, 0);
    ck_assert_uint_eq(cut.devices_count, 2);
    ck_assert_uint_eq(config_find_device(&cut, "b")->spare_experts, 5);
    ck_assert_uint_eq(cut.experts_count, 2);
    ck_assert_str_eq(cut.experts[0].uid, "r.[0:3]");
    ck_assert_str_eq(cut.experts[0].declared->name, "own");
    ck_assert_str_eq(cut.experts[1].uid, "m.0");
    ck_assert_uint_eq(cut.experts[1].values.count, 2); /* what stands under `arguments` has come along */
}
END_TEST

START_TEST(a_device_s_part_is_that_of_its_frontend)
{
    parse(two);
    ck_assert_int_eq(config_cut_device(&chosen, &cut, &whole, "a"), 0);
    ck_assert_str_eq(chosen->server.name, "box-left");
    ck_assert_uint_eq(chosen->experts_count, 1);
    ck_assert_uint_eq(config_cut_owner(&whole, "b"), 1);
    ck_assert_uint_eq(config_cut_owner(&whole, "nowhere"), 2);
}
END_TEST

START_TEST(each_frontend_has_a_directory_and_they_join_by_the_first)
{
    parse(two);
    ck_assert_int_eq(config_cut(&cut, &whole, 0), 0);
    ck_assert_str_eq(cut.dht.frontend, "tcp://127.0.0.1:1");
    ck_assert_str_eq(cut.dht.listen, "tcp://127.0.0.1:31331");
    ck_assert_uint_eq(cut.dht.port, 4222);
    ck_assert_uint_eq(cut.dht.bootstrap.count, 0);
    config_destroy(&cut);
    ck_assert_int_eq(config_cut(&cut, &whole, 1), 0);
    ck_assert_str_eq(cut.dht.frontend, "tcp://127.0.0.1:2");
    ck_assert_str_eq(cut.dht.listen, "tcp://127.0.0.1:*");
    ck_assert_uint_eq(cut.dht.port, 0);
    ck_assert_uint_eq(cut.dht.bootstrap.count, 1);
    ck_assert_str_eq(cut.dht.bootstrap.items[0], "127.0.0.1:4222");
    config_destroy(&cut);
    config_destroy(&whole);
    parse("devices: [{name: a}, {name: b}]\n"
          "dht: {bootstrap: [\"10.0.0.9:4222\"], identity_file: /k/id}\n"
          "frontends:\n"
          "  - {name: left, devices: [a], listen: [\"tcp://127.0.0.1:1\"]}\n"
          "  - {name: right, devices: [b], listen: [\"tcp://127.0.0.1:2\"], voucher: " VOUCHER "}\n");
    ck_assert_int_eq(config_cut(&cut, &whole, 1), 0);
    ck_assert_str_eq(cut.dht.bootstrap.items[0], "10.0.0.9:4222"); /* as the first does */
    ck_assert_str_eq(cut.dht.identity_file, "/k/id-right");
    ck_assert_str_eq(cut.dht.voucher, VOUCHER); /* its key's own */
    config_destroy(&cut);
    ck_assert_int_eq(config_cut(&cut, &whole, 0), 0);
    ck_assert_str_eq(cut.dht.voucher, "");
}
END_TEST

START_TEST(every_expert_is_in_one_part)
{
    parse(two);
    unsigned experts = 0, devices = 0;
    for (unsigned i = 0; i < whole.frontends_count; i++) {
        ck_assert_int_eq(config_cut(&cut, &whole, i), 0);
        experts += cut.experts_count;
        devices += cut.devices_count;
        config_destroy(&cut);
    }
    ck_assert_uint_eq(experts, whole.experts_count);
    ck_assert_uint_eq(devices, whole.devices_count);
}
END_TEST

START_TEST(one_frontend_is_the_whole)
{
    parse("experts: [{uid: a.0}]");
    ck_assert_int_eq(config_cut_frontend(&chosen, &cut, &whole, NULL), 0);
    ck_assert_ptr_eq(chosen, &whole);
    ck_assert_int_eq(config_cut_device(&chosen, &cut, &whole, "device0"), 0);
    ck_assert_ptr_eq(chosen, &whole);
    ck_assert_int_eq(config_cut_frontend(&chosen, &cut, &whole, "left"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(stderr_text(), "the configuration has one frontend, without a name"));
}
END_TEST

START_TEST(a_name_that_is_none_or_missing_is_told_those_there_are)
{
    parse(two);
    ck_assert_int_eq(config_cut_frontend(&chosen, &cut, &whole, "middle"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(stderr_text(), "has no frontend 'middle': it has left, right"));
    ck_assert_int_eq(config_cut_frontend(&chosen, &cut, &whole, NULL), -EINVAL);
    ck_assert_ptr_nonnull(strstr(stderr_text(), "--frontend says which this one is (left, right)"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config_cut");
    TCase *tests = tcase_create("config_cut");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_part_has_its_own_devices_experts_endpoints_and_name);
    tcase_add_test(tests, a_device_s_part_is_that_of_its_frontend);
    tcase_add_test(tests, each_frontend_has_a_directory_and_they_join_by_the_first);
    tcase_add_test(tests, every_expert_is_in_one_part);
    tcase_add_test(tests, one_frontend_is_the_whole);
    tcase_add_test(tests, a_name_that_is_none_or_missing_is_told_those_there_are);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
