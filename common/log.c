#include "common/log.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/uid.h"
#include "common/utf8.h"

static const char *program_name = "expertd";
static enum log_level least_level = LOG_LEVEL_INFO;
static const char *const level_names[] = {"error", "warning", "info", "debug"};

void log_open(const char *program, enum log_level level)
{
    program_name = program;
    least_level = level;
}

int log_level_parse(const char *name, enum log_level *level)
{
    for (int i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++)
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return 0;
        }
    return -EINVAL;
}

static struct {
    pthread_mutex_t mutex;
    char *text; /* NULL: nobody is to be told */
    size_t size;
} diverted = {.mutex = PTHREAD_MUTEX_INITIALIZER};

void log_divert(char *text, size_t size)
{
    pthread_mutex_lock(&diverted.mutex);
    diverted.text = text;
    diverted.size = size;
    if (text)
        text[0] = 0;
    pthread_mutex_unlock(&diverted.mutex);
}

static void divert(const char *message)
{
    pthread_mutex_lock(&diverted.mutex);
    if (diverted.text && !diverted.text[0])
        snprintf(diverted.text, diverted.size, "%s", message);
    pthread_mutex_unlock(&diverted.mutex);
}

static enum log_format line_format = LOG_FORMAT_TEXT;

void log_set_format(enum log_format format)
{
    line_format = format;
}

enum log_format log_get_format(void)
{
    return line_format;
}

int log_format_parse(const char *name, enum log_format *format)
{
    static const char *const names[] = {"text", "logfmt", "json"};
    for (int i = LOG_FORMAT_TEXT; i <= LOG_FORMAT_JSON; i++)
        if (strcmp(name, names[i]) == 0) {
            *format = (enum log_format)i;
            return 0;
        }
    return -EINVAL;
}

/* --- a line ----------------------------------------------------------------------------------------------------------
 */

enum { MESSAGE_SIZE = 1920, LINE_SIZE = 2 * MESSAGE_SIZE + 256 };

static size_t add_lead(char *line, size_t size, enum log_level level)
{
    char date[40];
    struct timespec now;
    struct tm broken;
    const bool text = line_format == LOG_FORMAT_TEXT;
    clock_gettime(CLOCK_REALTIME, &now);
    if (text)
        localtime_r(&now.tv_sec, &broken);
    else
        gmtime_r(&now.tv_sec, &broken);
    strftime(date, sizeof date, text ? "%Y-%m-%d %H:%M:%S" : "%Y-%m-%dT%H:%M:%S", &broken);
    static const char *const formats[] = {
        [LOG_FORMAT_TEXT] = "%s.%03ld %s[%d] %s: ",
        [LOG_FORMAT_LOGFMT] = "time=%s.%03ldZ program=\"%s\" pid=%d level=%s msg=\"",
        [LOG_FORMAT_JSON] = "{\"time\":\"%s.%03ldZ\",\"program\":\"%s\",\"pid\":%d,\"level\":\"%s\",\"msg\":\""};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return (size_t)snprintf(line, size, formats[line_format], date, now.tv_nsec / 1000000, program_name, (int)getpid(),
                            level_names[level]);
#pragma GCC diagnostic pop
}

/* What a client sent may be in the message: it must not be able to write a second line, or drive a terminal. */
static void clean(char *message)
{
    for (; *message; message++)
        if ((unsigned char)*message < ' ' || *message == 0x7f)
            *message = '?';
}

/* Nor to end the string that it stands in. */
static size_t add_message(char *line, const char *message)
{
    size_t used = 0;
    for (const unsigned char *at = (const unsigned char *)message; *at;) {
        uint32_t character;
        const size_t length = line_format == LOG_FORMAT_TEXT ? 1 : utf8_decode(at, &character);
        if (line_format != LOG_FORMAT_TEXT && (*at == '"' || *at == '\\'))
            line[used++] = '\\';
        if (length == 0) {
            line[used++] = '?';
            at++;
            continue;
        }
        memcpy(line + used, at, length);
        used += length;
        at += length;
    }
    return used;
}

static struct {
    pthread_mutex_t mutex;
    struct log_burst *first;
    _Atomic unsigned pending; /* something was left out, and not said yet */
} bursts = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* The cause that this thread's next line is of. */
static _Thread_local struct log_burst_cause *spoken_for;

static void keep_text(struct log_burst_cause *cause, const char *message)
{
    pthread_mutex_lock(&bursts.mutex);
    snprintf(cause->text, sizeof cause->text, "%.*s", LOG_BURST_TEXT - 1, message);
    pthread_mutex_unlock(&bursts.mutex);
}

static size_t add_text(char *line, const char *text)
{
    return (size_t)(stpcpy(line, text) - line);
}

/* As far as they fit; those that are no numbers are left out, as JSON has none. */
static size_t add_numbers(char *line, size_t size, const struct log_number *numbers, size_t count)
{
    size_t used = 0;
    for (size_t i = 0; i < count && line_format != LOG_FORMAT_TEXT; i++) {
        char text[96];
        const int length =
            snprintf(text, sizeof text, line_format == LOG_FORMAT_JSON ? ",\"%.48s\":%.15g" : " %.48s=%.15g",
                     numbers[i].name, numbers[i].value);
        if (!isfinite(numbers[i].value) || used + (size_t)length > size)
            continue;
        memcpy(line + used, text, (size_t)length);
        used += (size_t)length;
    }
    return used;
}

