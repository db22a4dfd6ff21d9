#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/address.h"

static const struct {
    const char *text, *host;
    unsigned port;
} good[] = {
    {"box1:4222", "box1", 4222},
    {"10.0.0.7", "10.0.0.7", 0},
    {"a.b-c_d.example:1", "a.b-c_d.example", 1},
    {"[::1]:65535", "::1", 65535},
    {"[2001:db8::7]", "2001:db8::7", 0},
    {"[fe80::1%eth0]:5", "fe80::1%eth0", 5},
    {"[::ffff:1.2.3.4]:1", "::ffff:1.2.3.4", 1},
};

START_TEST(an_address_is_host_and_port)
{
    struct address address;
    ck_assert_int_eq(address_parse(&address, good[_i].text), 0);
    ck_assert_str_eq(address.host, good[_i].host);
    ck_assert_uint_eq(address.port, good[_i].port);
}
END_TEST

static const char *const bad[] = {
    "",          ":",          ":1",       "::1",   "fe80::1",
    "a:",        "a:0",        "a:65536",  "a:1x",  "a:1:2",
    "[",         "[]",         "[]:1",     "[::1",  "[::1]x",
    "[::1]:",    "[::1]:0",    "[a]:1",    "a b:1", "a/b:1",
    "tcp://a:1", "\xc3\xa4:1", "[::1%]:1", "[1]:1", "a:999999999999",
    "[x::1]:1",  "a:-1",
};

START_TEST(what_is_no_address_is_refused)
{
    struct address address;
    ck_assert_int_eq(address_parse(&address, bad[_i]), -EINVAL);
}
END_TEST

START_TEST(a_host_has_room_or_is_refused)
{
    char text[ADDRESS_HOST_SIZE + 8];
    struct address address;
    memset(text, 'a', sizeof text);
    strcpy(text + ADDRESS_HOST_SIZE - 1, ":7");
    ck_assert_int_eq(address_parse(&address, text), 0);
    ck_assert_uint_eq(strlen(address.host), ADDRESS_HOST_SIZE - 1);
    memset(text, 'a', ADDRESS_HOST_SIZE);
    strcpy(text + ADDRESS_HOST_SIZE, ":7");
    ck_assert_int_eq(address_parse(&address, text), -EINVAL);
}
END_TEST

static const struct {
    const char *endpoint;
    bool connects, binds;
} endpoints[] = {
    {"tcp://127.0.0.1:31330", true, true},
    {"tcp://box1.example:1", true, true},
    {"tcp://[::1]:5", true, true},
    {"tcp://eth0:5", true, true},
    {"tcp://*:5", false, true},
    {"tcp://127.0.0.1:*", false, true},
    {"ipc:///run/x", true, true},
    {"ipc://@abstract", true, true},
    {"ipc://*", false, false},
    {"ipc://", false, false},
    {"tcp://", false, false},
    {"tcp://a", false, false},
    {"tcp://a:", false, false},
    {"tcp://:1", false, false},
    {"tcp://a:70000", false, false},
    {"tcp://::1:5", false, false},
    {"tcp://a b:5", false, false},
    {"inproc://x", false, false},
    {"udp://a:1", false, false},
    {"localhost", false, false},
    {"", false, false},
};

