/* Preloaded: of the datagrams that a program sends over IP, EXPERTD_TEST_LOSS in a hundred are lost,
 * EXPERTD_TEST_DUPLICATE in a hundred come twice, and each comes up to EXPERTD_TEST_DELAY_MS late, so that they
 * overtake each other. What a network does, on a machine that has no netem. EXPERTD_TEST_DATAGRAMS names a file of 32
 * bytes in which all programs count: sent, lost, doubled, late. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct late {
    uint64_t due_ns;
    int fd; /* -1: closed meanwhile */
    struct sockaddr_storage to;
    socklen_t to_size;
    size_t size;
    uint8_t bytes[2048];
};

enum { SENT, LOST, DOUBLED, LATE, COUNTS, HEAP_MAX = 65536 };
static _Atomic uint64_t unseen[COUNTS], *counts = unseen;
static double loss, duplicate, delay_ns;
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static int (*real_close)(int);

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more;
static struct late *heap[HEAP_MAX]; /* the soonest first */
static size_t heap_count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static double number(const char *name)
{
    const char *text = getenv(name);
    return text ? atof(text) : 0;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("EXPERTD_TEST_DATAGRAMS");
    real_sendmsg = dlsym(RTLD_NEXT, "sendmsg");
    real_close = dlsym(RTLD_NEXT, "close");
    loss = number("EXPERTD_TEST_LOSS") / 100;
    duplicate = number("EXPERTD_TEST_DUPLICATE") / 100;
    delay_ns = number("EXPERTD_TEST_DELAY_MS") * 1e6;
    const int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    void *shared = fd >= 0 ? mmap(NULL, sizeof unseen, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (shared != MAP_FAILED)
        counts = shared;
    if (fd >= 0)
        real_close(fd);
}

static double chance(void)
{
    static _Thread_local uint64_t state;
    if (!state)
        state = now_ns() * 2862933555777941757u + (uint64_t)(uintptr_t)&state + (uint64_t)getpid();
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) / (double)(UINT64_C(1) << 53);
}

static void swap(size_t a, size_t b)
{
    struct late *kept = heap[a];
    heap[a] = heap[b];
    heap[b] = kept;
}

static void push(struct late *late)
{
    size_t at = heap_count++;
    heap[at] = late;
    for (; at > 0 && heap[(at - 1) / 2]->due_ns > heap[at]->due_ns; at = (at - 1) / 2)
        swap(at, (at - 1) / 2);
}

static struct late *pop(void)
{
    struct late *soonest = heap[0];
    heap[0] = heap[--heap_count];
    for (size_t at = 0;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < heap_count; child++)
            if (heap[child]->due_ns < heap[least]->due_ns)
                least = child;
        if (least == at)
            return soonest;
        swap(at, least);
        at = least;
    }
}

static void *send_late(void *nothing)
{
    pthread_mutex_lock(&mutex);
    for (;;) {
        if (heap_count == 0) {
            pthread_cond_wait(&more, &mutex);
        } else if (heap[0]->due_ns > now_ns()) {
            const struct timespec until = {(time_t)(heap[0]->due_ns / 1000000000),
                                           (long)(heap[0]->due_ns % 1000000000)};
            pthread_cond_timedwait(&more, &mutex, &until);
        } else {
            struct late *late = pop();
            struct iovec part = {late->bytes, late->size};
            const struct msghdr message = {
                .msg_name = &late->to, .msg_namelen = late->to_size, .msg_iov = &part, .msg_iovlen = 1};
            if (late->fd >= 0)
                real_sendmsg(late->fd, &message, MSG_DONTWAIT);
            free(late);
        }
    }
    return nothing;
}

static void start(void)
{
    pthread_condattr_t attributes;
    pthread_t thread;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&more, &attributes);
    if (pthread_create(&thread, NULL, send_late, NULL) != 0)
        abort();
    pthread_detach(thread);
}

static bool is_datagram(int fd, const struct msghdr *message)
{
    const struct sockaddr *to = message->msg_name;
    int type;
    socklen_t size = sizeof type;
    return to && (to->sa_family == AF_INET || to->sa_family == AF_INET6) &&
           message->msg_namelen <= sizeof(struct sockaddr_storage) &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_DGRAM;
}

/* False: it is sent now. */
static bool put_off(int fd, const struct msghdr *message)
{
    struct late *late = malloc(sizeof *late);
    if (!late)
        return false;
    late->fd = fd;
    late->size = 0;
    late->to_size = message->msg_namelen;
    memcpy(&late->to, message->msg_name, late->to_size);
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        if (message->msg_iov[i].iov_len > sizeof late->bytes - late->size) {
            free(late);
            return false;
        }
        memcpy(late->bytes + late->size, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
        late->size += message->msg_iov[i].iov_len;
    }
    late->due_ns = now_ns() + (uint64_t)(delay_ns * chance());
    pthread_once(&once, start);
    pthread_mutex_lock(&mutex);
    const bool room = heap_count < HEAP_MAX;
    if (room)
        push(late);
    pthread_mutex_unlock(&mutex);
    pthread_cond_signal(&more);
    if (!room)
        free(late);
    return room;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (!is_datagram(fd, message))
        return real_sendmsg(fd, message, flags);
    ssize_t size = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++)
        size += (ssize_t)message->msg_iov[i].iov_len;
    counts[SENT]++;
    if (chance() < loss) {
        counts[LOST]++;
        return size;
    }
    if (chance() < duplicate) {
        counts[DOUBLED]++;
        real_sendmsg(fd, message, flags);
    }
    if (delay_ns > 0 && put_off(fd, message)) {
        counts[LATE]++;
        return size;
    }
    return real_sendmsg(fd, message, flags);
}

ssize_t sendto(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *to, socklen_t to_size)
{
    struct iovec part = {(void *)bytes, size};
    const struct msghdr message = {
        .msg_name = (void *)to, .msg_namelen = to ? to_size : 0, .msg_iov = &part, .msg_iovlen = 1};
    return sendmsg(fd, &message, flags);
}

/* What is late does not go out by another file that has got its number. */
int close(int fd)
{
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < heap_count; i++)
        if (heap[i]->fd == fd)
            heap[i]->fd = -1;
    const int rc = real_close(fd);
    const int error = errno;
    pthread_mutex_unlock(&mutex);
    errno = error;
    return rc;
}
