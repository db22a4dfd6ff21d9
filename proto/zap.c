#include "proto/zap.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/certificate.h"
#include "common/clock.h"
#include "common/log.h"

enum { REQUEST_FRAMES = 7, KEY_BYTES = 32, FRAME_MAX = 256, LOOK_MS = 500, HANDSHAKE_MS = 5000 };
static const char domain[] = "expertd", version[] = "1.0";

struct zap {
    void *socket;
    struct keyring *keyring;
    pthread_t thread;
    bool running;
    _Atomic uint64_t accepted, refused;
};

struct zap_request {
    unsigned char frames[REQUEST_FRAMES][FRAME_MAX];
    size_t sizes[REQUEST_FRAMES];
    size_t count;
};
enum { VERSION, REQUEST_ID, DOMAIN, ADDRESS, IDENTITY, MECHANISM, CREDENTIALS };

/* False: the context ends. */
static bool receive(void *socket, struct zap_request *request)
{
    int more = 1;
    request->count = 0;
    while (more) {
        unsigned char frame[FRAME_MAX];
        const int n = zmq_recv(socket, frame, sizeof frame, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        size_t size = sizeof more;
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size);
        if (request->count < REQUEST_FRAMES) {
            request->sizes[request->count] = (size_t)n < sizeof frame ? (size_t)n : sizeof frame;
            memcpy(request->frames[request->count], frame, request->sizes[request->count]);
        }
        request->count++;
    }
    return true;
}

static bool is_text(const struct zap_request *request, int frame, const char *text)
{
    return request->sizes[frame] == strlen(text) && memcmp(request->frames[frame], text, strlen(text)) == 0;
}

/* The key of whom is let in; "": nobody. */
static void judge(struct zap *zap, const struct zap_request *request, char key[CERTIFICATE_KEY_SIZE])
{
    key[0] = 0;
    if (request->count != REQUEST_FRAMES || !is_text(request, VERSION, version) || !is_text(request, DOMAIN, domain) ||
        !is_text(request, MECHANISM, "CURVE") || request->sizes[CREDENTIALS] != KEY_BYTES)
        return;
    zmq_z85_encode(key, request->frames[CREDENTIALS], KEY_BYTES);
    if (keyring_role(zap->keyring, key) != ROLE_NONE)
        return;
    /* It may have come this moment. */
    keyring_look(zap->keyring, clock_now_ns());
    if (keyring_role(zap->keyring, key) == ROLE_NONE)
        key[0] = 0;
}

static bool answer(struct zap *zap, const struct zap_request *request)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    char key[CERTIFICATE_KEY_SIZE];
    judge(zap, request, key);
    atomic_fetch_add_explicit(key[0] ? &zap->accepted : &zap->refused, 1, memory_order_relaxed);
    if (!key[0] && log_burst_allows(&burst, &left_out, NULL))
        log_warning("a client's key is not known here: %.*s (%u more like it)", (int)request->sizes[ADDRESS],
                    request->count > ADDRESS ? (const char *)request->frames[ADDRESS] : "", left_out);
    const struct {
        const void *data;
        size_t size;
    } frames[] = {{version, strlen(version)},
                  {request->frames[REQUEST_ID], request->count > REQUEST_ID ? request->sizes[REQUEST_ID] : 0},
                  {key[0] ? "200" : "400", 3},
                  {key[0] ? "OK" : "unknown key", key[0] ? 2 : 11},
                  {key, strlen(key)},
                  {"", 0}};
    const size_t count = sizeof frames / sizeof frames[0];
    for (size_t i = 0; i < count; i++) {
        while (zmq_send(zap->socket, frames[i].data, frames[i].size, i + 1 < count ? ZMQ_SNDMORE : 0) < 0) {
            if (errno != EINTR)
                return false;
        }
    }
    return true;
}

static void *run(void *context)
{
    struct zap *zap = context;
    struct zap_request request;
    zmq_pollitem_t item = {.socket = zap->socket, .events = ZMQ_POLLIN};
    for (bool going = true; going;) {
        const int n = zmq_poll(&item, 1, LOOK_MS);
        if (n < 0 && errno != EINTR)
            break;
        keyring_look(zap->keyring, clock_now_ns());
        if (n > 0)
            going = receive(zap->socket, &request) && answer(zap, &request);
    }
    zmq_close(zap->socket);
    return NULL;
}

int zap_create(struct zap **zap, void *context, struct keyring *keyring)
{
    const int none = 0;
    sigset_t all, before;
    struct zap *made = *zap = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->keyring = keyring;
    made->socket = zmq_socket(context, ZMQ_REP);
    int rc = made->socket && zmq_setsockopt(made->socket, ZMQ_LINGER, &none, sizeof none) == 0 &&
                     zmq_bind(made->socket, "inproc://zeromq.zap.01") == 0
                 ? 0
                 : -errno;
    if (rc == 0) {
        /* Signals are the main thread's. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        rc = -pthread_create(&made->thread, NULL, run, made);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        made->running = rc == 0;
    }
    if (rc == 0)
        return 0;
    log_error("cannot check clients' keys: %s", zmq_strerror(-rc));
    if (made->socket)
        zmq_close(made->socket);
    zap_destroy(zap);
    return rc;
}

void zap_destroy(struct zap **zap)
{
    if (*zap && (*zap)->running)
        pthread_join((*zap)->thread, NULL);
    free(*zap);
    *zap = NULL;
}

struct zap_counters zap_counters(const struct zap *zap)
{
    return (struct zap_counters){atomic_load_explicit(&zap->accepted, memory_order_relaxed),
                                 atomic_load_explicit(&zap->refused, memory_order_relaxed)};
}

int zap_guard(void *socket, const char *secret_key)
{
    const int one = 1, handshake_ms = HANDSHAKE_MS;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof one) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret_key, strlen(secret_key) + 1) != 0 ||
        zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) != 0 ||
        zmq_setsockopt(socket, ZMQ_HANDSHAKE_IVL, &handshake_ms, sizeof handshake_ms) != 0)
        return -errno;
#ifdef ZMQ_ZAP_ENFORCE_DOMAIN
    if (zmq_setsockopt(socket, ZMQ_ZAP_ENFORCE_DOMAIN, &one, sizeof one) != 0)
        return -errno;
#endif
    return 0;
}
