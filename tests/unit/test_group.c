/* Calls for many experts through a real frontend: one message, one reply, and each part's fate its own. */
#include <errno.h>
#include <stdlib.h>

#include "proto/codec.h"
#include "unit/task_world.h"

enum { PARTS = 4 };

static Expertd__RequestHeader__Part parts[PARTS], *pointers[PARTS];
static float values[2 * RIG_MAX_BATCH * RIG_COLUMNS];

static void setup_small(void)
{
    setup_with("  max_requests: 4\n");
}

static void setup_frozen(void)
{
    setup_as(NULL, true);
}

/* Part p: `rows[p]` rows of that expert, each element p + 1 more than `base`. */
static void prepare(struct asker *asker, Expertd__Method method, unsigned count, const char *const *uids,
                    const uint32_t *rows, float base)
{
    uint64_t all = 0;
    for (unsigned p = 0; p < count; p++) {
        expertd__request_header__part__init(&parts[p]);
        parts[p].uid = (char *)(uintptr_t)uids[p];
        parts[p].rows = rows[p];
        pointers[p] = &parts[p];
        for (uint64_t i = all * RIG_COLUMNS; i < (all + rows[p]) * RIG_COLUMNS; i++)
            values[i] = base + (float)p + 1;
        all += rows[p];
    }
    ask_prepare(asker, &question, method, "", all, 0);
    for (unsigned f = 0; f < question.frames; f++)
        question.frame[f] = values;
    question.header.n_parts = count;
    question.header.parts = pointers;
}

static const char *const two_uids[] = {"nop.1", "nop.0"};
static const uint32_t two_rows[] = {2, 3};

static void prepare_two(struct asker *asker, Expertd__Method method, float base)
{
    prepare(asker, method, 2, two_uids, two_rows, base);
}

static void expect_rows(unsigned from, unsigned rows, float value)
{
    for (unsigned i = from * RIG_COLUMNS; i < (from + rows) * RIG_COLUMNS; i++)
        ck_assert_float_eq(answer.values[i], value);
}

static void expect_part(unsigned part, enum status status)
{
    ck_assert_uint_lt(part, answer.header->n_parts);
    const Expertd__ReplyHeader__PartResult *result = answer.header->parts[part];
    ck_assert_msg((int)result->status == (int)status, "part %u: %s: %s", part, status_name((enum status)result->status),
                  result->message);
    ck_assert_msg((status == STATUS_OK) == (result->message[0] == 0), "\"%s\"", result->message);
}

START_TEST(one_message_asks_several_experts_and_has_one_answer_in_their_order)
{
    for (int i = 0; i < 50; i++) {
        prepare_two(&one, i % 2 ? EXPERTD__METHOD__BACKWARD : EXPERTD__METHOD__FORWARD, (float)(10 * i));
        question.header.metadata = (ProtobufCBinaryData){3, (uint8_t *)(uintptr_t) "abc"};
        ask_call(&one, &question, &answer, STATUS_OK);
        ck_assert_uint_eq(answer.header->n_parts, 2);
        ck_assert_uint_eq(answer.header->tensors[0]->shape[0], 5);
        ck_assert_uint_eq(answer.bytes[0], 5 * RIG_COLUMNS * sizeof(float));
        ck_assert_uint_eq(answer.header->metadata.len, 3);
        expect_part(0, STATUS_OK);
        expect_part(1, STATUS_OK);
        expect_rows(0, 2, (float)(10 * i + 1));
        expect_rows(2, 3, (float)(10 * i + 2));
    }
    ck_assert(ask_counter(&one, "frontend.parts") == 100);
    ck_assert(ask_counter(&one, "frontend.requests.forward") >= 25);
    ck_assert(ask_counter(&one, "frontend.in_flight") == 0);
}
END_TEST

