#include "client/shared_data.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct shared_data {
    atomic_size_t holders;
    void *bytes; /* behind this struct, or borrowed */
    expertd_free_fn *free_fn;
    void *hint;
};

struct shared_data *shared_data_new(size_t bytes)
{
    struct shared_data *data = bytes <= SIZE_MAX - sizeof *data ? malloc(sizeof *data + bytes) : NULL;
    if (!data)
        return NULL;
    atomic_init(&data->holders, 1);
    data->bytes = data + 1;
    data->free_fn = NULL;
    return data;
}

struct shared_data *shared_data_of(const struct expertd_tensor *tensor)
{
    struct shared_data *data = shared_data_new(tensor->free_fn ? 0 : tensor->bytes);
    void *bytes = (void *)(uintptr_t)tensor->data;
    if (tensor->free_fn && !data) {
        tensor->free_fn(bytes, tensor->hint);
    } else if (tensor->free_fn) {
        data->bytes = bytes;
        data->free_fn = tensor->free_fn;
        data->hint = tensor->hint;
    } else if (data && tensor->bytes > 0) {
        memcpy(data->bytes, bytes, tensor->bytes);
    }
    return data;
}

void *shared_data_bytes(const struct shared_data *data)
{
    return data->bytes;
}

void shared_data_release(struct shared_data *data)
{
    /* Release: this holder's reads are over. Acquire, by the last one: everybody's are. */
    if (!data || atomic_fetch_sub_explicit(&data->holders, 1, memory_order_acq_rel) > 1)
        return;
    if (data->free_fn)
        data->free_fn(data->bytes, data->hint);
    free(data);
}

static void release_lent(void *bytes, void *hint)
{
    (void)bytes;
    shared_data_release(hint);
}

void shared_data_lend(struct shared_data *data, struct expertd_tensor *tensor)
{
    atomic_fetch_add_explicit(&data->holders, 1, memory_order_relaxed);
    tensor->data = data->bytes;
    tensor->free_fn = release_lent;
    tensor->hint = data;
}
