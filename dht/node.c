#include "dht/node.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <opendht/opendht_c.h>

#include "common/log.h"

enum { RECEIVE_BUFFER_BYTES = 4 << 20 };

/* What a callback is given: it may run until the operation's last callback has, which OpenDHT makes exactly once. */
struct op {
    struct op *next, *prev;
    struct node *node;
    enum node_event_kind end; /* kind of the event at its end */
    uint64_t token;
};

struct node_listening {
    struct op op;
    dht_infohash key;
    dht_op_token *handle;
};

struct node_put {
    struct op op;
    dht_infohash key;
    dht_value *value;
    bool ended;     /* OpenDHT has called back */
    bool withdrawn; /* the caller has let go */
};

struct node {
    dht_runner *runner;
    int fd;
    int shut_down_fd;      /* an eventfd */
    pthread_mutex_t mutex; /* guards all below */
    struct op ops;         /* head of the ring of those under way */
    struct node_event *head, **tail;
    size_t queued_values;
    uint64_t dropped;
};

static void link_op(struct node *node, struct op *op, enum node_event_kind end, uint64_t token)
{
    op->node = node;
    op->end = end;
    op->token = token;
    pthread_mutex_lock(&node->mutex);
    op->next = &node->ops;
    op->prev = node->ops.prev;
    op->prev->next = op->next->prev = op;
    pthread_mutex_unlock(&node->mutex);
}

static void unlink_op(struct op *op)
{
    pthread_mutex_lock(&op->node->mutex);
    op->prev->next = op->next;
    op->next->prev = op->prev;
    pthread_mutex_unlock(&op->node->mutex);
}

/* ---- the queue -----------------------------------------------------------------------------------------------------
 */

/* On any thread. An end is queued even if memory is short for nothing but its event: then the process has other
 * worries, and the asker's own deadline helps it. */
static void post(struct op *op, enum node_event_kind kind, bool ok, const uint8_t *data, size_t size)
{
    struct node *node = op->node;
    const bool is_value = kind == NODE_VALUE || kind == NODE_EXPIRED;
    struct node_event *event = size <= NODE_VALUE_MAX ? malloc(sizeof *event + size) : NULL;
    pthread_mutex_lock(&node->mutex);
    if (!event || (is_value && node->queued_values >= NODE_QUEUE_VALUES)) {
        node->dropped++;
        free(event);
    } else {
        *event = (struct node_event){.kind = kind, .ok = ok, .token = op->token, .size = size};
        if (size)
            memcpy(event->data, data, size);
        if (!node->head && eventfd_write(node->fd, 1) != 0) {
            /* Only a counter near 2^64 can refuse: it is readable then. */
        }
        *node->tail = event;
        node->tail = &event->next;
        node->queued_values += is_value;
    }
    pthread_mutex_unlock(&node->mutex);
}

struct node_event *node_take(struct node *node)
{
    eventfd_t rings;
    pthread_mutex_lock(&node->mutex);
    /* Under the mutex, as the ring is: a ring belongs to a queue that was empty, and is taken with it. */
    if (node->head && eventfd_read(node->fd, &rings) != 0)
        log_debug("an event without a ring");
    struct node_event *events = node->head;
    node->head = NULL;
    node->tail = &node->head;
    node->queued_values = 0;
    pthread_mutex_unlock(&node->mutex);
    return events;
}

uint64_t node_dropped(const struct node *node)
{
    struct node *mutable = (struct node *)node;
    pthread_mutex_lock(&mutable->mutex);
    const uint64_t dropped = node->dropped;
    pthread_mutex_unlock(&mutable->mutex);
    return dropped;
}

int node_fd(const struct node *node)
{
    return node->fd;
}

/* ---- OpenDHT's callbacks, on its threads ---------------------------------------------------------------------------
 */

static bool on_value(const dht_value *value, void *context)
{
    const dht_data_view view = dht_value_get_data(value);
    post(context, NODE_VALUE, true, view.data, view.size);
    return true;
}

static bool on_heard(const dht_value *value, bool expired, void *context)
{
    const dht_data_view view = dht_value_get_data(value);
    post(context, expired ? NODE_EXPIRED : NODE_VALUE, true, view.data, view.size);
    return true;
}

