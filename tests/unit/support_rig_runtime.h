/* The runtime of a rig: a process that never returns. */
#ifndef EXPERTD_TESTS_SUPPORT_RIG_RUNTIME_H
#define EXPERTD_TESTS_SUPPORT_RIG_RUNTIME_H

#include "unit/support_rig.h"

/* Writes a byte to ready_fd when the frontend may attach. SIGTERM: ends cleanly, and so retires its segments. */
_Noreturn void rig_runtime(const struct rig *rig, bool fresh, int ready_fd);

#endif
