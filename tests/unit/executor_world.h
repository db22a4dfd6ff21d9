/* Three experts behind an executor, and their frontend: for tests of the executor. */
#ifndef EXPERTD_TESTS_UNIT_EXECUTOR_WORLD_H
#define EXPERTD_TESTS_UNIT_EXECUTOR_WORLD_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/serve/executor.h"
#include "runtime/serve/pace.h"
#include "unit/support_device.h"
#include "unit/support_frontend.h"
#include "unit/support_pool.h"

enum { EXPERTS = 3, MAX_ROWS = 8, HIDDEN = 16, FORWARD = 0, BACKWARD = 1 };

static struct support_device support;
static char run_dir[128];
static struct backend backends[EXPERTS];
static struct control *control;
static struct executor *executor;
static struct support_frontend frontend;

/* --- set up ----------------------------------------------------------------------------------------------------------
 */

/* `device`: more options of it, or "". */
static void start_with(const char *kernel, bool staged, const char *device, const char *expert)
{
    const char *parent = getenv("TMPDIR");
    snprintf(run_dir, sizeof run_dir, "%s/executor.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(run_dir));
    support_device_open(&support, kernel, staged, device, expert);
    ck_assert_int_eq(control_create(&control, support_server(), "d", 1, EXPERTS), 0);
    const struct backend_place place = {
        .server = support_server(), .device = "d", .generation = control_generation(control)};
    for (uint32_t i = 0; i < EXPERTS; i++) {
        char uid[UID_SIZE];
        snprintf(uid, sizeof uid, "nop.%u", i);
        ck_assert_int_eq(
            backend_create(&backends[i], support.device, &support.config.experts[0], uid, NULL, NULL, NULL), 0);
        ck_assert_int_eq(backend_open_pools(&backends[i], &place, i, false), 0);
        backend_set_record(&backends[i], control_expert(control, i), false);
    }
    control_publish(control);
    const struct executor_setup setup = {.backends = backends,
                                         .count = EXPERTS,
                                         .control = control,
                                         .device = support.device,
                                         .run_dir = run_dir,
                                         .server = support_server()};
    ck_assert_int_eq(executor_create(&executor, &setup), 0);
    support_frontend_open(&frontend, run_dir, support_server(), "d");
}

static void start(const char *kernel, bool staged, const char *expert)
{
    start_with(kernel, staged, "", expert);
}

static void tear_down(void)
{
    char path[256];
    support_frontend_close(&frontend);
    executor_destroy(&executor);
    for (int i = 0; i < EXPERTS; i++)
        backend_destroy(&backends[i]);
    control_retire(&control);
    support_device_close(&support);
    snprintf(path, sizeof path, "%s/%s.frontend.bell", run_dir, support_server());
    unlink(path);
    rmdir(run_dir);
}

static void run_all(void)
{
    uint64_t retry_ns;
    int rc;
    /* A time to look again at: a pool waits for those who were just answered (runtime/serve/pace.h). */
    while ((rc = executor_step(executor, &retry_ns)) == 1 || retry_ns != UINT64_MAX)
        ck_assert_int_ge(rc, 0);
    ck_assert_int_eq(rc, 0);
}

#endif
