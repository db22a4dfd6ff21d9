/* Making a pool, finding it, letting go of it: what happens before and after the ring turns. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/shm.h"
#include "pools/pool_private.h"

/* All that the runtime fills in once: what an adopting runtime compares, and a frontend copies. */
static const size_t constant_bytes = offsetof(struct pool_shared, frontend);
static const uint64_t segment_bytes_max = UINT64_C(1) << 46;

static int segment_name(char name[SHM_NAME_SIZE], const char *server, const char *device, uint64_t generation,
                        uint32_t index)
{
    return shm_name(name, server, "%s.%" PRIu64 ".%" PRIu32, device, generation, index);
}

/* Only what counts, the rest zero: so that equal schemas are equal bytes. */
static void copy_schema(struct schema *to, const struct schema *from)
{
    memset(to, 0, sizeof *to);
    to->count = from->count;
    for (uint32_t i = 0; i < from->count; i++) {
        const struct tensor_desc *desc = &from->tensors[i];
        to->tensors[i].dtype = desc->dtype;
        to->tensors[i].ndim = desc->ndim;
        memcpy(to->tensors[i].dims, desc->dims, desc->ndim * sizeof desc->dims[0]);
        memcpy(to->tensors[i].name, desc->name, strlen(desc->name));
    }
}

/* Lays `count` slabs out from *end on; false if that is more than a segment can be. */
static bool place_slabs(uint64_t *offsets, const struct schema *schema, uint32_t capacity_rows, uint64_t *end)
{
    for (uint32_t i = 0; i < schema->count; i++) {
        const uint64_t row_bytes = tensor_row_bytes(&schema->tensors[i]); /* at most 2^40, capacity_rows 2^30 */
        if (row_bytes > segment_bytes_max / capacity_rows)
            return false;
        offsets[i] = *end;
        *end += shm_round_up(row_bytes * capacity_rows, POOL_PAGE);
        if (*end > segment_bytes_max)
            return false;
    }
    return true;
}

/* Kind, schemas and capacities decide where everything lies. */
static int place_parts(struct pool_shared *header)
{
    if (header->kind != POOL_FORWARD && header->kind != POOL_BACKWARD)
        return -EINVAL;
    if (!schema_valid(&header->inputs) || !schema_valid(&header->outputs))
        return -EINVAL;
    if (header->max_batch_size == 0 || header->max_batch_size > header->capacity_rows ||
        header->capacity_rows > POOL_ROWS_MAX)
        return -EINVAL;
    const uint32_t tasks = header->capacity_tasks;
    if (tasks == 0 || tasks > POOL_TASKS_MAX || (tasks & (tasks - 1)) != 0)
        return -EINVAL;

    uint64_t end = POOL_PAGE;
    header->tasks_offset = end;
    end += shm_round_up((size_t)tasks * sizeof(struct pool_task_shared), POOL_PAGE);
    header->applied_offset = 0;
    if (header->kind == POOL_BACKWARD) {
        header->applied_offset = end;
        end += shm_round_up(POOL_APPLIED_RECORDS * sizeof(struct pool_applied_shared), POOL_PAGE);
    }
    if (!place_slabs(header->input_offset, &header->inputs, header->capacity_rows, &end) ||
        !place_slabs(header->output_offset, &header->outputs, header->capacity_rows, &end))
        return -EINVAL;
    header->segment_bytes = end;
    return 0;
}

int pool_build_header(struct pool_shared *header, const struct pool_layout *layout, size_t *bytes)
{
    if (!uid_valid(layout->uid) || !schema_valid(&layout->inputs) || !schema_valid(&layout->outputs) ||
        layout->generation > POOL_POSITION_MAX || layout->queue_tasks > POOL_TASKS_MAX)
        return -EINVAL;
    memset(header, 0, sizeof *header);
    header->magic = POOL_MAGIC;
    header->version = POOL_VERSION;
    header->kind = (uint32_t)layout->kind;
    header->generation = layout->generation;
    header->index = layout->index;
    header->capacity_rows = layout->queue_rows;
    header->capacity_tasks = layout->queue_tasks == 0 ? 0 : 1;
    while (header->capacity_tasks < layout->queue_tasks)
        header->capacity_tasks *= 2;
    header->max_batch_size = layout->max_batch_size;
    memcpy(header->uid, layout->uid, strlen(layout->uid));
    copy_schema(&header->inputs, &layout->inputs);
    copy_schema(&header->outputs, &layout->outputs);
    const int rc = place_parts(header);
    *bytes = header->segment_bytes;
    return rc;
}

/* A header that was copied out of shared memory: it must be what we would have built from its own inputs. */
static bool header_sane(const struct pool_shared *header, size_t mapped_bytes)
{
    if (header->magic != POOL_MAGIC || header->version != POOL_VERSION || !memchr(header->uid, 0, UID_SIZE) ||
        !uid_valid(header->uid))
        return false;
    struct pool_shared placed;
    memcpy(&placed, header, sizeof placed);
    return place_parts(&placed) == 0 && memcmp(&placed, header, constant_bytes) == 0 &&
           header->segment_bytes == mapped_bytes;
}

