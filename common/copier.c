#include "common/copier.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

enum {
    SPARE_THREADS = 4, /* more do not copy faster */
    CORES_A_THREAD = 4,
    SHARES = 4, /* of each thread in one copy: what one that is away has not begun is left to the others */
    WORTH_A_WAKE_UP = 256 << 10, /* bytes; less is copied sooner than a thread wakes */
    LOOKS_BEFORE_SLEEP = 2000,   /* the next piece of a batch comes within some ten microseconds */
    HELD_UP_NS = 1000000,        /* longer than a share takes: who has it lost its core to somebody else */
    COPIES_ALONE = 256,          /* after that; a machine so busy has no cores to spare */
};

struct piece {
    void *to;
    const void *from;
    size_t bytes;
    _Atomic uint64_t copied; /* its position + 1 */
};

/* Positions only grow; piece p is pieces[p % COPIER_PIECES]. claimed <= offered.
 *
 * No wake-up is lost: the one that offers stores `offered` and then looks for sleepers; one that is going to sleep
 * counts itself among them, holding the mutex, and then looks at `offered`; all in one total order (seq_cst). So either
 * it sees the piece, or it is seen, and the broadcast, which takes the mutex, comes when it sleeps. (For a small piece
 * nobody is woken: the one that waits for it copies it.) */
struct copier {
    struct piece pieces[COPIER_PIECES];
    alignas(64) _Atomic uint64_t offered;
    alignas(64) _Atomic uint64_t claimed;
    alignas(64) _Atomic unsigned sleepers;
    _Atomic bool ending;
    pthread_mutex_t mutex;
    pthread_cond_t bell;
    pthread_t threads[COPIER_MAX_THREADS];
    unsigned threads_count;
    uint64_t settled;      /* all before are copied; of the thread that waits */
    unsigned copies_alone; /* the next ones of copier_copy; of that thread, too */
};

