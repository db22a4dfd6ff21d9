#include "common/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

enum { KEEP_BYTES = 1 << 30, KEEP_BYTES_OLD_GLIBC = 32 << 20 };

/* One wish to end reaches a process several times: the terminal's ^C goes to the whole group, of which one then tells
 * the others; supervisors tell a group and each of it. So what follows within a moment says nothing new. */
static const uint64_t same_wish_ns = 3 * NS_PER_S;
/* A key that is held down repeats later than this after the first press, one that bounces sooner. */
static const uint64_t same_press_ns = 200 * NS_PER_MS;

static atomic_bool stopping;
static _Atomic uint64_t asked_ns; /* when the first stop signal came, and the first ^C of a terminal; 0: not yet */
static _Atomic uint64_t pressed_ns;
static char cut_short[192]; /* the line for a process that ends at once */
static size_t cut_short_length;
static int stop_fd = -1;
static _Atomic(_Atomic uint32_t *) stop_word;
static atomic_uint handlers_running;

/* A handler that was interrupted by another's has read the clock before that one has: its moment may be the earlier. */
static bool is_later(uint64_t now_ns, uint64_t than_ns, uint64_t by_ns)
{
    return now_ns > than_ns && now_ns - than_ns >= by_ns;
}

/* Whether this signal, which is not the first, is the wish of somebody who will not wait. */
static bool is_impatient(int signal_number, bool pressed, uint64_t now_ns)
{
    uint64_t none = 0;
    if (signal_number == SIGHUP) /* nobody hurries by leaving */
        return false;
    if (is_later(now_ns, atomic_load(&asked_ns), same_wish_ns))
        return true;
    return pressed && !atomic_compare_exchange_strong(&pressed_ns, &none, now_ns) &&
           is_later(now_ns, none, same_press_ns);
}

/* Only system calls and lock-free atomics: async-signal-safe. The flag comes first, so that whoever is woken sees it.
 */
static void on_stop_signal(int signal_number, siginfo_t *info, void *context)
{
    const int saved_errno = errno;
    const bool pressed = signal_number == SIGINT && info->si_code == SI_KERNEL; /* a terminal's key */
    const uint64_t one = 1, now_ns = clock_now_ns();
    uint64_t none = 0;
    (void)context;
    if (atomic_compare_exchange_strong(&asked_ns, &none, now_ns)) {
        if (pressed)
            atomic_store(&pressed_ns, now_ns);
    } else if (is_impatient(signal_number, pressed, now_ns)) {
        if (write(STDERR_FILENO, cut_short, cut_short_length) < 0) {
            /* Nobody is left to tell. */
        }
        _exit(128 + signal_number);
    }
    atomic_store(&stopping, true);
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

/* Whoever started the process may have decided that it outlives its terminal (nohup). */
static bool is_ignored(int signal_number)
{
    struct sigaction action;
    return sigaction(signal_number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static const int stop_signals[] = {SIGTERM, SIGINT, SIGHUP};

static int catch_signals(void)
{
    struct sigaction action = {.sa_sigaction = on_stop_signal, .sa_flags = SA_RESTART | SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof stop_signals / sizeof stop_signals[0]; i++) {
        if (stop_signals[i] == SIGHUP && is_ignored(SIGHUP))
            continue;
        if (sigaction(stop_signals[i], &action, NULL) != 0)
            return -errno;
    }
    /* A reader that went, and a file that may not grow any more (ulimit -f), are errors of the call. */
    action = (struct sigaction){.sa_handler = SIG_IGN};
    return sigaction(SIGPIPE, &action, NULL) == 0 && sigaction(SIGXFSZ, &action, NULL) == 0 ? 0 : -errno;
}

void process_open_standard(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

int process_init(const char *program)
{
    process_open_standard();
    /* Refused by C libraries that know a limit of half an arena; sanitizers' allocators ignore both. */
    if (!mallopt(M_MMAP_THRESHOLD, KEEP_BYTES))
        (void)mallopt(M_MMAP_THRESHOLD, KEEP_BYTES_OLD_GLIBC);
    (void)mallopt(M_TRIM_THRESHOLD, KEEP_BYTES);
    const int length =
        snprintf(cut_short, sizeof cut_short,
                 "%s[%d] warning: a second stop signal: ending at once, and what was not saved is lost\n", program,
                 (int)getpid());
    cut_short_length = length < 0 ? 0 : (size_t)length < sizeof cut_short ? (size_t)length : sizeof cut_short - 1;
    if (stop_fd < 0)
        stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const int rc = stop_fd < 0 ? -errno : catch_signals();
    if (rc < 0)
        log_error("%s cannot set up its signals: %s", program, strerror(-rc));
    return rc;
}

static sigset_t taken; /* by the thread of process_take_signals */

static void *take_signals(void *nothing)
{
    siginfo_t info;
    (void)nothing;
    for (;;)
        if (sigwaitinfo(&taken, &info) > 0)
            on_stop_signal(info.si_signo, &info, NULL);
    return NULL;
}

int process_take_signals(void)
{
    static const int errors_of_calls[] = {SIGPIPE, SIGXFSZ};
    sigset_t blocked;
    pthread_t thread;
    sigemptyset(&taken);
    for (size_t i = 0; i < sizeof stop_signals / sizeof stop_signals[0]; i++)
        if (!is_ignored(stop_signals[i])) /* one that is ignored (nohup) would be waited for all the same */
            sigaddset(&taken, stop_signals[i]);
    blocked = taken;
    sigaddset(&blocked, SIGHUP);
    for (size_t i = 0; i < sizeof errors_of_calls / sizeof errors_of_calls[0]; i++)
        sigaddset(&blocked, errors_of_calls[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    const int rc = -pthread_create(&thread, NULL, take_signals, NULL);
    if (rc == 0)
        return -pthread_detach(thread);
    pthread_sigmask(SIG_UNBLOCK, &blocked, NULL);
    log_error("no thread can be made for signals: %s (ulimit -u, ulimit -v, TasksMax)", strerror(-rc));
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

int process_need_files(unsigned least)
{
    struct rlimit limit;
    process_raise_file_limit();
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= least)
        return 0;
    log_error("the limit of open files is %llu; at least %u are needed (ulimit -n, LimitNOFILE)",
              (unsigned long long)limit.rlim_cur, least);
    return -EMFILE;
}

static void *wait_for_end(void *mutex)
{
    pthread_mutex_lock(mutex);
    pthread_mutex_unlock(mutex);
    return NULL;
}

int process_need_threads(unsigned least)
{
    enum { MOST = 512 };
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_t threads[MOST];
    unsigned made = 0;
    int rc = 0;
    pthread_mutex_lock(&mutex); /* so that all are there at once */
    while (rc == 0 && made < least && made < MOST) {
        rc = -pthread_create(&threads[made], NULL, wait_for_end, &mutex);
        made += rc == 0;
    }
    pthread_mutex_unlock(&mutex);
    for (unsigned i = 0; i < made; i++)
        pthread_join(threads[i], NULL);
    if (rc < 0)
        log_error("only %u threads can be made, and at least %u are needed: %s (ulimit -u, ulimit -v, TasksMax)", made,
                  least, strerror(-rc));
    return rc;
}

void process_raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}
