/* A device's control segment. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/shm.h"
#include "support_pool.h"

static char device[32];

static void setup(void)
{
    snprintf(device, sizeof device, "c%ld", (long)getpid());
}

static void fill_expert(struct control_expert_shared *expert, uint32_t e)
{
    snprintf(expert->uid, sizeof expert->uid, "ffn.%u", e);
    snprintf(expert->block, sizeof expert->block, "ffn");
    snprintf(expert->optimizer, sizeof expert->optimizer, "adam");
    snprintf(expert->schedule, sizeof expert->schedule, "none");
    expert->hidden_dim = 16;
    expert->max_batch_size = 32;
    expert->learning_rate = 1e-3;
    expert->inputs = support_schema("x", 16);
    expert->outputs = support_schema("y", 16);
}

static struct control *make(uint32_t experts)
{
    struct control *control;
    ck_assert_int_eq(control_create(&control, support_server(), device, 77, experts), 0);
    for (uint32_t e = 0; e < experts; e++)
        fill_expert(control_expert(control, e), e);
    return control;
}

static struct control *attach(bool frontend)
{
    struct control *control;
    ck_assert_int_eq(control_attach(&control, support_server(), device, frontend), 0);
    return control;
}

static int attach_error(void)
{
    struct control *control;
    return control_attach(&control, support_server(), device, true);
}

static int adopt(struct control **control, uint64_t fingerprint, uint32_t experts)
{
    return control_adopt(control, support_server(), device, fingerprint, experts);
}

static int segments(const char *name, void *context)
{
    (void)name;
    ++*(int *)context;
    return 0;
}

static int count_segments(void)
{
    int count = 0;
    char prefix[40];
    snprintf(prefix, sizeof prefix, "%s.", device);
    ck_assert_int_eq(shm_each(support_server(), prefix, segments, &count), 0);
    return count;
}

START_TEST(a_frontend_waits_until_it_is_published)
{
    ck_assert_int_eq(attach_error(), -ENOENT);
    struct control *runtime = make(3);
    ck_assert_int_eq(attach_error(), -EAGAIN);
    control_publish(runtime);
    struct control *frontend = attach(true);
    ck_assert_uint_eq(control_generation(frontend), control_generation(runtime));
    ck_assert_uint_eq(control_experts_count(frontend), 3);
    ck_assert_str_eq(control_expert(frontend, 2)->uid, "ffn.2");
    ck_assert_uint_eq(atomic_load(&control_page(runtime)->frontend.epoch), 1);
    ck_assert_uint_eq(atomic_load(&control_page(runtime)->frontend.pid), (uint32_t)getpid());
    ck_assert_uint_eq(atomic_load(&control_page(frontend)->runtime.pid), (uint32_t)getpid());
    control_detach(&frontend);
    frontend = attach(true);
    ck_assert_uint_eq(atomic_load(&control_page(runtime)->frontend.epoch), 2);
    struct control *tool = attach(false);
    ck_assert_uint_eq(atomic_load(&control_page(runtime)->frontend.epoch), 2);
    control_detach(&tool);
    control_retire(&runtime);
    ck_assert_ptr_null(runtime);
    ck_assert(control_retired(frontend));
    ck_assert_int_eq(attach_error(), -ENOENT);
    control_detach(&frontend);
    control_detach(&frontend); /* of NULL */
    control_retire(&runtime);
}
END_TEST

START_TEST(the_next_generation_retires_the_last_one)
{
    struct control *first = make(2);
    control_publish(first);
    struct control *frontend = attach(true);
    struct pool_pair pair;
    support_layout(&pair, POOL_FORWARD, 64, 8, 16, 16);
    pair.layout.device = device;
    pair.layout.generation = control_generation(first);
    for (pair.layout.index = 0; pair.layout.index < 4; pair.layout.index++) {
        ck_assert_int_eq(pool_create(&pair.runtime, &pair.layout), 0);
        pool_detach(&pair.runtime);
    }
    ck_assert_int_eq(count_segments(), 5);
    ck_assert(!control_retired(frontend));
    const uint64_t generation = control_generation(first);
    control_detach(&first); /* without a farewell */
    struct control *second = make(2);
    ck_assert(control_retired(frontend));
    ck_assert_int_eq(count_segments(), 1);
    ck_assert_uint_gt(control_generation(second), generation);
    control_retire(&second);
    struct control *third = make(1);
    ck_assert_uint_gt(control_generation(third), control_generation(frontend));
    control_retire(&third);
    ck_assert_int_eq(count_segments(), 0);
    control_detach(&frontend);
}
END_TEST

