#include "client/keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

static const char *or_environment(const char *given, const char *variable)
{
    const char *value = given ? given : getenv(variable);
    return value && value[0] ? value : NULL;
}

static int take_server(struct keys *keys, const char *server_key)
{
    struct certificate certificate;
    const char *why;
    if (certificate_is_key(server_key)) {
        memcpy(keys->server, server_key, sizeof keys->server);
        return 0;
    }
    if (certificate_read(&certificate, server_key, &why) < 0)
        return -EKEYREJECTED;
    memcpy(keys->server, certificate.public_key, sizeof keys->server);
    explicit_bzero(&certificate, sizeof certificate);
    return 0;
}

static int take_own(struct keys *keys, const char *path)
{
    struct certificate certificate;
    const char *why;
    const int rc = certificate_read(&certificate, path, &why) == 0 && certificate.secret_key[0] ? 0 : -EKEYREJECTED;
    if (rc == 0) {
        memcpy(keys->public_key, certificate.public_key, sizeof keys->public_key);
        memcpy(keys->secret_key, certificate.secret_key, sizeof keys->secret_key);
    }
    explicit_bzero(&certificate, sizeof certificate);
    return rc;
}

int keys_take(struct keys *keys, const char *server_key, const char *key_file)
{
    *keys = (struct keys){0};
    server_key = or_environment(server_key, "EXPERTD_SERVER_KEY");
    key_file = or_environment(key_file, "EXPERTD_KEY_FILE");
    int rc = server_key ? take_server(keys, server_key) : 0;
    if (rc == 0 && key_file)
        rc = take_own(keys, key_file);
    else if (rc == 0 && server_key)
        rc = zmq_curve_keypair(keys->public_key, keys->secret_key) == 0 ? 0 : -errno;
    return rc;
}

int keys_set(const struct keys *keys, void *socket)
{
    if (!keys->server[0])
        return 0;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, keys->server, sizeof keys->server) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key, sizeof keys->public_key) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, sizeof keys->secret_key) != 0)
        return -errno;
    return 0;
}
