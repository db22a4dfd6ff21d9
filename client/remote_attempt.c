#include "client/remote_attempt.h"

#include <stdio.h>

#include "client/backoff.h"
#include "client/client.h"
#include "common/clock.h"

enum {
    CONNECT_MS = 1000, /* for a first connection, when there may be another server */
    PAUSE_MS = 20,     /* before the same is tried again; doubled up to PAUSE_MAX_MS */
    PAUSE_MAX_MS = 1000,
};

static void move(struct expertd_task *task, enum task_state state)
{
    TAILQ_REMOVE(&task->dht->tasks[task->state], task, link);
    task->state = state;
    TAILQ_INSERT_TAIL(&task->dht->tasks[state], task, link);
}

static void note(struct expertd_task *task, enum expertd_status status, const char *message)
{
    task->status = status;
    snprintf(task->message, sizeof task->message, "%s", message);
}

static void end(struct expertd_task *task)
{
    move(task, TASK_DONE);
    task->dht->ended++;
    task->ended_before = task->dht->polls;
}

static void forget_tried(struct expertd_task *task)
{
    while (task->n_tried > 0)
        server_release(task->tried[--task->n_tried]);
}

static void drop_call(struct expertd_task *task)
{
    if (task->state == TASK_CALLED)
        task->server->calls--;
    expertd_call_release(&task->call);
    if (task->server)
        server_release(task->server);
    task->server = NULL;
}

static void pause_task(struct expertd_task *task)
{
    if (task->pause_ms == 0)
        task->pause_ms = PAUSE_MS;
    uint64_t random = clock_now_ns() ^ (uintptr_t)task;
    const uint32_t pause_ms = task->retry_after_ms > task->pause_ms ? task->retry_after_ms : task->pause_ms;
    task->wake_ns = clock_now_ns() + backoff_ns(pause_ms, 0, &random);
    task->retry_after_ms = 0;
    if (task->wake_ns > task->deadline_ns)
        task->wake_ns = task->deadline_ns;
    task->pause_ms = 2 * task->pause_ms < PAUSE_MAX_MS ? 2 * task->pause_ms : PAUSE_MAX_MS;
    move(task, TASK_PAUSED);
}

void remote_attempt_end(struct expertd_task *task, enum expertd_status status, const char *message)
{
    note(task, status, message);
    end(task);
}

void remote_attempt_drop(struct expertd_task *task)
{
    drop_call(task);
    forget_tried(task);
}

void remote_attempt_report(struct expertd_task *task)
{
    move(task, TASK_REPORTED);
    if (task->ended_before == task->dht->polls)
        task->dht->ended--;
}

/* ---- choosing a server ----------------------------------------------------------------------------------------- */

static bool was_tried(const struct expertd_task *task, const struct server *server)
{
    for (size_t i = 0; i < task->n_tried; i++)
        if (task->tried[i] == server)
            return true;
    return false;
}

/* The wanted one before all; then those that have a chance; then the least busy; then the one that was used the longest
 * time ago, which goes around among equals. */
static bool better(const struct expertd_task *task, struct server *a, struct server *b)
{
    if ((a == task->first) != (b == task->first))
        return a == task->first;
    if (a->down != b->down)
        return b->down;
    if (a->calls != b->calls)
        return a->calls < b->calls;
    return a->last_used < b->last_used;
}

/* Held; NULL: there is none that was not tried. */
static struct server *choose(struct expertd_task *task, const struct replicas *replicas)
{
    struct server_list *servers = &task->dht->servers;
    struct server *best = NULL;
    for (size_t i = 0; replicas && i < replicas->count; i++) {
        struct server *server = server_list_get(servers, replicas->endpoints[i], replicas->keys[i]);
        if (!server)
            continue;
        const bool usable = server_usable(server);
        if (!usable && !task->patient && !was_tried(task, server))
            note(task, EXPERTD_UNAVAILABLE, "its server is down");
        if ((!usable && !task->patient) || was_tried(task, server) || (best && !better(task, server, best))) {
            server_release(server);
            continue;
        }
        if (best)
            server_release(best);
        best = server;
    }
    return best;
}

/* ---- calling it ------------------------------------------------------------------------------------------------ */

