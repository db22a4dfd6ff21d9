#include "unit/slots_world.h"

#include <errno.h>

#include "pools/pool.h"

static void start(const char *device, const char *experts)
{
    configure("", device, experts);
    ck_assert_int_eq(slots_fill(&runtime), 0);
    ck_assert_int_eq(segments_open(&runtime), 0);
    control_publish(runtime.control);
}

/* As a process that is killed: what it had in shared memory stays. Its generation. */
static uint64_t die(void)
{
    const uint64_t generation = control_generation(runtime.control);
    control_detach(&runtime.control);
    let_go();
    return generation;
}

static void stop(void)
{
    segments_close(&runtime);
    ck_assert_ptr_null(runtime.control);
    let_go();
}

static const char two[] = "{uid: 'nop.[0:2]', block: nop, hidden_dim: 4}";

START_TEST(experts_find_the_slots_that_they_had)
{
    start("{name: d, spare_experts: 1}", two);
    const uint64_t generation = die();
    start("{name: d, spare_experts: 0}",
          "{uid: nop.9, block: nop, hidden_dim: 4}, {uid: nop.1, block: nop, hidden_dim: 4}, "
          "{uid: nop.0, block: nop, hidden_dim: 4}");
    ck_assert_uint_eq(control_generation(runtime.control), generation);
    expect_uid(0, "nop.0");
    expect_uid(1, "nop.1");
    expect_uid(2, "nop.9"); /* where it was free */
    ck_assert(control_slot_used(runtime.control, 2));
    stop();
}
END_TEST

START_TEST(pools_that_one_left_who_died_as_it_made_them_are_made_anew)
{
    start("{name: d, spare_experts: 1}", two);
    const struct backend_place place = segments_place(&runtime);
    struct backend half = {0};
    ck_assert_int_eq(backend_create(&half, runtime.device, &config.experts[0], "nop.8", &config.checkpoint, NULL, NULL),
                     0);
    ck_assert_int_eq(backend_open_pools(&half, &place, 2, false), 0);
    backend_destroy(&half); /* its pools stay, and its slot is not said to be used */
    const uint64_t generation = die();
    start("{name: d, spare_experts: 0}", "{uid: 'nop.[0:3]', block: nop, hidden_dim: 4}");
    ck_assert_uint_eq(control_generation(runtime.control), generation);
    expect_uid(2, "nop.2");
    stop();
}
END_TEST

static void count(uint32_t pool, void *context)
{
    uint64_t *seen = context;
    *seen |= UINT64_C(1) << pool;
}

/* The dead one may have taken the bits, or not yet have set them. */
START_TEST(of_adopted_pools_a_frontend_that_stayed_looks_at_all)
{
    control_visit *const visit[] = {count};
    struct control *frontend;
    uint64_t seen = 0;
    start("{name: d, spare_experts: 0}", two);
    ck_assert_int_eq(control_attach(&frontend, support_server(), "d", true), 0);
    control_take_done(frontend, visit, 1, &seen);
    ck_assert(!control_any_done(frontend));
    die();
    start("{name: d, spare_experts: 0}", two);
    seen = 0;
    ck_assert_uint_eq(control_take_done(frontend, visit, 1, &seen), 4);
    ck_assert_uint_eq(seen, 0xf);
    control_detach(&frontend);
    stop();
}
END_TEST

START_TEST(what_is_let_go_of_is_retired_and_gone)
{
    struct control *frontend;
    start("{name: d, spare_experts: 0}", two);
    const uint64_t generation = control_generation(runtime.control);
    ck_assert_int_eq(control_attach(&frontend, support_server(), "d", true), 0);
    stop();
    ck_assert(control_retired(frontend));
    control_detach(&frontend);
    ck_assert_int_eq(control_attach(&frontend, support_server(), "d", false), -ENOENT);
    start("{name: d, spare_experts: 0}", two);
    ck_assert_uint_gt(control_generation(runtime.control), generation);
    stop();
}
END_TEST

/* Another one may be putting its own under the name at this moment. */
START_TEST(who_lost_its_role_removes_its_pools_and_leaves_the_name)
{
    struct control *frontend;
    struct pool *pool;
    start("{name: d, spare_experts: 0}", two);
    ck_assert_int_eq(control_attach(&frontend, support_server(), "d", true), 0);
    const uint64_t generation = control_generation(frontend);
    runtime.lost_role = true;
    stop();
    ck_assert(control_retired(frontend));
    control_detach(&frontend);
    ck_assert_int_eq(control_attach(&frontend, support_server(), "d", false), -EAGAIN); /* there, and not READY */
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_int_eq(pool_attach(&pool, support_server(), "d", generation, i), -ENOENT);
    start("{name: d, spare_experts: 0}", two);
    ck_assert_uint_gt(control_generation(runtime.control), generation);
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("segments");
    TCase *all = tcase_create("segments");
    tcase_add_test(all, experts_find_the_slots_that_they_had);
    tcase_add_test(all, pools_that_one_left_who_died_as_it_made_them_are_made_anew);
    tcase_add_test(all, of_adopted_pools_a_frontend_that_stayed_looks_at_all);
    tcase_add_test(all, what_is_let_go_of_is_retired_and_gone);
    tcase_add_test(all, who_lost_its_role_removes_its_pools_and_leaves_the_name);
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
