/* What both sides of a pool see of it. */
#include <string.h>

#include "support_pool.h"

START_TEST(both_sides_see_the_same_slabs)
{
    struct pool_pair pair;
    support_layout(&pair, POOL_BACKWARD, 100, 5, 10, 3);
    struct schema gradients = support_schema("grad", 1000);
    ck_assert_int_eq(schema_concat(&pair.layout.inputs, &pair.layout.inputs, &gradients), 0);
    ck_assert_int_eq(pool_create(&pair.runtime, &pair.layout), 0);
    ck_assert_int_eq(pool_create(&pair.runtime, &pair.layout), -EEXIST);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 1), 0);

    const struct pool_shared *header = pool_header(pair.frontend);
    ck_assert_str_eq(header->uid, "ffn.1.2");
    ck_assert_uint_eq(header->kind, POOL_BACKWARD);
    ck_assert_uint_eq(header->capacity_rows, 100);
    ck_assert_uint_eq(header->capacity_tasks, 8); /* rounded up */
    ck_assert_uint_eq(header->inputs.count, 2);
    ck_assert_str_eq(header->inputs.tensors[1].name, "grad");
    ck_assert_uint_eq(pool_input_row_bytes(pair.frontend, 0), 12);
    ck_assert_uint_eq(pool_input_row_bytes(pair.frontend, 1), 4000);
    ck_assert_uint_eq(pool_input_slab_bytes(pair.frontend, 0), 4096);
    ck_assert_uint_eq(pool_input_slab_bytes(pair.frontend, 1), 98 * 4096);
    ck_assert_uint_eq(pool_output_row_bytes(pair.runtime, 0), 12);
    ck_assert_uint_eq(pool_output_slab_bytes(pair.runtime, 0), 4096);
    ck_assert_uint_eq((uintptr_t)pool_input(pair.runtime, 1) % POOL_PAGE, 0);

    struct pool_claim claim;
    ck_assert_int_eq(pool_claim(pair.frontend, 10, &claim), 0);
    memset(pool_input(pair.frontend, 1), 0x5a, 40000);
    pool_commit(pair.frontend, &claim, &(struct pool_task){.queued_ns = 1});
    struct pool_batch batch;
    ck_assert_uint_eq(support_take(&pair, &batch), 1);
    ck_assert_int_eq(memcmp(pool_input(pair.runtime, 1), pool_input(pair.frontend, 1), 40000), 0);
    ck_assert_ptr_ne(pool_input(pair.runtime, 1), pool_input(pair.frontend, 1));
    support_close(&pair);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("pool");
    tcase_add_test(all, both_sides_see_the_same_slabs);
    Suite *suite = suite_create("pool");
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
