/* Process life: every program of the group starts, stops and is refused in the same way.
 *
 * SIGTERM, SIGINT and SIGHUP (the terminal was closed) ask for a clean end. What ends a group tells its processes more
 * than once, so a SIGTERM or SIGINT ends the process at once, with a line in the log and 128 + signal, only when it
 * comes 3 s after the first signal or later, or is the terminal's second ^C. SIGHUP stays ignored where it was (nohup).
 * SIGPIPE and SIGXFSZ are ignored: they are errors of the calls. Large heap blocks are kept by the process
 * (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD), since giving them back costs a page fault per page at the next use. One thread,
 * at start, before any other is created. */
#ifndef EXPERTD_COMMON_PROCESS_H
#define EXPERTD_COMMON_PROCESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Opens /dev/null in the place of standard input, output and error where one is closed: else the next file that is
 * opened would get what is printed and logged. */
void process_open_standard(void);
/* Sets all of the above up. The stop signals are then caught by a handler that is async-signal-safe. */
int process_init(const char *program);
/* From now on a thread of its own takes the stop signals, and all others block them, and SIGPIPE and SIGXFSZ: those
 * that are made after this call. For a process that loads a driver whose compiler (LLVM) puts its own handlers over
 * ours: such a handler takes one signal, and leaves the next one that comes meanwhile to its default, which is the
 * process's end. No handler takes a blocked signal. After process_init; 0, or -errno, which is logged. */
int process_take_signals(void);
/* True once a stop signal has come. Any thread. */
bool process_stopping(void);
/* A descriptor that becomes readable (and stays so) at a stop signal: for a poll set. */
int process_stop_fd(void);
/* A futex word in shared memory or here, that the handler increments and wakes at a stop signal: for a process that
 * sleeps on a futex. The word must outlive the process's use; NULL takes it back. */
void process_stop_futex(_Atomic uint32_t *word);
/* As many open files as the system lets this process have: for programs whose clients are files. */
void process_raise_file_limit(void);
/* The same, and -EMFILE if that is less than `least`, which is logged: ZeroMQ ends a process that has too few. */
int process_need_files(unsigned least);
/* Whether so many threads can be made, by making them: ZeroMQ ends a process also where it cannot have one. 0, or
 * -errno, which is logged. */
int process_need_threads(unsigned least);

#endif
