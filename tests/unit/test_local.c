/* Clients on the same host, whose tensors go through shared memory, against a real frontend: every answer is what it is
 * over ZeroMQ, and what a client leaves is cleaned up. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "client/expertd.h"
#include "unit/task_world.h"

static struct expertd_client *client;
static float values[RIG_MAX_BATCH * 2 * RIG_COLUMNS];

static struct expertd_tensor rows_of(uint64_t rows, float value)
{
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        values[i] = value;
    return expertd_tensor_f32(values, rows, RIG_COLUMNS);
}

static struct expertd_call *forward(const char *uid, uint64_t rows, float value, uint32_t deadline_ms)
{
    struct expertd_call *call;
    const struct expertd_tensor input = rows_of(rows, value);
    ck_assert_int_eq(expertd_forward(client, uid, &input, 1, deadline_ms, &call), 0);
    return call;
}

static struct expertd_call *backward(float value, uint32_t deadline_ms)
{
    struct expertd_call *call;
    const struct expertd_tensor input = rows_of(1, value);
    ck_assert_int_eq(expertd_backward(client, "nop.0", &input, 1, &input, 1, deadline_ms, &call), 0);
    return call;
}

static void expect_end(struct expertd_call *call, enum expertd_status status, const char *text)
{
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    ck_assert_msg(expertd_call_status(call) == status && strstr(expertd_call_message(call), text), "%s: %s",
                  expertd_status_name(expertd_call_status(call)), expertd_call_message(call));
    expertd_call_release(&call);
}

static void expect_rows(struct expertd_call *call, uint64_t rows, float value)
{
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    ck_assert_msg(expertd_call_status(call) == EXPERTD_OK, "%s", expertd_call_message(call));
    const struct expertd_tensor *output = expertd_call_output(call, 0);
    ck_assert_uint_eq(output->shape[0], rows);
    for (size_t i = 0; i < rows * RIG_COLUMNS; i++)
        ck_assert_float_eq(((const float *)output->data)[i], value);
    expertd_call_release(&call);
}

/* The first answers come over ZeroMQ, until the server has said where its socket is. */
static void wait_for_local(void)
{
    RIG_WAIT((expect_rows(forward("nop.0", 1, 1, 0), 1, 1), expertd_client_local(client)));
}

static void open_client(const struct expertd_client_options *options)
{
    ck_assert_int_eq(expertd_client_new(&client, rig.endpoint, options), 0);
}

static void setup_local(void)
{
    setup();
    struct expertd_client_options options;
    expertd_client_options_init(&options);
    options.impatient = true;
    open_client(&options);
    wait_for_local();
}

static void teardown_local(void)
{
    expertd_client_destroy(&client);
    teardown();
}

START_TEST(rows_go_in_and_come_back)
{
    const double before = ask_counter(&one, "frontend.local.requests");
    for (uint64_t rows = 1; rows <= RIG_MAX_BATCH; rows++)
        expect_rows(forward("nop.1", rows, (float)rows, 0), rows, (float)rows);
    expect_rows(backward(7, 0), 1, 7);
    ck_assert(ask_counter(&one, "frontend.local.requests") == before + RIG_MAX_BATCH + 1);
    ck_assert(ask_counter(&one, "frontend.local.clients") == 1);
}
END_TEST

START_TEST(metadata_comes_back)
{
    size_t bytes;
    ck_assert_int_eq(expertd_client_set_metadata(client, "who asks", 8), 0);
    ck_assert_int_eq(expertd_client_set_metadata(client, "who asks", 1025), -EINVAL);
    ck_assert_int_eq(expertd_client_set_traceparent(client, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
                     0);
    ck_assert_int_eq(expertd_client_set_traceparent(client, "00-0af"), -EINVAL);
    struct expertd_call *calls[] = {forward("nop.0", 1, 3, 0), backward(3, 0), forward("nop.9", 1, 3, 0)};
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(expertd_call_wait(calls[i], -1), 0);
        ck_assert_mem_eq(expertd_call_metadata(calls[i], &bytes), "who asks", 8);
        ck_assert_uint_eq(bytes, 8);
        expertd_call_release(&calls[i]);
    }
}
END_TEST

