#include "common/doorbell.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

_Static_assert(sizeof(struct doorbell_word) == 64, "a cache line, and the same in every process");
_Static_assert(sizeof(_Atomic uint32_t) == sizeof(uint32_t), "a futex word is 32 bits");

/* Why no wake-up is lost, futex kind (the header has the argument for the flag itself). A ringer first takes `sleeping`
 * from 1 to 0 and then changes `bell`. The waiter reads its ticket BEFORE it sets `sleeping`, so the change made by any
 * ringer that found the flag set comes after the ticket: either the kernel sees bell != ticket and does not sleep, or
 * the waiter is queued already and the wake finds it. The other order (ring, then clear) could clear the flag of the
 * waiter's next sleep. */

uint32_t doorbell_prepare(struct doorbell_word *word)
{
    const uint32_t ticket = atomic_load_explicit(&word->bell, memory_order_acquire);
    /* Pairs with the fence in must_ring: the look for work that follows cannot move above this store. */
    atomic_store_explicit(&word->sleeping, 1, memory_order_seq_cst);
    atomic_thread_fence(memory_order_seq_cst);
    return ticket;
}

void doorbell_cancel(struct doorbell_word *word)
{
    atomic_store_explicit(&word->sleeping, 0, memory_order_relaxed);
}

void doorbell_sleep(struct doorbell_word *word, uint32_t ticket, uint64_t deadline_ns)
{
    const struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                                      .tv_nsec = (long)(deadline_ns % NS_PER_S)};
    /* Not FUTEX_PRIVATE: the ringer is another process. WAIT_BITSET takes an absolute CLOCK_MONOTONIC time. Every
     * result (rung, bell != ticket, signal, deadline) means the same to the caller: look again. */
    (void)syscall(SYS_futex, &word->bell, FUTEX_WAIT_BITSET, ticket, deadline_ns == UINT64_MAX ? NULL : &deadline, NULL,
                  FUTEX_BITSET_MATCH_ANY);
    doorbell_cancel(word);
}

/* The ringer's half of the protocol; true for the one ringer that has to ring. */
static bool must_ring(_Atomic uint32_t *sleeping)
{
    /* Pairs with the seq_cst store in doorbell_prepare, and the like one in front of a poll. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(sleeping, memory_order_relaxed) == 0)
        return false;
    return atomic_exchange_explicit(sleeping, 0, memory_order_acq_rel) != 0;
}

void doorbell_ring(struct doorbell_word *word)
{
    if (!must_ring(&word->sleeping))
        return;
    atomic_fetch_add_explicit(&word->bell, 1, memory_order_release);
    (void)syscall(SYS_futex, &word->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static int fifo_path(char path[PATH_MAX], const char *run_dir, const char *server)
{
    const int n = snprintf(path, PATH_MAX, "%s/%s.frontend.bell", run_dir, server);
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* O_RDWR on both sides: opening never blocks or fails for want of the other side, and no side sees the end of file when
 * the other one dies. */
static int fifo_open(const char *path)
{
    struct stat info;
    const int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &info) == 0 && S_ISFIFO(info.st_mode) && info.st_uid == geteuid())
        return fd;
    close(fd);
    return -EPERM;
}

int doorbell_fifo_create(const char *run_dir, const char *server)
{
    char path[PATH_MAX];
    const int rc = fifo_path(path, run_dir, server);
    if (rc < 0)
        return rc;
    /* One that is left over is taken as it is: ringers that outlived the last frontend have it open. */
    if (mkfifo(path, S_IRUSR | S_IWUSR) != 0 && errno != EEXIST)
        return -errno;
    const int fd = fifo_open(path);
    if (fd >= 0)
        doorbell_fifo_drain(fd);
    return fd;
}

int doorbell_fifo_open(const char *run_dir, const char *server)
{
    char path[PATH_MAX];
    const int rc = fifo_path(path, run_dir, server);
    return rc < 0 ? rc : fifo_open(path);
}

int doorbell_fifo_keep(int *fd, const char *run_dir, const char *server)
{
    char path[PATH_MAX];
    struct stat named, held;
    const int rc = fifo_path(path, run_dir, server);
    if (rc < 0)
        return rc;
    if (lstat(path, &named) == 0 && fstat(*fd, &held) == 0 && named.st_ino == held.st_ino &&
        named.st_dev == held.st_dev)
        return 0;
    const int made = doorbell_fifo_create(run_dir, server);
    if (made < 0)
        return made;
    close(*fd);
    *fd = made;
    return 1;
}

void doorbell_fifo_ring(int fd, _Atomic uint32_t *sleeping)
{
    /* Without a bell the flag stays set, for whoever has one. */
    if (fd < 0 || !must_ring(sleeping))
        return;
    if (write(fd, "!", 1) < 0) {
        /* EAGAIN: full, so it is readable, so the waiter does not sleep. */
    }
}

void doorbell_fifo_drain(int fd)
{
    char rings[4096];
    while (read(fd, rings, sizeof rings) == (ssize_t)sizeof rings)
        ;
}
