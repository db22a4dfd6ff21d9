/* The CURVE keys of a connection: the server's, which proves that it is the one that is meant, and the own pair, by
 * which the server knows who asks. */
#ifndef EXPERTD_CLIENT_KEYS_H
#define EXPERTD_CLIENT_KEYS_H

#include "common/certificate.h"

struct keys {
    char server[CERTIFICATE_KEY_SIZE]; /* "": the connection is plain */
    char public_key[CERTIFICATE_KEY_SIZE], secret_key[CERTIFICATE_KEY_SIZE];
};

/* server_key: 40 characters of Z85, or the path of a certificate; NULL: the environment's EXPERTD_SERVER_KEY, which may
 * be unset. key_file: the path of the own certificate, with FILE_secret beside it; NULL: the environment's
 * EXPERTD_KEY_FILE; where that is unset too, and there is a server's key, a pair that nobody knows. 0; -EKEYREJECTED:
 * what is given is no key; -errno of libzmq without CURVE. */
int keys_take(struct keys *keys, const char *server_key, const char *key_file);
/* Before the socket connects. Nothing where there is no server's key. 0 or -errno. */
int keys_set(const struct keys *keys, void *socket);

#endif
