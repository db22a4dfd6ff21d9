// timeout: 600
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "runtime/state/checkpoint.h"
#include "runtime/state/checkpointer.h"
#include "unit/support_device.h"
#include "unit/support_pool.h"

/* The first two train, the third is frozen. */
enum { EXPERTS = 3, FROZEN = 2 };
static const char *const uids[EXPERTS] = {"ffn.0", "ffn.1", "ffn.2"};

static struct support_device support;
static char dir[128], log_path[160];
static struct config_expert frozen;
static struct config_checkpoint config;
static struct checkpoint_owner *owner;
static struct checkpointer_expert experts[EXPERTS];
static struct control *control;
static struct checkpointer *checkpointer;

static void start(const char *folder)
{
    config = (struct config_checkpoint){.dir = folder, .keep = 3};
    ck_assert_int_eq(checkpointer_create(&checkpointer, &config, owner, experts, EXPERTS, control), 0);
}

static void set_up(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/checkpointer.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(log_path, sizeof log_path, "%s.log", dir);
    support_device_open(&support, "cpu", false, "", "block: ffn, hidden_dim: 24, optimizer: sgd");
    ck_assert_int_eq(control_create(&control, support_server(), "d", 1, EXPERTS), 0);
    ck_assert_int_eq(checkpoint_owner_create(&owner, dir), 0);
    frozen = support.config.experts[0];
    frozen.optimizer = "none";
    for (uint32_t i = 0; i < EXPERTS; i++) {
        experts[i] = (struct checkpointer_expert){.uid = uids[i], .record = control_expert(control, i)};
        const struct config_expert *entry = i == FROZEN ? &frozen : &support.config.experts[0];
        ck_assert_int_eq(expert_create(&experts[i].expert, support.device, entry, i), 0);
        if (i != FROZEN)
            ck_assert_int_eq(checkpoint_owner_take(owner, uids[i]), 0);
    }
}

static void tear_down(void)
{
    char command[sizeof dir + sizeof log_path + 16];
    checkpointer_destroy(&checkpointer);
    checkpoint_owner_destroy(&owner);
    for (uint32_t i = 0; i < EXPERTS; i++)
        expert_destroy(&experts[i].expert);
    control_retire(&control);
    support_device_close(&support);
    snprintf(command, sizeof command, "rm -rf '%s' '%s'", dir, log_path);
    ck_assert_int_eq(system(command), 0);
}

/* As after so many backward batches of two rows each. */
static void learn(uint32_t index, uint64_t updates)
{
    const struct expert_counters counters = {.updates = updates, .examples = 2 * updates};
    expert_set_counters(experts[index].expert, &counters, 0);
}

static uint64_t request(uint32_t index)
{
    const uint64_t ticket = atomic_fetch_add(&experts[index].record->frontend.checkpoint_requested, 1) + 1;
    atomic_fetch_add(&control_page(control)->frontend.checkpoint_commands, 1);
    return ticket;
}

static uint64_t served(uint32_t index)
{
    return atomic_load(&experts[index].record->runtime.checkpoint_served);
}

/* Copies what is due, one step of the runtime; true if something was. */
static bool step(void)
{
    (void)checkpointer_step(checkpointer, clock_now_ns());
    const bool wanted = checkpointer_wants_copy(checkpointer);
    if (wanted)
        ck_assert_int_eq(checkpointer_copy(checkpointer), 0);
    return wanted;
}

static void step_until_served(uint32_t index, uint64_t ticket)
{
    const uint64_t until_ns = clock_now_ns() + 600 * NS_PER_S;
    while (served(index) != ticket) {
        ck_assert_msg(clock_now_ns() < until_ns, "the ticket was not served");
        step();
    }
}

static bool has_file(uint32_t index, uint64_t updates)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s/%020" PRIu64 ".safetensors", dir, uids[index], updates);
    return access(path, R_OK) == 0;
}

static bool has_folder(uint32_t index)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, uids[index]);
    return access(path, R_OK) == 0;
}

static const char *logged_by_finish(uint32_t lost)
{
    static char text[8192];
    fflush(stderr);
    const int fd = open(log_path, O_RDWR | O_CREAT | O_TRUNC, 0600), real = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    const uint32_t rc = checkpointer_finish(checkpointer);
    dup2(real, STDERR_FILENO);
    close(real);
    const ssize_t length = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    text[length > 0 ? length : 0] = 0;
    ck_assert_msg(rc == lost, "%u were lost, not %u: %s", rc, lost, text);
    return text;
}

