#include <errno.h>

#include "dht/bootstrap.h"
#include "dht_world.h"

static int parse(const char *address)
{
    struct bootstrap *bootstrap;
    const int rc = bootstrap_create(&bootstrap, &address, 1, 0);
    bootstrap_destroy(&bootstrap);
    return rc;
}

START_TEST(addresses_are_hosts_with_or_without_a_port)
{
    static const char *const good[] = {"host:4222", "host", "10.0.0.1:1", "[::1]:65535", "[::1]", "a.b.example:80"};
    static const char *const bad[] = {"",          ":4222",   "host:",    "host:0",  "host:65536",
                                      "host:port", "host:1x", "host:1:2", "[::1",    "[::1]4222",
                                      "[]:4222",   "::1",     "[::1]:",   "host:-1", "host: 1"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        ck_assert_msg(parse(good[i]) == 0, "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(parse(bad[i]) == -EINVAL, "%s", bad[i]);
    char large[400];
    memset(large, 'a', sizeof large);
    large[sizeof large - 1] = '\0';
    ck_assert_int_eq(parse(large), -EINVAL);
}
END_TEST

START_TEST(a_number_is_known_without_a_look_up)
{
    struct contact contact;
    char text[CONTACT_TEXT];
    ck_assert(bootstrap_literal("10.0.0.7", &contact));
    ck_assert_str_eq(contact_format(&contact, text), "10.0.0.7:4222");
    ck_assert(bootstrap_literal("[2001:db8::1]:5", &contact));
    ck_assert_str_eq(contact_format(&contact, text), "[2001:db8::1]:5");
    ck_assert(!bootstrap_literal("host:4222", &contact));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("bootstrap");
    tcase_add_test(all, addresses_are_hosts_with_or_without_a_port);
    tcase_add_test(all, a_number_is_known_without_a_look_up);
    return world_run(all, "bootstrap");
}