START_TEST(many_are_in_flight_at_once)
{
    enum { COUNT = 16 };
    struct expertd_call *calls[COUNT];
    for (int turn = 0; turn < 20; turn++) {
        for (int i = 0; i < COUNT; i++)
            calls[i] = forward(i % 2 ? "nop.0" : "nop.1", 1, (float)i, 0);
        for (int i = COUNT; i-- > 0;)
            expect_rows(calls[i], 1, (float)i);
    }
}
END_TEST

START_TEST(masks_and_codecs_are_what_they_are_over_zeromq)
{
    static const unsigned char hostile[RIG_COLUMNS] = {0, 1, 2, 255, 128, 0, 7};
    struct expertd_tensor inputs[2] = {
        rows_of(1, 1.5F),
        {.dtype = EXPERTD_BOOL, .ndim = 2, .shape = {1, RIG_COLUMNS}, .data = hostile, .bytes = RIG_COLUMNS}};
    struct expertd_call *call;
    inputs[0].codec = EXPERTD_CODEC_FLOAT16;
    ck_assert_int_eq(expertd_forward(client, "mask.0", inputs, 2, 0, &call), 0);
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    ck_assert_msg(expertd_call_status(call) == EXPERTD_OK, "%s", expertd_call_message(call));
    const unsigned char *mask = expertd_call_output(call, 1)->data;
    for (int i = 0; i < RIG_COLUMNS; i++) {
        ck_assert_float_eq(((const float *)expertd_call_output(call, 0)->data)[i], 1.5F);
        ck_assert_uint_eq(mask[i], hostile[i] != 0);
    }
    expertd_call_release(&call);
    expertd_client_destroy(&client);
    struct expertd_client_options options;
    expertd_client_options_init(&options);
    options.codec = options.reply_codec = EXPERTD_CODEC_BFLOAT16;
    open_client(&options);
    wait_for_local();
    call = forward("nop.0", 1, 3, 0);
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    ck_assert_int_eq(expertd_call_output(call, 0)->codec, EXPERTD_CODEC_BFLOAT16);
    expect_rows(call, 1, 3);
}
END_TEST

START_TEST(every_refusal_says_the_same)
{
    expect_end(forward("nop.77", 1, 1, 0), EXPERTD_NOT_FOUND, "no expert \"nop.77\"");
    expect_end(forward("away.0", 1, 1, 0), EXPERTD_UNAVAILABLE, "device 'other' is not up");
    expect_end(forward("nop.0", RIG_MAX_BATCH + 1, 1, 0), EXPERTD_INVALID_ARGUMENT, "9 rows are more than");
    expect_end(forward("mask.0", 1, 1, 0), EXPERTD_INVALID_ARGUMENT, "expected 2 tensors");
    rig.knobs->fail = 1;
    expect_end(forward("nop.0", 1, 1, 0), EXPERTD_INTERNAL, "CL_OUT_OF_RESOURCES");
    rig.knobs->fail = 0;
    rig.knobs->skip_step = 1;
    expect_end(backward(1, 0), EXPERTD_ABORTED, "NaN");
    rig.knobs->skip_step = 0;
    expect_rows(forward("nop.0", 1, 5, 0), 1, 5);
}
END_TEST

START_TEST(a_full_pool_and_a_deadline_are_answers)
{
    struct expertd_call *calls[RIG_QUEUE_TASKS];
    rig.knobs->hold = 1;
    calls[0] = forward("nop.0", 1, 1, 100);
    expect_end(calls[0], EXPERTD_DEADLINE_EXCEEDED, "");
    for (int i = 0; i < RIG_QUEUE_TASKS; i++)
        calls[i] = forward("nop.1", 1, (float)i, 0);
    expect_end(forward("nop.1", 1, 1, 0), EXPERTD_RESOURCE_EXHAUSTED, "pool is full");
    rig.knobs->hold = 0;
    for (int i = 0; i < RIG_QUEUE_TASKS; i++)
        expect_rows(calls[i], 1, (float)i);
}
END_TEST