START_TEST(what_a_killed_runtime_left_can_be_removed_without_another_generation)
{
    struct control *killed = make(1);
    control_publish(killed);
    struct control *frontend = attach(true);
    struct pool_pair pair;
    support_layout(&pair, POOL_BACKWARD, 64, 8, 16, 16);
    pair.layout.device = device;
    pair.layout.generation = control_generation(killed);
    ck_assert_int_eq(pool_create(&pair.runtime, &pair.layout), 0);
    pool_detach(&pair.runtime);
    control_detach(&killed);
    ck_assert_int_eq(control_remove(support_server(), device), 0);
    ck_assert_int_eq(count_segments(), 0);
    ck_assert(control_retired(frontend));
    ck_assert_int_eq(attach_error(), -ENOENT);
    ck_assert_int_eq(control_remove(support_server(), device), 0);
    control_detach(&frontend);
}
END_TEST

START_TEST(segments_of_others_are_not_touched)
{
    char others[6][SHM_NAME_SIZE], server[64];
    void *mapping;
    snprintf(server, sizeof server, "%s.x", support_server());
    ck_assert_int_eq(shm_name(others[0], support_server(), "%s2.control", device), 0);
    ck_assert_int_eq(shm_name(others[1], support_server(), "%s.1.control", device), 0);
    ck_assert_int_eq(shm_name(others[2], support_server(), "%s.1.2.3", device), 0);
    ck_assert_int_eq(shm_name(others[3], support_server(), "%s.1.2x", device), 0);
    ck_assert_int_eq(shm_name(others[4], server, "%s.control", device), 0);
    ck_assert_int_eq(shm_name(others[5], server, "%s.1.2", device), 0);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(shm_create_segment(others[i], POOL_PAGE, 0, &mapping), 0);
        shm_detach(mapping, POOL_PAGE);
    }
    struct control *control = make(1);
    control_retire(&control);
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(shm_remove(others[i]), 0);
}
END_TEST

START_TEST(a_runtime_adopts_only_what_fits)
{
    struct control *control, *adopted;
    ck_assert_int_eq(adopt(&adopted, 77, 2), -ENOENT);
    control = make(2);
    control_detach(&control);                          /* as one that is killed */
    ck_assert_int_eq(adopt(&adopted, 77, 2), -ESTALE); /* not ready */
    control = make(2);
    control_publish(control);
    atomic_store(&control_page(control)->runtime.busy_since_ns, 5);
    control_count(control, CONTROL_TASKS, 3);
    control_detach(&control);
    control = attach(false);
    ck_assert_int_eq(adopt(&adopted, 78, 2), -ESTALE);
    ck_assert_int_eq(adopt(&adopted, 77, 3), -ESTALE);
    ck_assert_int_eq(adopt(&adopted, 77, 2), 0);
    ck_assert_uint_eq(control_generation(adopted), control_generation(control));
    ck_assert_uint_eq(atomic_load(&control_page(control)->runtime.busy_since_ns), 0);
    ck_assert_uint_eq(atomic_load(&control_page(adopted)->statistics.counters[CONTROL_TASKS]), 3);
    ck_assert(control_any_ready(control)); /* all of them: the dead one may have taken bits */
    control_detach(&control);
    control_retire(&adopted);
}
END_TEST

struct seen {
    uint32_t count, pools[8300];
};

static void see(uint32_t pool, void *context)
{
    struct seen *seen = context;
    seen->pools[seen->count++] = pool;
}