START_TEST(an_expert_that_is_not_there_costs_its_own_part_alone)
{
    static const char *const uids[] = {"nop.7", "nop.0", "away.0"};
    static const uint32_t rows[] = {1, 2, 1};
    prepare(&one, EXPERTD__METHOD__FORWARD, 3, uids, rows, 0);
    ask_call(&one, &question, &answer, STATUS_OK);
    expect_part(0, STATUS_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(answer.header->parts[0]->message, "nop.7"));
    expect_part(1, STATUS_OK);
    expect_part(2, STATUS_UNAVAILABLE);
    ck_assert_uint_eq(answer.bytes[0], 4 * RIG_COLUMNS * sizeof(float));
    expect_rows(0, 1, 0);
    expect_rows(1, 2, 2);
    expect_rows(3, 1, 0);
    /* Nobody is there: then the reply says so as a whole, with what leaves the most open. */
    static const char *const none[] = {"nop.7", "away.0"};
    prepare(&one, EXPERTD__METHOD__FORWARD, 2, none, rows, 0);
    ask_call(&one, &question, &answer, STATUS_UNAVAILABLE);
    ck_assert_uint_eq(answer.frames, 0);
    expect_part(0, STATUS_NOT_FOUND);
    expect_part(1, STATUS_UNAVAILABLE);
}
END_TEST

static void refused(const char *because)
{
    ask_call(&one, &question, &answer, STATUS_INVALID_ARGUMENT);
    ck_assert_msg(strstr(answer.header->message, because) != NULL, "%s", answer.header->message);
    ck_assert_uint_eq(answer.header->n_parts, 0);
}

START_TEST(what_is_wrong_with_the_request_refuses_it_whole_and_nothing_is_computed)
{
    static const char *const twice[] = {"nop.0", "nop.0"}, *const shapes[] = {"nop.0", "mask.0"};
    static const uint32_t many[] = {1, RIG_MAX_BATCH + 1};
    const unsigned taken = rig.knobs->taken;
    prepare(&one, EXPERTD__METHOD__FORWARD, 2, twice, two_rows, 0);
    refused("named twice");
    prepare(&one, EXPERTD__METHOD__FORWARD, 2, shapes, two_rows, 0);
    refused("other shapes");
    prepare(&one, EXPERTD__METHOD__FORWARD, 2, two_uids, many, 0);
    refused("max_batch_size");
    prepare_two(&one, EXPERTD__METHOD__FORWARD, 0);
    parts[1].rows = 0;
    refused("0 rows");
    parts[1].rows = 4;
    refused("6 rows, the tensors 5");
    parts[1].rows = UINT32_MAX;
    refused("max_batch_size");
    prepare_two(&one, EXPERTD__METHOD__FORWARD, 0);
    question.frame_bytes[0] -= 4;
    refused("its frame has");
    prepare_two(&one, EXPERTD__METHOD__FORWARD, 0);
    question.header.uid = (char *)(uintptr_t) "nop.0";
    refused("not both");
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 0);
    question.header.client_id.len = 3;
    refused("client_id");
    ck_assert_uint_eq(rig.knobs->taken, taken);
    ask_alive(&one);
}
END_TEST

START_TEST(more_parts_than_the_limit_are_no_request)
{
    static Expertd__RequestHeader__Part part;
    static Expertd__RequestHeader__Part *all[MESSAGE_MAX_PARTS + 1];
    expertd__request_header__part__init(&part);
    part.uid = (char *)(uintptr_t) "nop.9";
    part.rows = 1;
    for (int p = 0; p <= MESSAGE_MAX_PARTS; p++)
        all[p] = &part;
    ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, "", 1, 0);
    question.header.parts = all;
    question.header.n_parts = MESSAGE_MAX_PARTS + 1;
    refused("more than 512 parts");
    question.header.request_id = ++one.last_id;
    question.header.n_parts = MESSAGE_MAX_PARTS; /* and of so many unknown ones each is told, the first ones in words */
    ask_call(&one, &question, &answer, STATUS_NOT_FOUND);
    ck_assert_uint_eq(answer.header->n_parts, MESSAGE_MAX_PARTS);
    for (unsigned p = 0; p < MESSAGE_MAX_PARTS; p++)
        ck_assert_int_eq((int)answer.header->parts[p]->status, STATUS_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(answer.header->parts[9]->message, "nop.9"));
}
END_TEST

