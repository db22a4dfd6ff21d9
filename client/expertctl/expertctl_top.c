/* top: what a server does, in the terminal. One thread: what is typed and what the server answers are waited for
 * together. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <ncurses.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/expertctl/expertctl.h"
#include "client/expertctl/rates.h"
#include "client/expertctl/top_table.h"
#include "client/frontends.h"
#include "common/clock.h"

enum { LOOK_TIMEOUT_MS = 5000, LINE_SIZE = 512, FILTER_SIZE = EXPERTD_MAX_UID + 1, ESCAPE = 27, REPAINT = 12 };
static const double shortest_s = 0.1, longest_s = 60;

/* A look at the server, at all its frontends. */
struct look {
    struct frontends_look all;
    const struct expertd_stats *sum; /* of those that answered; NULL: there was no look yet */
    uint64_t at_ns;                  /* when the counters came */
};

struct top {
    struct expertctl *ctl;
    struct expertd_client *client;
    struct frontends frontends;
    struct look before, now, next; /* next: on its way, as far as its calls are */
    bool asking, paused, typing;
    uint64_t next_ns; /* when to look again */
    double interval_s;
    struct top_table table;
    enum top_column column;
    bool reversed;
    size_t first; /* line of the table that is shown first */
    char filter[FILTER_SIZE], trouble[LINE_SIZE];
};

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

static void release(struct look *look)
{
    frontends_release(&look->all);
    look->sum = NULL;
}

static void ask(struct top *top)
{
    const char *prefix = top->ctl->n_arguments ? top->ctl->arguments[0] : NULL;
    if (frontends_ask(&top->frontends, &top->next.all, prefix, 0, LOOK_TIMEOUT_MS) < 0) {
        snprintf(top->trouble, sizeof top->trouble, "%s", strerror(ENOMEM));
        return;
    }
    top->asking = true;
}

static void make_table(struct top *top)
{
    const double seconds = (double)(top->now.at_ns - top->before.at_ns) / (double)NS_PER_S;
    top_table_clear(&top->table);
    if (top->now.sum && top_table_make(&top->table, top->before.sum, top->now.sum, seconds) < 0)
        snprintf(top->trouble, sizeof top->trouble, "%s", strerror(ENOMEM));
    top_table_sort(&top->table, top->column, top->reversed);
}

/* Why there is no look; NULL: there is one. */
static const struct expertd_call *failed(const struct frontends_look *look, size_t frontend)
{
    return expertd_call_status(look->pings[frontend]) != EXPERTD_OK   ? look->pings[frontend]
           : expertd_call_status(look->stats[frontend]) != EXPERTD_OK ? look->stats[frontend]
                                                                      : NULL;
}

static void note_trouble(struct top *top, size_t frontend, const struct expertd_call *call)
{
    snprintf(top->trouble, sizeof top->trouble, "%s: %s%s%s", expertd_status_name(expertd_call_status(call)),
             expertd_call_message(call), frontend ? "; not shown: " : "",
             frontend ? expertd_client_endpoint(top->frontends.clients[frontend]) : "");
}

static void forget_before(struct top *top)
{
    release(&top->before);
    top->before.at_ns = 0;
}

/* Takes in what has come. A look that failed leaves the last one on the screen, with the reason; one that a frontend is
 * missing in shows the others. */
static bool take(struct top *top)
{
    (void)expertd_poll(top->client, 0);
    if (!top->asking || !frontends_answered(&top->next.all))
        return false;
    top->asking = false;
    top->trouble[0] = 0;
    for (size_t f = top->next.all.count; f-- > 0;)
        if (failed(&top->next.all, f))
            note_trouble(top, f, failed(&top->next.all, f));
    if (failed(&top->next.all, 0)) {
        release(&top->next);
        return true;
    }
    release(&top->before);
    top->before = top->now;
    top->now = top->next;
    top->now.sum = frontends_sum(&top->now.all);
    top->now.at_ns = clock_now_ns();
    top->next = (struct look){0};
    frontends_learn(&top->frontends, frontends_pong(&top->now.all, 0)); /* for the next one */
    if (top->before.all.count != top->now.all.count)
        forget_before(top); /* what was not asked then has not begun now */
    make_table(top);
    return true;
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

/* A line, cut at the terminal's width. What a server says may hold anything. */
__attribute__((format(printf, 3, 4))) static void line(int y, attr_t attributes, const char *format, ...)
{
    char text[LINE_SIZE];
    va_list arguments;
    if (y >= LINES)
        return;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *at = text; *at; at++)
        if (*at < ' ' || *at > '~')
            *at = '?';
    attrset(attributes);
    mvprintw(y, 0, "%-*.*s", COLS, COLS, text);
    attrset(A_NORMAL);
}

