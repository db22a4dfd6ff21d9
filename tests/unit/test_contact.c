#include <arpa/inet.h>
#include <netinet/in.h>

#include "dht_world.h"

START_TEST(what_is_written_is_read)
{
    static const char *const good[] = {"10.0.0.7:4222", "127.0.0.1:1", "[2001:db8::1]:65535", "[::1]:4222"};
    static const char *const bad[] = {"",          "10.0.0.7",     "10.0.0.7:",  "10.0.0.7:0", "10.0.0.7:65536",
                                      "host:4222", "10.0.0.7:1x",  "[::1]",      "[::1]4222",  "::1:4222",
                                      "[::1:4222", "[10.0.0.7]:1", "1.2.3:4222", "10.0.0.7:-1"};
    struct contact contact;
    char text[CONTACT_TEXT];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        ck_assert_msg(contact_parse(&contact, good[i]), "%s", good[i]);
        ck_assert_str_eq(contact_format(&contact, text), good[i]);
        ck_assert_int_eq(contact_is_v4(&contact), good[i][0] != '[');
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!contact_parse(&contact, bad[i]), "%s", bad[i]);
}
END_TEST

START_TEST(sockets_addresses_become_the_same)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(4222), .sin_addr.s_addr = htonl(0x0a000007)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(5), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const struct sockaddr other = {.sa_family = AF_UNIX};
    struct contact contact, parsed;
    ck_assert(contact_from_socket(&contact, (const struct sockaddr *)&v4));
    ck_assert(contact_parse(&parsed, "10.0.0.7:4222"));
    ck_assert_mem_eq(&contact, &parsed, sizeof contact);
    ck_assert(!contact_is_loopback(&contact));
    contact_set_port(&contact, 0x1234);
    ck_assert_uint_eq(contact_port(&contact), 0x1234);
    ck_assert(contact_from_socket(&contact, (const struct sockaddr *)&v6));
    ck_assert(contact_parse(&parsed, "[::1]:5"));
    ck_assert_mem_eq(&contact, &parsed, sizeof contact);
    ck_assert(contact_is_loopback(&contact));
    ck_assert(contact_parse(&parsed, "127.9.9.9:5"));
    ck_assert(contact_is_loopback(&parsed));
    ck_assert(!contact_from_socket(&contact, &other));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("contact");
    tcase_add_test(all, what_is_written_is_read);
    tcase_add_test(all, sockets_addresses_become_the_same);
    return world_run(all, "contact");
}