START_TEST(a_part_is_applied_once_whoever_repeats_it)
{
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 6);
    parts[1].request_id = 1000;
    const uint64_t id = one.last_id;
    ask_call(&one, &question, &answer, STATUS_OK);
    ck_assert_uint_eq(rig.knobs->applied, 2);
    /* The same once more, with other tensors. */
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 60);
    question.header.request_id = id;
    parts[1].request_id = 1000;
    ask_call(&one, &question, &answer, STATUS_OK);
    expect_rows(0, 2, 7);
    expect_rows(2, 3, 8);
    /* A part by itself, and in another call under its id, whose other part is new. */
    repeat(&two, 1000, 0);
    expect(&two, 1000, STATUS_OK);
    ck_assert_uint_eq(answer.bytes[0], 3 * RIG_COLUMNS * sizeof(float));
    expect_value(8);
    ck_assert_uint_eq(rig.knobs->applied, 2);
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 60);
    parts[1].request_id = 1000;
    ask_call(&one, &question, &answer, STATUS_OK);
    expect_rows(0, 2, 61);
    expect_rows(2, 3, 8);
    ck_assert_uint_eq(rig.knobs->applied, 3);
    /* Other rows than the first had are not its repeat. */
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 60);
    parts[0].rows = 3;
    parts[1].rows = 2;
    parts[1].request_id = 1000;
    ask_call(&one, &question, &answer, STATUS_OK);
    expect_part(0, STATUS_OK);
    expect_part(1, STATUS_ALREADY_EXISTS); /* the first was applied */
    expect_rows(3, 2, 0);
    ck_assert_uint_eq(rig.knobs->applied, 4);
}
END_TEST

/* Of mask.0's two inputs, which have as many rows, and could have the same type. */
static void prepare_masked(bool first, bool second)
{
    static protobuf_c_boolean wanted[2];
    static const char *const uids[] = {"mask.0"};
    static const uint32_t rows[] = {2};
    static const unsigned char mask[2 * RIG_COLUMNS] = {1};
    prepare(&one, EXPERTD__METHOD__BACKWARD, 1, uids, rows, 6);
    for (unsigned i = 2; i < 4; i++)
        question.tensor[i] = question.tensor[0];
    for (unsigned i = 0; i < 4; i++) {
        question.frame[i] = i % 2 ? (const void *)mask : (const void *)values;
        question.frame_bytes[i] = i % 2 ? sizeof mask : sizeof mask * sizeof(float);
        if (i % 2)
            question.tensor[i].dtype = EXPERTD__DTYPE__BOOL;
    }
    question.header.n_tensors = question.frames = 4;
    wanted[0] = first;
    wanted[1] = second;
    question.header.requires_grad = wanted;
    question.header.n_requires_grad = 2;
}