START_TEST(gradients_that_are_not_wanted_do_not_come)
{
    wait_for_local();
    const struct expertd_tensor input = rows_of(2, 5);
    for (int wanted = 0; wanted < 2; wanted++) {
        const bool requires_grad = wanted != 0;
        struct expertd_call *call;
        ck_assert_int_eq(expertd_backward_for(client, "nop.0", &input, 1, &requires_grad, &input, 1, 0, &call), 0);
        ck_assert_int_eq(expertd_call_wait(call, -1), 0);
        ck_assert_msg(expertd_call_status(call) == EXPERTD_OK, "%s", expertd_call_message(call));
        ck_assert_uint_eq(expertd_call_output_count(call), (size_t)wanted);
        expertd_call_release(&call);
    }
    ck_assert_uint_eq(rig.knobs->applied, 2);
}
END_TEST

START_TEST(a_backward_is_applied_once_however_often_it_comes)
{
    struct expertd_call *call = backward(7, 0);
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    ck_assert_int_eq(expertd_call_status(call), EXPERTD_OK);
    const unsigned applied = rig.knobs->applied;
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(expertd_call_retry(call, 0), 0);
        ck_assert_int_eq(expertd_call_wait(call, -1), 0);
        ck_assert_int_eq(expertd_call_status(call), EXPERTD_OK);
    }
    expect_rows(call, 1, 7);
    ck_assert_uint_eq(rig.knobs->applied, applied);
}
END_TEST

START_TEST(a_repeat_takes_the_place_of_its_first_and_frees_the_slot)
{
    const unsigned applied = rig.knobs->applied;
    rig.knobs->hold = 1;
    struct expertd_call *call = backward(7, 100);
    ck_assert_int_eq(expertd_call_wait(call, -1), 0); /* late, and given up by the server or by the library */
    ck_assert_int_eq(expertd_call_status(call), EXPERTD_DEADLINE_EXCEEDED);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(expertd_call_retry(call, 100), 0);
        ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    }
    rig.knobs->hold = 0;
    do { /* UNAVAILABLE, when the first's earlier deadline is what its task still has; or an earlier attempt's end */
        ck_assert_int_eq(expertd_call_retry(call, 0), 0);
        ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    } while (expertd_call_status(call) == EXPERTD_UNAVAILABLE ||
             expertd_call_status(call) == EXPERTD_DEADLINE_EXCEEDED);
    expect_rows(call, 1, 7);
    ck_assert_uint_eq(rig.knobs->applied, applied + 1);
    expect_rows(forward("nop.0", 1, 5, 0), 1, 5);
}
END_TEST

START_TEST(memory_of_the_library_is_not_copied_and_comes_back)
{
    void *data, *hint;
    for (int i = 0; i < 1000; i++) { /* each is free again: there is not memory for all of them at once */
        const size_t bytes = 8UL * RIG_COLUMNS * sizeof(float);
        ck_assert_int_eq(expertd_memory_new(client, bytes, &data, &hint), 0);
        ck_assert_ptr_nonnull(hint);
        for (size_t f = 0; f < bytes / sizeof(float); f++)
            ((float *)data)[f] = (float)i;
        struct expertd_tensor input = expertd_tensor_f32(data, 8, RIG_COLUMNS);
        struct expertd_call *call;
        input.free_fn = expertd_memory_free;
        input.hint = hint;
        ck_assert_int_eq(expertd_forward(client, "nop.0", &input, 1, 0, &call), 0);
        expect_rows(call, 8, (float)i);
    }
    ck_assert_int_eq(expertd_memory_new(client, 1, &data, &hint), 0);
    expertd_client_destroy(&client);
    *(char *)data = 1; /* outlives the client */
    expertd_memory_free(data, hint);
}
END_TEST