uint32_t remote_attempt_remaining_ms(const struct expertd_task *task)
{
    const uint64_t now_ns = clock_now_ns();
    return now_ns >= task->deadline_ns ? 1 : (uint32_t)((task->deadline_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* The call is on its way over a connection, or has to have one soon. */
static void called(struct expertd_task *task)
{
    const bool elsewhere = !task->fixed && !(task->backward && task->patient);
    task->wake_ns = elsewhere && !client_call_connected(task->call) ? clock_now_ns() + CONNECT_MS * NS_PER_MS : 0;
    task->server->calls++;
    expertd_call_set_user(task->call, task);
    move(task, TASK_CALLED);
}

static void call(struct expertd_task *task, struct server *server)
{
    struct expertd_tensor lent[EXPERTD_MAX_TENSORS];
    const size_t count = task->count[0] + task->count[1];
    for (size_t i = 0; i < count; i++) {
        lent[i] = task->tensors[i];
        shared_data_lend(task->data[i], &lent[i]);
    }
    task->server = server;
    server_use(&task->dht->servers, server);
    const bool *requires_grad = task->chosen ? task->requires_grad : NULL;
    const int rc = task->backward ? expertd_backward_for(server->client, task->uid, lent, task->count[0], requires_grad,
                                                         lent + task->count[0], task->count[1],
                                                         remote_attempt_remaining_ms(task), &task->call)
                                  : expertd_forward(server->client, task->uid, lent, task->count[0],
                                                    remote_attempt_remaining_ms(task), &task->call);
    if (rc == 0) {
        called(task);
    } else {
        note(task, EXPERTD_RESOURCE_EXHAUSTED, "no memory for the call");
        end(task);
    }
}

/* All servers that are known after a fresh look-up have failed, or there are none. */
static void exhausted(struct expertd_task *task)
{
    const bool may_pass = task->status == EXPERTD_UNAVAILABLE || task->status == EXPERTD_RESOURCE_EXHAUSTED ||
                          task->status == EXPERTD_NOT_FOUND;
    if (task->status == EXPERTD_OK)
        note(task, EXPERTD_UNAVAILABLE, "no server is known");
    if (!task->patient || !may_pass || task->fixed) {
        end(task);
        return;
    }
    forget_tried(task);
    task->looked_up = false;
    pause_task(task);
}

static void want_lookup(struct expertd_task *task)
{
    task->asked = NULL;
    move(task, TASK_LOOKUP);
}

void remote_attempt_out_of_time(struct expertd_task *task)
{
    if (task->status == EXPERTD_OK)
        note(task, EXPERTD_DEADLINE_EXCEEDED, "no server was found in time");
    end(task);
}

void remote_attempt(struct expertd_task *task)
{
    struct server *server = NULL;
    if (clock_now_ns() >= task->deadline_ns) {
        remote_attempt_out_of_time(task);
        return;
    }
    if (task->fixed && task->n_tried == 0) {
        server = task->fixed;
        server->refs++;
    } else if (!task->fixed) {
        const struct replicas *replicas = dht_replicas(task->dht, task->uid);
        if (!replicas && task->looked_up) /* expertd-dht is silent: what it said long ago is better than nothing */
            replicas = replica_cache_get(&task->dht->cache, task->uid, 0);
        if (!replicas && !task->looked_up) {
            want_lookup(task);
            return;
        }
        server = choose(task, replicas);
    }
    if (server) {
        task->dht->counters.failovers += task->n_tried > 0;
        call(task, server);
    } else if (!task->looked_up && !task->fixed) {
        replica_cache_forget(&task->dht->cache, task->uid);
        want_lookup(task);
    } else {
        exhausted(task);
    }
}

/* This server has not done it; another one may. */
static void failed(struct expertd_task *task, enum expertd_status status, const char *message)
{
    note(task, status, message);
    if (task->n_tried < REPLICAS_MAX && !was_tried(task, task->server)) {
        task->server->refs++;
        task->tried[task->n_tried++] = task->server;
    }
    drop_call(task);
    move(task, TASK_PAUSED);
    remote_attempt(task);
}

/* Whether another server, or another time, could make a difference. */
static bool is_final(enum expertd_status status)
{
    switch (status) {
    case EXPERTD_UNAVAILABLE:
    case EXPERTD_NOT_FOUND:
    case EXPERTD_RESOURCE_EXHAUSTED:
    case EXPERTD_INTERNAL:
        return false;
    default:
        return true;
    }
}

void remote_attempt_call_ended(struct expertd_task *task)
{
    const enum expertd_status status = expertd_call_status(task->call);
    task->not_applied = expertd_call_not_applied(task->call);
    note(task, status, expertd_call_message(task->call));
    const uint32_t hint_ms = expertd_call_retry_after_ms(task->call);
    if (hint_ms && (task->retry_after_ms == 0 || hint_ms < task->retry_after_ms))
        task->retry_after_ms = hint_ms;
    task->server->calls--;
    move(task, TASK_PAUSED);
    if (status == EXPERTD_UNAVAILABLE && !expertd_client_connected(task->server->client))
        task->server->down = true;
    if (is_final(status) || clock_now_ns() >= task->deadline_ns)
        end(task);
    else if (task->not_applied)
        failed(task, status, expertd_call_message(task->call));
    else
        pause_task(task); /* to ask the same server for the same again */
}

static void repeat(struct expertd_task *task)
{
    if (clock_now_ns() >= task->deadline_ns) {
        end(task);
    } else if (expertd_call_retry(task->call, remote_attempt_remaining_ms(task)) < 0) {
        note(task, EXPERTD_RESOURCE_EXHAUSTED, "no memory for the call");
        end(task);
    } else {
        task->dht->counters.retries++;
        called(task);
    }
}

void remote_attempt_wake(struct expertd_task *task)
{
    if (task->call)
        repeat(task);
    else
        remote_attempt(task);
}

/* No connection came in time. What was never sent can go elsewhere; a repeated backward cannot. */
void remote_attempt_not_connected(struct expertd_task *task)
{
    const bool repeated = task->backward && !task->not_applied;
    task->server->down = true;
    if (!repeated) {
        failed(task, EXPERTD_UNAVAILABLE, "its server does not take connections");
        return;
    }
    drop_call(task);
    note(task, EXPERTD_UNAVAILABLE, "its server went away; the backward may have been applied");
    end(task);
}

void remote_attempt_looked_up(struct expertd_task *task, enum expertd_status status, const char *message)
{
    const struct replicas *replicas = replica_cache_get(&task->dht->cache, task->uid, 0);
    task->looked_up = true;
    move(task, TASK_PAUSED);
    if (status != EXPERTD_OK && !replicas) {
        note(task, status, message);
        exhausted(task);
    } else if (replicas && replicas->count == 0) {
        if (task->status == EXPERTD_OK)
            note(task, EXPERTD_NOT_FOUND, "no live server hosts it");
        end(task);
    } else {
        remote_attempt(task);
    }
}
