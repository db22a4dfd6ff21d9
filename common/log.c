#include "common/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

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

static void divert(const char *message, size_t length)
{
    pthread_mutex_lock(&diverted.mutex);
    if (diverted.text && !diverted.text[0])
        snprintf(diverted.text, diverted.size, "%.*s", (int)length, message);
    pthread_mutex_unlock(&diverted.mutex);
}

void log_write(enum log_level level, const char *format, ...)
{
    if (level > least_level)
        return;
    const int saved_errno = errno;
    char line[2048];
    struct timespec now;
    struct tm local;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    size_t used = strftime(line, sizeof line, "%Y-%m-%d %H:%M:%S", &local);
    used += (size_t)snprintf(line + used, sizeof line - used, ".%03ld %s[%d] %s: ", now.tv_nsec / 1000000, program_name,
                             (int)getpid(), level_names[level]);
    const size_t lead = used;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    used = n < 0 ? used : used + (size_t)n < sizeof line - 2 ? used + (size_t)n : sizeof line - 2;
    /* What a client sent may be in the line: it must not be able to write a second one, or drive a terminal. */
    for (size_t i = 0; i < used; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    if (level == LOG_LEVEL_ERROR)
        divert(line + lead, used - lead);
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, used) < 0) {
        /* Nobody is left to tell. */
    }
    errno = saved_errno;
}

int log_burst_allows(struct log_burst *burst)
{
    const uint64_t now = clock_now_ns();
    if (burst->last_ns && now - burst->last_ns < NS_PER_S) {
        burst->suppressed++;
        return 0;
    }
    burst->last_ns = now;
    burst->suppressed_before = burst->suppressed;
    burst->suppressed = 0;
    return 1;
}