START_TEST(only_what_has_learned_is_written)
{
    start(dir);
    learn(1, 4);
    /* A batch that was skipped has changed nothing; nor has one that went through a frozen expert. */
    expert_set_counters(experts[0].expert, &(struct expert_counters){.skipped = 3}, 0);
    expert_set_counters(experts[FROZEN].expert, &(struct expert_counters){.examples = 30}, 0);
    const uint64_t ticket = request(FROZEN);
    step_until_served(FROZEN, ticket); /* it has nothing to save, and that is no error */
    ck_assert_uint_eq(atomic_load(&experts[FROZEN].record->runtime.checkpoint_errno), 0);
    ck_assert_uint_eq(checkpointer_finish(checkpointer), 0);
    ck_assert(has_file(1, 4) && !has_folder(0) && !has_folder(FROZEN));
    /* What is on the disk is not written again. */
    char path[256];
    snprintf(path, sizeof path, "%s/%s/%020u.safetensors", dir, uids[1], 4);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_uint_eq(checkpointer_finish(checkpointer), 0);
    ck_assert(!has_file(1, 4));
}
END_TEST

/* What a result stands for is what was copied, not what the expert has become. */
START_TEST(what_was_learned_while_a_copy_was_written_is_saved_at_the_end)
{
    start(dir);
    learn(0, 1);
    (void)request(0);
    ck_assert(step());
    learn(0, 2);
    ck_assert_uint_eq(checkpointer_finish(checkpointer), 0);
    ck_assert(has_file(0, 1) && has_file(0, 2));
}
END_TEST

/* The same on the interval, while the runtime serves on. */
START_TEST(what_was_learned_while_a_copy_was_written_is_saved_at_the_next_interval)
{
    config.interval = 0.000001;
    config.dir = dir;
    config.keep = 9;
    ck_assert_int_eq(checkpointer_create(&checkpointer, &config, owner, experts, EXPERTS, control), 0);
    const uint64_t until_ns = clock_now_ns() + 600 * NS_PER_S;
    learn(0, 1);
    while (!step())
        ck_assert_uint_lt(clock_now_ns(), until_ns);
    learn(0, 2);
    while (!has_file(0, 2)) {
        ck_assert_msg(clock_now_ns() < until_ns, "the second update was never saved");
        step();
    }
}
END_TEST

static struct parameters *(*true_parameters)(struct expert *expert);
static uint64_t raised;

/* In the middle of the copy the frontend asks again. */
static struct parameters *ask_meanwhile(struct expert *expert)
{
    if (raised == 0)
        raised = request(0);
    return true_parameters(expert);
}

START_TEST(a_ticket_that_comes_during_the_copy_is_for_the_next_one)
{
    start(dir);
    learn(0, 1);
    const uint64_t ticket = request(0);
    (void)checkpointer_step(checkpointer, clock_now_ns());
    ck_assert(checkpointer_wants_copy(checkpointer));
    struct expert_ops ops = *experts[0].expert->ops;
    true_parameters = ops.parameters;
    ops.parameters = ask_meanwhile;
    const struct expert_ops *true_ops = experts[0].expert->ops;
    experts[0].expert->ops = &ops;
    ck_assert_int_eq(checkpointer_copy(checkpointer), 0);
    experts[0].expert->ops = true_ops;
    ck_assert_uint_eq(raised, ticket + 1);
    const uint64_t until_ns = clock_now_ns() + 600 * NS_PER_S;
    while (served(0) == 0) {
        ck_assert_uint_lt(clock_now_ns(), until_ns);
        (void)checkpointer_step(checkpointer, clock_now_ns());
    }
    ck_assert_uint_eq(served(0), ticket); /* and not the one that came meanwhile */
    ck_assert(checkpointer_wants_copy(checkpointer));
    step_until_served(0, ticket + 1);
}
END_TEST

START_TEST(what_cannot_be_saved_at_the_end_is_named)
{
    char path[2 * sizeof dir + 64];
    start(dir);
    learn(0, 5);
    learn(1, 7);
    snprintf(path, sizeof path, "%s/%s", dir, uids[1]);
    FILE *file = fopen(path, "w"); /* where its folder should be */
    fclose(file);
    const char *text = logged_by_finish(1);
    ck_assert_msg(strstr(text, "lost: 7 updates (14 examples) of 'ffn.1' since its checkpoint after 0 updates: Not a "
                               "directory"),
                  "%s", text);
    ck_assert_ptr_null(strstr(text, "of 'ffn.0'"));
    ck_assert(has_file(0, 5));
    /* Every one of them, whatever the log's limit for lines of a kind. */
    learn(0, 6);
    snprintf(path, sizeof path, "rm -rf '%s/%s' && touch '%s/%s'", dir, uids[0], dir, uids[0]);
    ck_assert_int_eq(system(path), 0);
    text = logged_by_finish(2);
    ck_assert_msg(strstr(text, "of 'ffn.0' since its checkpoint after 5 updates") && strstr(text, "of 'ffn.1'"), "%s",
                  text);
}
END_TEST

