#include "client/remote_progress.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "client/remote_attempt.h"
#include "common/clock.h"

enum { UIDS_A_LOOKUP = 1024, LOOKUPS_AT_ONCE = 16 };

/* ---- look-ups -------------------------------------------------------------------------------------------------- */

/* One question for all tasks that want to know. Its uids are its own: tasks come and go meanwhile. */
struct remote_resolve {
    struct dht_lookup lookup; /* first */
    TAILQ_ENTRY(remote_resolve) link;
    Expertd__Dht__Request request;
    char *uids[UIDS_A_LOOKUP];
    char text[UIDS_A_LOOKUP][UID_SIZE];
};

static void free_resolve(struct expertd_dht *dht, struct remote_resolve *resolve)
{
    TAILQ_REMOVE(&dht->resolves, resolve, link);
    dht->n_resolves--;
    free(resolve);
}

static void tell(struct expertd_dht *dht, const struct remote_resolve *resolve, enum expertd_status status,
                 const char *message)
{
    struct expertd_task *next;
    for (struct expertd_task *task = TAILQ_FIRST(&dht->tasks[TASK_LOOKUP]); task; task = next) {
        next = TAILQ_NEXT(task, link);
        if (task->asked == resolve)
            remote_attempt_looked_up(task, status, message);
    }
}

static void resolved(struct dht_lookup *lookup, enum expertd_status status, const Expertd__Dht__Reply *reply,
                     const char *message)
{
    struct remote_resolve *resolve = (struct remote_resolve *)lookup;
    struct expertd_dht *dht = lookup->dht;
    for (size_t i = 0; reply && i < reply->n_resolved; i++)
        if (status == EXPERTD_OK || reply->resolved[i]->n_replicas > 0)
            replica_cache_put(&dht->cache, reply->resolved[i], clock_now_ns());
    tell(dht, resolve, status, message);
    free_resolve(dht, resolve);
}

/* The tasks that are in no question yet, or the first of them, as one. Those that cannot be asked for are told so. */
static bool look_up(struct expertd_dht *dht)
{
    struct expertd_task *task;
    struct remote_resolve *resolve = NULL;
    uint32_t timeout_ms = 0;
    size_t count = 0;
    if (TAILQ_EMPTY(&dht->tasks[TASK_LOOKUP]) || dht->n_resolves == LOOKUPS_AT_ONCE)
        return false;
    for (task = TAILQ_FIRST(&dht->tasks[TASK_LOOKUP]); task && count < UIDS_A_LOOKUP; task = TAILQ_NEXT(task, link)) {
        if (task->asked)
            continue;
        if (!resolve && !(resolve = malloc(sizeof *resolve)))
            return false; /* perhaps there is memory before its deadline */
        const uint32_t left_ms = remote_attempt_remaining_ms(task);
        timeout_ms = left_ms > timeout_ms ? left_ms : timeout_ms;
        task->asked = resolve;
        memcpy(resolve->text[count], task->uid, sizeof task->uid);
        resolve->uids[count] = resolve->text[count];
        count++;
    }
    if (!resolve)
        return false;
    TAILQ_INSERT_TAIL(&dht->resolves, resolve, link);
    dht->n_resolves++;
    expertd__dht__request__init(&resolve->request);
    resolve->request.method = EXPERTD__DHT__METHOD__RESOLVE;
    resolve->request.uids = resolve->uids;
    resolve->request.n_uids = count;
    const char *problem = dht_ask(dht, &resolve->lookup, &resolve->request, timeout_ms, resolved);
    if (problem) {
        tell(dht, resolve, EXPERTD_UNAVAILABLE, problem);
        free_resolve(dht, resolve);
    }
    return true;
}

void remote_progress_drop(struct expertd_dht *dht)
{
    struct remote_resolve *next;
    for (struct remote_resolve *resolve = TAILQ_FIRST(&dht->resolves); resolve; resolve = next) {
        next = TAILQ_NEXT(resolve, link);
        dht_client_drop(dht->lookups, &resolve->lookup.question);
        free(resolve);
    }
    TAILQ_INIT(&dht->resolves);
    dht->n_resolves = 0;
}

/* ---- going on -------------------------------------------------------------------------------------------------- */