/* Alone or in a call, of what is done or runs: it never gets gradients that it did not ask for. */
START_TEST(a_repeat_that_wants_other_gradients_is_refused)
{
    prepare_masked(true, false);
    const uint64_t id = one.last_id;
    ask_call(&one, &question, &answer, STATUS_OK);
    prepare_masked(false, true);
    question.header.request_id = id;
    ask_call(&one, &question, &answer, STATUS_ALREADY_EXISTS);
    expect_part(0, STATUS_ALREADY_EXISTS);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "other gradients"));
    prepare_masked(true, false);
    question.header.request_id = id;
    ask_call(&one, &question, &answer, STATUS_OK);
    expect_rows(0, 2, 7);
    ck_assert_uint_eq(rig.knobs->applied, 1);
    rig.knobs->hold = 1;
    prepare_masked(true, false);
    const uint64_t running = one.last_id;
    ask_send(&one, &question);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == 1);
    for (int alone = 0; alone < 2; alone++) {
        prepare_masked(false, true);
        question.header.request_id = running;
        if (alone) {
            question.header.n_parts = 0;
            snprintf(question.uid, sizeof question.uid, "mask.0");
        }
        ask_call(&one, &question, &answer, STATUS_UNAVAILABLE);
        ck_assert_ptr_nonnull(strstr(answer.header->message, "other gradients"));
    }
    rig.knobs->hold = 0;
    expect(&one, running, STATUS_OK); /* its asker is the one it was */
    expect_rows(0, 2, 7);
    ck_assert_uint_eq(rig.knobs->applied, 2);
}
END_TEST

/* The first was given up, and its repeat is queued behind it: the first's answer is not the repeat's, but says enough.
 */
START_TEST(a_queued_repeat_that_wants_other_gradients_is_told_that_its_first_was_applied)
{
    rig.knobs->hold_running = 1;
    prepare_masked(true, false);
    question.header.deadline_ms = 100;
    const uint64_t id = one.last_id;
    ask_send(&one, &question);
    RIG_WAIT(rig.knobs->taken == 1);
    expect(&one, id, STATUS_DEADLINE_EXCEEDED);
    prepare_masked(false, true);
    question.header.request_id = id;
    ask_send(&one, &question);
    RIG_WAIT(ask_counter(&two, "device.cpu0.in_flight") == 1);
    rig.knobs->hold_running = 0;
    expect(&one, id, STATUS_ALREADY_EXISTS);
    expect_part(0, STATUS_ALREADY_EXISTS);
    ck_assert_uint_eq(rig.knobs->applied, 1);
}
END_TEST

/* Nothing was applied, so nothing is in the way of computing what is asked now. */
START_TEST(what_does_not_learn_computes_a_repeat_that_asks_for_something_else)
{
    prepare_masked(true, false);
    const uint64_t id = one.last_id;
    ask_call(&one, &question, &answer, STATUS_OK);
    for (int alone = 0; alone < 2; alone++) {
        prepare_masked(false, true);
        question.header.request_id = id;
        if (alone) {
            question.header.n_parts = 0;
            snprintf(question.uid, sizeof question.uid, "mask.0");
        }
        ask_call(&one, &question, &answer, STATUS_OK);
        ck_assert_uint_eq(answer.frames, 1);
        ck_assert_int_eq((int)answer.header->tensors[0]->dtype, DTYPE_BOOL);
    }
    ck_assert_uint_eq(rig.knobs->taken, 3);
    prepare_masked(true, false); /* what asks for the same is answered as ever */
    question.header.request_id = id;
    ask_call(&one, &question, &answer, STATUS_OK);
    expect_rows(0, 2, 7);
    ck_assert_uint_eq(rig.knobs->taken, 3);
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 6);
    const uint64_t rows_id = one.last_id;
    ask_call(&one, &question, &answer, STATUS_OK);
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 60);
    parts[0].rows = 3;
    parts[1].rows = 2;
    question.header.request_id = rows_id;
    ask_call(&one, &question, &answer, STATUS_OK);
    expect_rows(0, 2, 61);
    expect_rows(3, 2, 62);
    /* The first runs, or has been given up: either way both are answered with their own. */
    for (int given_up = 0; given_up < 2; given_up++) {
        const unsigned taken = rig.knobs->taken;
        rig.knobs->hold_running = 1;
        prepare_masked(true, false);
        question.header.deadline_ms = given_up ? 100 : 0;
        const uint64_t running = one.last_id;
        ask_send(&one, &question);
        RIG_WAIT(rig.knobs->taken == taken + 1);
        if (given_up)
            expect(&one, running, STATUS_DEADLINE_EXCEEDED);
        prepare_masked(false, true);
        question.header.request_id = running;
        ask_send(&one, &question);
        RIG_WAIT(ask_counter(&two, "frontend.in_flight") == 2);
        rig.knobs->hold_running = 0;
        if (!given_up) {
            expect(&one, running, STATUS_OK);
            expect_rows(0, 2, 7);
        }
        expect(&one, running, STATUS_OK);
        ck_assert_int_eq((int)answer.header->tensors[0]->dtype, DTYPE_BOOL);
    }
    ck_assert_uint_eq(rig.knobs->applied, 0);
}
END_TEST