static void on_end(bool ok, void *context)
{
    struct op *op = context;
    post(op, op->end, ok, NULL, 0);
    unlink_op(op);
    free(op);
}

/* When OpenDHT has forgotten a listening. */
static void on_unheard(void *context)
{
    unlink_op(context);
    free(context);
}

static void free_put(struct node_put *put)
{
    unlink_op(&put->op);
    dht_value_unref(put->value);
    free(put);
}

static void on_put(bool ok, void *context)
{
    struct node_put *put = context;
    struct node *node = put->op.node;
    post(&put->op, NODE_PUT, ok, NULL, 0);
    pthread_mutex_lock(&node->mutex);
    put->ended = true;
    const bool withdrawn = put->withdrawn;
    pthread_mutex_unlock(&node->mutex);
    if (withdrawn) {
        dht_runner_cancel_put(node->runner, &put->key, dht_value_get_id(put->value));
        free_put(put);
    }
}

/* ---- operations ----------------------------------------------------------------------------------------------------
 */

int node_get(struct node *node, const char *key, uint64_t token)
{
    dht_infohash hash;
    struct op *op = malloc(sizeof *op);
    if (!op)
        return -ENOMEM;
    link_op(node, op, NODE_GOT, token);
    dht_infohash_get_from_string(&hash, key);
    dht_runner_get(node->runner, &hash, on_value, on_end, op);
    return 0;
}

int node_listen(struct node *node, const char *key, uint64_t token, struct node_listening **listening)
{
    struct node_listening *made = malloc(sizeof *made);
    *listening = NULL;
    if (!made)
        return -ENOMEM;
    link_op(node, &made->op, NODE_VALUE, token);
    dht_infohash_get_from_string(&made->key, key);
    made->handle = dht_runner_listen(node->runner, &made->key, on_heard, on_unheard, made);
    *listening = made;
    return 0;
}

void node_unlisten(struct node *node, struct node_listening **listening)
{
    if (*listening) {
        /* on_unheard may free it before the call is back. */
        const dht_infohash key = (*listening)->key;
        dht_op_token *handle = (*listening)->handle;
        dht_runner_cancel_listen(node->runner, &key, handle);
        dht_op_token_delete(handle);
    }
    *listening = NULL;
}

int node_put(struct node *node, const char *key, const uint8_t *data, size_t size, uint64_t token,
             struct node_put **put)
{
    struct node_put *made = calloc(1, sizeof *made);
    *put = NULL;
    if (!made)
        return -ENOMEM;
    made->value = dht_value_new(data, size);
    dht_infohash_get_from_string(&made->key, key);
    link_op(node, &made->op, NODE_PUT, token);
    *put = made;
    dht_runner_put(node->runner, &made->key, made->value, on_put, made, true);
    return 0;
}

const uint8_t *node_put_value(const struct node_put *put, size_t *size)
{
    const dht_data_view view = dht_value_get_data(put->value);
    *size = view.size;
    return view.data;
}

void node_withdraw(struct node *node, struct node_put **put)
{
    struct node_put *old = *put;
    *put = NULL;
    if (!old)
        return;
    /* The value has its id, by which a put is cancelled, only when OpenDHT's thread has come to it; so a put that is
     * still under way is cancelled at its end. */
    pthread_mutex_lock(&node->mutex);
    old->withdrawn = true;
    const bool ended = old->ended;
    pthread_mutex_unlock(&node->mutex);
    if (ended) {
        dht_runner_cancel_put(node->runner, &old->key, dht_value_get_id(old->value));
        free_put(old);
    }
}

int node_ping(struct node *node, const struct sockaddr *address, socklen_t length, uint64_t token)
{
    struct op *op = malloc(sizeof *op);
    if (!op)
        return -ENOMEM;
    link_op(node, op, NODE_PINGED, token);
    dht_runner_ping(node->runner, (struct sockaddr *)address, length, on_end, op);
    return 0;
}

/* ---- life ----------------------------------------------------------------------------------------------------------
 */

/* Room for the bursts that answers come in: the kernel's default holds a hundred or two packets. OpenDHT's interface
 * does not let it be set, so the socket is looked for among this process's: it is the one that is bound to the port. */