/* What an ended call leads to may need another server, for which the oldest one that nobody holds is dropped. */
static bool take_answers(struct expertd_dht *dht)
{
    bool any = false;
    struct server *next;
    struct expertd_call *ended;
    server_list_poll(&dht->servers);
    for (struct server *server = TAILQ_FIRST(&dht->servers.servers); server; server = next) {
        server->refs++;
        while ((ended = expertd_next_done(server->client)) != NULL) {
            remote_attempt_call_ended(expertd_call_user(ended));
            any = true;
        }
        next = TAILQ_NEXT(server, link);
        server_release(server);
    }
    return any;
}

static bool take_time(struct expertd_dht *dht)
{
    bool any = false;
    struct expertd_task *task, *next;
    const uint64_t now_ns = clock_now_ns();
    for (task = TAILQ_FIRST(&dht->tasks[TASK_PAUSED]); task; task = next) {
        next = TAILQ_NEXT(task, link);
        if (task->wake_ns > now_ns)
            continue;
        any = true;
        remote_attempt_wake(task);
    }
    for (task = TAILQ_FIRST(&dht->tasks[TASK_CALLED]); task; task = next) {
        next = TAILQ_NEXT(task, link);
        if (task->wake_ns == 0 || task->wake_ns > now_ns)
            continue;
        any = true;
        if (client_call_connected(task->call))
            task->wake_ns = 0;
        else
            remote_attempt_not_connected(task);
    }
    for (task = TAILQ_FIRST(&dht->tasks[TASK_LOOKUP]); task; task = next) {
        next = TAILQ_NEXT(task, link);
        if (task->deadline_ns > now_ns)
            continue;
        any = true;
        remote_attempt_out_of_time(task);
    }
    return any;
}

void remote_progress(struct expertd_dht *dht)
{
    bool any;
    do {
        any = take_answers(dht);
        any |= take_time(dht);
        any |= look_up(dht);
        any |= dht->lookups && dht_client_progress(dht->lookups);
    } while (any);
}

bool remote_progress_idle(const struct expertd_dht *dht)
{
    return TAILQ_EMPTY(&dht->tasks[TASK_PAUSED]) && TAILQ_EMPTY(&dht->tasks[TASK_CALLED]) &&
           TAILQ_EMPTY(&dht->tasks[TASK_LOOKUP]) && (!dht->lookups || dht_client_idle(dht->lookups));
}

static uint64_t next_event_ns(const struct expertd_dht *dht)
{
    uint64_t next_ns = dht->lookups ? dht_client_next_ns(dht->lookups) : UINT64_MAX;
    const struct expertd_task *task;
    for (task = TAILQ_FIRST(&dht->tasks[TASK_PAUSED]); task; task = TAILQ_NEXT(task, link))
        next_ns = task->wake_ns < next_ns ? task->wake_ns : next_ns;
    for (task = TAILQ_FIRST(&dht->tasks[TASK_CALLED]); task; task = TAILQ_NEXT(task, link))
        next_ns = task->wake_ns && task->wake_ns < next_ns ? task->wake_ns : next_ns;
    for (task = TAILQ_FIRST(&dht->tasks[TASK_LOOKUP]); task; task = TAILQ_NEXT(task, link))
        next_ns = task->deadline_ns < next_ns ? task->deadline_ns : next_ns;
    return next_ns;
}

static int until_ms(uint64_t time_ns)
{
    const uint64_t now_ns = clock_now_ns();
    const uint64_t ms = time_ns <= now_ns ? 0 : (time_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

int remote_progress_wait(struct expertd_dht *dht, uint64_t end_ns)
{
    struct pollfd fds[] = {{.fd = dht->servers.fd, .events = POLLIN},
                           {.fd = dht->lookups ? dht_client_fd(dht->lookups) : -1, .events = POLLIN}};
    const uint64_t event_ns = next_event_ns(dht);
    int timeout_ms = until_ms(event_ns < end_ns ? event_ns : end_ns);
    const int calls_ms = server_list_timeout_ms(&dht->servers);
    if (calls_ms >= 0 && calls_ms < timeout_ms)
        timeout_ms = calls_ms;
    if (poll(fds, 2, timeout_ms) < 0)
        return -errno;
    if (fds[0].revents)
        server_list_take_news(&dht->servers);
    return 0;
}
