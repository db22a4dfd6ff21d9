#include <errno.h>

#include "dht_world.h"
#include "proto/dht.pb-c.h"

static struct record example(void)
{
    struct record record = {
        .endpoint = "tcp://10.0.0.1:31330", .prefix = "ffn.4.", .published_ms = 17, .sequence = 18, .parts = 1};
    ck_assert_int_eq(ranges_append(&record.experts, 4, 5), 0);
    ck_assert_int_eq(ranges_append(&record.experts, 7, 10), 0);
    ck_assert_int_eq(ranges_append(&record.branches, 0, RANGES_END_MAX), 0);
    return record;
}

START_TEST(a_record_comes_back_as_it_was)
{
    struct record record = example(), back;
    const struct record_slice all = {0, 2, 0, 1};
    uint8_t *bytes;
    size_t size;
    ck_assert_int_eq(record_encode(&record, &all, &bytes, &size), 0);
    ck_assert_int_eq(record_decode(&back, bytes, size), 0);
    ck_assert_str_eq(back.endpoint, record.endpoint);
    ck_assert_str_eq(back.prefix, record.prefix);
    ck_assert(ranges_equal(&back.experts, &record.experts));
    ck_assert(ranges_equal(&back.branches, &record.branches));
    ck_assert_uint_eq(back.published_ms, 17);
    ck_assert_uint_eq(back.sequence, 18);
    free(bytes);
    record_destroy(&record);
    record_destroy(&back);
}
END_TEST

START_TEST(a_part_of_the_lists_comes_alone)
{
    struct record record = example(), back;
    const struct record_slice part = {1, 1, 0, 0};
    uint8_t *bytes;
    size_t size;
    ck_assert_int_eq(record_encode(&record, &part, &bytes, &size), 0);
    ck_assert_int_eq(record_decode(&back, bytes, size), 0);
    ck_assert_str_eq(world_text(&back.experts), "7-9");
    ck_assert_uint_eq(back.branches.count, 0);
    free(bytes);
    record_destroy(&record);
    record_destroy(&back);
}
END_TEST

/* Changes one thing in a good message, and expects it to be refused. */
static void refused(void (*spoil)(Expertd__Dht__Record *message))
{
    static uint64_t experts[] = {4, 1, 2, 3};
    static char endpoint[] = "tcp://10.0.0.1:31330", prefix[] = "ffn.4.";
    Expertd__Dht__Record message = EXPERTD__DHT__RECORD__INIT;
    uint8_t bytes[4096];
    struct record record;
    message.format = 1;
    message.endpoint = endpoint;
    message.prefix = prefix;
    message.parts = 1;
    message.experts = experts;
    message.n_experts = 4;
    if (spoil)
        spoil(&message);
    const size_t size = expertd__dht__record__pack(&message, bytes);
    ck_assert_int_eq(record_decode(&record, bytes, size), spoil ? -EBADMSG : 0);
    if (!spoil)
        record_destroy(&record);
}

static char text[400];
#define SPOIL(name, change)                                                                                            \
    static void name(Expertd__Dht__Record *message)                                                                    \
    {                                                                                                                  \
        change;                                                                                                        \
    }
SPOIL(another_format, message->format = 2)
SPOIL(no_parts, message->parts = 0)
SPOIL(many_parts, message->parts = RECORD_MAX_PARTS + 1)
SPOIL(part_beyond, message->part = 1)
SPOIL(odd_list, message->n_experts = 3)
SPOIL(bad_prefix, message->prefix = strcpy(text, "ffn.4"))
SPOIL(no_endpoint, message->endpoint = strcpy(text, ""))
SPOIL(ipc_endpoint, message->endpoint = strcpy(text, "ipc:///tmp/x"))
SPOIL(wildcard_endpoint, message->endpoint = strcpy(text, "tcp://*:31330"))
SPOIL(all_endpoint, message->endpoint = strcpy(text, "tcp://0.0.0.0:31330"))
SPOIL(no_port, message->endpoint = strcpy(text, "tcp://10.0.0.1"))
SPOIL(port_0, message->endpoint = strcpy(text, "tcp://10.0.0.1:0"))
SPOIL(large_port, message->endpoint = strcpy(text, "tcp://10.0.0.1:65536"))
SPOIL(control_endpoint, message->endpoint = strcpy(text, "tcp://10.0.0.1\n:31330"))
SPOIL(long_endpoint, memset(text, 'a', 380); memcpy(text, "tcp://", 6); memcpy(text + 380, ":1", 3);
      message->endpoint = text)

START_TEST(records_that_break_a_rule_are_refused)
{
    refused(NULL);
    void (*const all[])(Expertd__Dht__Record *) = {another_format, no_parts,      many_parts,        part_beyond,
                                                   odd_list,       bad_prefix,    no_endpoint,       ipc_endpoint,
                                                   all_endpoint,   no_port,       wildcard_endpoint, port_0,
                                                   large_port,     long_endpoint, control_endpoint};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        refused(all[i]);
    struct record record;
    ck_assert_int_eq(record_decode(&record, (const uint8_t *)"garbage", 7), -EBADMSG);
    ck_assert_int_eq(record_decode(&record, NULL, 0), -EBADMSG);
}
END_TEST

START_TEST(a_heartbeat_comes_back_as_it_was)
{
    struct catalog catalog = world_catalog("ffn.0.0 !ffn.0.1 !ffn.1.0");
    struct heartbeat heartbeat = {.endpoint = "tcp://[::1]:5",
                                  .published_ms = 1,
                                  .expiration_ms = 2,
                                  .sequence = 3,
                                  .records_from = 4},
                     back;
    uint8_t *bytes;
    size_t size, degraded;
    ck_assert_int_eq(catalog_exclusions(&catalog, &heartbeat.excluded, &heartbeat.excluded_count, &degraded), 0);
    ck_assert_int_eq(heartbeat_encode(&heartbeat, &bytes, &size), 0);
    ck_assert_int_eq(heartbeat_decode(&back, bytes, size), 0);
    ck_assert_str_eq(back.endpoint, heartbeat.endpoint);
    ck_assert_uint_eq(back.published_ms, 1);
    ck_assert_uint_eq(back.expiration_ms, 2);
    ck_assert_uint_eq(back.sequence, 3);
    ck_assert_uint_eq(back.records_from, 4);
    ck_assert_uint_eq(back.excluded_count, 2);
    ck_assert_str_eq(back.excluded[0].prefix, "ffn.");
    ck_assert_str_eq(world_text(&back.excluded[0].branches), "1");
    ck_assert_str_eq(world_text(&back.excluded[1].experts), "1");
    for (size_t cut = 0; cut < size; cut++) {
        struct heartbeat half;
        if (heartbeat_decode(&half, bytes, cut) == 0)
            heartbeat_destroy(&half);
    }
    free(bytes);
    heartbeat_destroy(&heartbeat);
    heartbeat_destroy(&back);
    catalog_destroy(&catalog);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("record");
    tcase_add_test(all, a_record_comes_back_as_it_was);
    tcase_add_test(all, a_part_of_the_lists_comes_alone);
    tcase_add_test(all, records_that_break_a_rule_are_refused);
    tcase_add_test(all, a_heartbeat_comes_back_as_it_was);
    return world_run(all, "record");
}