START_TEST(outputs_outlive_the_link)
{
    struct expertd_call *call = forward("nop.0", 2, 9, 0);
    ck_assert_int_eq(expertd_call_wait(call, -1), 0);
    rig_end(&rig.frontend, SIGKILL);
    expect_end(forward("nop.0", 1, 1, 300), EXPERTD_UNAVAILABLE, "");
    expect_rows(call, 2, 9);
    rig_start_frontend(&rig); /* teardown ends it */
}
END_TEST

START_TEST(a_frontend_that_comes_back_is_used_again)
{
    char listen[96];
    snprintf(listen, sizeof listen, "\"%s\"", rig.endpoint);
    rig_end(&rig.frontend, SIGTERM);
    rig_configure(&rig, listen, NULL);
    rig_start_frontend(&rig);
    struct expertd_call *call;
    RIG_WAIT((call = forward("nop.0", 1, 4, 0), expertd_call_wait(call, -1), expertd_call_release(&call),
              expertd_client_local(client)));
    expect_rows(forward("nop.0", 1, 4, 0), 1, 4);
}
END_TEST

START_TEST(what_a_killed_client_had_queued_is_dropped)
{
    rig.knobs->hold = 1;
    const unsigned taken = rig.knobs->taken;
    int ends[2];
    char sent;
    ck_assert_int_eq(pipe(ends), 0);
    expertd_client_destroy(&client);
    pid_t pid = fork();
    if (pid == 0) {
        rig.knobs->hold = 0;
        open_client(NULL);
        wait_for_local();
        rig.knobs->hold = 1;
        const unsigned before = rig.knobs->taken;
        for (int i = 0; i < 8; i++)
            forward("nop.1", 1, 1, 0);
        (void)!write(ends[1], &before, 1);
        pause();
    }
    ck_assert_int_eq(read(ends[0], &sent, 1), 1);
    (void)taken;
    RIG_WAIT(ask_counter(&one, "device.cpu0.in_flight") == 8);
    const unsigned before = rig.knobs->taken;
    rig_end(&pid, SIGKILL);
    RIG_WAIT(ask_counter(&one, "frontend.requests_dropped") == 8);
    ck_assert(ask_counter(&one, "device.cpu0.in_flight") == 0);
    RIG_WAIT(ask_counter(&one, "frontend.local.clients") == 0);
    rig.knobs->hold = 0;
    ask_alive(&one);
    ck_assert_uint_eq(rig.knobs->taken, before + 1);
}
END_TEST

START_TEST(the_socket_is_its_owners_alone_and_goes_with_the_frontend)
{
    char path[128];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s.local", rig.folder, rig.name);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 07777, 0600);
    ck_assert_int_eq(unlink(path), 0); /* somebody cleans up */
    RIG_WAIT(stat(path, &status) == 0);
    ck_assert_uint_eq(status.st_mode & 07777, 0600);
    expect_rows(forward("nop.0", 1, 2, 0), 1, 2);
    rig_end(&rig.frontend, SIGTERM);
    ck_assert_int_ne(stat(path, &status), 0);
    rig_start_frontend(&rig);
}
END_TEST

START_TEST(it_can_be_off)
{
    char path[128];
    struct stat status;
    setup_with("  local: off\n");
    open_client(NULL);
    for (int i = 0; i < 20; i++)
        expect_rows(forward("nop.0", 1, 1, 0), 1, 1);
    ck_assert(!expertd_client_local(client));
    snprintf(path, sizeof path, "%s/%s.local", rig.folder, rig.name);
    ck_assert_int_ne(stat(path, &status), 0);
    teardown_local();
}
END_TEST

START_TEST(a_group_has_a_socket_of_its_own)
{
    char path[128], options[256];
    struct stat status;
    rig_open(&rig, NULL);
    snprintf(path, sizeof path, "%s/of-the-group", rig.folder);
    snprintf(options, sizeof options, "  local: group %u\n  local_path: %s\n", (unsigned)getegid(), path);
    rig_configure(&rig, NULL, options);
    rig_start_frontend(&rig);
    rig_start_runtime(&rig, false);
    ask_open(&one, &rig, ZMQ_DEALER);
    ask_open(&two, &rig, ZMQ_DEALER);
    ask_until_up(&one);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 07777, 0660);
    ck_assert_uint_eq(status.st_gid, getegid());
    open_client(NULL);
    wait_for_local();
    teardown_local();
    ck_assert_int_ne(stat(path, &status), 0);
}
END_TEST

