#include "proto/guard.h"

#include <errno.h>
#include <string.h>
#include <zmq.h>

#include "common/log.h"

/* The public key has to be the secret one's: clients trust it. */
static bool fits(const struct certificate *own)
{
    char derived[CERTIFICATE_KEY_SIZE];
    return zmq_curve_public(derived, own->secret_key) == 0 && strcmp(derived, own->public_key) == 0;
}

static int read_own(struct guard *guard, const char *path)
{
    const char *why = "";
    const int rc = certificate_read(&guard->own, path, &why);
    if (rc < 0)
        log_error("cannot use server.key_file '%s': %s (expertctl keygen makes one)", path, why);
    else if (!guard->own.secret_key[0])
        log_error("server.key_file '%s' has no secret key: it stands in '%s_secret', beside it", path, path);
    else if (!fits(&guard->own))
        log_error("server.key_file '%s': its public key is not the secret one's", path);
    else
        return 0;
    return rc < 0 ? rc : -EINVAL;
}

int guard_open(struct guard *guard, const struct config_server *config)
{
    *guard = (struct guard){0};
    if (!config->key_file[0])
        return 0;
    enum role strangers = ROLE_NONE;
    int rc = read_own(guard, config->key_file);
    if (rc == 0)
        rc = role_of_name(config->strangers, &strangers);
    const struct keyring_settings settings = {
        .folder = config->clients, .strangers = strangers, .operator_key = guard->own.public_key};
    if (rc == 0)
        rc = keyring_create(&guard->keyring, &settings);
    if (rc < 0)
        guard_close(guard);
    return rc;
}

bool guard_is_on(const struct guard *guard)
{
    return guard->own.secret_key[0] != 0;
}

int guard_watch(struct guard *guard, void *context)
{
    return guard_is_on(guard) ? zap_create(&guard->zap, context, guard->keyring) : 0;
}

int guard_socket(const struct guard *guard, void *socket)
{
    return guard_is_on(guard) ? zap_guard(socket, guard->own.secret_key) : 0;
}

int guard_client_socket(const struct guard *guard, void *socket)
{
    const struct certificate *own = &guard->own;
    if (!guard_is_on(guard))
        return 0;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, own->public_key, sizeof own->public_key) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, own->public_key, sizeof own->public_key) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, own->secret_key, sizeof own->secret_key) != 0)
        return -errno;
    return 0;
}

void guard_close(struct guard *guard)
{
    zap_destroy(&guard->zap);
    keyring_destroy(&guard->keyring);
    explicit_bzero(&guard->own, sizeof guard->own);
}
