/* A server's identity: an Ed25519 key. Its public half is the server's id, so that whoever has the id can check what
 * the server signed. Immutable once made: any thread may use
 * it. */
#ifndef EXPERTD_DHT_IDENTITY_H
#define EXPERTD_DHT_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SERVER_ID_SIZE = 32, SERVER_ID_TEXT = 2 * SERVER_ID_SIZE + 1, SIGNATURE_SIZE = 64 };

struct identity;

/* From the file (PKCS #8 PEM), which is made with mode 0600 if it is missing; an empty name: a new key that dies with
 * the process. 0 or -errno, then a message was logged. */
int identity_create(struct identity **identity, const char *file);
void identity_destroy(struct identity **identity);
const uint8_t *identity_id(const struct identity *identity); /* SERVER_ID_SIZE bytes */

/* Signs the context's characters with their final NUL, then the payload. 0 or -ENOMEM. */
int identity_sign(const struct identity *identity, const char *context, const uint8_t *payload, size_t size,
                  uint8_t signature[SIGNATURE_SIZE]);
bool identity_verify(const uint8_t id[SERVER_ID_SIZE], const char *context, const uint8_t *payload, size_t size,
                     const uint8_t signature[SIGNATURE_SIZE]);

/* Lower-case hexadecimal. Returns text. */
const char *server_id_format(const uint8_t id[SERVER_ID_SIZE], char text[SERVER_ID_TEXT]);

#endif
