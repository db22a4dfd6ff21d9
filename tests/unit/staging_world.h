/* Two batches in flight on a device with memory of its own, as PoCL's device is used with slabs: staged. What holds a
 * queue, or makes a command in it fail, is a user event that a barrier in it waits for. */
#ifndef EXPERTD_TESTS_UNIT_STAGING_WORLD_H
#define EXPERTD_TESTS_UNIT_STAGING_WORLD_H

#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device/device_private.h"
#include "unit/support_training.h"

enum { HIDDEN = 48, ROWS = 12, BATCHES = 2 };

/* --- OpenCL calls that fail, or hold, when a test says so ------------------------------------------------------------
 */

static struct bad {
    cl_int error; /* of the next call */
} bad_write, bad_read;
static unsigned hold_before_launch; /* counts down to the launch that waits for `held` */
static cl_event held;

/* PoCL 3.1 uses the event of a command that fails for a moment longer than somebody else holds it; so all are held. */
static cl_event kept[4096];
static unsigned kept_count;

static cl_int keep(cl_int error, cl_event *event)
{
    if (error == CL_SUCCESS) {
        ck_assert_uint_lt(kept_count, sizeof kept / sizeof kept[0]);
        ck_assert_int_eq(clRetainEvent(*event), CL_SUCCESS);
        kept[kept_count++] = *event;
    }
    return error;
}

static void *real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    ck_assert_ptr_nonnull(function);
    return function;
}

static cl_int fails(struct bad *bad)
{
    const cl_int error = bad->error;
    bad->error = 0;
    return error;
}

/* As the library's, but that every command has an event, and as its first lines say. */
#define WRAP(name, parameters, arguments, before)                                                                      \
    __attribute__((visibility("default"))) cl_int name parameters                                                      \
    {                                                                                                                  \
        cl_int(*call) parameters;                                                                                      \
        cl_event own = NULL;                                                                                           \
        before;                                                                                                        \
        event = event != NULL ? event : &own;                                                                          \
        *(void **)&call = real(#name);                                                                                 \
        const cl_int result = keep(call arguments, event);                                                             \
        if (own != NULL)                                                                                               \
            clReleaseEvent(own);                                                                                       \
        return result;                                                                                                 \
    }

#define FAIL_IF(bad)                                                                                                   \
    do {                                                                                                               \
        if ((bad).error != 0)                                                                                          \
            return fails(&(bad));                                                                                      \
    } while (0)

#define TRANSFER(memory)                                                                                               \
    (cl_command_queue queue, cl_mem buffer, cl_bool wait, size_t offset, size_t size, memory, cl_uint count,           \
     const cl_event *events, cl_event *event)

WRAP(clEnqueueWriteBuffer, TRANSFER(const void *host), (queue, buffer, wait, offset, size, host, count, events, event),
     FAIL_IF(bad_write))
WRAP(clEnqueueReadBuffer, TRANSFER(void *host), (queue, buffer, wait, offset, size, host, count, events, event),
     FAIL_IF(bad_read))
WRAP(clEnqueueCopyBuffer,
     (cl_command_queue queue, cl_mem from, cl_mem to, size_t from_at, size_t to_at, size_t size, cl_uint count,
      const cl_event *events, cl_event *event),
     (queue, from, to, from_at, to_at, size, count, events, event), (void)0)
WRAP(clEnqueueMarkerWithWaitList, (cl_command_queue queue, cl_uint count, const cl_event *events, cl_event *event),
     (queue, count, events, event), (void)0)
WRAP(clEnqueueBarrierWithWaitList, (cl_command_queue queue, cl_uint count, const cl_event *events, cl_event *event),
     (queue, count, events, event), (void)0)
WRAP(clEnqueueNDRangeKernel,
     (cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset, const size_t *global,
      const size_t *local, cl_uint count, const cl_event *events, cl_event *event),
     (queue, kernel, dims, offset, global, local, count, events, event), {
         if (hold_before_launch > 0 && --hold_before_launch == 0)
             ck_assert_int_eq(clEnqueueBarrierWithWaitList(queue, 1, &held, NULL), CL_SUCCESS);
     })

/* --- two batches of an expert ----------------------------------------------------------------------------------------
 */

static struct training training;
static struct device *device;
static struct device_slab outputs, expected;
static struct expert_batch batches[BATCHES];

static void set_up(void)
{
    cl_int error;
    training_open(&training, "gpu", true, "chunk_rows: 7, copy_threads: 3", HIDDEN, BATCHES * ROWS, "clip_norm: 1");
    device = training.support.device;
    outputs = support_slab((size_t)BATCHES * ROWS * HIDDEN);
    expected = support_slab((size_t)BATCHES * ROWS * HIDDEN);
    training_fill(&training, 0);
    /* What each gives alone. */
    for (unsigned i = 0; i < BATCHES; i++) {
        struct expert_batch alone = {
            .first_row = i * ROWS, .rows = ROWS, .inputs = training.inputs, .outputs = &expected};
        ck_assert_int_eq(expert_forward(training.expert, &alone), 0);
        ck_assert_int_eq(expert_finish(training.expert, &alone), 0);
        batches[i] =
            (struct expert_batch){.first_row = i * ROWS, .rows = ROWS, .inputs = training.inputs, .outputs = &outputs};
    }
    held = clCreateUserEvent(device->context, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
}

static void tear_down(void)
{
    for (unsigned i = 0; i < kept_count; i++)
        clReleaseEvent(kept[i]);
    kept_count = 0;
    clReleaseEvent(held);
    support_slab_free(&outputs);
    support_slab_free(&expected);
    training_close(&training);
}

static void hold(cl_command_queue queue)
{
    ck_assert_int_eq(clEnqueueBarrierWithWaitList(queue, 1, &held, NULL), CL_SUCCESS);
}

static void let_go(cl_int status)
{
    ck_assert_int_eq(clSetUserEventStatus(held, status), CL_SUCCESS);
}

static void forward(unsigned i)
{
    ck_assert_msg(expert_forward(training.expert, &batches[i]) == 0, "%s", device_error(device));
}

static void check(unsigned i)
{
    const size_t at = (size_t)i * ROWS * HIDDEN;
    ck_assert_mem_eq((const float *)outputs.mapping + at, (const float *)expected.mapping + at,
                     ROWS * HIDDEN * sizeof(float));
}

static void finish(unsigned i)
{
    ck_assert_msg(expert_finish(training.expert, &batches[i]) == 0, "%s", device_error(device));
    check(i);
}

static bool came(unsigned i)
{
    return !isnan(((const float *)outputs.mapping)[(size_t)i * ROWS * HIDDEN]);
}

static void wait_until_complete(cl_event event)
{
    ck_assert_int_eq(clWaitForEvents(1, &event), CL_SUCCESS); /* libcheck's timeout bounds it */
}

static struct expert_batch backward_batch(void)
{
    return (struct expert_batch){.rows = ROWS, .inputs = training.inputs, .outputs = &training.grad_inputs};
}

#endif
