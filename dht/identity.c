#include "dht/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "common/log.h"

enum { KEY_FILE_MAX = 16384, SEED_SIZE = crypto_sign_SEEDBYTES, KEY_DER_MAX = 256, KEY_PEM_MAX = 256 };

struct identity {
    uint8_t key[crypto_sign_SECRETKEYBYTES];
    uint8_t id[SERVER_ID_SIZE];
};

_Static_assert((int)crypto_sign_PUBLICKEYBYTES == SERVER_ID_SIZE && (int)crypto_sign_BYTES == SIGNATURE_SIZE,
               "Ed25519");

const char *server_id_format(const uint8_t id[SERVER_ID_SIZE], char text[SERVER_ID_TEXT])
{
    return sodium_bin2hex(text, SERVER_ID_TEXT, id, SERVER_ID_SIZE);
}

/* ---- the key file --------------------------------------------------------------------------------------------------
 */

static const char pem_begin[] = "-----BEGIN PRIVATE KEY-----", pem_end[] = "-----END PRIVATE KEY-----";

/* What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410); lengths and the version, at 1 and 4, are not
 * compared, since a public half may follow. */
static const uint8_t der_head[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                   0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};

/* False: the text is no such key. */
static bool parse_key(const char *text, uint8_t seed[SEED_SIZE])
{
    uint8_t der[KEY_DER_MAX];
    size_t size = 0;
    const char *begin = strstr(text, pem_begin), *end = begin ? strstr(begin, pem_end) : NULL;
    if (!end)
        return false;
    begin += sizeof pem_begin - 1;
    bool right = sodium_base642bin(der, sizeof der, begin, (size_t)(end - begin), " \r\n\t", &size, NULL,
                                   sodium_base64_VARIANT_ORIGINAL) == 0 &&
                 size >= sizeof der_head + SEED_SIZE;
    for (size_t i = 0; right && i < sizeof der_head; i++)
        right = der[i] == der_head[i] || i == 1 || i == 4;
    if (right)
        memcpy(seed, der + sizeof der_head, SEED_SIZE);
    sodium_memzero(der, sizeof der);
    return right;
}

static void print_key(const uint8_t seed[SEED_SIZE], char text[KEY_PEM_MAX])
{
    uint8_t der[sizeof der_head + SEED_SIZE];
    char encoded[sodium_base64_ENCODED_LEN(sizeof der, sodium_base64_VARIANT_ORIGINAL)];
    memcpy(der, der_head, sizeof der_head);
    memcpy(der + sizeof der_head, seed, SEED_SIZE);
    sodium_bin2base64(encoded, sizeof encoded, der, sizeof der, sodium_base64_VARIANT_ORIGINAL);
    snprintf(text, KEY_PEM_MAX, "%s\n%s\n%s\n", pem_begin, encoded, pem_end);
    sodium_memzero(der, sizeof der);
    sodium_memzero(encoded, sizeof encoded);
}

static int read_file(int fd, char *text, size_t size, size_t *length)
{
    *length = 0;
    while (*length < size) {
        const ssize_t n = read(fd, text + *length, size - *length);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
        *length += n > 0 ? (size_t)n : 0;
    }
    return -EFBIG;
}

static int read_key(const char *file, int fd, uint8_t seed[SEED_SIZE])
{
    char text[KEY_FILE_MAX + 1];
    size_t length = 0;
    struct stat info;
    int rc = fstat(fd, &info) == 0 ? 0 : -errno;
    if (rc == 0 && !S_ISREG(info.st_mode)) {
        log_error("dht.identity_file '%s' is no regular file", file);
        return -EINVAL;
    }
    if (rc == 0)
        rc = read_file(fd, text, KEY_FILE_MAX, &length);
    if (rc != 0) {
        log_error("cannot read dht.identity_file '%s': %s", file, strerror(-rc));
        return rc;
    }
    if (info.st_mode & (S_IRWXG | S_IRWXO))
        log_warning("dht.identity_file '%s' is a private key that others may read: chmod 600 it", file);
    text[length] = '\0';
    if (!parse_key(text, seed)) {
        log_error("dht.identity_file '%s' holds no Ed25519 private key in PEM: move it away, and a new one is made",
                  file);
        rc = -EINVAL;
    }
    sodium_memzero(text, sizeof text);
    return rc;
}