START_TEST(a_part_takes_the_place_of_its_running_first_and_gives_it_up_again)
{
    rig.knobs->hold = 1;
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 6);
    const uint64_t id = one.last_id;
    ask_send(&one, &question);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == 2);
    repeat(&two, id, 0); /* of nop.0, the second part */
    RIG_WAIT(ask_counter(&one, "frontend.replay.joined") == 1);
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 60); /* and of both again, in a call: the plain one is not answered */
    question.header.request_id = id;
    ask_send(&one, &question);
    /* With both parts gone, the first call ends. */
    expect(&one, id, STATUS_UNAVAILABLE);
    expect_part(0, STATUS_UNAVAILABLE);
    expect_part(1, STATUS_UNAVAILABLE);
    rig.knobs->hold = 0;
    expect(&one, id, STATUS_OK);
    expect_rows(0, 2, 7);
    expect_rows(2, 3, 8);
    ck_assert(!ask_poll(&two, &answer, 0));
    ck_assert_uint_eq(rig.knobs->applied, 2);
    ck_assert(ask_counter(&one, "frontend.in_flight") == 0);
}
END_TEST

START_TEST(a_full_pool_refuses_its_part_alone)
{
    static const char *const uids[] = {"nop.0", "nop.1"};
    static const uint32_t rows[] = {1, 1};
    rig.knobs->hold = 1;
    const uint64_t first = one.last_id + 1;
    for (int i = 0; i < RIG_QUEUE_TASKS; i++)
        send(&one, EXPERTD__METHOD__FORWARD, 0, (float)i);
    prepare(&one, EXPERTD__METHOD__FORWARD, 2, uids, rows, 0);
    ask_send(&one, &question);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == RIG_QUEUE_TASKS + 1);
    rig.knobs->hold = 0;
    bool met = false;
    for (int i = 0; i <= RIG_QUEUE_TASKS; i++) {
        ask_receive(&one, &answer);
        if (answer.header->request_id != first + RIG_QUEUE_TASKS)
            continue;
        met = true;
        expect_part(0, STATUS_RESOURCE_EXHAUSTED);
        ck_assert_uint_gt(answer.header->parts[0]->retry_after_ms, 0);
        expect_part(1, STATUS_OK);
        expect_rows(0, 1, 0);
        expect_rows(1, 1, 2);
    }
    ck_assert(met);
}
END_TEST

