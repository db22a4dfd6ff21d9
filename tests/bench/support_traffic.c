#include "bench/support_traffic.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "client/comeback.h"
#include "client/keys.h"
#include "client/local_link.h"
#include "common/clock.h"

/* Latencies go into buckets of 1/64 of their power of two. */
enum { SUB = 64, BUCKETS = SUB * 48, MAX_PROCESSES = 64, MAX_CLIENTS = 8192, HEADER_SIZE = 1024 };

struct shared {
    _Atomic unsigned ready;
    _Atomic int phase; /* 0: wait, 1: warm up, 2: measure, 3: end */
    _Atomic uint64_t errors;
    _Atomic uint64_t total_ns, max_ns;
    uint64_t per_client[MAX_CLIENTS];
    uint64_t buckets[MAX_PROCESSES][BUCKETS];
};

struct client {
    void *socket; /* NULL: through shared memory */
    struct local_link link;
    struct local_block *tensors[TRAFFIC_MAX_IN_FLIGHT][TRAFFIC_MAX_FRAMES];
    unsigned number, free_count, answers;
    unsigned free[TRAFFIC_MAX_IN_FLIGHT];
    uint64_t sent_ns[TRAFFIC_MAX_IN_FLIGHT];
    unsigned in_flight, first_paused;
    unsigned paused[TRAFFIC_MAX_IN_FLIGHT]; /* comeback.waiting from first_paused on, in a ring */
    struct comeback comeback;
    uint64_t random;
};

