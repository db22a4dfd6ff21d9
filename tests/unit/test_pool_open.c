/* Making, finding and refusing pools. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/shm.h"
#include "support_pool.h"

START_TEST(a_pool_that_is_never_called_costs_a_page)
{
    struct pool_pair pair;
    support_layout(&pair, POOL_BACKWARD, 16384, 1024, 1024, 1024);
    ck_assert_int_eq(pool_create(&pair.runtime, &pair.layout), 0);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 1), 0);
    uint64_t queued_ns;
    uint32_t completed;
    ck_assert_int_eq(pool_oldest(pair.runtime, 1, &queued_ns, &completed), 0);
    support_expect_none(&pair);
    char path[SHM_NAME_SIZE + 16];
    struct stat info;
    snprintf(path, sizeof path, "/dev/shm/expertd.%s.%s.1.1", support_server(), pair.device);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_int_eq(info.st_blocks * 512, POOL_PAGE);
    ck_assert_int_eq(info.st_mode & 0777, 0600);
    support_close(&pair);
}
END_TEST

START_TEST(layouts_that_are_not_valid_are_refused)
{
    struct pool_pair pair;
    support_layout(&pair, POOL_FORWARD, 64, 8, 16, 16);
    const struct pool_layout good = pair.layout;
    struct pool_layout bad[12];
    for (size_t i = 0; i < 12; i++)
        bad[i] = good;
    bad[0].uid = "no coordinates";
    bad[1].inputs.count = 0;
    bad[2].outputs.tensors[0].dtype = 99;
    bad[3].max_batch_size = 0;
    bad[4].max_batch_size = 65; /* more than the queue */
    bad[5].queue_rows = 0;
    bad[6].queue_tasks = 0;
    bad[7].queue_tasks = UINT32_MAX;
    bad[8].kind = (enum pool_kind)2;
    bad[9].inputs.tensors[0].dims[0] = UINT64_C(1) << 38; /* a row is fine, the slab is not */
    bad[9].queue_rows = 1 << 20;
    bad[10].queue_rows = UINT32_MAX;
    bad[11].device = "a/b";
    for (size_t i = 0; i < 12; i++)
        ck_assert_int_eq(pool_create(&pair.runtime, &bad[i]), -EINVAL);
    ck_assert_int_eq(pool_adopt(&pair.runtime, &bad[3]), -EINVAL);
}
END_TEST

START_TEST(what_is_not_there_is_not_found)
{
    struct pool_pair pair;
    support_layout(&pair, POOL_FORWARD, 64, 8, 16, 16);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 0), -ENOENT);
    ck_assert_int_eq(pool_adopt(&pair.runtime, &pair.layout), -ENOENT);
    ck_assert_int_eq(pool_remove(support_server(), pair.device, 1, 0), -ENOENT);
    pool_detach(&pair.frontend); /* of NULL */
}
END_TEST

START_TEST(only_the_exact_layout_is_adopted)
{
    struct pool_pair pair;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    pool_detach(&pair.runtime);
    struct pool_layout other[6];
    for (size_t i = 0; i < 6; i++)
        other[i] = pair.layout;
    other[0].uid = "ffn.1.3";
    other[1].kind = POOL_BACKWARD;
    other[2].max_batch_size = 15;
    other[3].queue_rows = 65;
    other[4].queue_tasks = 9;
    other[5].outputs = support_schema("z", 16);
    for (size_t i = 0; i < 6; i++)
        ck_assert_int_eq(pool_adopt(&pair.runtime, &other[i]), -ESTALE);
    /* Bytes that mean nothing may differ. */
    memset(pair.layout.inputs.tensors[0].name + 2, 'j', TENSOR_NAME_SIZE - 2);
    pair.layout.inputs.tensors[0].dims[3] = 77;
    pair.layout.inputs.tensors[5].dtype = 5;
    ck_assert_int_eq(pool_adopt(&pair.runtime, &pair.layout), 0);
    support_close(&pair);
}
END_TEST

/* What another process may have done to the header before somebody attaches. */
static void damage(struct pool_shared *header, int how)
{
    switch (how) {
    case 0:
        header->magic++;
        break;
    case 1:
        header->version++;
        break;
    case 2:
        header->kind = 7;
        break;
    case 3:
        header->segment_bytes += POOL_PAGE;
        break;
    case 4:
        header->generation++;
        break;
    case 5:
        header->index++;
        break;
    case 6:
        header->capacity_rows = 1 << 29;
        break;
    case 7:
        header->capacity_tasks = 7;
        break;
    case 8:
        header->capacity_tasks = 1 << 20;
        break;
    case 9:
        header->max_batch_size = header->capacity_rows + 1;
        break;
    case 10:
        header->tasks_offset += 64;
        break;
    case 11:
        header->applied_offset = 8;
        break;
    case 12:
        header->input_offset[0] = UINT64_MAX - 63;
        break;
    case 13:
        header->output_offset[0] = 0;
        break;
    case 14:
        memset(header->uid, 'a', UID_SIZE);
        break;
    case 15:
        header->inputs.count = SCHEMA_MAX_TENSORS + 1;
        break;
    case 16:
        header->outputs.tensors[0].ndim = TENSOR_MAX_DIMS + 1;
        break;
    case 17:
        header->outputs.tensors[0].dims[0] = 0;
        break;
    case 18:
        header->frontend.committed = 9;
        break;
    case 19:
        header->frontend.released = 1;
        break;
    case 20:
        header->runtime.done = 1;
        break;
    case 21:
        header->frontend.committed_rows = 65;
        break;
    case 22:
        header->frontend.committed_tasks = 9;
        break;
    case 23:
        header->frontend.row_position = UINT64_MAX;
        break;
    case 24:
        header->frontend.committed = UINT64_MAX;
        header->frontend.released = UINT64_MAX;
        header->runtime.done = UINT64_MAX;
        break;
    default:
        header->frontend.committed = 1;
        break; /* a task of no rows, in pages that are not there */
    }
}

