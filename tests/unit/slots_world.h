/* A runtime's experts and segments, without its executor and its process: for tests of runtime/slots.c and
 * runtime/segments.c. Experts are nops: the device is opened, but nothing is compiled for it. */
#ifndef EXPERTD_TESTS_UNIT_SLOTS_WORLD_H
#define EXPERTD_TESTS_UNIT_SLOTS_WORLD_H

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/runtime_state.h"
#include "runtime/segments.h"
#include "runtime/slots.h"
#include "unit/support_pool.h"

static struct config config;
static struct runtime runtime;

/* `server`: more options of it, or "". */
static inline void configure(const char *server, const char *devices, const char *experts)
{
    char text[1024];
    snprintf(text, sizeof text, "server: {name: %s%s}\ndevices: [%s]\nexperts: [%s]\n", support_server(), server,
             devices, experts);
    ck_assert_int_eq(config_parse(&config, text, strlen(text), "world"), 0);
    runtime = (struct runtime){.config = &config, .live = &config, .entry = &config.devices[0], .owner_fd = -1};
    ck_assert_int_eq(device_open(&runtime.device, runtime.entry), 0);
}

static inline void let_go(void)
{
    slots_destroy(&runtime);
    weights_destroy(&runtime.weights);
    device_destroy(&runtime.device);
    config_destroy(&config);
}

static inline void expect_uid(uint32_t slot, const char *uid)
{
    ck_assert(runtime_slot_used(&runtime, slot));
    ck_assert_str_eq(runtime.backends[slot].uid, uid);
}

#endif