static unsigned bucket_of(uint64_t ns)
{
    if (ns < SUB)
        return (unsigned)ns;
    const unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    const unsigned bucket = (power - 5) * SUB + (unsigned)(ns >> (power - 6)) - SUB;
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double value_of(unsigned bucket)
{
    if (bucket < SUB)
        return bucket;
    const unsigned power = bucket / SUB + 5;
    return ((double)(bucket % SUB) + SUB + 0.5) * (double)(UINT64_C(1) << (power - 6));
}

static void keep(void *data, void *hint)
{
    (void)data;
    (void)hint;
}

/* Tensors lie in the shared memory for good, those of each request in flight in a place of their own. */
static int send_local(struct client *client, const struct traffic_content *content, unsigned id, const void *header,
                      size_t size, unsigned frames)
{
    zmq_msg_t messages[1 + TRAFFIC_MAX_FRAMES];
    uint64_t room = 64;
    if (zmq_msg_init_size(&messages[0], size) != 0)
        return -1;
    memcpy(zmq_msg_data(&messages[0]), header, size);
    for (unsigned f = 0; f < frames; f++) {
        struct local_block **block = &client->tensors[id][f];
        if (!*block) {
            *block = local_heap_take(client->link.heap, content->frame_bytes[f]);
            if (!*block)
                return -1;
            memcpy(local_block_data(*block), content->frame[f], content->frame_bytes[f]);
        }
        if (!local_block_message(*block, local_block_at(*block), content->frame_bytes[f], &messages[1 + f]))
            return -1;
        room += content->frame_bytes[f] + 64;
    }
    const int rc = local_link_send(&client->link, messages, 1 + frames, room);
    for (unsigned f = 0; rc < 0 && f <= frames; f++)
        zmq_msg_close(&messages[f]);
    return rc;
}

static int send_one(struct client *client, const struct traffic_content *content)
{
    unsigned char header[HEADER_SIZE];
    const unsigned id = client->free[--client->free_count];
    unsigned frames = content->frames;
    const size_t size = content->header(content->context, client->number, id, header, sizeof header, &frames);
    client->sent_ns[id] = clock_now_ns();
    if (!client->socket) {
        const int rc = send_local(client, content, id, header, size, frames);
        if (rc == -EAGAIN)
            client->free[client->free_count++] = id;
        client->in_flight += rc == 0;
        return rc == -EAGAIN ? 1 : rc;
    }
    if (zmq_send(client->socket, header, size, frames ? ZMQ_SNDMORE : 0) < 0)
        return -1;
    for (unsigned f = 0; f < frames; f++) {
        zmq_msg_t frame;
        zmq_msg_init_data(&frame, (void *)(uintptr_t)content->frame[f], content->frame_bytes[f], keep, NULL);
        if (zmq_msg_send(&frame, client->socket, f + 1 < frames ? ZMQ_SNDMORE : 0) < 0)
            return -1;
    }
    client->in_flight++;
    return 0;
}

static void pause_one(struct client *client, unsigned id)
{
    client->paused[(client->first_paused + client->comeback.waiting++) % TRAFFIC_MAX_IN_FLIGHT] = id;
}

static void resume(struct client *client, unsigned count)
{
    for (; count > 0; count--) {
        client->free[client->free_count++] = client->paused[client->first_paused++ % TRAFFIC_MAX_IN_FLIGHT];
        client->comeback.waiting--;
    }
}

/* As the library does it: after an answer the next one goes, and a new one stands behind those that were refused. */
static void go_on(struct client *client, unsigned id, uint32_t hint_ms, uint64_t now_ns)
{
    client->in_flight--;
    if (hint_ms)
        comeback_refused(&client->comeback, hint_ms, client->in_flight, now_ns, &client->random);
    pause_one(client, id);
    if (!hint_ms)
        resume(client, comeback_answered(&client->comeback));
    if (client->comeback.waiting == 0)
        client->comeback = (struct comeback){0};
}

/* 1: a reply was taken; 0: there is none. */
static int receive_one(struct client *client, const struct traffic_content *content, struct shared *shared,
                       uint64_t *buckets)
{
    zmq_msg_t frame, frames[1 + TRAFFIC_MAX_FRAMES];
    zmq_msg_init(&frame);
    if (!client->socket) {
        const size_t count = local_link_receive(&client->link, frames, 1 + TRAFFIC_MAX_FRAMES);
        if (count == 0)
            return client->link.state == LOCAL_LINK_READY ? 0 : -1;
        zmq_msg_move(&frame, &frames[0]);
        for (size_t f = 0; f < count; f++)
            zmq_msg_close(&frames[f]);
    } else if (zmq_msg_recv(&frame, client->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    }
    uint64_t id = content->reply(content->context, zmq_msg_data(&frame), zmq_msg_size(&frame));
    const bool failed = id != UINT64_MAX && (id & TRAFFIC_FAILED);
    const uint32_t hint_ms = failed ? (uint32_t)((id & ~TRAFFIC_FAILED) >> TRAFFIC_HINT_SHIFT) : 0;
    if (failed)
        id &= UINT32_MAX;
    while (client->socket && zmq_msg_more(&frame)) {
        if (zmq_msg_recv(&frame, client->socket, 0) < 0)
            return -1;
    }
    zmq_msg_close(&frame);
    client->answers++;
    const uint64_t now_ns = clock_now_ns();
    if (id >= TRAFFIC_MAX_IN_FLIGHT || (failed && atomic_load_explicit(&shared->phase, memory_order_relaxed) == 2))
        atomic_fetch_add(&shared->errors, 1);
    if (id >= TRAFFIC_MAX_IN_FLIGHT)
        return -1;
    go_on(client, (unsigned)id, hint_ms, now_ns);
    if (failed)
        return 1;
    if (atomic_load_explicit(&shared->phase, memory_order_relaxed) != 2)
        return 1;
    const uint64_t took_ns = now_ns - client->sent_ns[id];
    buckets[bucket_of(took_ns)]++;
    shared->per_client[client->number]++;
    atomic_fetch_add_explicit(&shared->total_ns, took_ns, memory_order_relaxed);
    if (took_ns > atomic_load_explicit(&shared->max_ns, memory_order_relaxed))
        atomic_store_explicit(&shared->max_ns, took_ns, memory_order_relaxed);
    return 1;
}

static int open_local(struct client *client, const struct traffic_options *options)
{
    zmq_msg_t none[1 + TRAFFIC_MAX_FRAMES];
    local_link_init(&client->link);
    if (local_link_open(&client->link, options->local_path, options->local_instance, (uint64_t)512 << 20) < 0)
        return -1;
    while (client->link.state == LOCAL_LINK_GREETING) {
        struct pollfd fd = {.fd = client->link.fd, .events = POLLIN};
        poll(&fd, 1, 1000);
        local_link_receive(&client->link, none, 1 + TRAFFIC_MAX_FRAMES);
    }
    return client->link.state == LOCAL_LINK_READY ? 0 : -1;
}

static int open_clients(void *context, const struct traffic_options *options, struct client *clients, unsigned first,
                        unsigned count)
{
    struct keys keys; /* EXPERTD_SERVER_KEY, EXPERTD_KEY_FILE */
    if (keys_take(&keys, NULL, NULL) < 0)
        return -1;
    for (unsigned c = 0; c < count; c++) {
        const int none = 0;
        clients[c].number = first + c;
        clients[c].random = first + c;
        for (unsigned i = options->in_flight; i > 0; i--)
            clients[c].free[clients[c].free_count++] = i - 1;
        if (options->local_path) {
            if (open_local(&clients[c], options) < 0)
                return -1;
            continue;
        }
        clients[c].socket = zmq_socket(context, ZMQ_DEALER);
        if (!clients[c].socket)
            return -1;
        zmq_setsockopt(clients[c].socket, ZMQ_LINGER, &none, sizeof none);
        zmq_setsockopt(clients[c].socket, ZMQ_SNDHWM, &none, sizeof none);
        zmq_setsockopt(clients[c].socket, ZMQ_RCVHWM, &none, sizeof none);
        if (keys_set(&keys, clients[c].socket) < 0 || zmq_connect(clients[c].socket, options->endpoint) != 0)
            return -1;
    }
    return 0;
}

static int serve_client(struct client *client, const struct traffic_content *content, struct shared *shared,
                        uint64_t *buckets)
{
    int rc;
    do {
        const uint64_t now_ns = client->comeback.waiting ? clock_now_ns() : 0;
        if (client->comeback.waiting && client->comeback.due_ns <= now_ns)
            resume(client, comeback_try(&client->comeback, client->in_flight, now_ns, &client->random));
        int sent = 0;
        while (client->free_count && sent == 0)
            sent = send_one(client, content);
        if (sent < 0)
            return -1;
        rc = receive_one(client, content, shared, buckets);
    } while (rc > 0);
    return rc;
}

/* Looks for answers for so long as none comes within the time. */
static int spin(const struct traffic_options *options, const struct traffic_content *content, struct shared *shared,
                unsigned process, struct client *clients, unsigned count)
{
    uint64_t until_ns = clock_now_ns() + options->spin_us * UINT64_C(1000);
    while (clock_now_ns() < until_ns && atomic_load_explicit(&shared->phase, memory_order_relaxed) != 3) {
        bool any = false;
        for (unsigned c = 0; c < count; c++) {
            const unsigned before = clients[c].answers;
            if (serve_client(&clients[c], content, shared, shared->buckets[process]) < 0)
                return -1;
            any |= clients[c].answers != before;
        }
        if (any)
            until_ns = clock_now_ns() + options->spin_us * UINT64_C(1000);
        sched_yield();
    }
    return 0;
}

/* Milliseconds to the first try of requests that were refused, rounded up; 100 at most. */
static long next_try_ms(const struct client *clients, unsigned count)
{
    const uint64_t now_ns = clock_now_ns();
    uint64_t due_ns = now_ns + 100 * NS_PER_MS;
    for (unsigned c = 0; c < count; c++) {
        if (clients[c].comeback.waiting && clients[c].comeback.due_ns < due_ns)
            due_ns = clients[c].comeback.due_ns;
    }
    return due_ns <= now_ns ? 0 : (long)((due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static int client_process(const struct traffic_options *options, const struct traffic_content *content,
                          struct shared *shared, unsigned process, unsigned first, unsigned count)
{
    void *context = zmq_ctx_new();
    struct client *clients = calloc(count, sizeof *clients);
    zmq_pollitem_t *items = calloc(count, sizeof *items);
    zmq_ctx_set(context, ZMQ_MAX_SOCKETS, (int)count + 16);
    if (!clients || !items || open_clients(context, options, clients, first, count) < 0)
        return 1;
    for (unsigned c = 0; c < count; c++)
        items[c] = (zmq_pollitem_t){.socket = clients[c].socket, .fd = clients[c].link.fd, .events = ZMQ_POLLIN};
    atomic_fetch_add(&shared->ready, 1);
    while (atomic_load(&shared->phase) == 0)
        usleep(1000);
    for (unsigned c = 0; c < count; c++) {
        if (serve_client(&clients[c], content, shared, shared->buckets[process]) < 0)
            return 1;
    }
    while (atomic_load_explicit(&shared->phase, memory_order_relaxed) != 3) {
        const long wait_ms = next_try_ms(clients, count);
        if (options->spin_us && spin(options, content, shared, process, clients, count) < 0)
            return 1;
        const int n = zmq_poll(items, (int)count, wait_ms);
        for (unsigned c = 0; c < count; c++) {
            if (((n > 0 && (items[c].revents & ZMQ_POLLIN)) || clients[c].comeback.waiting) &&
                serve_client(&clients[c], content, shared, shared->buckets[process]) < 0)
                return 1;
        }
    }
    for (unsigned c = 0; c < count; c++) {
        if (clients[c].socket)
            zmq_close(clients[c].socket);
    }
    zmq_ctx_term(context);
    return 0;
}

static double quantile(const struct shared *shared, uint64_t total, double q)
{
    uint64_t seen = 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        for (unsigned p = 0; p < MAX_PROCESSES; p++)
            seen += shared->buckets[p][b];
        if ((double)seen >= q * (double)total && seen)
            return value_of(b) / 1e3;
    }
    return 0;
}

/* Four of the fine buckets make one that is worth drawing. */
static void fill_histogram(const struct shared *shared, struct traffic_result *result)
{
    for (unsigned b = 0; b < BUCKETS && result->histogram_count < TRAFFIC_HISTOGRAM; b += 4) {
        uint64_t requests = 0;
        for (unsigned p = 0; p < MAX_PROCESSES; p++)
            for (unsigned i = 0; i < 4; i++)
                requests += shared->buckets[p][b + i];
        if (requests == 0)
            continue;
        result->histogram[result->histogram_count].us = value_of(b + 2) / 1e3;
        result->histogram[result->histogram_count++].requests = requests;
    }
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void summarise(struct shared *shared, const struct traffic_options *options, double seconds,
                      struct traffic_result *result)
{
    *result = (struct traffic_result){.seconds = seconds, .errors = shared->errors};
    for (unsigned c = 0; c < options->clients; c++)
        result->requests += shared->per_client[c];
    qsort(shared->per_client, options->clients, sizeof shared->per_client[0], compare);
    result->slowest_client = (double)shared->per_client[0];
    result->median_client = (double)shared->per_client[options->clients / 2];
    result->rate = (double)result->requests / seconds;
    result->median_us = quantile(shared, result->requests, 0.5);
    result->p99_us = quantile(shared, result->requests, 0.99);
    result->p999_us = quantile(shared, result->requests, 0.999);
    result->max_us = (double)shared->max_ns / 1e3;
    fill_histogram(shared, result);
    result->mean_us = result->requests ? (double)shared->total_ns / (double)result->requests / 1e3 : 0;
}

int traffic_run(const struct traffic_options *options, const struct traffic_content *content,
                struct traffic_result *result)
{
    unsigned processes = options->processes ? options->processes : options->clients < 16 ? options->clients : 16;
    if (options->clients == 0 || options->clients > MAX_CLIENTS || options->in_flight == 0 ||
        options->in_flight > TRAFFIC_MAX_IN_FLIGHT || processes > MAX_PROCESSES || processes > options->clients) {
        fprintf(stderr, "clients have to be 1 to %d in at most %d processes, with 1 to %d in flight\n", MAX_CLIENTS,
                MAX_PROCESSES, TRAFFIC_MAX_IN_FLIGHT);
        return -1;
    }
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (shared == MAP_FAILED)
        return -1;
    pid_t pids[MAX_PROCESSES];
    for (unsigned p = 0, first = 0; p < processes; p++) {
        const unsigned count = options->clients / processes + (p < options->clients % processes);
        pids[p] = fork();
        if (pids[p] == 0)
            _exit(client_process(options, content, shared, p, first, count));
        first += count;
    }
    while (atomic_load(&shared->ready) < processes && waitpid(-1, NULL, WNOHANG) == 0)
        usleep(1000);
    atomic_store(&shared->phase, 1);
    usleep((useconds_t)(options->warmup_s * 1e6));
    const uint64_t begin_ns = clock_now_ns();
    atomic_store(&shared->phase, 2);
    usleep((useconds_t)(options->seconds * 1e6));
    atomic_store(&shared->phase, 3);
    const double seconds = (double)(clock_now_ns() - begin_ns) / 1e9;
    int rc = 0;
    for (unsigned p = 0; p < processes; p++) {
        int status;
        if (waitpid(pids[p], &status, 0) != pids[p] || status != 0)
            rc = -1;
    }
    if (rc < 0)
        fprintf(stderr, "a client failed\n");
    summarise(shared, options, seconds, result);
    munmap(shared, sizeof *shared);
    return rc;
}

void traffic_print(const char *name, const struct traffic_options *options, const struct traffic_result *r,
                   double extra_value, const char *extra_name, bool json)
{
    if (json)
        printf("{\"name\": \"%s\", \"clients\": %u, \"in_flight\": %u, \"requests\": %llu, \"errors\": %llu, "
               "\"seconds\": %.3f, \"rate\": %.1f, \"median_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, "
               "\"mean_us\": %.2f, \"max_us\": %.2f, \"slowest_client\": %.0f, \"median_client\": %.0f, "
               "\"%s\": %.6g, \"histogram\": [",
               name, options->clients, options->in_flight, (unsigned long long)r->requests,
               (unsigned long long)r->errors, r->seconds, r->rate, r->median_us, r->p99_us, r->p999_us, r->mean_us,
               r->max_us, r->slowest_client, r->median_client, extra_name, extra_value);
    for (unsigned i = 0; json && i < r->histogram_count; i++)
        printf("%s[%.2f, %llu]", i ? ", " : "", r->histogram[i].us, (unsigned long long)r->histogram[i].requests);
    if (json)
        puts("]}");
    else
        printf("%-28s %4u clients x %-4u %10.1f /s  median %9.2f us  p99 %9.2f us  max %9.2f us  errors %llu  "
               "%s %.6g\n",
               name, options->clients, options->in_flight, r->rate, r->median_us, r->p99_us, r->max_us,
               (unsigned long long)r->errors, extra_name, extra_value);
}
