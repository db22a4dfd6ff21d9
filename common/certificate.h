/* CURVE keys in files, as czmq's zcert keeps them: PATH has the public key and metadata, PATH_secret the secret one
 * beside them. So zmakecert makes certificates for expertd, and zauth reads those of `expertctl keygen`. Pure but for
 * the files; any thread. */
#ifndef EXPERTD_COMMON_CERTIFICATE_H
#define EXPERTD_COMMON_CERTIFICATE_H

#include <stdbool.h>
#include <stddef.h>

enum { CERTIFICATE_KEY_SIZE = 41, CERTIFICATE_TEXT_SIZE = 64, CERTIFICATE_FILE_MAX = 65536 };

struct certificate {
    char public_key[CERTIFICATE_KEY_SIZE]; /* 40 characters of Z85 */
    char secret_key[CERTIFICATE_KEY_SIZE]; /* "": only the public half is known */
    char name[CERTIFICATE_TEXT_SIZE];      /* metadata; "" */
    char role[CERTIFICATE_TEXT_SIZE];
};

/* Whether the text is a key: 40 characters of Z85. */
bool certificate_is_key(const char *text);
/* 0; -EINVAL and *why, the end of a sentence: the text is no certificate. Metadata that does not fit is cut. */
int certificate_parse(struct certificate *certificate, const char *text, size_t length, const char **why);
/* PATH_secret where that is, else PATH. 0; -errno and *why. */
int certificate_read(struct certificate *certificate, const char *path, const char **why);
/* Writes both files, the secret one with mode 0600 and first. -EEXIST: one of them is there; -errno. */
int certificate_write(const struct certificate *certificate, const char *path);

#endif
