/* Preloaded: the driver's callbacks come EXPERTD_TEST_DELAY_MS late, and to the memory that they were registered with.
 */
#define _GNU_SOURCE
#include <CL/cl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct late {
    void(CL_CALLBACK *callback)(cl_event, cl_int, void *);
    cl_event event;
    cl_int status;
    void *context;
};

static void *call_late(void *argument)
{
    struct late *late = argument;
    const char *text = getenv("EXPERTD_TEST_DELAY_MS");
    const long ms = text ? atol(text) : 500;
    const struct timespec delay = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&delay, NULL);
    late->callback(late->event, late->status, late->context);
    free(late);
    return NULL;
}

static void CL_CALLBACK start(cl_event event, cl_int status, void *context)
{
    struct late *late = context;
    pthread_t thread;
    late->event = event;
    late->status = status;
    if (pthread_create(&thread, NULL, call_late, late) == 0)
        pthread_detach(thread);
}

cl_int clSetEventCallback(cl_event event, cl_int type, void(CL_CALLBACK *callback)(cl_event, cl_int, void *),
                          void *context)
{
    cl_int (*real)(cl_event, cl_int, void(CL_CALLBACK *)(cl_event, cl_int, void *), void *) =
        dlsym(RTLD_NEXT, "clSetEventCallback");
    struct late *late = malloc(sizeof *late);
    if (!late)
        return CL_OUT_OF_HOST_MEMORY;
    *late = (struct late){.callback = callback, .context = context};
    return real(event, type, start, late);
}