static void widen_buffer(int family, uint16_t port)
{
    const int bytes = RECEIVE_BUFFER_BYTES;
    DIR *folder = opendir("/proc/self/fd");
    for (const struct dirent *item; folder && (item = readdir(folder));) {
        struct sockaddr_storage address = {0};
        socklen_t length = sizeof address;
        int type = 0;
        socklen_t type_length = sizeof type;
        const int fd = atoi(item->d_name);
        if (item->d_name[0] == '.' || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_length) != 0 ||
            type != SOCK_DGRAM || getsockname(fd, (struct sockaddr *)&address, &length) != 0 ||
            address.ss_family != family)
            continue;
        const uint16_t bound = family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
                                                 : ((struct sockaddr_in6 *)&address)->sin6_port;
        /* As much as net.core.rmem_max allows. */
        if (ntohs(bound) == port && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) != 0)
            log_debug("the UDP socket's receive buffer stays as it is: %s", strerror(errno));
    }
    if (folder)
        closedir(folder);
}

int node_start(struct node **node, const struct node_options *options)
{
    struct node *made = calloc(1, sizeof *made);
    *node = NULL;
    if (!made)
        return -ENOMEM;
    made->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    made->shut_down_fd = made->fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (made->shut_down_fd < 0) {
        const int rc = -errno;
        log_error("cannot make an eventfd: %s", strerror(-rc));
        if (made->fd >= 0)
            close(made->fd);
        free(made);
        return rc;
    }
    pthread_mutex_init(&made->mutex, NULL);
    made->tail = &made->head;
    made->ops.next = made->ops.prev = &made->ops;

    dht_runner_config config;
    dht_runner_config_default(&config);
    config.threaded = true;
    config.dht_config.node_config.network = options->network_id;
    config.peer_discovery = config.peer_publish = options->lan_discovery;
    made->runner = dht_runner_new();
    const int rc = dht_runner_run_config(made->runner, options->port, &config);
    if (rc != 0 || (options->port && node_port(made) != options->port)) {
        log_error("cannot run a DHT node on UDP port %u (%s): set dht.port", (unsigned)options->port,
                  rc != 0 ? strerror(rc > 0 ? rc : -rc) : "another process has it");
        node_stop(&made, 0);
        return rc != 0 ? -(rc > 0 ? rc : -rc) : -EADDRINUSE;
    }
    widen_buffer(AF_INET, dht_runner_get_bound_port(made->runner, AF_INET));
    widen_buffer(AF_INET6, dht_runner_get_bound_port(made->runner, AF_INET6));
    *node = made;
    return 0;
}

static void on_shut_down(void *context)
{
    const struct node *node = context;
    if (eventfd_write(node->shut_down_fd, 1) != 0)
        log_debug("cannot tell that the DHT node has shut down");
}

/* Lets what is under way come to its end. */
static void shut_down(struct node *node, unsigned bound_ms)
{
    struct pollfd item = {.fd = node->shut_down_fd, .events = POLLIN};
    dht_runner_shutdown(node->runner, on_shut_down, node);
    while (poll(&item, 1, (int)bound_ms) < 0 && errno == EINTR) {
        /* A second stop signal ends the process by itself. */
    }
}

void node_stop(struct node **node, unsigned bound_ms)
{
    struct node *old = *node;
    *node = NULL;
    if (!old)
        return;
    if (bound_ms && dht_runner_is_running(old->runner))
        shut_down(old, bound_ms);
    dht_runner_delete(old->runner);
    /* Its threads are gone: what they still had under way will not be called back. */
    for (struct op *op = old->ops.next, *next; op != &old->ops; op = next) {
        next = op->next;
        if (op->end == NODE_PUT)
            dht_value_unref(((struct node_put *)op)->value);
        free(op);
    }
    for (struct node_event *event = old->head, *next; event; event = next) {
        next = event->next;
        free(event);
    }
    close(old->fd);
    close(old->shut_down_fd);
    pthread_mutex_destroy(&old->mutex);
    free(old);
}

void node_id_text(const struct node *node, char text[41])
{
    const dht_infohash id = dht_runner_get_node_id(node->runner);
    for (size_t i = 0; i < sizeof id.d; i++) {
        text[2 * i] = "0123456789abcdef"[id.d[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[id.d[i] & 15];
    }
    text[40] = '\0';
}

uint16_t node_port(const struct node *node)
{
    return dht_runner_get_bound_port(node->runner, AF_INET);
}
