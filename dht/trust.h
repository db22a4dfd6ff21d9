/* Who is believed about what: keys of servers (their ids), or keys that vouch for such, under a prefix (dht.trusted). A
 * prefix that no entry covers is open to everybody; without entries all are. Immutable once made. */
#ifndef EXPERTD_DHT_TRUST_H
#define EXPERTD_DHT_TRUST_H

#include <assert.h>

#include "common/config.h"
#include "dht/identity.h"

/* That the key `signer` stands for a server's id. */
struct voucher {
    uint8_t signer[SERVER_ID_SIZE];
    uint8_t signature[SIGNATURE_SIZE];
};
static_assert(sizeof(struct voucher) == SERVER_ID_SIZE + SIGNATURE_SIZE, "no padding: it is sent as it lies");
enum { VOUCHER_TEXT = 2 * (SERVER_ID_SIZE + SIGNATURE_SIZE) + 1 };

/* By the identity's key, for a server. 0 or -ENOMEM. */
int voucher_make(struct voucher *voucher, const struct identity *signer, const uint8_t id[SERVER_ID_SIZE]);
bool voucher_holds(const struct voucher *voucher, const uint8_t id[SERVER_ID_SIZE]);
const char *voucher_format(const struct voucher *voucher, char text[VOUCHER_TEXT]); /* hexadecimal */
int voucher_parse(struct voucher *voucher, const char *text);                       /* 0 or -EINVAL */
int server_id_parse(uint8_t id[SERVER_ID_SIZE], const char *text); /* 64 of hexadecimal; 0 or -EINVAL */

struct trust;

/* Entries: "KEY", for every prefix, or "PREFIX KEY". 0; -EINVAL, logged; -ENOMEM. */
int trust_create(struct trust **trust, const struct config_strings *entries);
void trust_destroy(struct trust **trust);
/* Whether what the server tells of a prefix is believed. The voucher, NULL: none, holds. Of the entries that cover the
 * prefix, those with the longest one count. */
bool trust_allows(const struct trust *trust, const char *prefix, const uint8_t id[SERVER_ID_SIZE],
                  const struct voucher *voucher);

#endif