START_TEST(marks_are_taken_once_and_in_order)
{
    static struct seen seen;
    static const uint32_t marked[] = {0, 1, 63, 64, 500, 1000, 8189};
    struct control *control = make(4095);
    ck_assert(!control_any_ready(control));
    for (int i = 6; i >= 0; i--)
        control_mark_ready(control, marked[i]);
    control_mark_ready(control, 500);
    ck_assert(control_any_ready(control));
    ck_assert(!control_any_done(control));
    ck_assert_uint_eq(control_take_done(control, (control_visit *const[]){see}, 1, &seen), 0);
    ck_assert_uint_eq(control_take_ready(control, (control_visit *const[]){see}, 1, &seen), 7);
    ck_assert_uint_eq(seen.count, 7);
    for (int i = 0; i < 7; i++)
        ck_assert_uint_eq(seen.pools[i], marked[i]);
    ck_assert(!control_any_ready(control));
    ck_assert_uint_eq(control_take_ready(control, (control_visit *const[]){see}, 1, &seen), 0);
    control_mark_done(control, 77);
    ck_assert(control_any_done(control));
    ck_assert_uint_eq(control_take_done(control, (control_visit *const[]){see}, 1, &seen), 1);
    ck_assert_uint_eq(seen.pools[7], 77);
    /* Bits of no pool. */
    _Atomic uint64_t *words = (void *)((char *)control_page(control) + control_page(control)->ready_offset);
    atomic_store(&words[127], UINT64_MAX);
    ck_assert_uint_eq(control_take_ready(control, (control_visit *const[]){see}, 1, &seen), 62);
    ck_assert(!control_any_ready(control));
    control_retire(&control);
}
END_TEST

enum { PREPARED = 100000 };

static void prepare(uint32_t pool, void *context)
{
    see(pool + PREPARED, context);
}

/* Of one pool alone nothing is prepared. */
START_TEST(pools_are_prepared_together_before_each_is_visited)
{
    static struct seen seen;
    control_visit *const stages[] = {prepare, see};
    struct control *control = make(200);
    for (uint32_t pool = 0; pool < CONTROL_TOGETHER + 3; pool++)
        control_mark_done(control, 5 * pool);
    ck_assert_uint_eq(control_take_done(control, stages, 2, &seen), CONTROL_TOGETHER + 3);
    ck_assert_uint_eq(seen.count, 2 * (CONTROL_TOGETHER + 3));
    for (uint32_t i = 0; i < seen.count; i++) {
        const uint32_t round = i < 2 * CONTROL_TOGETHER ? 0 : 1, together = round == 0 ? CONTROL_TOGETHER : 3;
        const uint32_t in_round = i - 2 * CONTROL_TOGETHER * round;
        const uint32_t pool = 5 * (CONTROL_TOGETHER * round + in_round % together);
        ck_assert_uint_eq(seen.pools[i], in_round < together ? pool + PREPARED : pool);
    }
    seen.count = 0;
    control_mark_done(control, 7);
    ck_assert_uint_eq(control_take_done(control, stages, 2, &seen), 1);
    ck_assert_uint_eq(seen.count, 1);
    ck_assert_uint_eq(seen.pools[0], 7);
    control_retire(&control);
}
END_TEST

START_TEST(everything_is_looked_at_after_a_start)
{
    static struct seen seen;
    struct control *control = make(33), *adopted;
    control_publish(control);
    struct control *frontend = attach(true);
    ck_assert_uint_eq(control_take_done(frontend, (control_visit *const[]){see}, 1, &seen), 66);
    ck_assert(!control_any_ready(control));
    control_detach(&control); /* as one that is killed */
    ck_assert_int_eq(adopt(&adopted, 77, 33), 0);
    ck_assert_uint_eq(control_take_ready(adopted, (control_visit *const[]){see}, 1, &seen), 66);
    control_detach(&frontend);
    control_retire(&adopted);
}
END_TEST

static void remove_control(void)
{
    char name[SHM_NAME_SIZE];
    ck_assert_int_eq(shm_name(name, support_server(), "%s.control", device), 0);
    ck_assert_int_eq(shm_remove(name), 0);
}

