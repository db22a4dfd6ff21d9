/* Tells the supervisor that started this process how it is, where that is systemd (Type=notify) or another that speaks
 * its protocol: a datagram to the socket $NOTIFY_SOCKET. Where there is none, nothing is done. One thread. */
#ifndef EXPERTD_COMMON_NOTIFY_H
#define EXPERTD_COMMON_NOTIFY_H

#include <stdint.h>

/* Takes note of the socket and of the watchdog's time ($WATCHDOG_USEC, if $WATCHDOG_PID is this process or nobody), and
 * removes them from the environment. At start. */
void notify_open(void);
/* The service is there. The text, for people, says what it does: one line, as printf's. */
void notify_ready(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* What it does has changed: the text alone, as that of notify_ready. */
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The configuration is read again, and the change that follows from it made; and that is over, done or refused. */
void notify_reloading(void);
void notify_reloaded(void);
/* The end was asked for; it may take a while. */
void notify_stopping(void);
/* Some work was completed, or there is none: never called by a timer that ticks beside a hang. Feeds the watchdog, four
 * times in its time at most. */
void notify_alive(uint64_t now_ns);

#endif
