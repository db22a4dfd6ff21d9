/* The log: lines on stderr, for supervisord and for people. Any thread; a line is one write(2). */
#ifndef EXPERTD_COMMON_LOG_H
#define EXPERTD_COMMON_LOG_H

#include <stddef.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Sets the name that leads each line (kept, not copied) and the least important level that is written. */
void log_open(const char *program, enum log_level level);
/* "error", "warning", "info", "debug" to a level; -EINVAL for anything else. */
int log_level_parse(const char *name, enum log_level *level);

/* How lines look: text for people ("2026-11-30 01:45:00.123 expertd-dht[7] error: why"), logfmt (key=value) and JSON
 * for programs, both with time (RFC 3339, UTC), level, program, pid and msg. */
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };
void log_set_format(enum log_format format);
enum log_format log_get_format(void);
/* "text", "logfmt", "json" to a format; -EINVAL for anything else. */
int log_format_parse(const char *name, enum log_format *format);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* A line of numbers. For people it is the text; programs get `what` as msg, and a field for each number instead. */
struct log_number {
    const char *name; /* letters, digits and '_' */
    double value;
};
void log_numbers(enum log_level level, const char *what, const struct log_number *numbers, size_t count,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));

/* From here on the first error is also copied to `text`, until log_divert(NULL, 0): for one who asked for what failed
 * and is to be told why. One at a time, and what any thread logs. */
void log_divert(char *text, size_t size);

/* For what a client or a peer can cause at will: of each cause at most one line a second, with the number left out.
 *     static struct log_burst burst;
 *     unsigned left_out;
 *     if (log_burst_allows(&burst, &left_out, strerror(error))) log_warning("... (%u more like it)", left_out);
 * A cause is a text that tells errors of this place apart (it is not kept; NULL: there is one): none is left out for
 * another's sake, but where there are more than LOG_BURST_CAUSES in one second. Any thread. */
enum { LOG_BURST_CAUSES = 8, LOG_BURST_TEXT = 160 };
struct log_burst {
    struct log_burst_cause {
        unsigned long long last_ns; /* 0: unused */
        unsigned long long cause;
        unsigned suppressed;
        char text[LOG_BURST_TEXT]; /* of the line that was written, as far as it fits */
    } causes[LOG_BURST_CAUSES];
    unsigned others;        /* left out of causes that had no place */
    struct log_burst *next; /* of all that have left something out */
    int listed;
};
/* Whether the line may be written; if so, *left_out, unless NULL, is how many were left out since the last one. */
int log_burst_allows(struct log_burst *burst, unsigned *left_out, const char *cause);
/* Says of causes that have been quiet for a second how many lines of theirs were left out, and the same of all those
 * that had no place, once every cause of that burst is quiet. Call it now and then. */
void log_bursts_settle(void);

#endif
