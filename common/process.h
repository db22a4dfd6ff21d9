/* Process life: every program of the group starts, stops and is refused in the same way.
 *
 * SIGTERM and SIGINT ask for a clean end; a second one ends the process at once. SIGPIPE is ignored. Large heap blocks
 * are kept by the process (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD), since giving them back costs a page fault per page at
 * the next use. One thread, at start, before any other is created. */
#ifndef EXPERTD_COMMON_PROCESS_H
#define EXPERTD_COMMON_PROCESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Sets all of the above up. The stop signals are then caught by a handler that is async-signal-safe. */
int process_init(const char *program);
/* True once a stop signal has come. Any thread. */
bool process_stopping(void);
/* A descriptor that becomes readable (and stays so) at a stop signal: for a poll set. */
int process_stop_fd(void);
/* A futex word in shared memory or here, that the handler increments and wakes at a stop signal: for a process that
 * sleeps on a futex. The word must outlive the process's use; NULL takes it back. */
void process_stop_futex(_Atomic uint32_t *word);
/* As many open files as the system lets this process have: for programs whose clients are files. */
void process_raise_file_limit(void);

#endif