/* Both tensors: those of a call that waits are its own, encoded or not. */
START_TEST(a_part_that_has_less_than_its_share_waits_for_room)
{
    static const char *const uids[] = {"nop.1", "nop.0"};
    static const uint32_t rows[] = {1, 2};
    for (uint32_t codec = 0; codec < CODEC_COUNT; codec++) {
        unsigned char frame[2048];
        uint64_t bytes = 0;
        rig.knobs->hold = 1;
        for (int i = 0; i < RIG_QUEUE_TASKS; i++)
            send(&one, EXPERTD__METHOD__FORWARD, 0, (float)i);
        RIG_WAIT(ask_counter(&one, "frontend.in_flight") == RIG_QUEUE_TASKS);
        prepare(&two, EXPERTD__METHOD__FORWARD, 2, uids, rows, 4);
        ck_assert(codec_frame_bytes(codec, DTYPE_FLOAT32, 3 * RIG_COLUMNS, RIG_COLUMNS, &bytes));
        ck_assert_uint_le(bytes, sizeof frame);
        if (codec != CODEC_NONE) {
            ck_assert(codec_encode(codec, values, 3 * RIG_COLUMNS, RIG_COLUMNS, frame));
            question.frame[0] = frame;
            question.frame_bytes[0] = bytes;
            question.tensor[0].codec = (Expertd__Codec)codec;
        }
        ask_send(&two, &question);
        RIG_WAIT(ask_counter(&one, "frontend.requests_waited") == codec + 1);
        memset(values, 0, sizeof values);
        rig.knobs->hold = 0;
        for (int i = 0; i < RIG_QUEUE_TASKS; i++)
            ask_receive(&one, &answer);
        expect(&two, two.last_id, STATUS_OK);
        for (int i = 0; i < 3 * RIG_COLUMNS; i++)
            ck_assert_float_eq_tol(answer.values[i], i < RIG_COLUMNS ? 5.0f : 6.0f, 0.05f);
    }
}
END_TEST

START_TEST(answers_come_encoded_as_wished)
{
    Expertd__Codec wish = EXPERTD__CODEC__CODEC_FLOAT16;
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 6);
    question.header.n_reply_codecs = 1;
    question.header.reply_codecs = &wish;
    const uint64_t id = one.last_id;
    for (int i = 0; i < 2; i++) {
        ask_call(&one, &question, &answer, STATUS_OK);
        float decoded[5 * RIG_COLUMNS];
        ck_assert_int_eq((int)answer.header->tensors[0]->codec, CODEC_FLOAT16);
        ck_assert_uint_eq(answer.bytes[0], sizeof decoded / 2);
        codec_decode(CODEC_FLOAT16, answer.values, 5 * RIG_COLUMNS, RIG_COLUMNS, decoded);
        for (int e = 0; e < 5 * RIG_COLUMNS; e++)
            ck_assert_float_eq(decoded[e], e < 2 * RIG_COLUMNS ? 7.0f : 8.0f);
    }
    /* One that was asked by itself with a codec is kept so, and a call decodes it. */
    ask_prepare(&one, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 3, 9);
    question.header.n_reply_codecs = 1;
    question.header.reply_codecs = &wish;
    ask_call(&one, &question, &answer, STATUS_OK);
    const uint64_t alone = one.last_id;
    prepare_two(&one, EXPERTD__METHOD__BACKWARD, 60);
    parts[0].request_id = id;
    parts[1].request_id = alone;
    ask_call(&one, &question, &answer, STATUS_OK);
    expect_rows(0, 2, 7);
    expect_rows(2, 3, 9);
    ck_assert_uint_eq(rig.knobs->applied, 3);
}
END_TEST

START_TEST(parts_that_fail_or_are_late_say_so)
{
    rig.knobs->fail = 1;
    prepare_two(&one, EXPERTD__METHOD__FORWARD, 0);
    ask_call(&one, &question, &answer, STATUS_INTERNAL);
    expect_part(0, STATUS_INTERNAL);
    expect_part(1, STATUS_INTERNAL);
    rig.knobs->fail = 0;
    rig.knobs->hold = 1;
    prepare_two(&one, EXPERTD__METHOD__FORWARD, 0);
    question.header.deadline_ms = 50;
    ask_call(&one, &question, &answer, STATUS_DEADLINE_EXCEEDED);
    expect_part(1, STATUS_DEADLINE_EXCEEDED);
    rig.knobs->hold = 0;
    ask_alive(&one);
}
END_TEST

