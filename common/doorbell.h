/* Doorbells: how a process that sleeps is told that there is work in shared memory.
 *
 * Both kinds follow one protocol, and every waiter in the project uses it:
 *     waiter:  reset; set sleeping (seq_cst); look for work once more; sleep; clear sleeping.
 *     ringer:  publish the work (release); fence (seq_cst); if sleeping was set, clear it and ring.
 * A wake-up is not lost: either the ringer's load sees `sleeping` set and rings, or the waiter's look, which comes
 * after its store in the one total order of seq_cst operations, sees the work. Ringing twice, or for nothing, is
 * harmless. A ringer makes no system call when the other side is awake. A ringer that is killed between clearing and
 * ringing has taken the ring with it: so a waiter never sleeps longer than some bound (its heartbeat's period), and
 * looks again.
 *
 * The runtime sleeps on a futex word in the control segment. The frontend sleeps in a poll together with ZeroMQ, so its
 * bell is a FIFO <run_dir>/<server>.frontend.bell: unlike an eventfd, two unrelated processes can open it by name. */
#ifndef EXPERTD_COMMON_DOORBELL_H
#define EXPERTD_COMMON_DOORBELL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A sleeper's word in shared memory; alone in its cache line. */
struct doorbell_word {
    _Alignas(64) _Atomic uint32_t bell; /* futex: changes at every ring */
    _Atomic uint32_t sleeping;          /* 1 while the owner sleeps, or is about to */
};

/* Waiter, futex kind. prepare: returns the ticket for sleep and sets `sleeping`; then look for work; then either
 * cancel, or sleep until a ring, a signal or deadline_ns (UINT64_MAX: none). */
uint32_t doorbell_prepare(struct doorbell_word *word);
void doorbell_cancel(struct doorbell_word *word);
void doorbell_sleep(struct doorbell_word *word, uint32_t ticket, uint64_t deadline_ns);
/* Ringer, futex kind; call after the work is published. */
void doorbell_ring(struct doorbell_word *word);

/* FIFO kind. The waiter opens (and makes, mode 0600) the FIFO; ringers open it when it exists; it is
 * never removed, so that a ringer's descriptor outlives a frontend. 0600, O_RDWR, non-blocking.
 * A descriptor or -errno. */
int doorbell_fifo_create(const char *run_dir, const char *server);
int doorbell_fifo_open(const char *run_dir, const char *server);
/* Waiter, now and then: whether the name still leads to *fd. 0: it does; 1: it was removed, and *fd is a new one, which
 * the ringers have to open; -errno: there can be none as yet, and *fd stays. */
int doorbell_fifo_keep(int *fd, const char *run_dir, const char *server);
/* Ringer: rings fd if *sleeping was set, and clears it. fd -1 is no-one. A full FIFO is a bell that rings already. */
void doorbell_fifo_ring(int fd, _Atomic uint32_t *sleeping);
/* Waiter: takes all rings out. */
void doorbell_fifo_drain(int fd);

#endif