START_TEST(without_a_folder_nothing_is_saved_nor_lost)
{
    start("");
    learn(0, 5);
    ck_assert_uint_eq(checkpointer_finish(checkpointer), 0);
    const uint64_t ticket = request(0);
    ck_assert(!step());
    ck_assert_uint_eq(served(0), ticket);
    ck_assert_uint_eq(atomic_load(&experts[0].record->runtime.checkpoint_errno), ENOTSUP);
}
END_TEST

/* A folder that another process has taken meanwhile is not written to. */
START_TEST(a_folder_that_is_not_its_own_any_more_is_left_alone)
{
    char command[2 * sizeof dir + 64];
    struct checkpoint_owner *other;
    start(dir);
    learn(0, 5);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(checkpoint_owner_create(&other, dir), 0);
    ck_assert_int_eq(checkpoint_owner_take(other, uids[0]), 0);
    const char *text = logged_by_finish(1);
    ck_assert_msg(strstr(text, "lost: 5 updates"), "%s", text);
    ck_assert(!has_folder(0));
    checkpoint_owner_destroy(&other);
    ck_assert_uint_eq(checkpointer_finish(checkpointer), 0);
    ck_assert(has_file(0, 5));
}
END_TEST

START_TEST(the_window_of_at_most_once_is_saved_also_when_the_pools_have_gone)
{
    static const struct applied_key keys[] = {{{1, 2}, 3}, {{4, 5}, 6}};
    static struct checkpoint_window window;
    struct pool_layout layout = {.server = support_server(),
                                 .device = "d",
                                 .generation = 1,
                                 .index = 1,
                                 .kind = POOL_BACKWARD,
                                 .uid = uids[0],
                                 .max_batch_size = 4,
                                 .queue_rows = 8,
                                 .queue_tasks = 8};
    const struct expert *expert = experts[0].expert;
    ck_assert_int_eq(schema_concat(&layout.inputs, &expert->inputs, &expert->outputs), 0);
    layout.outputs = expert->inputs;
    ck_assert_int_eq(pool_create(&experts[0].backward, &layout), 0);
    ck_assert_int_eq(pool_restore_applied(experts[0].backward, keys, 2), 0);
    start(dir);
    learn(0, 5);
    step_until_served(0, request(0));
    ck_assert_int_eq(checkpoint_load(experts[0].expert, dir, uids[0], false, &window), 1);
    ck_assert_uint_eq(window.count, 2);
    learn(0, 6);
    checkpointer_detach(checkpointer);
    pool_detach(&experts[0].backward);
    ck_assert_int_eq(pool_remove(support_server(), "d", 1, 1), 0);
    ck_assert_uint_eq(checkpointer_finish(checkpointer), 0);
    ck_assert_int_eq(checkpoint_load(experts[0].expert, dir, uids[0], false, &window), 1);
    ck_assert_uint_eq(experts[0].expert->counters.updates, 6);
    ck_assert_uint_eq(window.count, 2);
    ck_assert_mem_eq(window.keys, keys, sizeof keys);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("checkpointer");
    tcase_set_timeout(all, 300); /* kernels are compiled at the first run */
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, only_what_has_learned_is_written);
    tcase_add_test(all, what_was_learned_while_a_copy_was_written_is_saved_at_the_end);
    tcase_add_test(all, what_was_learned_while_a_copy_was_written_is_saved_at_the_next_interval);
    tcase_add_test(all, a_ticket_that_comes_during_the_copy_is_for_the_next_one);
    tcase_add_test(all, what_cannot_be_saved_at_the_end_is_named);
    tcase_add_test(all, without_a_folder_nothing_is_saved_nor_lost);
    tcase_add_test(all, a_folder_that_is_not_its_own_any_more_is_left_alone);
    tcase_add_test(all, the_window_of_at_most_once_is_saved_also_when_the_pools_have_gone);
    Suite *suite = suite_create("checkpointer");
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