static void format_bytes(char *text, size_t size, double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    unsigned unit = 0;
    for (; bytes >= 1024 && unit < 4; unit++)
        bytes /= 1024;
    snprintf(text, size, "%.*f %s", unit > 0, bytes, units[unit]);
}

static void format_age(char *text, size_t size, double seconds)
{
    const uint64_t minutes = (uint64_t)seconds / 60, hours = minutes / 60;
    if (hours >= 24)
        snprintf(text, size, "%" PRIu64 " d %" PRIu64 " h", hours / 24, hours % 24);
    else if (hours > 0)
        snprintf(text, size, "%" PRIu64 " h %" PRIu64 " min", hours, minutes % 60);
    else
        snprintf(text, size, "%" PRIu64 " min %" PRIu64 " s", minutes, (uint64_t)seconds % 60);
}

struct span {
    const struct expertd_stats *before, *now;
    double seconds;
};

static double refused(const struct span *span)
{
    double sum = 0;
    for (size_t i = 0; i < span->now->count; i++) {
        const char *name = span->now->counters[i].name;
        if (strncmp(name, "frontend.replies.", 17) == 0 && strcmp(name + 17, "OK") != 0)
            sum += rates_counter(span->before, span->now, name, span->seconds);
    }
    return sum;
}

static int draw_server(const struct top *top, const struct span *span)
{
    char age[48], frontends[48] = "";
    uint64_t experts = 0, alive = 0;
    for (size_t f = 0; f < top->now.all.count; f++) {
        const struct expertd_pong *pong = frontends_pong(&top->now.all, f);
        experts += pong ? pong->experts : 0;
        alive += pong ? pong->experts_alive : 0;
    }
    if (top->now.all.count > 1)
        snprintf(frontends, sizeof frontends, " (%zu frontends)", top->now.all.count);
    double uptime_s = 0, in_flight = 0;
    (void)rates_find(span->now, "frontend.uptime_s", &uptime_s);
    (void)rates_find(span->now, "frontend.in_flight", &in_flight);
    format_age(age, sizeof age, uptime_s);
    line(0, A_BOLD, "%s at %s%s: %" PRIu64 " of %" PRIu64 " experts alive, up %s, every %g s%s",
         frontends_pong(&top->now.all, 0)->server, top->ctl->endpoint, frontends, alive, experts, age, top->interval_s,
         top->paused ? ", PAUSED" : "");
    if (top->trouble[0]) {
        line(1, A_REVERSE, "no answer: %s", top->trouble);
        return 2;
    }
    const struct rates_histogram forward = rates_histogram(span->before, span->now, "frontend.forward.request_seconds");
    const struct rates_histogram backward =
        rates_histogram(span->before, span->now, "frontend.backward.request_seconds");
    line(1, A_NORMAL,
         "forward %.1f/s p50 %.2f ms p99 %.2f ms   backward %.1f/s p50 %.2f ms p99 %.2f ms   in flight %.0f   "
         "refused %.1f/s",
         forward.count / span->seconds, forward.median * 1e3, forward.p99 * 1e3, backward.count / span->seconds,
         backward.median * 1e3, backward.p99 * 1e3, in_flight, refused(span));
    return 2;
}

static double of_device(const struct span *span, const char *device, const char *rest, bool rate)
{
    char name[160];
    double value = 0;
    snprintf(name, sizeof name, "device.%s.%s", device, rest);
    if (rate)
        return rates_counter(span->before, span->now, name, span->seconds);
    (void)rates_find(span->now, name, &value);
    return value;
}

/* Of forward and backward together, in ms. */
static double mean_ms(const struct span *span, const char *device, const char *rest)
{
    static const char *const methods[] = {"forward", "backward"};
    double sum = 0, count = 0;
    for (size_t m = 0; m < 2; m++) {
        char name[160];
        snprintf(name, sizeof name, "device.%s.%s.%s", device, methods[m], rest);
        const struct rates_histogram histogram = rates_histogram(span->before, span->now, name);
        sum += histogram.mean * histogram.count;
        count += histogram.count;
    }
    return count > 0 ? sum / count * 1e3 : 0;
}

static void draw_device(int y, const struct span *span, const char *device)
{
    char used[32], limit[32];
    const double batches = of_device(span, device, "batches", true), rows = of_device(span, device, "rows", true);
    format_bytes(used, sizeof used, of_device(span, device, "memory_used", false));
    format_bytes(limit, sizeof limit, of_device(span, device, "memory_limit", false));
    line(y, A_NORMAL, "%-16.16s %-5s %5.1f %9.1f %9.1f %9.1f %9.2f %9.2f  %s of %s", device,
         of_device(span, device, "alive", false) > 0 ? "up" : "DOWN", of_device(span, device, "busy_ns", true) / 1e7,
         batches, rows, batches > 0 ? rows / batches : 0, mean_ms(span, device, "queue_seconds"),
         mean_ms(span, device, "compute_seconds"), used, limit);
}

