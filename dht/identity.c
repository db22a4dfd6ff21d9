#include "dht/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "common/log.h"

enum { KEY_FILE_MAX = 16384 };

struct identity {
    gnutls_privkey_t key;
    uint8_t id[SERVER_ID_SIZE];
};

const char *server_id_format(const uint8_t id[SERVER_ID_SIZE], char text[SERVER_ID_TEXT])
{
    for (size_t i = 0; i < SERVER_ID_SIZE; i++)
        snprintf(text + 2 * i, 3, "%02x", id[i]);
    return text;
}

/* ---- the key file --------------------------------------------------------------------------------------------------
 */

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

static int import_key(gnutls_x509_privkey_t key, const char *file, int fd)
{
    char text[KEY_FILE_MAX];
    size_t length = 0;
    struct stat info;
    int rc = fstat(fd, &info) == 0 ? read_file(fd, text, sizeof text, &length) : -errno;
    if (rc != 0) {
        log_error("cannot read dht.identity_file '%s': %s", file, strerror(-rc));
        return rc;
    }
    if (info.st_mode & (S_IRWXG | S_IRWXO))
        log_warning("dht.identity_file '%s' is a private key that others may read: chmod 600 it", file);
    const gnutls_datum_t datum = {(unsigned char *)text, (unsigned)length};
    rc = gnutls_x509_privkey_import_pkcs8(key, &datum, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN);
    explicit_bzero(text, sizeof text);
    if (rc == 0 && gnutls_x509_privkey_get_pk_algorithm(key) == GNUTLS_PK_EDDSA_ED25519)
        return 0;
    log_error("dht.identity_file '%s' holds no Ed25519 private key in PEM (%s): move it away, and a new one is made",
              file, rc == 0 ? "another kind of key" : gnutls_strerror(rc));
    return -EINVAL;
}

/* Under a temporary name first, and then linked: of two that start at once, one makes the key and both use it. */
static int export_key(gnutls_x509_privkey_t key, const char *file)
{
    char path[PATH_MAX];
    gnutls_datum_t text = {0};
    const int n = snprintf(path, sizeof path, "%s.XXXXXX", file);
    if (n < 0 || (size_t)n >= sizeof path)
        return -ENAMETOOLONG;
    if (gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &text) != 0)
        return -ENOMEM;
    int rc = 0;
    const int fd = mkostemp(path, O_CLOEXEC); /* mode 0600 */
    if (fd < 0)
        rc = -errno;
    else if (write(fd, text.data, text.size) != (ssize_t)text.size || fsync(fd) != 0)
        rc = errno ? -errno : -EIO;
    if (rc == 0 && link(path, file) != 0)
        rc = -errno;
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    explicit_bzero(text.data, text.size);
    gnutls_free(text.data);
    return rc;
}

static int generate(gnutls_x509_privkey_t key)
{
    const int rc = gnutls_x509_privkey_generate(key, GNUTLS_PK_EDDSA_ED25519, 0, 0);
    if (rc == 0)
        return 0;
    log_error("cannot make a key: %s", gnutls_strerror(rc));
    return -EIO;
}

static int load_or_make(gnutls_x509_privkey_t key, const char *file)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        const int fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            const int rc = import_key(key, file, fd);
            close(fd);
            return rc;
        }
        int rc = errno == ENOENT ? generate(key) : -errno;
        if (rc == 0)
            rc = export_key(key, file);
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

static int public_half(gnutls_privkey_t key, uint8_t id[SERVER_ID_SIZE])
{
    gnutls_pubkey_t public;
    gnutls_ecc_curve_t curve;
    gnutls_datum_t x = {0};
    int rc = -EIO;
    if (gnutls_pubkey_init(&public) != 0)
        return -ENOMEM;
    if (gnutls_pubkey_import_privkey(public, key, 0, 0) == 0 &&
        gnutls_pubkey_export_ecc_raw(public, &curve, &x, NULL) == 0 && x.size == SERVER_ID_SIZE) {
        memcpy(id, x.data, SERVER_ID_SIZE);
        rc = 0;
    }
    gnutls_free(x.data);
    gnutls_pubkey_deinit(public);
    return rc;
}

int identity_create(struct identity **identity, const char *file)
{
    struct identity *made = calloc(1, sizeof *made);
    gnutls_x509_privkey_t key = NULL;
    if (!made || gnutls_x509_privkey_init(&key) != 0 || gnutls_privkey_init(&made->key) != 0) {
        log_error("not enough memory for an identity");
        gnutls_x509_privkey_deinit(key);
        free(made);
        return -ENOMEM;
    }
    int rc = *file ? load_or_make(key, file) : generate(key);
    if (rc == 0 && (gnutls_privkey_import_x509(made->key, key, GNUTLS_PRIVKEY_IMPORT_COPY) != 0 ||
                    public_half(made->key, made->id) != 0)) {
        log_error("cannot use the key of the identity");
        rc = -EIO;
    }
    gnutls_x509_privkey_deinit(key);
    if (rc != 0)
        identity_destroy(&made);
    *identity = made;
    return rc;
}

void identity_destroy(struct identity **identity)
{
    if (*identity) {
        gnutls_privkey_deinit((*identity)->key);
        free(*identity);
    }
    *identity = NULL;
}

const uint8_t *identity_id(const struct identity *identity)
{
    return identity->id;
}

/* ---- signatures ----------------------------------------------------------------------------------------------------
 */

/* Ed25519 signs a message whole: context and payload in one piece of memory. */
static int join(const char *context, const uint8_t *payload, size_t size, gnutls_datum_t *message)
{
    const size_t length = strlen(context) + 1;
    message->data = malloc(length + size);
    if (!message->data)
        return -ENOMEM;
    memcpy(message->data, context, length);
    if (size)
        memcpy(message->data + length, payload, size);
    message->size = (unsigned)(length + size);
    return 0;
}

int identity_sign(const struct identity *identity, const char *context, const uint8_t *payload, size_t size,
                  uint8_t signature[SIGNATURE_SIZE])
{
    gnutls_datum_t message;
    gnutls_datum_t made = {0};
    int rc = join(context, payload, size, &message);
    if (rc != 0)
        return rc;
    if (gnutls_privkey_sign_data2(identity->key, GNUTLS_SIGN_EDDSA_ED25519, 0, &message, &made) != 0 ||
        made.size != SIGNATURE_SIZE)
        rc = -ENOMEM;
    else
        memcpy(signature, made.data, SIGNATURE_SIZE);
    gnutls_free(made.data);
    free(message.data);
    return rc;
}

bool identity_verify(const uint8_t id[SERVER_ID_SIZE], const char *context, const uint8_t *payload, size_t size,
                     const uint8_t signature[SIGNATURE_SIZE])
{
    gnutls_datum_t message;
    gnutls_pubkey_t public;
    const gnutls_datum_t x = {(unsigned char *)id, SERVER_ID_SIZE};
    const gnutls_datum_t given = {(unsigned char *)signature, SIGNATURE_SIZE};
    if (join(context, payload, size, &message) != 0)
        return false;
    bool right = false;
    if (gnutls_pubkey_init(&public) == 0) {
        right = gnutls_pubkey_import_ecc_raw(public, GNUTLS_ECC_CURVE_ED25519, &x, NULL) == 0 &&
                gnutls_pubkey_verify_data2(public, GNUTLS_SIGN_EDDSA_ED25519, 0, &message, &given) >= 0;
        gnutls_pubkey_deinit(public);
    }
    free(message.data);
    return right;
}
