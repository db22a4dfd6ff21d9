/* Which keys are known here, and what each may do: a folder of public certificates (common/certificate.h), one a
 * client, with its role in the metadata. The folder is looked at again while the process runs, so keys come and go
 * without a restart. Any thread. */
#ifndef EXPERTD_COMMON_KEYRING_H
#define EXPERTD_COMMON_KEYRING_H

#include <stdint.h>

/* Each may do what those before it may. */
enum role {
    ROLE_NONE,     /* not known here */
    ROLE_READER,   /* forwards, and questions about experts */
    ROLE_TRAINER,  /* backwards, counters */
    ROLE_OPERATOR, /* checkpoints, and whatever changes the server */
};
const char *role_name(enum role role);               /* "none", "reader", "trainer", "operator" */
int role_of_name(const char *name, enum role *role); /* 0 or -EINVAL */

struct keyring;

struct keyring_settings {
    const char *folder;       /* "": no clients by certificate; kept, not copied */
    enum role strangers;      /* of keys that are not in the folder */
    const char *operator_key; /* a key that is one without a certificate, the server's own; "" */
};

/* 0; -errno, logged: the folder cannot be read. A file in it that is no certificate is logged and left out; one without
 * a role is a reader's. */
int keyring_create(struct keyring **keyring, const struct keyring_settings *settings);
void keyring_destroy(struct keyring **keyring);
/* Reads the folder again if something in it has changed, at most ten times a second. */
void keyring_look(struct keyring *keyring, uint64_t now_ns);
/* Of a key: 40 characters of Z85. */
enum role keyring_role(struct keyring *keyring, const char *key);
/* Grows with each reading. */
uint64_t keyring_generation(const struct keyring *keyring);
uint32_t keyring_count(struct keyring *keyring); /* certificates */

#endif
