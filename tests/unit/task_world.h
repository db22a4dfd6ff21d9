/* A frontend, a runtime and two clients: for tests of requests and of their results. */
#ifndef EXPERTD_TESTS_UNIT_TASK_WORLD_H
#define EXPERTD_TESTS_UNIT_TASK_WORLD_H

#include <check.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "unit/support_ask.h"

static struct rig rig;
static struct asker one, two;
static struct question question;
static struct answer answer;

static inline void setup_as(const char *options, bool frozen)
{
    rig_open(&rig, options);
    rig.knobs->frozen = frozen;
    rig_start_frontend(&rig);
    rig_start_runtime(&rig, false);
    ask_open(&one, &rig, ZMQ_DEALER);
    ask_open(&two, &rig, ZMQ_DEALER);
    ask_until_up(&one);
}

static inline void setup_with(const char *options)
{
    setup_as(options, false);
}

static inline void setup(void)
{
    setup_with(NULL);
}

static inline void teardown(void)
{
    rig.knobs->hold = rig.knobs->hold_running = rig.knobs->hang = 0;
    ask_close(&one);
    ask_close(&two);
    ck_assert_int_eq(rig_end(&rig.frontend, SIGTERM), 0);
    rig_close(&rig);
}

static inline void send(struct asker *asker, Expertd__Method method, uint32_t deadline_ms, float value)
{
    ask_prepare(asker, &question, method, "nop.0", 1, value);
    question.header.deadline_ms = deadline_ms;
    ask_send(asker, &question);
}

static inline void expect(struct asker *asker, uint64_t id, enum status status)
{
    ask_receive(asker, &answer);
    ck_assert_msg((int)answer.header->status == (int)status, "%s: %s", status_name((enum status)answer.header->status),
                  answer.header->message);
    ck_assert_uint_eq(answer.header->request_id, id);
}

/* The same BACKWARD once more: same ids, other tensors. */
static inline void repeat(struct asker *asker, uint64_t id, uint32_t deadline_ms)
{
    ask_prepare(asker, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 1, -1);
    question.header.client_id = (ProtobufCBinaryData){sizeof one.client_id, one.client_id};
    question.header.request_id = id;
    question.header.deadline_ms = deadline_ms;
    ask_send(asker, &question);
}

static inline void expect_value(float value)
{
    for (int i = 0; i < RIG_COLUMNS; i++)
        ck_assert_float_eq(answer.values[i], value);
}

#endif
