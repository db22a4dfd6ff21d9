#include "dht/trust.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "dht/prefix.h"

static const char voucher_context[] = "expertd voucher 1";

struct entry {
    char prefix[UID_SIZE]; /* "": all */
    uint8_t key[SERVER_ID_SIZE];
};

struct trust {
    size_t count;
    struct entry entries[];
};

/* --- keys and vouchers ----------------------------------------------------------------------------------------------
 */

static int parse_hex(void *bytes, size_t count, const char *text)
{
    size_t parsed = 0;
    return sodium_hex2bin(bytes, count, text, strlen(text), NULL, &parsed, NULL) == 0 && parsed == count ? 0 : -EINVAL;
}

int server_id_parse(uint8_t id[SERVER_ID_SIZE], const char *text)
{
    return parse_hex(id, SERVER_ID_SIZE, text);
}

int voucher_make(struct voucher *voucher, const struct identity *signer, const uint8_t id[SERVER_ID_SIZE])
{
    memcpy(voucher->signer, identity_id(signer), SERVER_ID_SIZE);
    return identity_sign(signer, voucher_context, id, SERVER_ID_SIZE, voucher->signature);
}

bool voucher_holds(const struct voucher *voucher, const uint8_t id[SERVER_ID_SIZE])
{
    return identity_verify(voucher->signer, voucher_context, id, SERVER_ID_SIZE, voucher->signature);
}

const char *voucher_format(const struct voucher *voucher, char text[VOUCHER_TEXT])
{
    return sodium_bin2hex(text, VOUCHER_TEXT, (const uint8_t *)voucher, sizeof *voucher);
}

int voucher_parse(struct voucher *voucher, const char *text)
{
    return parse_hex(voucher, sizeof *voucher, text);
}

/* --- entries --------------------------------------------------------------------------------------------------------
 */

static int parse_entry(struct entry *entry, const char *text)
{
    const char *key = strrchr(text, ' ');
    const size_t length = key ? (size_t)(key - text) : 0;
    *entry = (struct entry){0};
    if (length >= sizeof entry->prefix)
        return -EINVAL;
    memcpy(entry->prefix, text, length);
    if (key && !prefix_valid(entry->prefix))
        return -EINVAL;
    return server_id_parse(entry->key, key ? key + 1 : text);
}

int trust_create(struct trust **trust, const struct config_strings *entries)
{
    struct trust *made = *trust = calloc(1, sizeof *made + entries->count * sizeof made->entries[0]);
    if (!made)
        return -ENOMEM;
    for (; made->count < entries->count; made->count++) {
        const char *text = entries->items[made->count];
        if (parse_entry(&made->entries[made->count], text) < 0) {
            log_error("dht.trusted: '%s' is neither a key of 64 hexadecimal digits nor a prefix, as ffn., and a key",
                      text);
            trust_destroy(trust);
            return -EINVAL;
        }
    }
    return 0;
}

void trust_destroy(struct trust **trust)
{
    free(*trust);
    *trust = NULL;
}

bool trust_allows(const struct trust *trust, const char *prefix, const uint8_t id[SERVER_ID_SIZE],
                  const struct voucher *voucher)
{
    size_t longest = 0;
    bool covered = false, allowed = false;
    for (size_t i = 0; i < trust->count; i++) {
        const struct entry *entry = &trust->entries[i];
        const size_t length = strlen(entry->prefix);
        if (strncmp(prefix, entry->prefix, length) != 0 || (covered && length < longest))
            continue;
        if (!covered || length > longest)
            allowed = false;
        covered = true;
        longest = length;
        allowed |= memcmp(entry->key, id, SERVER_ID_SIZE) == 0 ||
                   (voucher && memcmp(entry->key, voucher->signer, SERVER_ID_SIZE) == 0);
    }
    return allowed || !covered;
}
