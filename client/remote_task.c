#include "client/remote_task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/remote_attempt.h"
#include "client/remote_progress.h"
#include "common/clock.h"

/* 0: done says so, or nothing is in flight; -ETIMEDOUT; -EINTR. */
static int await(struct expertd_dht *dht, bool (*done)(void *context), void *context, uint64_t end_ns)
{
    for (;;) {
        remote_progress(dht);
        if (done(context) || remote_progress_idle(dht))
            return 0;
        if (clock_now_ns() >= end_ns)
            return -ETIMEDOUT;
        const int rc = remote_progress_wait(dht, end_ns);
        if (rc < 0)
            return rc;
    }
}

bool remote_task_await(struct expertd_dht *dht, bool (*done)(void *context), void *context, uint64_t end_ns)
{
    while (await(dht, done, context, end_ns) == -EINTR)
        ;
    return done(context);
}

static uint64_t end_of(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : clock_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;
}

static bool any_ended(void *context)
{
    const struct expertd_dht *dht = context;
    return dht->ended > 0;
}

int expertd_dht_poll(struct expertd_dht *dht, int timeout_ms)
{
    const int rc = await(dht, any_ended, dht, end_of(timeout_ms));
    if (rc == -EINTR)
        return rc;
    const int ended = dht->ended;
    dht->ended = 0;
    dht->polls++;
    return ended;
}

static bool task_ended(void *context)
{
    return expertd_task_done(context);
}

int expertd_task_wait(struct expertd_task *task, int timeout_ms)
{
    const int rc = expertd_task_done(task) ? 0 : await(task->dht, task_ended, task, end_of(timeout_ms));
    if (!expertd_task_done(task))
        return rc;
    if (task->state == TASK_DONE)
        remote_attempt_report(task);
    return 0;
}

/* ---- beginning and end ----------------------------------------------------------------------------------------- */

static void free_task(struct expertd_task *task)
{
    remote_attempt_drop(task);
    if (task->fixed)
        server_release(task->fixed);
    if (task->first)
        server_release(task->first);
    for (size_t i = 0; i < EXPERTD_MAX_TENSORS; i++)
        shared_data_release(task->data[i]);
    TAILQ_REMOVE(&task->dht->tasks[task->state], task, link);
    free(task);
}

void expertd_task_release(struct expertd_task **pointer)
{
    struct expertd_task *task = *pointer;
    *pointer = NULL;
    if (!task)
        return;
    if (task->state == TASK_DONE)
        remote_attempt_report(task);
    free_task(task);
}

void remote_task_release_all(struct expertd_dht *dht)
{
    struct expertd_task *task;
    for (size_t i = 0; i < TASK_STATES; i++)
        while ((task = TAILQ_FIRST(&dht->tasks[i])) != NULL)
            free_task(task);
}

static void free_tensors(const struct remote_task_request *request, size_t from)
{
    for (size_t i = from; i < request->count[0] + request->count[1]; i++) {
        const struct expertd_tensor *tensor =
            i < request->count[0] ? &request->tensors[0][i] : &request->tensors[1][i - request->count[0]];
        if (tensor->free_fn)
            tensor->free_fn((void *)(uintptr_t)tensor->data, tensor->hint);
    }
}

/* Takes the tensors over. False without memory; none of them is the program's any more in any case. */
static bool take_tensors(struct expertd_task *task, const struct remote_task_request *request)
{
    size_t taken = 0;
    for (size_t which = 0; which < 2; which++) {
        for (size_t i = 0; i < request->count[which]; i++) {
            task->tensors[taken] = request->tensors[which][i];
            task->data[taken] = shared_data_of(&task->tensors[taken]);
            if (!task->data[taken++]) {
                free_tensors(request, taken);
                return false;
            }
        }
        task->count[which] = request->count[which];
    }
    return true;
}

int remote_task_start(struct expertd_dht *dht, const struct remote_task_request *request, struct expertd_task **result)
{
    struct expertd_task *task = calloc(1, sizeof *task);
    const bool few =
        request->count[0] <= EXPERTD_MAX_TENSORS && request->count[1] <= EXPERTD_MAX_TENSORS - request->count[0];
    *result = NULL;
    if (!task || !few)
        free_tensors(request, 0);
    if (!task)
        return -ENOMEM;
    task->dht = dht;
    task->state = TASK_PAUSED;
    TAILQ_INSERT_TAIL(&dht->tasks[TASK_PAUSED], task, link);
    task->backward = request->backward;
    task->patient = request->patient;
    task->not_applied = true;
    task->chosen = request->requires_grad != NULL;
    for (size_t i = 0; few && task->chosen && i < request->count[0]; i++)
        task->requires_grad[i] = request->requires_grad[i];
    task->deadline_ns = clock_now_ns() + (request->deadline_ms ? request->deadline_ms : dht->deadline_ms) * NS_PER_MS;
    snprintf(task->uid, sizeof task->uid, "%s", request->uid);
    if (few && !take_tensors(task, request)) {
        free_task(task);
        return -ENOMEM;
    }
    task->fixed = request->server;
    task->first = request->first;
    if (task->fixed)
        task->fixed->refs++;
    if (task->first)
        task->first->refs++;
    *result = task;
    if (few) {
        remote_attempt(task);
    } else {
        remote_attempt_end(task, EXPERTD_INVALID_ARGUMENT, "too many tensors");
    }
    return 0;
}

/* ---- what is seen of a task ------------------------------------------------------------------------------------ */

struct server *remote_task_server(const struct expertd_task *task)
{
    return task->server;
}

bool expertd_task_done(const struct expertd_task *task)
{
    return task->state == TASK_DONE || task->state == TASK_REPORTED;
}

enum expertd_status expertd_task_status(const struct expertd_task *task)
{
    return task->status;
}

const char *expertd_task_message(const struct expertd_task *task)
{
    return task->message;
}

bool expertd_task_not_applied(const struct expertd_task *task)
{
    return task->not_applied;
}

const char *expertd_task_endpoint(const struct expertd_task *task)
{
    return task->server ? expertd_client_endpoint(task->server->client) : NULL;
}

size_t expertd_task_output_count(const struct expertd_task *task)
{
    return task->call && task->status == EXPERTD_OK ? expertd_call_output_count(task->call) : 0;
}

const struct expertd_tensor *expertd_task_output(const struct expertd_task *task, size_t index)
{
    return index < expertd_task_output_count(task) ? expertd_call_output(task->call, index) : NULL;
}
