/* Bytes that several requests read, freed when the last of them and its maker have let go of them. Counts from any
 * thread: ZeroMQ lets go in its own. */
#ifndef EXPERTD_CLIENT_SHARED_DATA_H
#define EXPERTD_CLIENT_SHARED_DATA_H

#include <stddef.h>

#include "client/expertd.h"

struct shared_data;

/* Uninitialised bytes, aligned for any type, held once; NULL without memory. */
struct shared_data *shared_data_new(size_t bytes);
/* A tensor's data, copied or borrowed as its free_fn says; NULL without memory (borrowed data is free then). */
struct shared_data *shared_data_of(const struct expertd_tensor *tensor);
void *shared_data_bytes(const struct shared_data *data);
void shared_data_release(struct shared_data *data); /* NULL is fine */

/* Makes the tensor lend the data, held once more, to whoever it is given to. */
void shared_data_lend(struct shared_data *data, struct expertd_tensor *tensor);

#endif
