#include "unit/slots_world.h"

#include <stdlib.h>

START_TEST(what_is_on_the_device_takes_the_first_slots_in_the_configuration_s_order)
{
    configure("", "{name: d}, {name: other}",
              "{uid: 'nop.[0:2]', block: nop, hidden_dim: 4, device: d}, "
              "{uid: nop.7, block: nop, hidden_dim: 4, device: other}, "
              "{uid: nop.2, block: nop, hidden_dim: 4, device: d}");
    ck_assert_int_eq(slots_fill(&runtime), 0);
    ck_assert_uint_eq(runtime.made, 3);
    expect_uid(0, "nop.0");
    expect_uid(1, "nop.1");
    expect_uid(2, "nop.2");
    let_go();
}
END_TEST

/* server, devices, free slots behind two experts on d; e has three. */
static const struct {
    const char *server, *devices;
    uint32_t spare;
} spares[] = {
    {"", "{name: d, spare_experts: 0}, {name: e}", 0},
    {"", "{name: d, spare_experts: 5}, {name: e}", 5},
    {", on_device_loss: move", "{name: d, spare_experts: 0}, {name: e}", 3},
    {", on_device_loss: move", "{name: d, spare_experts: 5}, {name: e}, {name: f}", 8},
};

START_TEST(free_slots_are_those_to_spare_and_for_what_a_lost_device_had)
{
    configure(spares[_i].server, spares[_i].devices,
              "{uid: 'nop.[0:2]', block: nop, hidden_dim: 4, device: d}, "
              "{uid: 'nop.[2:5]', block: nop, hidden_dim: 4, device: e}");
    ck_assert_int_eq(slots_fill(&runtime), 0);
    ck_assert_uint_eq(runtime.made, 2);
    ck_assert_uint_eq(runtime.slots, 2 + spares[_i].spare);
    for (uint32_t i = 2; i < runtime.slots; i++)
        ck_assert(!runtime_slot_used(&runtime, i));
    let_go();
}
END_TEST

/* Its own experts are with others then, and may come back. */
START_TEST(a_device_whose_experts_have_gone_begins_with_free_slots_for_them)
{
    struct config live;
    static const char text[] = "devices: [{name: d}, {name: e}]\n"
                               "experts: [{uid: 'nop.[0:3]', block: nop, hidden_dim: 4, device: e}]\n";
    configure(", on_device_loss: move", "{name: d, spare_experts: 0}, {name: e}",
              "{uid: 'nop.[0:2]', block: nop, hidden_dim: 4, device: d}, "
              "{uid: nop.2, block: nop, hidden_dim: 4, device: e}");
    ck_assert_int_eq(config_parse(&live, text, strlen(text), "live"), 0);
    runtime.live = &live;
    ck_assert_int_eq(slots_fill(&runtime), 0);
    ck_assert_uint_eq(runtime.made, 0);
    ck_assert_uint_eq(runtime.slots, 3);
    let_go();
    config_destroy(&live);
}
END_TEST

START_TEST(the_checkpointer_sees_each_slot_as_it_is)
{
    configure("", "{name: d, spare_experts: 1}", "{uid: 'nop.[0:2]', block: nop, hidden_dim: 4}");
    ck_assert_int_eq(slots_fill(&runtime), 0);
    struct checkpointer_expert *all = slots_checkpointer_experts(&runtime);
    ck_assert_ptr_nonnull(all);
    ck_assert_str_eq(all[1].uid, "nop.1");
    ck_assert_ptr_eq(all[1].expert, runtime.backends[1].expert);
    ck_assert_ptr_null(all[2].expert);
    free(all);
    let_go();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("slots");
    TCase *all = tcase_create("slots");
    tcase_add_test(all, what_is_on_the_device_takes_the_first_slots_in_the_configuration_s_order);
    tcase_add_loop_test(all, free_slots_are_those_to_spare_and_for_what_a_lost_device_had, 0,
                        sizeof spares / sizeof spares[0]);
    tcase_add_test(all, a_device_whose_experts_have_gone_begins_with_free_slots_for_them);
    tcase_add_test(all, the_checkpointer_sees_each_slot_as_it_is);
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