static int draw_devices(int y, const struct span *span)
{
    static const char prefix[] = "device.", suffix[] = ".alive";
    line(y++, A_REVERSE, "%-16s %-5s %5s %9s %9s %9s %9s %9s  %s", "DEVICE", "STATE", "BUSY%", "BATCHES/s", "ROWS/s",
         "ROWS/BTCH", "QUEUE ms", "COMP ms", "MEMORY");
    for (size_t i = 0; i < span->now->count; i++) {
        const char *name = span->now->counters[i].name;
        const size_t length = strlen(name);
        char device[96];
        if (strncmp(name, prefix, sizeof prefix - 1) != 0 || length < sizeof prefix + sizeof suffix ||
            strcmp(name + length - (sizeof suffix - 1), suffix) != 0)
            continue;
        snprintf(device, sizeof device, "%.*s", (int)(length - (sizeof prefix - 1) - (sizeof suffix - 1)),
                 name + sizeof prefix - 1);
        draw_device(y++, span, device);
    }
    return y;
}

static void draw_heads(int y, const struct top *top)
{
    static const int widths[TOP_COLUMNS] = {-28, -12, 9, 9, 9, 9, 8, 8, 9, 8};
    int x = 0;
    line(y, A_REVERSE, "%s", "");
    for (int c = 0; c < TOP_COLUMNS; c++) {
        const int width = abs(widths[c]);
        if (x + width > COLS)
            break;
        attrset((enum top_column)c == top->column ? A_BOLD | A_UNDERLINE | A_REVERSE : A_REVERSE);
        mvprintw(y, x, "%*s", widths[c], top_column_title((enum top_column)c));
        x += width + 1;
    }
    attrset(A_NORMAL);
}

static bool passes(const struct top *top, const struct top_expert *expert)
{
    return !top->filter[0] || strstr(expert->uid, top->filter) || strcmp(expert->device, top->filter) == 0;
}

static void draw_expert(int y, const struct top_expert *expert)
{
    const double *v = expert->values;
    line(y, v[TOP_PENDING] > 0 ? A_BOLD : A_NORMAL, "%-28.28s %-12.12s %9.1f %9.1f %9.1f %9.1f %8.0f %8.2f %9.0f %8.0f",
         expert->uid, expert->device, v[TOP_FORWARD_CALLS], v[TOP_FORWARD_ROWS], v[TOP_BACKWARD_CALLS],
         v[TOP_BACKWARD_ROWS], v[TOP_PENDING], v[TOP_OLDEST], v[TOP_STEPS], v[TOP_SKIPPED]);
}

static void draw_experts(int y, struct top *top)
{
    const size_t room = y + 1 < LINES - 1 ? (size_t)(LINES - 2 - y) : 0;
    size_t matching = 0, shown = 0;
    for (size_t i = 0; i < top->table.count; i++)
        matching += passes(top, &top->table.experts[i]);
    if (top->first + room > matching)
        top->first = matching > room ? matching - room : 0;
    draw_heads(y++, top);
    for (size_t i = 0, at = 0; i < top->table.count && shown < room; i++)
        if (passes(top, &top->table.experts[i]) && at++ >= top->first)
            draw_expert(y + (int)shown++, &top->table.experts[i]);
    if (top->typing)
        line(LINES - 1, A_BOLD, "filter: %s_   (Enter: done)", top->filter);
    else
        line(LINES - 1, A_DIM,
             "%zu-%zu of %zu%s%s, by %s%s   q quit  < > column  r reverse  / filter  arrows scroll  space pause  + - "
             "interval",
             shown ? top->first + 1 : 0, top->first + shown, matching, top->filter[0] ? " with " : "", top->filter,
             top_column_title(top->column), top->reversed ? " reversed" : "");
}