START_TEST(a_device_has_one_runtime_at_a_time)
{
    struct control *other = NULL;
    ck_assert(!control_held(support_server(), device));
    struct control *control = make(1);
    control_publish(control);
    struct control *frontend = attach(true);
    ck_assert(control_held(support_server(), device));
    ck_assert_int_eq(control_check_free(support_server(), device), -EBUSY);
    ck_assert_int_eq(adopt(&other, 77, 1), -EBUSY);
    ck_assert_int_eq(control_create(&other, support_server(), device, 77, 1), -EBUSY);
    ck_assert_int_eq(control_remove(support_server(), device), -EBUSY);
    ck_assert(!control_retired(frontend) && !control_fault(control) && count_segments() == 1);
    control_detach(&control);
    ck_assert(!control_held(support_server(), device));
    ck_assert_int_eq(adopt(&other, 77, 1), 0);
    ck_assert(control_held(support_server(), device));
    control_detach(&frontend);
    control_retire(&other);
    ck_assert(!control_held(support_server(), device));
}
END_TEST

START_TEST(who_lost_the_name_leaves_what_another_has_there)
{
    struct control *control = make(1), *again = NULL;
    control_publish(control);
    remove_control();
    ck_assert_ptr_nonnull(control_fault(control));
    struct control *other = make(1);
    control_publish(other);
    ck_assert_int_eq(control_create(&again, support_server(), device, 77, 1), -EBUSY);
    control_retire(&control);
    ck_assert_ptr_null(control_fault(other));
    ck_assert_int_eq(count_segments(), 1);
    control_retire(&other);
}
END_TEST

enum { MARKS = 50000, MARKED_POOLS = 130 };
static _Atomic uint32_t positions[MARKED_POOLS];

static void *mark_many(void *context)
{
    for (uint32_t i = 0; i < MARKS; i++) {
        atomic_fetch_add_explicit(&positions[i * 7 % MARKED_POOLS], 1, memory_order_release);
        control_mark_ready(context, i * 7 % MARKED_POOLS);
    }
    return NULL;
}

static void note_position(uint32_t pool, void *context)
{
    uint32_t *noted = context;
    noted[pool] = atomic_load_explicit(&positions[pool], memory_order_acquire);
}

START_TEST(no_mark_is_missed)
{
    uint32_t noted[MARKED_POOLS] = {0};
    struct control *control = make(MARKED_POOLS / 2);
    pthread_t marker;
    ck_assert_int_eq(pthread_create(&marker, NULL, mark_many, control), 0);
    for (int i = 0; i < 1000; i++)
        control_take_ready(control, (control_visit *const[]){note_position}, 1, noted);
    ck_assert_int_eq(pthread_join(marker, NULL), 0);
    control_take_ready(control, (control_visit *const[]){note_position}, 1, noted);
    for (uint32_t pool = 0; pool < MARKED_POOLS; pool++)
        ck_assert_uint_eq(noted[pool], atomic_load(&positions[pool]));
    control_retire(&control);
}
END_TEST

START_TEST(a_damaged_segment_is_refused)
{
    struct control *control = make(5), *adopted;
    control_publish(control);
    struct control_shared *page = control_page(control);
    struct control_expert_shared *expert = control_expert(control, 4);
    bool adoptable = false;
    switch (_i) {
    case 0:
        page->magic ^= 1;
        break;
    case 1:
        page->version++;
        break;
    case 2:
        page->experts_count = 6;
        break;
    case 3:
        page->experts_count = UINT32_MAX;
        break;
    case 4:
        page->segment_bytes *= 2;
        break;
    case 5:
        page->generation = 0;
        break;
    case 6:
        page->generation = UINT64_MAX;
        break;
    case 7:
        page->ready_offset = 0;
        break;
    case 8:
        page->done_offset = UINT64_MAX - 7;
        break;
    case 9:
        page->experts_offset++;
        break;
    case 10:
        page->server[0]++;
        break;
    case 11:
        memset(page->device, 'd', CONTROL_NAME_SIZE);
        break;
    default:
        adoptable = true;
    }
    switch (_i) {
    case 12:
        memset(expert->uid, 'a', UID_SIZE);
        break;
    case 13:
        strcpy(expert->uid, "no uid");
        break;
    case 14:
        memset(expert->optimizer, 'a', sizeof expert->optimizer);
        break;
    case 15:
        expert->learning_rate = NAN;
        break;
    case 16:
        expert->clip_norm = INFINITY;
        break;
    case 17:
        expert->max_batch_size = 0;
        break;
    case 18:
        expert->inputs.count = 0;
        break;
    case 19:
        expert->outputs.tensors[0].dims[0] = UINT64_MAX;
        break;
    case 20:
        expert->arguments_count = BLOCK_ARGUMENTS_MAX + 1;
        break;
    case 21:
        expert->arguments_count = 1;
        memset(expert->arguments[0].name, 'a', sizeof expert->arguments[0].name);
        break;
    case 23:
        expert->arguments_count = 1;
        memset(expert->arguments[0].text, 'a', sizeof expert->arguments[0].text);
        break;
    case 22:
        expert->arguments_count = 1;
        expert->arguments[0].value = NAN;
        break;
    default:
        break;
    }
    ck_assert_int_eq(attach_error(), -EPROTO);
    control_detach(&control);
    if (!adoptable)
        ck_assert_int_eq(adopt(&adopted, 77, 5), -ESTALE);
    control = make(5); /* it is replaced */
    control_publish(control);
    struct control *frontend = attach(true);
    control_detach(&frontend);
    control_retire(&control);
}
END_TEST