static bool copy_next(struct copier *copier)
{
    uint64_t position = atomic_load_explicit(&copier->claimed, memory_order_relaxed);
    do {
        /* Acquires what copier_offer wrote into the piece. */
        if (position >= atomic_load_explicit(&copier->offered, memory_order_acquire))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&copier->claimed, &position, position + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    struct piece *piece = &copier->pieces[position % COPIER_PIECES];
    memcpy(piece->to, piece->from, piece->bytes);
    /* Released to copier_wait. */
    atomic_store_explicit(&piece->copied, position + 1, memory_order_release);
    return true;
}

static bool has_work(struct copier *copier)
{
    return atomic_load(&copier->claimed) < atomic_load(&copier->offered) || atomic_load(&copier->ending);
}

static void sleep_until_work(struct copier *copier)
{
    for (unsigned i = 0; i < LOOKS_BEFORE_SLEEP; i++) {
        if (has_work(copier))
            return;
    }
    pthread_mutex_lock(&copier->mutex);
    atomic_fetch_add(&copier->sleepers, 1);
    while (!has_work(copier))
        pthread_cond_wait(&copier->bell, &copier->mutex);
    atomic_fetch_sub(&copier->sleepers, 1);
    pthread_mutex_unlock(&copier->mutex);
}

static void *copy_all(void *argument)
{
    struct copier *copier = argument;
    while (!atomic_load(&copier->ending)) {
        while (copy_next(copier))
            ;
        sleep_until_work(copier);
    }
    return NULL;
}

unsigned copier_spare_threads(unsigned copiers)
{
    cpu_set_t set;
    const int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    const unsigned threads = (unsigned)cores / CORES_A_THREAD / copiers;
    return threads < 1 ? 1 : threads > SPARE_THREADS ? SPARE_THREADS : threads;
}

/* Signals are the main thread's, but for those that an instruction of its own gives to the thread that copies. */
static int create_thread(struct copier *copier, pthread_t *thread)
{
    static const int own[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset(&blocked, own[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    const int rc = pthread_create(thread, NULL, copy_all, copier);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int copier_create(struct copier **copier, unsigned threads)
{
    struct copier *c = *copier = aligned_alloc(alignof(struct copier), sizeof *c);
    if (c == NULL)
        return -ENOMEM;
    memset(c, 0, sizeof *c);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->bell, NULL);
    if (threads == 0)
        threads = copier_spare_threads(1);
    while (c->threads_count + 1 < threads && c->threads_count < COPIER_MAX_THREADS &&
           create_thread(c, &c->threads[c->threads_count]) == 0)
        pthread_setname_np(c->threads[c->threads_count++], "copier");
    return 0;
}

static void wake(struct copier *copier)
{
    pthread_mutex_lock(&copier->mutex);
    pthread_cond_broadcast(&copier->bell);
    pthread_mutex_unlock(&copier->mutex);
}

void copier_destroy(struct copier **copier)
{
    struct copier *c = *copier;
    if (c == NULL)
        return;
    atomic_store(&c->ending, true);
    wake(c);
    for (unsigned i = 0; i < c->threads_count; i++)
        pthread_join(c->threads[i], NULL);
    pthread_cond_destroy(&c->bell);
    pthread_mutex_destroy(&c->mutex);
    free(c);
    *copier = NULL;
}

unsigned copier_threads(const struct copier *copier)
{
    return copier->threads_count + 1;
}

uint64_t copier_offer(struct copier *copier, void *to, const void *from, size_t bytes)
{
    const uint64_t position = atomic_load_explicit(&copier->offered, memory_order_relaxed);
    struct piece *piece = &copier->pieces[position % COPIER_PIECES];
    assert(position < COPIER_PIECES || atomic_load(&piece->copied) == position - COPIER_PIECES + 1);
    piece->to = to;
    piece->from = from;
    piece->bytes = bytes;
    atomic_store(&copier->offered, position + 1);
    if (bytes >= WORTH_A_WAKE_UP && atomic_load(&copier->sleepers) > 0)
        wake(copier);
    return position;
}

void copier_wait(struct copier *copier, uint64_t position)
{
    const struct piece *piece = &copier->pieces[position % COPIER_PIECES];
    while (atomic_load_explicit(&piece->copied, memory_order_acquire) < position + 1) {
        if (!copy_next(copier))
            sched_yield(); /* another thread is at it */
    }
}

void copier_wait_all(struct copier *copier)
{
    const uint64_t offered = atomic_load_explicit(&copier->offered, memory_order_relaxed);
    if (offered > copier->settled + COPIER_PIECES)
        copier->settled = offered - COPIER_PIECES; /* an offer found each of these places free */
    while (copier->settled < offered)
        copier_wait(copier, copier->settled++);
}

/* What others have begun cannot be taken back: where one of them is not on a core, the caller, who may be everybody's
 * only thread, would wait for a time slice, again and again. */
static void wait_for_others(struct copier *copier)
{
    while (copy_next(copier))
        ;
    const uint64_t began_ns = clock_now_ns();
    copier_wait_all(copier);
    if (clock_now_ns() - began_ns > HELD_UP_NS)
        copier->copies_alone = COPIES_ALONE;
}

static bool is_for_the_caller(struct copier *copier, size_t bytes)
{
    if (!copier || copier->threads_count == 0 || bytes < COPIER_ALONE)
        return true;
    if (copier->copies_alone == 0)
        return false;
    copier->copies_alone--;
    return true;
}

void copier_copy(struct copier *copier, void *to, const void *from, size_t bytes)
{
    unsigned char *at = to;
    const unsigned char *next = from;
    if (is_for_the_caller(copier, bytes)) {
        memcpy(to, from, bytes);
        return;
    }
    const size_t equal = bytes / ((size_t)SHARES * copier_threads(copier));
    const size_t share = equal < WORTH_A_WAKE_UP ? WORTH_A_WAKE_UP : (equal + 4095) / 4096 * 4096;
    for (size_t left = bytes, part; left > 0; left -= part, at += part, next += part) {
        part = left < share ? left : share;
        copier_offer(copier, at, next, part);
    }
    wait_for_others(copier);
}
