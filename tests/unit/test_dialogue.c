#include <errno.h>

#include "dht_world.h"
#include "proto/dht.pb-c.h"

static struct identity *identity;

static void setup(void)
{
    ck_assert_int_eq(identity_create(&identity, ""), 0);
}

static void teardown(void)
{
    identity_destroy(&identity);
}

static struct dialogue_tell introduction(const struct dialogue_ask *ask)
{
    struct dialogue_tell tell = {.network_id = ask->network_id, .expiration_ms = 60000, .introduced = true};
    memcpy(tell.introduction.server_id, identity_id(identity), SERVER_ID_SIZE);
    memset(tell.introduction.instance, 3, INSTANCE_SIZE);
    strcpy(tell.introduction.endpoint, "tcp://10.0.0.7:31330");
    tell.introduction.started_ms = 1700000000000;
    ck_assert_int_eq(dialogue_sign(&tell.introduction, identity, ask), 0);
    return tell;
}

START_TEST(a_question_is_read_as_it_was_written)
{
    struct dialogue_ask ask = {.network_id = 7}, back;
    uint8_t *bytes;
    size_t size;
    memset(ask.challenge, 9, sizeof ask.challenge);
    ck_assert_int_eq(dialogue_pack_ask(&ask, &bytes, &size), 0);
    ck_assert_int_eq(dialogue_unpack_ask(&back, bytes, size), 0);
    ck_assert_uint_eq(back.network_id, 7);
    ck_assert_mem_eq(back.challenge, ask.challenge, sizeof ask.challenge);
    for (size_t cut = 0; cut < size; cut++)
        ck_assert_int_eq(dialogue_unpack_ask(&back, bytes, cut), -EBADMSG);
    free(bytes);
}
END_TEST

START_TEST(a_catalog_is_read_as_it_was_written)
{
    const struct dialogue_ask ask = {.network_id = 7};
    struct catalog catalog = world_catalog("ffn.4.17 ffn.4.18 ffn.0.3");
    struct dialogue_content contents[2] = {*catalog.contents[0], *catalog.contents[1]};
    struct dialogue_tell tell = introduction(&ask), back;
    uint8_t *bytes;
    size_t size;
    tell.whole = contents[1].adds = true;
    tell.contents = contents;
    tell.contents_count = 2;
    ck_assert_int_eq(dialogue_pack_tell(&tell, &bytes, &size), 0);
    ck_assert_uint_le(dialogue_content_bytes(&contents[0]) + dialogue_content_bytes(&contents[1]), size);
    ck_assert_int_eq(dialogue_unpack_tell(&back, bytes, size), 0);
    ck_assert(back.introduced && back.whole && dialogue_proven(&back.introduction, &ask));
    ck_assert_uint_eq(back.expiration_ms, 60000);
    ck_assert_str_eq(back.introduction.endpoint, "tcp://10.0.0.7:31330");
    ck_assert_uint_eq(back.contents_count, 2);
    ck_assert_str_eq(back.contents[1].prefix, "ffn.4.");
    ck_assert(back.contents[1].adds && !back.contents[0].adds);
    ck_assert_str_eq(world_text(&back.contents[1].experts), "17-18");
    dialogue_tell_destroy(&back);
    free(bytes);
    catalog_destroy(&catalog);
}
END_TEST

START_TEST(a_frontend_s_key_and_a_voucher_travel_and_the_key_is_proven)
{
    const struct dialogue_ask ask = {.network_id = 7};
    struct dialogue_tell tell = introduction(&ask), back;
    struct identity *signer;
    uint8_t *bytes;
    size_t size;
    ck_assert_int_eq(identity_create(&signer, ""), 0);
    tell.introduction.curve_key.is = true;
    memset(tell.introduction.curve_key.bytes, 5, CURVE_KEY_SIZE);
    ck_assert(!dialogue_proven(&tell.introduction, &ask)); /* it was not signed */
    ck_assert_int_eq(dialogue_sign(&tell.introduction, identity, &ask), 0);
    tell.introduction.vouched = true;
    ck_assert_int_eq(voucher_make(&tell.introduction.voucher, signer, identity_id(identity)), 0);
    ck_assert_int_eq(dialogue_pack_tell(&tell, &bytes, &size), 0);
    ck_assert_int_eq(dialogue_unpack_tell(&back, bytes, size), 0);
    ck_assert(dialogue_proven(&back.introduction, &ask));
    ck_assert(back.introduction.vouched && voucher_holds(&back.introduction.voucher, identity_id(identity)));
    ck_assert_mem_eq(back.introduction.curve_key.bytes, tell.introduction.curve_key.bytes, CURVE_KEY_SIZE);
    back.introduction.curve_key.bytes[31] ^= 1;
    ck_assert(!dialogue_proven(&back.introduction, &ask));
    back.introduction.curve_key.is = false; /* taken off on the way: a downgrade */
    ck_assert(!dialogue_proven(&back.introduction, &ask));
    dialogue_tell_destroy(&back);
    identity_destroy(&signer);
    free(bytes);
}
END_TEST

