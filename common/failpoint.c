#include "common/failpoint.h"

#ifdef EXPERTD_FAILPOINTS
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POINTS_MAX = 8 };

struct point {
    char *name, *who, *action; /* who: NULL for all */
    const char *file;          /* NULL: `due` counts */
    unsigned long due;
    _Atomic unsigned long hits;
};
static struct point points[POINTS_MAX];
static unsigned count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Cuts the text, which stays allocated for good. */
static bool parse(struct point *point, char *text)
{
    point->name = text;
    point->action = strchr(text, '=');
    if (!point->action)
        return false;
    *point->action++ = '\0';
    point->who = strchr(text, '/');
    if (point->who)
        *point->who++ = '\0';
    char *when = strchr(point->action, '@');
    if (when)
        *when++ = '\0';
    point->file = when && *when == '/' ? when : NULL;
    point->due = when ? strtoul(when, NULL, 10) : 1;
    return true;
}

static void read_environment(void)
{
    const char *text = getenv("EXPERTD_FAILPOINT");
    char *copy = text ? strdup(text) : NULL, *rest = copy;
    while (rest && count < POINTS_MAX)
        count += parse(&points[count], strsep(&rest, ","));
}

static bool is_due(struct point *point)
{
    if (point->file)
        return access(point->file, F_OK) == 0;
    return atomic_fetch_add(&point->hits, 1) + 1 == point->due;
}

int failpoint_hit(const char *name, const char *who)
{
    bool fail = false;
    pthread_once(&once, read_environment);
    for (unsigned i = 0; i < count; i++) {
        struct point *point = &points[i];
        if (strcmp(name, point->name) != 0 || (point->who && (!who || strcmp(who, point->who) != 0)) || !is_due(point))
            continue;
        if (strcmp(point->action, "kill") == 0)
            raise(SIGKILL);
        else if (strcmp(point->action, "stop") == 0)
            raise(SIGSTOP);
        else
            fail = true;
    }
    return fail;
}
#endif
