#include "common/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

enum { SHARE = 4 };

static struct sockaddr_un address;
static socklen_t address_size; /* 0: nobody listens */
static int fd = -1;
static uint64_t every_ns, next_ns;

/* A path, or '@' and an abstract name, which has no end but its length. */
static bool set_address(const char *path)
{
    const size_t length = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || length < 2 || length >= sizeof address.sun_path)
        return false;
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path, length + 1);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (path[0] == '/'));
    return true;
}

static void take_watchdog(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    char *end = NULL;
    const unsigned long long time = usec ? strtoull(usec, &end, 10) : 0;
    const bool ours = !pid || strtoll(pid, NULL, 10) == (long long)getpid();
    if (usec && ours && *usec >= '0' && *usec <= '9' && *end == '\0' && time < UINT64_MAX / 1000)
        every_ns = time * 1000 / SHARE;
}

void notify_open(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    address_size = 0;
    every_ns = next_ns = 0;
    if (fd >= 0)
        close(fd);
    fd = -1;
    if (path && !set_address(path))
        log_warning("NOTIFY_SOCKET is '%s', which is no socket's address: nobody is told when this is ready", path);
    if (address_size > 0 && (fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0) {
        log_warning("cannot make a socket for NOTIFY_SOCKET: %s", strerror(errno));
        address_size = 0;
    }
    if (address_size > 0)
        take_watchdog();
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

static void send_text(const char *text)
{
    ssize_t n;
    if (address_size == 0)
        return;
    do
        n = sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&address, address_size);
    while (n < 0 && errno == EINTR);
    static struct log_burst burst;
    unsigned left_out = 0;
    if (n < 0 && log_burst_allows(&burst, &left_out, strerror(errno)))
        log_warning("cannot tell the supervisor: %s (%u more like it)", strerror(errno), left_out);
}

/* A line of the message's: one that ended earlier would begin another assignment. */
__attribute__((format(printf, 2, 0))) static void send_status(const char *lead, const char *format, va_list arguments)
{
    char text[512];
    const size_t length = (size_t)snprintf(text, sizeof text, "%sSTATUS=", lead);
    vsnprintf(text + length, sizeof text - length, format, arguments);
    for (char *at = text + length; *at; at++) {
        if (*at == '\n')
            *at = ' ';
    }
    send_text(text);
}

void notify_ready(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    send_status("READY=1\n", format, arguments);
    va_end(arguments);
}

void notify_status(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    send_status("", format, arguments);
    va_end(arguments);
}

void notify_reloading(void)
{
    char text[64];
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now_ns() / NS_PER_US);
    send_text(text);
}

void notify_reloaded(void)
{
    send_text("READY=1");
}

void notify_stopping(void)
{
    send_text("STOPPING=1\nSTATUS=stopping");
    every_ns = 0; /* saving may take longer than work does, and has a time of its own (TimeoutStopSec) */
}

void notify_alive(uint64_t now_ns)
{
    if (every_ns == 0 || now_ns < next_ns)
        return;
    next_ns = now_ns + every_ns;
    send_text("WATCHDOG=1");
}
