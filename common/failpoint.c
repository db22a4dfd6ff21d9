#include "common/failpoint.h"

#ifdef EXPERTD_FAILPOINTS
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static struct {
    char name[64], action[8];
    unsigned long due;
    _Atomic unsigned long hits;
} point;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_environment(void)
{
    const char *text = getenv("EXPERTD_FAILPOINT");
    const char *equals = text ? strchr(text, '=') : NULL;
    if (!equals || (size_t)(equals - text) >= sizeof point.name)
        return;
    const size_t action = strcspn(equals + 1, "@");
    if (action >= sizeof point.action)
        return;
    memcpy(point.name, text, (size_t)(equals - text));
    memcpy(point.action, equals + 1, action);
    point.due = equals[1 + action] == '@' ? strtoul(equals + 2 + action, NULL, 10) : 1;
}

int failpoint_hit(const char *name)
{
    pthread_once(&once, read_environment);
    if (strcmp(name, point.name) != 0 || atomic_fetch_add(&point.hits, 1) + 1 != point.due)
        return 0;
    if (strcmp(point.action, "kill") == 0)
        raise(SIGKILL);
    if (strcmp(point.action, "stop") == 0)
        raise(SIGSTOP);
    return strcmp(point.action, "fail") == 0;
}
#endif
