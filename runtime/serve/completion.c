#include "runtime/serve/completion.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct completion {
    pthread_mutex_t lock;
    struct doorbell_word *bell; /* NULL: nobody listens */
    unsigned holders;           /* the owner, and each ring that is to come */
};

/* Takes the lock that the caller has, and with the last holder everything. */
static void let_go(struct completion *completion)
{
    const unsigned left = --completion->holders;
    pthread_mutex_unlock(&completion->lock);
    if (left > 0)
        return;
    pthread_mutex_destroy(&completion->lock);
    free(completion);
}

static void CL_CALLBACK ring(cl_event event, cl_int status, void *context)
{
    struct completion *completion = context;
    (void)event;
    (void)status;
    pthread_mutex_lock(&completion->lock);
    if (completion->bell)
        doorbell_ring(completion->bell);
    let_go(completion);
}

int completion_create(struct completion **completion, struct doorbell_word *bell)
{
    struct completion *made = *completion = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    pthread_mutex_init(&made->lock, NULL);
    made->bell = bell;
    made->holders = 1;
    return 0;
}

int completion_watch(struct completion *completion, cl_event event)
{
    pthread_mutex_lock(&completion->lock);
    completion->holders++;
    pthread_mutex_unlock(&completion->lock);
    /* Without the lock: a driver may ring before it returns. */
    if (clSetEventCallback(event, CL_COMPLETE, ring, completion) == CL_SUCCESS)
        return 0;
    pthread_mutex_lock(&completion->lock);
    let_go(completion);
    return -EIO;
}

void completion_destroy(struct completion **completion)
{
    struct completion *old = *completion;
    *completion = NULL;
    if (!old)
        return;
    pthread_mutex_lock(&old->lock);
    old->bell = NULL;
    let_go(old);
}