static struct pool *new_handle(const char *name)
{
    /* Not calloc: the header's copy keeps the alignment of the shared one, a cache line. */
    const size_t bytes = shm_round_up(sizeof(struct pool) + strlen(name) + 1, POOL_LINE);
    struct pool *pool = aligned_alloc(POOL_LINE, bytes);
    if (!pool)
        return NULL;
    memset(pool, 0, bytes);
    memcpy(pool->name, name, strlen(name) + 1);
    return pool;
}

int pool_open_view(struct pool **pool, void *mapping, size_t bytes, const char *name, enum pool_side side,
                   bool borrowed)
{
    struct pool *made = new_handle(name);
    if (!made)
        return -ENOMEM;
    made->shared = mapping;
    made->mapped_bytes = bytes;
    made->side = side;
    made->borrowed = borrowed;
    memcpy(&made->header, mapping, constant_bytes);
    atomic_signal_fence(memory_order_seq_cst); /* checked and used is the copy */
    const struct pool_shared *header = &made->header;
    if (!header_sane(header, bytes)) {
        free(made);
        return -EPROTO;
    }
    made->tasks = (struct pool_task_shared *)((char *)mapping + header->tasks_offset);
    made->slot_mask = header->capacity_tasks - 1;
    for (uint32_t i = 0; i < header->inputs.count; i++)
        made->row_bytes += made->input_row_bytes[i] = tensor_row_bytes(&header->inputs.tensors[i]);
    for (uint32_t i = 0; i < header->outputs.count; i++)
        made->row_bytes += made->output_row_bytes[i] = tensor_row_bytes(&header->outputs.tensors[i]);
    const int rc = side == POOL_PRODUCER ? pool_producer_begin(made) : pool_consumer_begin(made);
    if (rc != 0) {
        free(made);
        return rc;
    }
    *pool = made;
    return 0;
}

int pool_create(struct pool **pool, const struct pool_layout *layout)
{
    struct pool_shared header;
    char name[SHM_NAME_SIZE];
    size_t bytes;
    void *mapping;
    int rc = pool_build_header(&header, layout, &bytes);
    if (rc == 0)
        rc = segment_name(name, layout->server, layout->device, layout->generation, layout->index);
    if (rc == 0)
        rc = shm_create_segment(name, bytes, POOL_PAGE, &mapping);
    if (rc != 0)
        return rc;
    memcpy(mapping, &header, constant_bytes); /* the rest of the page is zero, as positions begin */
    rc = pool_open_view(pool, mapping, bytes, name, POOL_CONSUMER, false);
    if (rc != 0) {
        shm_detach(mapping, bytes);
        shm_remove(name);
    }
    return rc;
}

int pool_adopt(struct pool **pool, const struct pool_layout *layout)
{
    struct pool_shared header;
    char name[SHM_NAME_SIZE];
    size_t expected, bytes;
    void *mapping;
    int rc = pool_build_header(&header, layout, &expected);
    if (rc == 0)
        rc = segment_name(name, layout->server, layout->device, layout->generation, layout->index);
    if (rc != 0)
        return rc;
    if (FAILPOINT("pool.adopt"))
        return -ESTALE;
    rc = shm_attach_segment(name, POOL_PAGE, &mapping, &bytes);
    if (rc != 0)
        return rc == -EPROTO || rc == -EPERM ? -ESTALE : rc;
    rc = -EPROTO;
    if (bytes == expected && memcmp(mapping, &header, constant_bytes) == 0)
        rc = pool_open_view(pool, mapping, bytes, name, POOL_CONSUMER, false);
    if (rc != 0)
        shm_detach(mapping, bytes);
    return rc == -EPROTO ? -ESTALE : rc;
}

int pool_attach(struct pool **pool, const char *server, const char *device, uint64_t generation, uint32_t index)
{
    char name[SHM_NAME_SIZE];
    size_t bytes;
    void *mapping;
    int rc = segment_name(name, server, device, generation, index);
    if (rc == 0)
        rc = shm_attach_segment(name, POOL_PAGE, &mapping, &bytes);
    if (rc != 0)
        return rc;
    /* Before the view: that one cancels tasks. */
    const struct pool_shared *shared = mapping;
    rc = shared->generation == generation && shared->index == index ? 0 : -EPROTO;
    if (rc == 0)
        rc = pool_open_view(pool, mapping, bytes, name, POOL_PRODUCER, false);
    if (rc != 0)
        shm_detach(mapping, bytes);
    return rc;
}

void pool_detach(struct pool **pool)
{
    struct pool *old = *pool;
    *pool = NULL;
    if (!old)
        return;
    if (old->side == POOL_PRODUCER)
        pool_producer_end(old);
    else
        pool_consumer_end(old);
    if (!old->borrowed)
        shm_detach(old->shared, old->mapped_bytes);
    free(old);
}

bool pool_named(const struct pool *pool)
{
    return shm_named(pool->name, pool->mapped_bytes, NULL, 0);
}

int pool_remove(const char *server, const char *device, uint64_t generation, uint32_t index)
{
    char name[SHM_NAME_SIZE];
    const int rc = segment_name(name, server, device, generation, index);
    return rc < 0 ? rc : shm_remove(name);
}