START_TEST(names_that_could_be_confused_are_refused)
{
    static const char *const bad[] = {"", "a.b", "a/b", "a b", "a\n", "0123456789012345678901234567890123456789"};
    struct control *control;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(control_create(&control, support_server(), bad[i], 1, 1), -EINVAL);
        ck_assert_int_eq(control_attach(&control, support_server(), bad[i], true), -EINVAL);
    }
    ck_assert_int_eq(control_create(&control, "", "d", 1, 1), -EINVAL);
    ck_assert_int_eq(control_create(&control, support_server(), "d", 1, CONTROL_MAX_EXPERTS + 1), -EINVAL);
}
END_TEST

START_TEST(a_runtime_without_experts_has_a_segment_too)
{
    struct control *control = make(0);
    control_publish(control);
    struct control *frontend = attach(true);
    ck_assert_uint_eq(control_experts_count(frontend), 0);
    ck_assert(!control_any_done(frontend));
    control_detach(&frontend);
    control_retire(&control);
}
END_TEST

START_TEST(counters_have_names_and_count)
{
    struct control *control = make(1);
    for (int i = 0; i < CONTROL_COUNTERS; i++) {
        ck_assert_str_ne(control_counter_name((enum control_counter)i), "unknown");
        control_count(control, (enum control_counter)i, 5);
        control_count(control, (enum control_counter)i, (uint64_t)i);
        ck_assert_uint_eq(atomic_load(&control_page(control)->statistics.counters[i]), 5 + (uint64_t)i);
    }
    ck_assert_str_eq(control_counter_name(CONTROL_COUNTERS), "unknown");
    control_retire(&control);
}
END_TEST

START_TEST(fingerprints_tell_layouts_apart)
{
    struct pool_pair pair;
    support_layout(&pair, POOL_FORWARD, 64, 8, 16, 16);
    struct pool_layout layouts[10];
    for (int i = 0; i < 10; i++)
        layouts[i] = pair.layout;
    layouts[1].kind = POOL_BACKWARD;
    layouts[2].uid = "ffn.1.3";
    layouts[3].max_batch_size = 8;
    layouts[4].queue_rows = 65;
    layouts[5].queue_tasks = 16;
    layouts[6].inputs.tensors[0].dims[0] = 17;
    layouts[7].outputs.tensors[0].dtype = DTYPE_FLOAT64;
    layouts[8].outputs.tensors[0].name[0] = 'z';
    uint64_t prints[10];
    for (int i = 0; i < 9; i++)
        prints[i] = control_fingerprint(0, &layouts[i]);
    prints[9] = control_fingerprint(prints[0], &layouts[0]);
    for (int i = 0; i < 10; i++)
        for (int j = 0; j < i; j++)
            ck_assert_uint_ne(prints[i], prints[j]);
    /* What does not count, and bytes that mean nothing. */
    layouts[9].generation = 99;
    layouts[9].index = 99;
    layouts[9].inputs.tensors[0].dims[5] = 1;
    layouts[9].inputs.tensors[0].name[5] = 'x';
    ck_assert_uint_eq(control_fingerprint(0, &layouts[9]), prints[0]);
    ck_assert_uint_ne(control_fingerprint(control_fingerprint(0, &layouts[0]), &layouts[1]),
                      control_fingerprint(control_fingerprint(0, &layouts[1]), &layouts[0]));
}
END_TEST