START_TEST(an_asker_that_went_leaves_nothing_behind)
{
    struct asker third;
    ask_open(&third, &rig, ZMQ_DEALER);
    rig.knobs->hold = 1;
    prepare_two(&third, EXPERTD__METHOD__FORWARD, 0);
    ask_send(&third, &question);
    RIG_WAIT(ask_counter(&one, "frontend.in_flight") == 2);
    ask_close(&third);
    RIG_WAIT(ask_counter(&one, "frontend.requests_dropped") == 2);
    rig.knobs->hold = 0;
    RIG_WAIT(ask_counter(&one, "frontend.in_flight") == 0);
    prepare_two(&one, EXPERTD__METHOD__FORWARD, 0);
    ask_call(&one, &question, &answer, STATUS_OK);
}
END_TEST

START_TEST(a_runtime_that_dies_ends_its_parts)
{
    rig.knobs->hold = 1;
    prepare_two(&one, EXPERTD__METHOD__FORWARD, 0);
    ask_send(&one, &question);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == 2);
    rig_end(&rig.runtime, SIGKILL);
    ask_receive(&one, &answer); /* after frontend.restart_grace */
    ck_assert_int_eq((int)answer.header->status, STATUS_UNAVAILABLE);
    expect_part(0, STATUS_UNAVAILABLE);
    expect_part(1, STATUS_UNAVAILABLE);
}
END_TEST

START_TEST(each_part_is_one_of_the_server_s_requests)
{
    static const char *const uids[] = {"nop.0", "nop.1"};
    static const uint32_t rows[] = {1, 1};
    rig.knobs->hold = 1;
    for (int i = 0; i < 3; i++)
        send(&one, EXPERTD__METHOD__FORWARD, 0, 1);
    prepare(&one, EXPERTD__METHOD__FORWARD, 2, uids, rows, 0);
    ask_send(&one, &question);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == 4);
    rig.knobs->hold = 0;
    for (int i = 0; i < 4; i++)
        ask_receive(&one, &answer);
    ck_assert_uint_eq(answer.header->n_parts, 2);
    expect_part(0, STATUS_OK);
    expect_part(1, STATUS_RESOURCE_EXHAUSTED);
    ck_assert_ptr_nonnull(strstr(answer.header->parts[1]->message, "server is full"));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("group"), *small = tcase_create("small"), *frozen = tcase_create("frozen");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_checked_fixture(small, setup_small, teardown);
    tcase_add_checked_fixture(frozen, setup_frozen, teardown);
    tcase_add_test(all, one_message_asks_several_experts_and_has_one_answer_in_their_order);
    tcase_add_test(all, an_expert_that_is_not_there_costs_its_own_part_alone);
    tcase_add_test(all, what_is_wrong_with_the_request_refuses_it_whole_and_nothing_is_computed);
    tcase_add_test(all, more_parts_than_the_limit_are_no_request);
    tcase_add_test(all, a_part_is_applied_once_whoever_repeats_it);
    tcase_add_test(all, a_repeat_that_wants_other_gradients_is_refused);
    tcase_add_test(all, a_queued_repeat_that_wants_other_gradients_is_told_that_its_first_was_applied);
    tcase_add_test(all, a_part_takes_the_place_of_its_running_first_and_gives_it_up_again);
    tcase_add_test(all, a_full_pool_refuses_its_part_alone);
    tcase_add_test(all, a_part_that_has_less_than_its_share_waits_for_room);
    tcase_add_test(all, answers_come_encoded_as_wished);
    tcase_add_test(all, parts_that_fail_or_are_late_say_so);
    tcase_add_test(all, an_asker_that_went_leaves_nothing_behind);
    tcase_add_test(all, a_runtime_that_dies_ends_its_parts);
    tcase_add_test(small, each_part_is_one_of_the_server_s_requests);
    tcase_add_test(frozen, what_does_not_learn_computes_a_repeat_that_asks_for_something_else);
    Suite *suite = suite_create("group");
    suite_add_tcase(suite, all);
    suite_add_tcase(suite, small);
    suite_add_tcase(suite, frozen);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
