#include "examples/digits/remote.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* A runtime that was killed is back within seconds; longer than this, a person has to look. */
enum { TRIES = 300, PAUSE_MS = 100, DEADLINE_MS = 10000 };

static void pause_before_next_try(void)
{
    struct timespec pause = {0, PAUSE_MS * 1000000L};
    nanosleep(&pause, NULL);
}

static int print_failure(const struct expertd_call *call, const char *what, const char *uid)
{
    fprintf(stderr, "%s %s: %s: %s\n", what, uid, expertd_status_name(expertd_call_status(call)),
            expertd_call_message(call));
    return -EIO;
}

static bool worth_another_try(enum expertd_status status)
{
    return status == EXPERTD_UNAVAILABLE || status == EXPERTD_RESOURCE_EXHAUSTED || status == EXPERTD_DEADLINE_EXCEEDED;
}

/* Waits for the end of a call; signals do not cut it short, as its deadline bounds it. */
static void wait_for(struct expertd_call *call)
{
    while (expertd_call_wait(call, -1) == -EINTR) {
    }
}

const float *remote_output(const struct expertd_call *call, const char *uid, size_t rows, size_t width)
{
    const struct expertd_tensor *output = expertd_call_output(call, 0);
    if (expertd_call_status(call) != EXPERTD_OK) {
        print_failure(call, "call to", uid);
        return NULL;
    }
    if (expertd_call_output_count(call) != 1 || output->dtype != EXPERTD_FLOAT32 || output->ndim != 2 ||
        output->shape[0] != rows || output->shape[1] != width) {
        fprintf(stderr, "call to %s: the answer is not one tensor of %zu x %zu floats\n", uid, rows, width);
        return NULL;
    }
    return output->data;
}

/* Takes the ended call's output over, and releases the call. */
static int finish(struct expertd_call *call, const char *uid, size_t rows, size_t width, float *to)
{
    const float *output = remote_output(call, uid, rows, width);
    if (output) {
        memcpy(to, output, rows * width * sizeof *to);
    }
    expertd_call_release(&call);
    return output ? 0 : -EIO;
}

int remote_forward(struct expertd_client *client, const char *uid, const float *x, size_t rows, size_t width, float *y)
{
    struct expertd_tensor input = expertd_tensor_f32(x, rows, width);
    for (int tries = 1;; tries++) {
        struct expertd_call *call;
        int rc = expertd_forward(client, uid, &input, 1, DEADLINE_MS, &call);
        if (rc != 0) {
            fprintf(stderr, "forward %s: %s\n", uid, strerror(-rc));
            return rc;
        }
        wait_for(call);
        if (tries == TRIES || !worth_another_try(expertd_call_status(call))) {
            return finish(call, uid, rows, width, y);
        }
        expertd_call_release(&call);
        pause_before_next_try();
    }
}

int remote_backward(struct expertd_client *client, const char *uid, const float *x, const float *grad_y, size_t rows,
                    size_t width, float *grad_x)
{
    struct expertd_tensor input = expertd_tensor_f32(x, rows, width), grad = expertd_tensor_f32(grad_y, rows, width);
    struct expertd_call *call;
    int rc = expertd_backward(client, uid, &input, 1, &grad, 1, DEADLINE_MS, &call);
    if (rc == 0) {
        wait_for(call);
    }
    for (int tries = 1; rc == 0 && tries < TRIES && worth_another_try(expertd_call_status(call)); tries++) {
        pause_before_next_try();
        rc = expertd_call_retry(call, DEADLINE_MS);
        if (rc == 0) {
            wait_for(call);
        } else {
            expertd_call_release(&call);
        }
    }
    if (rc != 0) {
        fprintf(stderr, "backward %s: %s\n", uid, strerror(-rc));
        return rc;
    }
    enum expertd_status status = expertd_call_status(call);
    if (status == EXPERTD_ALREADY_EXISTS || status == EXPERTD_ABORTED) {
        expertd_call_release(&call);
        return REMOTE_LOST;
    }
    return finish(call, uid, rows, width, grad_x);
}

int remote_checkpoint(struct expertd_client *client, const char *uid)
{
    struct expertd_call *call;
    int rc = expertd_checkpoint(client, uid, DEADLINE_MS, &call);
    if (rc != 0) {
        fprintf(stderr, "checkpoint %s: %s\n", uid, strerror(-rc));
        return rc;
    }
    wait_for(call);
    if (expertd_call_status(call) != EXPERTD_OK) {
        rc = print_failure(call, "checkpoint", uid);
    }
    expertd_call_release(&call);
    return rc;
}