START_TEST(only_this_machine_reaches_what_is_local)
{
    static const struct {
        const char *endpoint;
        bool local;
    } cases[] = {{"ipc:///x", true},
                 {"tcp://127.0.0.1:1", true},
                 {"tcp://127.8.9.1:*", true},
                 {"tcp://localhost:1", true},
                 {"tcp://[::1]:1", true},
                 {"tcp://*:1", false},
                 {"tcp://0.0.0.0:1", false},
                 {"tcp://[::]:1", false},
                 {"tcp://10.0.0.1:1", false},
                 {"tcp://eth0:1", false},
                 {"tcp://127.example.org:1", false},
                 {"tcp://localhost.example:1", false},
                 {"tcp://1127.0.0.1:1", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(address_endpoint_is_local(cases[i].endpoint) == cases[i].local, "%s", cases[i].endpoint);
}
END_TEST

START_TEST(what_cannot_be_bound_beside_each_other_overlaps)
{
    static const struct {
        const char *one, *other;
        bool overlap;
    } cases[] = {{"tcp://127.0.0.1:1", "tcp://127.0.0.1:1", true},
                 {"tcp://127.0.0.1:1", "tcp://127.0.0.1:2", false},
                 {"tcp://127.0.0.1:1", "tcp://127.0.0.2:1", false},
                 {"tcp://*:1", "tcp://10.0.0.7:1", true},
                 {"tcp://0.0.0.0:1", "tcp://box1:1", true},
                 {"tcp://*:1", "tcp://0.0.0.0:1", true},
                 {"tcp://*:1", "tcp://[::1]:1", false},
                 {"tcp://[::]:1", "tcp://[::1]:1", true},
                 {"tcp://[::]:1", "tcp://*:1", true},
                 {"tcp://[::]:1", "tcp://127.0.0.1:1", true},
                 {"tcp://localhost:1", "tcp://127.0.0.1:1", true},
                 {"tcp://127.0.0.1:*", "tcp://127.0.0.1:*", false},
                 {"tcp://*", "tcp://*", false},
                 {"ipc:///x", "ipc:///x", true},
                 {"ipc:///x", "ipc:///y", false},
                 {"ipc://x:1", "tcp://x:1", false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(address_endpoints_overlap(cases[i].one, cases[i].other) == cases[i].overlap, "%s, %s",
                      cases[i].one, cases[i].other);
        ck_assert_msg(address_endpoints_overlap(cases[i].other, cases[i].one) == cases[i].overlap, "%s, %s",
                      cases[i].other, cases[i].one);
    }
}
END_TEST

START_TEST(an_endpoint_is_what_another_process_can_reach)
{
    ck_assert_msg(!address_endpoint_problem(endpoints[_i].endpoint, false) == endpoints[_i].connects, "%s",
                  endpoints[_i].endpoint);
    ck_assert_msg(!address_endpoint_problem(endpoints[_i].endpoint, true) == endpoints[_i].binds, "%s",
                  endpoints[_i].endpoint);
}
END_TEST

START_TEST(a_socket_s_path_has_its_length)
{
    char endpoint[128] = "ipc://";
    memset(endpoint + 6, 'a', 107);
    ck_assert_ptr_null(address_endpoint_problem(endpoint, true));
    endpoint[6 + 107] = 'a';
    ck_assert_ptr_nonnull(address_endpoint_problem(endpoint, true));
}
END_TEST

START_TEST(what_is_bound_to_every_address_is_known_by_its_port)
{
    ck_assert_str_eq(address_wildcard_port("tcp://*:31330"), "31330");
    ck_assert_str_eq(address_wildcard_port("tcp://0.0.0.0:1"), "1");
    ck_assert_str_eq(address_wildcard_port("tcp://[::]:*"), "*");
    ck_assert_ptr_null(address_wildcard_port("tcp://127.0.0.1:31330"));
    ck_assert_ptr_null(address_wildcard_port("tcp://0.0.0.0.example.org:1"));
    ck_assert_ptr_null(address_wildcard_port("ipc://*:1"));
}
END_TEST

#define COUNT_OF(array) (int)(sizeof(array) / sizeof(array)[0])

int main(void)
{
    Suite *suite = suite_create("address");
    TCase *tcase = tcase_create("address");
    tcase_add_loop_test(tcase, an_address_is_host_and_port, 0, COUNT_OF(good));
    tcase_add_loop_test(tcase, what_is_no_address_is_refused, 0, COUNT_OF(bad));
    tcase_add_test(tcase, only_this_machine_reaches_what_is_local);
    tcase_add_test(tcase, a_host_has_room_or_is_refused);
    tcase_add_loop_test(tcase, an_endpoint_is_what_another_process_can_reach, 0, COUNT_OF(endpoints));
    tcase_add_test(tcase, a_socket_s_path_has_its_length);
    tcase_add_test(tcase, what_cannot_be_bound_beside_each_other_overlaps);
    tcase_add_test(tcase, what_is_bound_to_every_address_is_known_by_its_port);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
