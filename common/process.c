#include "common/process.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"

enum { KEEP_BYTES = 1 << 30, KEEP_BYTES_OLD_GLIBC = 32 << 20 };

static atomic_bool stopping;
static int stop_fd = -1;
static _Atomic(_Atomic uint32_t *) stop_word;
static atomic_uint handlers_running;

/* Only system calls and lock-free atomics: async-signal-safe. The flag comes first, so that whoever is woken sees it.
 */
static void on_stop_signal(int signal_number)
{
    if (atomic_exchange(&stopping, true))
        _exit(128 + signal_number);
    const int saved_errno = errno;
    const uint64_t one = 1;
    atomic_fetch_add(&handlers_running, 1);
    if (write(stop_fd, &one, sizeof one) < 0) {
        /* The counter is never read, so it cannot be full; the flag is set in any case. */
    }
    _Atomic uint32_t *word = atomic_load(&stop_word);
    if (word) {
        atomic_fetch_add(word, 1);
        (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }
    atomic_fetch_sub(&handlers_running, 1);
    errno = saved_errno;
}

static int catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_stop_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGTERM, &action, NULL) != 0 || sigaction(SIGINT, &action, NULL) != 0)
        return -errno;
    action.sa_handler = SIG_IGN;
    return sigaction(SIGPIPE, &action, NULL) == 0 ? 0 : -errno;
}

int process_init(const char *program)
{
    /* Refused by C libraries that know a limit of half an arena; sanitizers' allocators ignore both. */
    if (!mallopt(M_MMAP_THRESHOLD, KEEP_BYTES))
        (void)mallopt(M_MMAP_THRESHOLD, KEEP_BYTES_OLD_GLIBC);
    (void)mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
    if (stop_fd < 0)
        stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const int rc = stop_fd < 0 ? -errno : catch_signals();
    if (rc < 0)
        log_error("%s cannot set up its signals: %s", program, strerror(-rc));
    return rc;
}

bool process_stopping(void)
{
    return atomic_load(&stopping);
}

int process_stop_fd(void)
{
    return stop_fd;
}

void process_stop_futex(_Atomic uint32_t *word)
{
    atomic_store(&stop_word, word);
    /* A handler in another thread may have the old word in hand; it is done in a moment, and its caller may then unmap
     * that word. A handler in this thread has ended before we go on. */
    while (atomic_load(&handlers_running) != 0)
        ;
}

void process_raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}