static void draw(struct top *top)
{
    const struct span span = {top->before.sum, top->now.sum,
                              top->before.at_ns ? (double)(top->now.at_ns - top->before.at_ns) / (double)NS_PER_S : 1};
    erase();
    if (!span.now) {
        line(0, A_BOLD, "%s", top->ctl->endpoint);
        line(1, A_REVERSE, "%s%s", top->trouble[0] ? "no answer: " : "asking...", top->trouble);
        line(LINES - 1, A_DIM, "q quit");
    } else {
        int y = draw_server(top, &span);
        y = draw_devices(y + 1, &span);
        draw_experts(y + 1, top);
    }
    refresh();
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static void type_filter(struct top *top, int key)
{
    const size_t length = strlen(top->filter);
    if (key == '\n' || key == '\r' || key == KEY_ENTER || key == ESCAPE)
        top->typing = false;
    else if ((key == KEY_BACKSPACE || key == 127 || key == '\b') && length > 0)
        top->filter[length - 1] = 0;
    else if (key > ' ' && key <= '~' && length + 1 < sizeof top->filter)
        top->filter[length] = (char)key;
    if (key == ESCAPE)
        memset(top->filter, 0, sizeof top->filter);
}

static void turn_column(struct top *top, int by)
{
    top->column = (enum top_column)(((int)top->column + by + TOP_COLUMNS) % TOP_COLUMNS);
    top_table_sort(&top->table, top->column, top->reversed);
}

static void change_interval(struct top *top, double factor)
{
    top->interval_s *= factor;
    top->interval_s = top->interval_s < shortest_s  ? shortest_s
                      : top->interval_s > longest_s ? longest_s
                                                    : top->interval_s;
}

static void press(struct top *top, int key)
{
    const size_t page = LINES > 8 ? (size_t)LINES - 8 : 1;
    if (key == REPAINT) { /* ^L: something else has written here */
        clearok(curscr, true);
        return;
    }
    if (top->typing) {
        type_filter(top, key);
        return;
    }
    switch (key) {
    case 'q':
        stopped = 1;
        break;
    case '<':
    case KEY_LEFT:
        turn_column(top, -1);
        break;
    case '>':
    case KEY_RIGHT:
        turn_column(top, 1);
        break;
    case 'r':
        top->reversed = !top->reversed;
        turn_column(top, 0);
        break;
    case '/':
        memset(top->filter, 0, sizeof top->filter);
        top->typing = true;
        break;
    case KEY_UP:
        top->first -= top->first > 0;
        break;
    case KEY_DOWN:
        top->first++;
        break;
    case KEY_PPAGE:
        top->first -= top->first > page ? page : top->first;
        break;
    case KEY_NPAGE:
        top->first += page;
        break;
    case KEY_HOME:
        top->first = 0;
        break;
    case ' ':
        top->paused = !top->paused;
        break;
    case '+':
        change_interval(top, 2);
        break;
    case '-':
        change_interval(top, 0.5);
        break;
    default:
        break;
    }
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

/* Until something is typed or answered, or it is time to look again. */
static void sleep_until(const struct top *top)
{
    struct pollfd ends[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                            {.fd = expertd_client_fd(top->client), .events = POLLIN}};
    const uint64_t now_ns = clock_now_ns();
    const int timeout_ms = expertd_client_timeout_ms(top->client);
    int left_ms = top->next_ns > now_ns ? (int)((top->next_ns - now_ns) / NS_PER_MS) + 1 : 0;
    if (top->asking || top->paused)
        left_ms = timeout_ms;
    if (poll(ends, 2, left_ms) > 0 && (ends[0].revents & (POLLHUP | POLLERR | POLLNVAL)))
        stopped = 1; /* the terminal is gone; what can then be read of it, for ever, is its end */
}

static void run(struct top *top)
{
    int key;
    while (!stopped) {
        if (!top->asking && !top->paused && clock_now_ns() >= top->next_ns) {
            ask(top);
            top->next_ns = clock_now_ns() + (uint64_t)(top->interval_s * (double)NS_PER_S);
        }
        bool changed = take(top);
        while ((key = getch()) != ERR) {
            press(top, key);
            changed = true;
        }
        if (changed)
            draw(top);
        if (!stopped)
            sleep_until(top);
    }
}

static enum exit_code run_in_terminal(struct top *top)
{
    const struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    SCREEN *screen = newterm(NULL, stdout, stdin);
    if (!screen)
        return expertctl_fail_here(top->ctl,
                                   "this terminal (TERM) is none that ncurses knows; stats --watch needs none");
    cbreak();
    noecho();
    nodelay(stdscr, true);
    keypad(stdscr, true);
    set_escdelay(50);
    curs_set(0);
    draw(top);
    run(top);
    endwin();
    delscreen(screen);
    return EXIT_OK;
}

enum exit_code expertctl_top(struct expertctl *ctl)
{
    enum exit_code code = EXIT_OK;
    struct top top = {.ctl = ctl, .interval_s = ctl->interval_s > 0 ? ctl->interval_s : 1, .column = TOP_FORWARD_ROWS};
    if (ctl->json || ctl->watch)
        return expertctl_usage(ctl, "it is for people: stats --watch, with --json, is for programs");
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return expertctl_fail_here(ctl, "standard input and output have to be a terminal; stats --watch needs none");
    top.client = expertctl_connect(ctl, &code);
    if (!top.client)
        return code;
    frontends_begin(&top.frontends, top.client);
    code = run_in_terminal(&top);
    release(&top.before);
    release(&top.now);
    release(&top.next);
    top_table_clear(&top.table);
    expertd_client_destroy(&top.client);
    return code;
}
