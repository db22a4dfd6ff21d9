/* A block whose batches stay on the device while a file is there (EXPERTD_TEST_HOLD), as with a driver that hangs: the
 * queue waits for an event. <file>.begun is there from a held batch's start on. Its output is its input. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "runtime/blocks/own_expert.h"
#include "runtime/device/device_private.h"

enum { X, Y };

static const char *hold_file(void)
{
    const char *path = getenv("EXPERTD_TEST_HOLD");
    return path ? path : "";
}

static void *let_go_in_time(void *argument)
{
    static const struct timespec pause = {.tv_nsec = 5000000};
    cl_event event = argument;
    while (access(hold_file(), F_OK) == 0)
        nanosleep(&pause, NULL);
    clSetUserEventStatus(event, CL_COMPLETE);
    clReleaseEvent(event);
    return NULL;
}

static int hold(struct device *device)
{
    char begun[4096];
    pthread_t thread;
    cl_int error;
    cl_event event = clCreateUserEvent(device->context, &error);
    if (!event)
        return device_fail(device, error, "clCreateUserEvent");
    error = clEnqueueBarrierWithWaitList(device->queue, 1, &event, NULL);
    if (error != CL_SUCCESS || pthread_create(&thread, NULL, let_go_in_time, event) != 0)
        return device_fail(device, error, "clEnqueueBarrierWithWaitList");
    pthread_detach(thread);
    snprintf(begun, sizeof begun, "%s.begun", hold_file());
    const int fd = open(begun, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 || close(fd) != 0 ? -1 : 0;
}

static int launch(const struct plan_run *run, const struct plan_step *step)
{
    const struct kernel_view x = plan_view(run, step, X), y = plan_view(run, step, Y);
    const size_t bytes = (size_t)plan_view_rows(run, step, X) * step->sizes[0] * sizeof(float);
    const int rc = access(hold_file(), F_OK) == 0 ? hold(run->device) : 0;
    if (rc < 0)
        return rc;
    const cl_int error = clEnqueueCopyBuffer(run->device->queue, x.buffer, y.buffer, x.offset * sizeof(float),
                                             y.offset * sizeof(float), bytes, 0, NULL, NULL);
    return error == CL_SUCCESS ? 0 : device_fail(run->device, error, "clEnqueueCopyBuffer");
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const int x = plan_read(plan, layer->operands[0]);
    struct plan_step *step = plan_add(plan, launch);
    step->sizes[0] = plan->values[layer->value].columns;
    plan_use(plan, X, x);
    plan_use(plan, Y, plan_write(plan, layer->value));
    plan_makes(plan, 1U << Y);
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    plan_contribute(plan, layer->operands[0], plan_gradient(plan, layer));
}

static const struct layer_kind held_layer = {.name = "held", .forward = forward, .backward = backward};

static const struct block_kind held_kind = {
    .name = "held", .operands_min = 1, .operands_max = 1, .shape = own_shape_of_operand, .implementation = &held_layer};

OWN_EXPERT_OF_LAYER("held", "the input, in its own time", held_kind);
