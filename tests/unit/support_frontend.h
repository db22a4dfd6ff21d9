/* The frontend's part of a device's pools, for tests of the runtime: without ZeroMQ. Everything checks and fails the
 * test. */
#ifndef EXPERTD_TESTS_SUPPORT_FRONTEND_H
#define EXPERTD_TESTS_SUPPORT_FRONTEND_H

#include <stdbool.h>
#include <stdint.h>

#include "pools/control.h"
#include "pools/pool.h"

enum { SUPPORT_FRONTEND_POOLS = 16 };

struct support_frontend {
    struct control *control;
    struct pool *pools[SUPPORT_FRONTEND_POOLS];
    bool done[SUPPORT_FRONTEND_POOLS]; /* marked so, and not looked through since */
    int bell_fd;
    uint64_t client, next_request; /* of what is asked next: another client after each opening */
};

/* Makes the bell in run_dir, waits until the device's control segment is ready, and attaches to all of its pools. */
void support_frontend_open(struct support_frontend *frontend, const char *run_dir, const char *server,
                           const char *device);
void support_frontend_close(struct support_frontend *frontend);

/* Queues a task: every element of all inputs (float32) is `value`. Its position. */
uint64_t support_frontend_put(struct support_frontend *frontend, uint32_t pool, uint32_t rows, float value);
/* Waits, on the bell and the pool's done bit, for the pool's next result, which must be `task`; its status. The rows
 * stay until _release. */
enum status support_frontend_wait(struct support_frontend *frontend, uint32_t pool, uint64_t task,
                                  struct pool_result *result);
/* Waits, expects the status, and the first element of the first output unless it is NaN; releases. */
void support_frontend_expect(struct support_frontend *frontend, uint32_t pool, uint64_t task, enum status status,
                             float value);
uint64_t support_frontend_counter(struct support_frontend *frontend, enum control_counter counter);

#endif