static void remove_name(void)
{
    char name[SHM_NAME_SIZE];
    ck_assert_int_eq(shm_name(name, support_server(), "%s.control", device), 0);
    ck_assert_int_eq(shm_remove(name), 0);
}

START_TEST(what_makes_a_generation_useless_is_told)
{
    struct control *runtime = make(2);
    control_publish(runtime);
    ck_assert_ptr_null(control_fault(runtime));
    struct control *frontend = attach(true);
    ck_assert(!control_renewal_wanted(runtime));
    control_want_renewal(frontend);
    ck_assert(control_renewal_wanted(runtime));
    ck_assert_ptr_nonnull(strstr(control_fault(runtime), "frontend"));
    control_detach(&frontend);
    control_retire(&runtime);

    runtime = make(2);
    control_publish(runtime);
    ck_assert(!control_renewal_wanted(runtime)); /* that was about another one */
    atomic_store(&control_page(runtime)->runtime.state, 77);
    ck_assert_ptr_nonnull(strstr(control_fault(runtime), "damaged"));
    atomic_store(&control_page(runtime)->runtime.state, CONTROL_READY);
    control_page(runtime)->experts_count++;
    ck_assert_ptr_nonnull(control_fault(runtime));
    control_page(runtime)->experts_count--;
    ck_assert_ptr_null(control_fault(runtime));
    atomic_store(&control_page(runtime)->runtime.pid, 1); /* whom the frontend would take for its runtime */
    ck_assert_ptr_nonnull(strstr(control_fault(runtime), "damaged"));
    atomic_store(&control_page(runtime)->runtime.pid, (uint32_t)getpid());
    ck_assert_ptr_null(control_fault(runtime));
    remove_name();
    ck_assert_ptr_nonnull(strstr(control_fault(runtime), "names"));
    struct control *other = make(2); /* under the same name: still not this one */
    control_publish(other);
    ck_assert_ptr_nonnull(strstr(control_fault(runtime), "names"));
    control_abandon(&runtime);
    ck_assert_ptr_null(control_fault(other)); /* whose name was left alone */
    control_retire(&other);
}
END_TEST

START_TEST(a_frontend_refuses_a_segment_that_is_not_sane_so_that_its_runtime_knows)
{
    struct control *runtime = make(2), *frontend;
    control_publish(runtime);
    memset(control_expert(runtime, 1)->uid, 'x', UID_SIZE);
    ck_assert_int_eq(control_attach(&frontend, support_server(), device, false), -EPROTO);
    ck_assert_ptr_null(control_fault(runtime)); /* who only looks changes nothing */
    ck_assert_int_eq(control_attach(&frontend, support_server(), device, true), -EPROTO);
    ck_assert_ptr_nonnull(strstr(control_fault(runtime), "frontend"));
    control_retire(&runtime);
}
END_TEST

START_TEST(what_is_in_the_way_and_cannot_be_removed_is_an_error)
{
    struct control *control;
    char name[SHM_NAME_SIZE], path[SHM_NAME_SIZE + 16], inside[SHM_NAME_SIZE + 32];
    ck_assert_int_eq(shm_name(name, support_server(), "%s.control", device), 0);
    ck_assert_int_eq(mkdir(shm_path(name, path), 0700), 0);
    snprintf(inside, sizeof inside, "%s/full", path);
    ck_assert_int_eq(mkdir(inside, 0700), 0);
    ck_assert_int_eq(control_create(&control, support_server(), device, 77, 1), -EEXIST);
    ck_assert_int_eq(rmdir(inside), 0);
    ck_assert_int_eq(control_create(&control, support_server(), device, 77, 1), 0);
    control_retire(&control);
}
END_TEST

