/* expertctl keygen: a pair of CURVE keys, in the files that czmq's tools read. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "client/expertctl/expertctl.h"
#include "common/certificate.h"
#include "common/keyring.h"

static bool fits(const char *text)
{
    return !text || (strlen(text) < CERTIFICATE_TEXT_SIZE && !strpbrk(text, "\"\n\r"));
}

enum exit_code expertctl_keygen(struct expertctl *ctl)
{
    const char *path = ctl->arguments[0];
    struct certificate certificate = {0};
    char message[512];
    enum role role;
    if (ctl->role && (role_of_name(ctl->role, &role) < 0 || role == ROLE_NONE))
        return expertctl_usage(ctl, "--role is reader, trainer or operator");
    if (!fits(ctl->name))
        return expertctl_usage(ctl, "--name has at most 63 characters, and no quotes");
    snprintf(certificate.role, sizeof certificate.role, "%s", ctl->role ? ctl->role : "");
    snprintf(certificate.name, sizeof certificate.name, "%s", ctl->name ? ctl->name : "");
    if (zmq_curve_keypair(certificate.public_key, certificate.secret_key) != 0)
        return expertctl_fail_here(ctl, "this libzmq knows no CURVE");
    const int rc = certificate_write(&certificate, path);
    explicit_bzero(certificate.secret_key, sizeof certificate.secret_key);
    if (rc < 0) {
        snprintf(message, sizeof message, "cannot write '%.200s' and '%.200s_secret': %s", path, path,
                 rc == -EEXIST ? "there is a key already" : strerror(-rc));
        return expertctl_fail_here(ctl, message);
    }
    if (ctl->json) {
        struct json json = expertctl_json_start();
        json_string(&json, "public_key", certificate.public_key);
        expertctl_json_end(&json);
    } else {
        printf("%s\n", certificate.public_key);
    }
    return EXIT_OK;
}