START_TEST(a_damaged_header_is_refused)
{
    struct pool_pair pair;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    struct pool_shared *shared = pair.runtime->shared;
    struct pool_shared *saved = aligned_alloc(POOL_LINE, sizeof *saved);
    memcpy(saved, shared, sizeof *saved);
    pool_detach(&pair.frontend);
    damage(shared, _i);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 0), -EPROTO);
    memcpy(shared, saved, sizeof *saved);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 0), 0);
    free(saved);
    support_close(&pair);
}
END_TEST

START_TEST(a_damaged_pool_is_not_adopted)
{
    struct pool_pair pair;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    struct pool_shared *shared = pair.frontend->shared;
    pool_detach(&pair.runtime);
    atomic_store(&shared->runtime.taken, 1);
    ck_assert_int_eq(pool_adopt(&pair.runtime, &pair.layout), -ESTALE);
    atomic_store(&shared->runtime.taken, 0);
    atomic_store(&shared->runtime.applied, 1);
    ck_assert_int_eq(pool_adopt(&pair.runtime, &pair.layout), -ESTALE);
    atomic_store(&shared->runtime.applied, 0);
    atomic_store(&shared->frontend.committed, 9);
    ck_assert_int_eq(pool_adopt(&pair.runtime, &pair.layout), -ESTALE);
    atomic_store(&shared->frontend.committed, 0);
    shared->max_batch_size = 17;
    ck_assert_int_eq(pool_adopt(&pair.runtime, &pair.layout), -ESTALE);
    shared->max_batch_size = 16;
    ck_assert_int_eq(pool_adopt(&pair.runtime, &pair.layout), 0);
    support_close(&pair);
}
END_TEST

START_TEST(a_segment_of_another_size_is_refused)
{
    struct pool_pair pair;
    char name[SHM_NAME_SIZE];
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    pool_detach(&pair.frontend);
    ck_assert_int_eq(shm_name(name, support_server(), "%s.1.0", pair.device), 0);
    const int fd = shm_open(name, O_RDWR, 0);
    const off_t bytes = (off_t)pair.runtime->mapped_bytes;
    pool_detach(&pair.runtime);
    ck_assert_int_eq(ftruncate(fd, bytes + POOL_PAGE), 0);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 0), -EPROTO);
    ck_assert_int_eq(pool_adopt(&pair.runtime, &pair.layout), -ESTALE);
    ck_assert_int_eq(ftruncate(fd, 100), 0);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 0), -EPROTO);
    ck_assert_int_eq(pool_adopt(&pair.runtime, &pair.layout), -ESTALE);
    close(fd);
    support_close(&pair);
}
END_TEST

START_TEST(many_pools_are_made_and_found)
{
    enum { POOLS = 2048 };
    static struct pool *made[POOLS], *found[POOLS];
    struct pool_pair pair;
    support_layout(&pair, POOL_FORWARD, 4096, 1024, 1024, 1024);
    for (uint32_t i = 0; i < POOLS; i++) {
        pair.layout.index = i;
        ck_assert_int_eq(pool_create(&made[i], &pair.layout), 0);
        ck_assert_int_eq(pool_attach(&found[i], support_server(), pair.device, 1, i), 0);
    }
    ck_assert_uint_le(sizeof(struct pool), 3072);
    for (uint32_t i = 0; i < POOLS; i++) {
        ck_assert_uint_eq(pool_header(found[i])->index, i);
        pool_detach(&made[i]);
        pool_detach(&found[i]);
        ck_assert_ptr_null(made[i]);
        ck_assert_int_eq(pool_remove(support_server(), pair.device, 1, i), 0);
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("pool_open");
    tcase_add_test(all, a_pool_that_is_never_called_costs_a_page);
    tcase_add_test(all, layouts_that_are_not_valid_are_refused);
    tcase_add_test(all, what_is_not_there_is_not_found);
    tcase_add_test(all, only_the_exact_layout_is_adopted);
    tcase_add_loop_test(all, a_damaged_header_is_refused, 0, 26);
    tcase_add_test(all, a_damaged_pool_is_not_adopted);
    tcase_add_test(all, a_segment_of_another_size_is_refused);
    tcase_add_test(all, many_pools_are_made_and_found);
    Suite *suite = suite_create("pool_open");
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