START_TEST(a_free_slot_is_not_looked_at_and_a_change_of_slots_is_seen)
{
    struct control *runtime = make(2);
    control_slot_set(runtime, 1, CONTROL_SLOT_FREE);
    control_expert(runtime, 1)->uid[0] = 0; /* which a used one may not have */
    control_publish(runtime);
    struct control *frontend = attach(true);
    ck_assert(control_slot_used(frontend, 0) && !control_slot_used(frontend, 1));
    const uint64_t seen = control_slots_version(frontend);
    control_slot_set(runtime, 1, CONTROL_SLOT_USED);
    ck_assert_uint_ne(control_slots_version(frontend), seen);
    ck_assert(!control_expert_sane(frontend, 1));
    fill_expert(control_expert(runtime, 1), 1);
    ck_assert(control_expert_sane(frontend, 1));
    control_detach(&frontend);
    control_retire(&runtime);
}
END_TEST

START_TEST(a_record_is_read_whole_or_not_at_all)
{
    struct control *runtime = make(1);
    struct control_expert_shared copy;
    struct control_expert_shared *record = control_expert(runtime, 0);
    control_expert_change_begin(record);
    record->learning_rate = 2;
    ck_assert_int_eq(control_expert_copy(record, &copy), -EAGAIN);
    control_expert_change_end(record);
    ck_assert_int_eq(control_expert_copy(record, &copy), 0);
    ck_assert_double_eq(copy.learning_rate, 2);
    control_retire(&runtime);
}
END_TEST

START_TEST(a_change_is_asked_for_once_and_answered_with_a_reason)
{
    struct control *runtime = make(1);
    control_publish(runtime);
    struct control *frontend = attach(true);
    char why[CONTROL_WHY_SIZE];
    uint64_t number;
    uint32_t status;
    enum control_phase phase;
    ck_assert(!control_change_wanted(runtime, &number, &phase));
    control_change_ask(frontend, 7, CONTROL_PREPARE);
    ck_assert(control_change_wanted(runtime, &number, &phase) && number == 7 && phase == CONTROL_PREPARE);
    ck_assert(!control_change_answered(frontend, 7, CONTROL_PREPARE, &status, why));
    control_change_answer(runtime, 7, CONTROL_PREPARE, STATUS_RESOURCE_EXHAUSTED, "no room");
    ck_assert(!control_change_wanted(runtime, &number, &phase));
    ck_assert(control_change_answered(frontend, 7, CONTROL_PREPARE, &status, why));
    ck_assert_uint_eq(status, STATUS_RESOURCE_EXHAUSTED);
    ck_assert_str_eq(why, "no room");
    ck_assert(!control_change_answered(frontend, 8, CONTROL_PREPARE, &status, why));
    control_detach(&frontend);
    control_retire(&runtime);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("control");
    tcase_add_checked_fixture(all, setup, NULL);
    tcase_add_test(all, a_frontend_waits_until_it_is_published);
    tcase_add_test(all, the_next_generation_retires_the_last_one);
    tcase_add_test(all, what_a_killed_runtime_left_can_be_removed_without_another_generation);
    tcase_add_test(all, segments_of_others_are_not_touched);
    tcase_add_test(all, a_runtime_adopts_only_what_fits);
    tcase_add_test(all, marks_are_taken_once_and_in_order);
    tcase_add_test(all, pools_are_prepared_together_before_each_is_visited);
    tcase_add_test(all, everything_is_looked_at_after_a_start);
    tcase_add_test(all, a_device_has_one_runtime_at_a_time);
    tcase_add_test(all, who_lost_the_name_leaves_what_another_has_there);
    tcase_add_test(all, no_mark_is_missed);
    tcase_add_loop_test(all, a_damaged_segment_is_refused, 0, 24);
    tcase_add_test(all, names_that_could_be_confused_are_refused);
    tcase_add_test(all, a_runtime_without_experts_has_a_segment_too);
    tcase_add_test(all, counters_have_names_and_count);
    tcase_add_test(all, fingerprints_tell_layouts_apart);
    tcase_add_test(all, what_makes_a_generation_useless_is_told);
    tcase_add_test(all, a_frontend_refuses_a_segment_that_is_not_sane_so_that_its_runtime_knows);
    tcase_add_test(all, what_is_in_the_way_and_cannot_be_removed_is_an_error);
    tcase_add_test(all, a_free_slot_is_not_looked_at_and_a_change_of_slots_is_seen);
    tcase_add_test(all, a_record_is_read_whole_or_not_at_all);
    tcase_add_test(all, a_change_is_asked_for_once_and_answered_with_a_reason);
    Suite *suite = suite_create("control");
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
