#include "command/supervisor.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/process.h"

enum { STATUS_CANNOT_START = 1, STATUS_USAGE = 2, STATUS_NO_PROGRAM = 127, SIGNAL_STATUS = 128 };

const struct supervisor_limits supervisor_default_limits = {250 * NS_PER_MS, 30 * NS_PER_S, 60 * NS_PER_S};

struct program {
    char *name;
    char **argv;     /* one block with its strings */
    pid_t pid;       /* 0: not running */
    bool ran_before; /* and ended */
    uint64_t started_ns, due_ns, pause_ns;
};

struct supervisor {
    struct supervisor_limits limits;
    struct program *programs;
    unsigned count, running;
    int child_fd; /* readable when a child has ended */
    bool ending;
    int status;
};

int supervisor_create(struct supervisor **supervisor, const struct supervisor_limits *limits)
{
    struct supervisor *made = *supervisor = calloc(1, sizeof *made);
    sigset_t ended;
    if (!made)
        return -ENOMEM;
    made->limits = *limits;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ended, NULL);
    made->child_fd = signalfd(-1, &ended, SFD_CLOEXEC | SFD_NONBLOCK);
    if (made->child_fd >= 0)
        return 0;
    const int result = -errno;
    free(made);
    *supervisor = NULL;
    return result;
}

static char **copy_argv(const char *const *argv)
{
    size_t count = 0, bytes = 0;
    for (; argv[count]; count++)
        bytes += strlen(argv[count]) + 1;
    char **copy = malloc((count + 1) * sizeof *copy + bytes);
    char *text = copy ? (char *)(copy + count + 1) : NULL;
    for (size_t i = 0; copy && i < count; i++) {
        const size_t size = strlen(argv[i]) + 1;
        copy[i] = memcpy(text, argv[i], size);
        text += size;
    }
    if (copy)
        copy[count] = NULL;
    return copy;
}

int supervisor_add(struct supervisor *supervisor, const char *name, const char *const *argv)
{
    struct program *programs = realloc(supervisor->programs, (supervisor->count + 1) * sizeof *programs);
    if (!programs)
        return -ENOMEM;
    supervisor->programs = programs;
    struct program *program = &programs[supervisor->count];
    *program = (struct program){.name = strdup(name), .argv = copy_argv(argv)};
    if (!program->name || !program->argv) {
        free(program->name);
        free(program->argv);
        return -ENOMEM;
    }
    program->due_ns = clock_now_ns();
    program->pause_ns = supervisor->limits.first_pause_ns;
    supervisor->count++;
    return 0;
}

/* The child, with all signals blocked: one that comes now would be taken by our handler, and never reach the program. A
 * supervisor that is killed takes its programs along, which then save what they have: by SIGHUP, which does not hurry
 * those that are saving already (common/process.c), unless that is ignored. */
static void become(const struct program *program, pid_t parent)
{
    static const int caught[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action;
    sigset_t none;
    int farewell = SIGHUP;
    for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++) {
        const bool ignored = sigaction(caught[i], NULL, &action) == 0 && action.sa_handler == SIG_IGN;
        if (!ignored)
            signal(caught[i], SIG_DFL);
        else if (caught[i] == SIGHUP)
            farewell = SIGTERM;
    }
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, (unsigned long)farewell);
    if (getppid() == parent)
        execv(program->argv[0], program->argv);
    log_error("cannot start %s: %s", program->argv[0], strerror(errno));
    _exit(STATUS_NO_PROGRAM);
}

static void start(struct supervisor *supervisor, struct program *program, uint64_t now_ns)
{
    const pid_t parent = getpid();
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    const pid_t pid = fork();
    if (pid == 0)
        become(program, parent);
    sigprocmask(SIG_SETMASK, &before, NULL);
    program->started_ns = now_ns;
    if (pid > 0) {
        program->pid = pid;
        supervisor->running++;
        return;
    }
    log_error("cannot start %s: %s", program->name, strerror(errno));
    program->due_ns = now_ns + program->pause_ns;
}

static void end_all(struct supervisor *supervisor, int status)
{
    if (supervisor->status == 0)
        supervisor->status = status;
    if (supervisor->ending)
        return;
    supervisor->ending = true;
    for (unsigned i = 0; i < supervisor->count; i++)
        if (supervisor->programs[i].pid > 0)
            kill(supervisor->programs[i].pid, SIGTERM);
}