START_TEST(what_cannot_be_is_refused_at_the_start)
{
    rig_open(&rig, "  local: everybody\n");
    ck_assert_int_eq(rig_run_second(&rig, rig.log), 2);
    rig_configure(&rig, NULL, "  local: group users\n");
    ck_assert_int_eq(rig_run_second(&rig, rig.log), 2);
    rig_expect_log(&rig, "a folder that the group may enter");
    rig_configure(&rig, NULL, "  local: group no-such-group\n  local_path: /tmp/nowhere\n");
    ck_assert_int_eq(rig_run_second(&rig, rig.log), 1);
    rig_expect_log(&rig, "there is no group 'no-such-group'");
    rig_close(&rig);
}
END_TEST

START_TEST(too_little_memory_and_too_many_clients_go_over_zeromq)
{
    struct expertd_client *second;
    setup_with("  local_clients: 1\n");
    struct expertd_client_options options;
    expertd_client_options_init(&options);
    options.local_memory = 65536;
    options.impatient = true;
    open_client(&options);
    wait_for_local();
    /* 1,024 floats a row would not fit; here it is the many at once that do not. */
    struct expertd_call *calls[300];
    for (int i = 0; i < 300; i++)
        calls[i] = forward("nop.1", 8, (float)(i % 8), 0);
    for (int i = 0; i < 300; i++) {
        ck_assert_int_eq(expertd_call_wait(calls[i], -1), 0);
        if (expertd_call_status(calls[i]) == EXPERTD_OK)
            expect_rows(calls[i], 8, (float)(i % 8));
        else
            expect_end(calls[i], EXPERTD_RESOURCE_EXHAUSTED, "full");
    }
    second = client;
    open_client(NULL);
    for (int i = 0; i < 20; i++)
        expect_rows(forward("nop.0", 1, 1, 0), 1, 1);
    ck_assert(!expertd_client_local(client));
    expertd_client_destroy(&second);
    teardown_local();
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("local"), *own = tcase_create("options");
    tcase_add_checked_fixture(all, setup_local, teardown_local);
    tcase_set_timeout(all, 300);
    tcase_set_timeout(own, 300);
    tcase_add_test(all, rows_go_in_and_come_back);
    tcase_add_test(all, metadata_comes_back);
    tcase_add_test(all, many_are_in_flight_at_once);
    tcase_add_test(all, masks_and_codecs_are_what_they_are_over_zeromq);
    tcase_add_test(all, every_refusal_says_the_same);
    tcase_add_test(all, a_full_pool_and_a_deadline_are_answers);
    tcase_add_test(all, a_backward_is_applied_once_however_often_it_comes);
    tcase_add_test(all, gradients_that_are_not_wanted_do_not_come);
    tcase_add_test(all, a_repeat_takes_the_place_of_its_first_and_frees_the_slot);
    tcase_add_test(all, memory_of_the_library_is_not_copied_and_comes_back);
    tcase_add_test(all, outputs_outlive_the_link);
    tcase_add_test(all, a_frontend_that_comes_back_is_used_again);
    tcase_add_test(all, what_a_killed_client_had_queued_is_dropped);
    tcase_add_test(all, the_socket_is_its_owners_alone_and_goes_with_the_frontend);
    tcase_add_test(own, it_can_be_off);
    tcase_add_test(own, a_group_has_a_socket_of_its_own);
    tcase_add_test(own, what_cannot_be_is_refused_at_the_start);
    tcase_add_test(own, too_little_memory_and_too_many_clients_go_over_zeromq);
    Suite *suite = suite_create("local");
    suite_add_tcase(suite, all);
    suite_add_tcase(suite, own);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