START_TEST(a_proof_holds_for_nothing_else_than_was_signed)
{
    const struct dialogue_ask ask = {.network_id = 7};
    struct dialogue_ask other = ask;
    struct dialogue_tell tell = introduction(&ask);
    struct dialogue_introduction forged = tell.introduction;
    ck_assert(dialogue_proven(&forged, &ask));
    other.challenge[0]++;
    ck_assert(!dialogue_proven(&forged, &other));
    other = ask;
    other.network_id++;
    ck_assert(!dialogue_proven(&forged, &other));
    forged.instance[0]++;
    ck_assert(!dialogue_proven(&forged, &ask));
    forged = tell.introduction;
    strcpy(forged.endpoint, "tcp://6.6.6.6:31330");
    ck_assert(!dialogue_proven(&forged, &ask));
    forged = tell.introduction;
    forged.started_ms++;
    ck_assert(!dialogue_proven(&forged, &ask));
    forged = tell.introduction;
    forged.server_id[0]++;
    ck_assert(!dialogue_proven(&forged, &ask));
}
END_TEST

static int unpack(const Expertd__Dht__Tell *message)
{
    static uint8_t bytes[2 * DIALOGUE_FRAME_MAX];
    struct dialogue_tell tell;
    ck_assert_uint_le(expertd__dht__tell__get_packed_size(message), sizeof bytes);
    const int rc = dialogue_unpack_tell(&tell, bytes, expertd__dht__tell__pack(message, bytes));
    if (rc == 0)
        dialogue_tell_destroy(&tell);
    return rc;
}

START_TEST(what_breaks_a_rule_is_refused)
{
    Expertd__Dht__Tell message = EXPERTD__DHT__TELL__INIT;
    Expertd__Dht__Tell__Introduction introduced = EXPERTD__DHT__TELL__INTRODUCTION__INIT;
    Expertd__Dht__Tell__Content content = EXPERTD__DHT__TELL__CONTENT__INIT, *list[] = {&content};
    uint64_t pairs[] = {0, 1, 0, 1};
    uint8_t id[SERVER_ID_SIZE] = {0};
    static uint64_t many[DIALOGUE_FRAME_MAX];
    message.version = DIALOGUE_VERSION;
    ck_assert_int_eq(unpack(&message), 0);
    message.version = 2;
    ck_assert_int_eq(unpack(&message), -EBADMSG);
    message.version = DIALOGUE_VERSION;
    message.expiration_ms = DIALOGUE_EXPIRATION_MAX_MS + 1;
    ck_assert_int_eq(unpack(&message), -EBADMSG);
    message.expiration_ms = 0;
    message.contents = list;
    message.n_contents = 1;
    content.prefix = (char *)"ffn";
    ck_assert_int_eq(unpack(&message), -EBADMSG);
    content.prefix = (char *)"ffn.";
    ck_assert_int_eq(unpack(&message), 0);
    content.experts = pairs;
    content.n_experts = 4; /* the second range touches the first */
    ck_assert_int_eq(unpack(&message), -EBADMSG);
    content.n_experts = 1;
    ck_assert_int_eq(unpack(&message), -EBADMSG);
    content.experts = many; /* longer than a message may be */
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++)
        many[i] = 1;
    content.n_experts = sizeof many / sizeof many[0];
    ck_assert_int_eq(unpack(&message), -EBADMSG);
    message.n_contents = 0;
    message.introduction = &introduced;
    ck_assert_int_eq(unpack(&message), -EBADMSG);
    introduced.server_id = (ProtobufCBinaryData){SERVER_ID_SIZE, id};
    introduced.instance = (ProtobufCBinaryData){INSTANCE_SIZE, id};
    introduced.signature = (ProtobufCBinaryData){SIGNATURE_SIZE, (uint8_t[SIGNATURE_SIZE]){0}};
    introduced.endpoint = (char *)"tcp://10.0.0.7:1";
    ck_assert_int_eq(unpack(&message), 0);
    introduced.endpoint = (char *)"tcp://*:1";
    ck_assert_int_eq(unpack(&message), -EBADMSG);
    introduced.endpoint = (char *)"tcp://10.0.0.7:1";
    introduced.server_id.len--;
    ck_assert_int_eq(unpack(&message), -EBADMSG);
}
END_TEST

START_TEST(endpoints_are_such_as_others_can_connect_to)
{
    static const char *const good[] = {"tcp://10.0.0.7:1", "tcp://host.example:65535", "tcp://[2001:db8::1]:31330"};
    static const char *const bad[] = {
        "",           "tcp://",          "tcp://host",       "tcp://*:1",     "tcp://host:0",
        "ipc:///x",   "tcp://0.0.0.0:1", "tcp://[::]:1",     "tcp://ho st:1", "tcp://:1",
        "tcp://h:1x", "tcp://h:65536",   "tcp://h\x80:1234", "tcp://h:*"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        ck_assert_msg(endpoint_valid(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!endpoint_valid(bad[i]), "%s", bad[i]);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("dialogue");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_question_is_read_as_it_was_written);
    tcase_add_test(all, a_catalog_is_read_as_it_was_written);
    tcase_add_test(all, a_frontend_s_key_and_a_voucher_travel_and_the_key_is_proven);
    tcase_add_test(all, a_proof_holds_for_nothing_else_than_was_signed);
    tcase_add_test(all, what_breaks_a_rule_is_refused);
    tcase_add_test(all, endpoints_are_such_as_others_can_connect_to);
    return world_run(all, "dialogue");
}