static void write_line(enum log_level level, const char *message, const struct log_number *numbers, size_t count)
{
    static const char *const quotes[] = {"", "\"", "\""}, *const ends[] = {"\n", "\n", "}\n"};
    char line[LINE_SIZE];
    size_t used = add_lead(line, 256, level);
    if (used > 250)
        used = 250; /* a program's name that long is not ours */
    used += add_message(line + used, message);
    if (level == LOG_LEVEL_ERROR)
        divert(message);
    used += add_text(line + used, quotes[line_format]);
    used += add_numbers(line + used, sizeof line - used - 4, numbers, count);
    used += add_text(line + used, ends[line_format]);
    if (write(STDERR_FILENO, line, used) < 0) {
        /* Nobody is left to tell. */
    }
}

void log_write(enum log_level level, const char *format, ...)
{
    struct log_burst_cause *cause = spoken_for;
    spoken_for = NULL;
    if (level > least_level)
        return;
    const int saved_errno = errno;
    char message[MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    if (vsnprintf(message, sizeof message, format, args) < 0)
        message[0] = 0;
    va_end(args);
    clean(message);
    if (cause)
        keep_text(cause, message);
    write_line(level, message, NULL, 0);
    errno = saved_errno;
}

void log_numbers(enum log_level level, const char *what, const struct log_number *numbers, size_t count,
                 const char *format, ...)
{
    if (level > least_level)
        return;
    const int saved_errno = errno;
    char message[MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    if (line_format != LOG_FORMAT_TEXT)
        snprintf(message, sizeof message, "%s", what);
    else if (vsnprintf(message, sizeof message, format, args) < 0)
        message[0] = 0;
    va_end(args);
    clean(message);
    write_line(level, message, numbers, count);
    errno = saved_errno;
}

/* --- bursts ----------------------------------------------------------------------------------------------------------
 */

/* Where the cause is, or could be: of its own, unused, or the one that was quiet the longest. */
static struct log_burst_cause *find(struct log_burst *burst, unsigned long long cause)
{
    struct log_burst_cause *found = &burst->causes[0];
    for (int i = 0; i < LOG_BURST_CAUSES; i++) {
        struct log_burst_cause *other = &burst->causes[i];
        if (other->last_ns && other->cause == cause)
            return other;
        if (other->last_ns < found->last_ns)
            found = other;
    }
    return found;
}

static void leave_out(struct log_burst *burst, unsigned *count)
{
    ++*count;
    if (!burst->listed) {
        burst->next = bursts.first;
        bursts.first = burst;
        burst->listed = 1;
    }
    atomic_store_explicit(&bursts.pending, 1, memory_order_relaxed);
}

int log_burst_allows(struct log_burst *burst, unsigned *left_out, const char *cause)
{
    const uint64_t now = clock_now_ns();
    const unsigned long long which = uid_hash(cause, cause ? strlen(cause) : 0);
    pthread_mutex_lock(&bursts.mutex);
    struct log_burst_cause *place = find(burst, which);
    const bool known = place->last_ns && place->cause == which,
               fresh = place->last_ns && now - place->last_ns < NS_PER_S;
    if (fresh) {
        leave_out(burst, known ? &place->suppressed : &burst->others);
        pthread_mutex_unlock(&bursts.mutex);
        return 0;
    }
    if (!known)
        burst->others += place->suppressed; /* of a cause that gives up its place */
    if (left_out)
        *left_out = burst->others + (known ? place->suppressed : 0);
    burst->others = 0;
    *place = (struct log_burst_cause){.last_ns = now, .cause = which};
    spoken_for = place;
    pthread_mutex_unlock(&bursts.mutex);
    return 1;
}

/* What is to be said, copied under the lock. */
struct settled {
    unsigned count;
    bool others; /* than that of the text */
    char text[LOG_BURST_TEXT];
};

static void take(struct settled *settled, unsigned *count, const struct log_burst_cause *cause, bool others)
{
    settled->count = *count;
    settled->others = others;
    memcpy(settled->text, cause->text, sizeof settled->text);
    *count = 0;
}

/* Takes what is to be said of one burst; false: nothing is, and *more where something will be. */
static bool take_of(struct settled *settled, struct log_burst *burst, uint64_t now, bool *more)
{
    const struct log_burst_cause *last = &burst->causes[0];
    for (int i = 0; i < LOG_BURST_CAUSES; i++) {
        struct log_burst_cause *cause = &burst->causes[i];
        const bool quiet = now - cause->last_ns >= NS_PER_S;
        if (cause->last_ns > last->last_ns)
            last = cause;
        if (cause->suppressed > 0 && quiet) {
            take(settled, &cause->suppressed, cause, false);
            return true;
        }
        *more = *more || cause->suppressed > 0;
    }
    const bool all_quiet = now - last->last_ns >= NS_PER_S;
    if (burst->others > 0 && all_quiet) {
        take(settled, &burst->others, last, true);
        return true;
    }
    *more = *more || burst->others > 0;
    return false;
}

static bool take_settled(struct settled *settled, uint64_t now)
{
    bool more = false;
    for (struct log_burst *burst = bursts.first; burst; burst = burst->next)
        if (take_of(settled, burst, now, &more))
            return true;
    if (!more)
        atomic_store_explicit(&bursts.pending, 0, memory_order_relaxed);
    return false;
}

void log_bursts_settle(void)
{
    struct settled settled;
    while (atomic_load_explicit(&bursts.pending, memory_order_relaxed)) {
        pthread_mutex_lock(&bursts.mutex);
        const bool there = take_settled(&settled, clock_now_ns());
        pthread_mutex_unlock(&bursts.mutex);
        if (!there)
            return;
        if (settled.others)
            log_warning("%u more of other causes than this one within a second: %s", settled.count, settled.text);
        else
            log_warning("%u more like this one within a second: %s", settled.count, settled.text);
    }
}
