/* What directories say to each other: a message to a publisher, and a server's messages, one after the other, to
 * whoever asked it. The first byte says which; the server's messages are told apart by their lengths. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "common/log.h"
#include "dht/servers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct identity *identity;

/* In place of libsodium's: a proof is right when it begins with an even byte. Real ones took nearly all of the time,
 * and none that was changed was right. */
int crypto_sign_detached(unsigned char *signature, unsigned long long *length, const unsigned char *message,
                         unsigned long long message_length, const unsigned char *key)
{
    (void)message;
    (void)message_length;
    (void)key;
    memset(signature, 0, SIGNATURE_SIZE);
    if (length)
        *length = SIGNATURE_SIZE;
    return 0;
}

int crypto_sign_verify_detached(const unsigned char *signature, const unsigned char *message, unsigned long long length,
                                const unsigned char *key)
{
    (void)message;
    (void)length;
    (void)key;
    return signature[0] % 2 == 0 ? 0 : -1;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_open("fuzz", LOG_LEVEL_ERROR);
    return identity_create(&identity, "");
}

static void fuzz_ask(const uint8_t *data, size_t size)
{
    struct dialogue_ask ask;
    if (dialogue_unpack_ask(&ask, data, size) != 0)
        return;
    uint8_t *bytes;
    size_t length;
    struct dialogue_ask back;
    if (dialogue_pack_ask(&ask, &bytes, &length) != 0)
        return;
    if (dialogue_unpack_ask(&back, bytes, length) != 0 || memcmp(&back, &ask, sizeof ask) != 0)
        abort();
    free(bytes);
}

static void fuzz_tell(const uint8_t *data, size_t size)
{
    struct dialogue_tell tell, back;
    uint8_t *bytes;
    size_t length;
    if (dialogue_unpack_tell(&tell, data, size) != 0)
        return;
    if (dialogue_pack_tell(&tell, &bytes, &length) == 0) {
        if (length <= DIALOGUE_FRAME_MAX) {
            if (dialogue_unpack_tell(&back, bytes, length) != 0 || back.contents_count != tell.contents_count)
                abort();
            for (size_t i = 0; i < tell.contents_count; i++)
                if (!ranges_equal(&back.contents[i].experts, &tell.contents[i].experts))
                    abort();
            dialogue_tell_destroy(&back);
        }
        free(bytes);
    }
    dialogue_tell_destroy(&tell);
}

static void on_changed(struct server_link *link, bool gone)
{
    (void)link;
    (void)gone;
}

/* One that proved who it is, and then says what it likes. */
static void introduce(struct servers *servers, struct server *server, struct moment now)
{
    struct dialogue_tell tell = {.expiration_ms = 60000, .introduced = true};
    struct dialogue_ask ask = {0};
    uint8_t *bytes;
    size_t size;
    memcpy(ask.challenge, server->challenge, CHALLENGE_SIZE);
    memcpy(tell.introduction.server_id, identity_id(identity), SERVER_ID_SIZE);
    tell.introduction.instance[0] = 1;
    strcpy(tell.introduction.endpoint, "tcp://10.0.0.7:31330");
    if (dialogue_sign(&tell.introduction, identity, &ask) != 0 || dialogue_pack_tell(&tell, &bytes, &size) != 0)
        return;
    servers_hear(servers, server, bytes, size, now);
    free(bytes);
}

static void fuzz_server(const uint8_t *data, size_t size)
{
    static const uint8_t own[INSTANCE_SIZE];
    const struct servers_options options = {.max_servers = 4, .max_bytes = 1 << 16, .own_instance = own};
    struct moment now = {NS_PER_S, 1700000000000};
    struct world world = {0};
    struct servers *servers;
    struct server_link link = {.changed = on_changed};
    struct contact contact;
    if (servers_create(&servers, NULL, &world, &options) != 0)
        return;
    if (contact_parse(&contact, "10.0.0.7:4223") && servers_link(servers, &contact, &link, now) == 0) {
        servers_step(servers, now);
        introduce(servers, link.server, now);
        while (size > 1) {
            const size_t length = data[0] < size - 1 ? data[0] : size - 1;
            if (link.server->state == SERVER_ASKED || link.server->state == SERVER_LIVE)
                servers_hear(servers, link.server, data + 1, length, now);
            now.ns += NS_PER_MS;
            servers_step(servers, now);
            data += 1 + length;
            size -= 1 + length;
        }
        if (!world_find(&world, "ffn."))
            abort();
        servers_unlink(servers, &link);
    }
    servers_destroy(&servers);
    if (world.holdings != 0 || world.bytes != 0)
        abort();
    world_destroy(&world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 3 == 0)
        fuzz_ask(data + 1, size - 1);
    else if (data[0] % 3 == 1)
        fuzz_tell(data + 1, size - 1);
    else
        fuzz_server(data + 1, size - 1);
    return 0;
}