/* When it is to be started again. */
static void schedule(struct supervisor *supervisor, struct program *program, const char *how, int number,
                     uint64_t now_ns)
{
    if (now_ns - program->started_ns >= supervisor->limits.well_ns)
        program->pause_ns = supervisor->limits.first_pause_ns;
    program->due_ns = now_ns + program->pause_ns;
    log_warning("%s has ended (%s %d): starts again in %" PRIu64 " ms", program->name, how, number,
                program->pause_ns / NS_PER_MS);
    program->pause_ns = 2 * program->pause_ns < supervisor->limits.longest_pause_ns
                            ? 2 * program->pause_ns
                            : supervisor->limits.longest_pause_ns;
}

static void on_end(struct supervisor *supervisor, struct program *program, int wait_status)
{
    const bool killed = WIFSIGNALED(wait_status);
    const int number = killed ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
    /* One that was well for a while could start: what ends it now (a name or a role that it has lost) may pass. */
    const bool first = !program->ran_before && clock_now_ns() - program->started_ns < supervisor->limits.well_ns;
    program->pid = 0;
    program->ran_before = true;
    supervisor->running--;
    if (supervisor->ending || process_stopping()) {
        /* One that SIGTERM kills was not up yet, and has nothing to lose. */
        const bool early = killed && number == SIGTERM;
        if (number && !early) {
            log_warning("%s has ended with %s %d", program->name, killed ? "signal" : "exit status", number);
            end_all(supervisor, killed ? SIGNAL_STATUS + number : number);
        }
        return;
    }
    /* What has run before may again when somebody has mended its configuration, or the upgrade is over; and the others
     * need not end for it. */
    const bool hopeless =
        first && !killed && (number == STATUS_USAGE || number == STATUS_NO_PROGRAM || number == STATUS_CANNOT_START);
    if (hopeless) {
        log_error("%s cannot start (exit status %d): ending all", program->name, number);
        end_all(supervisor, number);
    } else {
        schedule(supervisor, program, killed ? "signal" : "exit status", number, clock_now_ns());
    }
}

static void reap(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;
    int status;
    while (read(supervisor->child_fd, &info, sizeof info) > 0)
        ;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (unsigned i = 0; i < supervisor->count; i++)
            if (supervisor->programs[i].pid == pid)
                on_end(supervisor, &supervisor->programs[i], status);
}

/* Starts what is due; until when there is nothing to do. */
static uint64_t start_due(struct supervisor *supervisor)
{
    uint64_t next_ns = UINT64_MAX;
    for (unsigned i = 0; i < supervisor->count && !supervisor->ending; i++) {
        struct program *program = &supervisor->programs[i];
        const uint64_t now_ns = clock_now_ns();
        if (program->pid == 0 && program->due_ns <= now_ns)
            start(supervisor, program, now_ns);
        if (program->pid == 0 && program->due_ns < next_ns)
            next_ns = program->due_ns;
    }
    return next_ns;
}

int supervisor_run(struct supervisor *supervisor)
{
    struct pollfd items[] = {{.fd = supervisor->child_fd, .events = POLLIN},
                             {.fd = process_stop_fd(), .events = POLLIN}};
    for (;;) {
        if (process_stopping())
            end_all(supervisor, 0);
        const uint64_t next_ns = start_due(supervisor);
        if (supervisor->ending && supervisor->running == 0)
            return supervisor->status;
        const uint64_t now_ns = clock_now_ns();
        const uint64_t wait_ms = next_ns <= now_ns ? 0 : (next_ns - now_ns) / NS_PER_MS + 1;
        /* Once it is seen, the stop signal would be there for ever. */
        (void)poll(items, supervisor->ending ? 1 : 2, next_ns == UINT64_MAX || wait_ms > INT32_MAX ? -1 : (int)wait_ms);
        reap(supervisor);
    }
}

void supervisor_destroy(struct supervisor **supervisor)
{
    struct supervisor *old = *supervisor;
    *supervisor = NULL;
    if (!old)
        return;
    for (unsigned i = 0; i < old->count; i++) {
        free(old->programs[i].name);
        free(old->programs[i].argv);
    }
    free(old->programs);
    close(old->child_fd);
    free(old);
}
