/* The log: lines on stderr, for supervisord and for people. Any thread; a line is one write(2). */
#ifndef EXPERTD_COMMON_LOG_H
#define EXPERTD_COMMON_LOG_H

#include <stddef.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Sets the name that leads each line (kept, not copied) and the least important level that is written. */
void log_open(const char *program, enum log_level level);
/* "error", "warning", "info", "debug" to a level; -EINVAL for anything else. */
int log_level_parse(const char *name, enum log_level *level);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* From here on the first error is also copied to `text`, until log_divert(NULL, 0): for one who asked for what failed
 * and is to be told why. One at a time, and what any thread logs. */
void log_divert(char *text, size_t size);

/* For what a client or a peer can cause at will: at most one line a second per place, with the number left out.
 *     static struct log_burst burst;
 *     if (log_burst_allows(&burst)) log_warning("... (%u more like it)", burst.suppressed_before); */
struct log_burst {
    unsigned long long last_ns;
    unsigned suppressed;
    unsigned suppressed_before; /* how many were left out before the line that is now allowed */
};
int log_burst_allows(struct log_burst *burst);

#endif
