#include "dht/beacon.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NETWORK = 0x01020304, PORT = 4222 };

static struct beacons beacons;
static struct moment now;
static uint8_t bytes[BEACON_SIZE];
static struct contact node;

static void setup(void)
{
    memset(&beacons, 0, sizeof beacons);
    beacons.network_id = NETWORK;
    now = (struct moment){100 * NS_PER_S, 0};
    beacon_pack(bytes, NETWORK, PORT);
}

static bool hear(const char *host)
{
    return beacons_hear(&beacons, host, bytes, sizeof bytes, now, &node);
}

START_TEST(bytes_are_those_of_the_protocol)
{
    const uint8_t expected[] = {'E', 'X', 'P', 'E', 'R', 'T', 'D', 1, 1, 2, 3, 4, 0x10, 0x7e};
    ck_assert_mem_eq(bytes, expected, sizeof expected);
}
END_TEST

START_TEST(who_is_heard_is_pinged_and_not_again_for_a_while)
{
    char text[CONTACT_TEXT];
    ck_assert(hear("10.0.0.7"));
    ck_assert_str_eq(contact_format(&node, text), "10.0.0.7:4222");
    now.ns += (BEACON_AGAIN_S - 1) * NS_PER_S;
    ck_assert(!hear("10.0.0.7"));
    ck_assert(hear("10.0.0.8"));
    now.ns += NS_PER_S;
    ck_assert(hear("10.0.0.7"));
    ck_assert(!hear("10.0.0.8"));
}
END_TEST

START_TEST(what_is_no_beacon_of_this_network_is_passed_over)
{
    /* Any byte that is another, but for those of the port. */
    for (size_t at = 0; at < BEACON_SIZE - 2; at++) {
        bytes[at] ^= 1;
        ck_assert(!hear("10.0.0.7"));
        bytes[at] ^= 1;
    }
    for (size_t size = 0; size < BEACON_SIZE; size++)
        ck_assert(!beacons_hear(&beacons, "10.0.0.7", bytes, size, now, &node));
    uint8_t longer[BEACON_SIZE + 1] = {0};
    memcpy(longer, bytes, sizeof bytes);
    ck_assert(!beacons_hear(&beacons, "10.0.0.7", longer, sizeof longer, now, &node));
    const char *const hosts[] = {
        "",        "nowhere",
        "10.0.0",  "10.0.0.7:1",
        "fe80::1", "10.0.0.7 ",
        "%s%n",    "a-name-that-is-much-longer-than-any-address-that-a-broadcast-may-have-come-from.example"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++)
        ck_assert_msg(!hear(hosts[i]), "'%s'", hosts[i]);
    beacon_pack(bytes, NETWORK, 0);
    ck_assert(!hear("10.0.0.7"));
    ck_assert_uint_eq(beacons.count, 0);
}
END_TEST

START_TEST(a_flood_of_addresses_makes_one_ping_a_second)
{
    char host[32];
    unsigned pinged = 0;
    for (int i = 0; i < 20 * BEACON_KNOWN_MAX; i++) {
        snprintf(host, sizeof host, "10.%d.%d.%d", 1 + i / 65536, i / 256 % 256, i % 256);
        pinged += hear(host);
    }
    ck_assert_uint_eq(pinged, BEACON_KNOWN_MAX + 1);
    for (int second = 0; second < 10; second++) {
        now.ns += NS_PER_S;
        for (int i = 0; i < 10; i++) {
            snprintf(host, sizeof host, "172.16.%d.%d", second, i);
            pinged += hear(host);
        }
    }
    ck_assert_uint_eq(pinged, BEACON_KNOWN_MAX + 11);
    ck_assert_uint_eq(beacons.count, BEACON_KNOWN_MAX);
}
END_TEST

START_TEST(the_one_pinged_before_all_others_makes_place)
{
    char host[32];
    for (int i = 0; i < BEACON_KNOWN_MAX; i++) {
        snprintf(host, sizeof host, "10.0.0.%d", i);
        ck_assert(hear(host));
        now.ns += NS_PER_MS;
    }
    now.ns += NS_PER_S;
    ck_assert(hear("10.0.1.0")); /* for 10.0.0.0 */
    ck_assert(!hear("10.0.0.1"));
    now.ns += NS_PER_S;
    ck_assert(hear("10.0.0.0")); /* for 10.0.0.1: it is new */
    ck_assert(!hear("10.0.1.0"));
    ck_assert(!hear("10.0.0.255"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("beacon");
    TCase *all = tcase_create("all");
    tcase_add_checked_fixture(all, setup, NULL);
    tcase_add_test(all, bytes_are_those_of_the_protocol);
    tcase_add_test(all, who_is_heard_is_pinged_and_not_again_for_a_while);
    tcase_add_test(all, what_is_no_beacon_of_this_network_is_passed_over);
    tcase_add_test(all, a_flood_of_addresses_makes_one_ping_a_second);
    tcase_add_test(all, the_one_pinged_before_all_others_makes_place);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