/* Under a temporary name first, and then linked: of two that start at once, one makes the key and both use it. */
static int write_key(const uint8_t seed[SEED_SIZE], const char *file)
{
    char path[PATH_MAX], text[KEY_PEM_MAX];
    const int n = snprintf(path, sizeof path, "%s.XXXXXX", file);
    if (n < 0 || (size_t)n >= sizeof path)
        return -ENAMETOOLONG;
    print_key(seed, text);
    int rc = 0;
    const int fd = mkostemp(path, O_CLOEXEC); /* mode 0600 */
    if (fd < 0)
        rc = -errno;
    else if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd) != 0)
        rc = errno ? -errno : -EIO;
    if (rc == 0 && link(path, file) != 0)
        rc = -errno;
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    sodium_memzero(text, sizeof text);
    return rc;
}

static int load_or_make(const char *file, uint8_t seed[SEED_SIZE])
{
    for (int attempt = 0; attempt < 2; attempt++) {
        const int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait */
        if (fd >= 0) {
            const int rc = read_key(file, fd, seed);
            close(fd);
            return rc;
        }
        int rc = errno == ENOENT ? 0 : -errno;
        randombytes_buf(seed, SEED_SIZE);
        if (rc == 0)
            rc = write_key(seed, file);
        if (rc == 0) {
            log_info("made dht.identity_file '%s'", file);
            return 0;
        }
        if (rc != -EEXIST) {
            log_error("cannot make dht.identity_file '%s': %s", file, strerror(-rc));
            return rc;
        }
    }
    return -EIO;
}

/* ---- life ----------------------------------------------------------------------------------------------------------
 */

int identity_create(struct identity **identity, const char *file)
{
    uint8_t seed[SEED_SIZE];
    int rc = 0;
    *identity = NULL;
    if (sodium_init() < 0) {
        log_error("there is no source of random numbers for an identity");
        return -EIO;
    }
    struct identity *made = calloc(1, sizeof *made);
    if (!made) {
        log_error("not enough memory for an identity");
        return -ENOMEM;
    }
    if (*file)
        rc = load_or_make(file, seed);
    else
        randombytes_buf(seed, sizeof seed);
    if (rc == 0)
        crypto_sign_seed_keypair(made->id, made->key, seed);
    sodium_memzero(seed, sizeof seed);
    if (rc != 0)
        identity_destroy(&made);
    *identity = made;
    return rc;
}

void identity_destroy(struct identity **identity)
{
    if (*identity)
        sodium_memzero(*identity, sizeof **identity);
    free(*identity);
    *identity = NULL;
}

const uint8_t *identity_id(const struct identity *identity)
{
    return identity->id;
}

/* ---- signatures ----------------------------------------------------------------------------------------------------
 */

/* Ed25519 signs a message whole: context and payload in one piece of memory. */
static uint8_t *join(const char *context, const uint8_t *payload, size_t size, size_t *message_size)
{
    const size_t length = strlen(context) + 1;
    uint8_t *message = malloc(length + size);
    if (!message)
        return NULL;
    memcpy(message, context, length);
    if (size)
        memcpy(message + length, payload, size);
    *message_size = length + size;
    return message;
}

int identity_sign(const struct identity *identity, const char *context, const uint8_t *payload, size_t size,
                  uint8_t signature[SIGNATURE_SIZE])
{
    uint8_t *message = join(context, payload, size, &size);
    if (!message)
        return -ENOMEM;
    crypto_sign_detached(signature, NULL, message, size, identity->key);
    free(message);
    return 0;
}

bool identity_verify(const uint8_t id[SERVER_ID_SIZE], const char *context, const uint8_t *payload, size_t size,
                     const uint8_t signature[SIGNATURE_SIZE])
{
    uint8_t *message = join(context, payload, size, &size);
    const bool right = message && crypto_sign_verify_detached(signature, message, size, id) == 0;
    free(message);
    return right;
}
