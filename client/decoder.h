/* Memory in which messages are decoded: grows to what the largest one needed, up to a bound. Zeroed is empty. */
#ifndef EXPERTD_CLIENT_DECODER_H
#define EXPERTD_CLIENT_DECODER_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/message.h"

struct decoder {
    struct message_arena arena;
    void *memory;
    size_t size;
};

/* Makes sure that there is any memory; false without. The decoder must stay where it is from then on. */
bool decoder_ready(struct decoder *decoder);
/* After a message did not fit: more memory, in which nothing is decoded; false if that would be more than `limit`
 * bytes or there is none (nothing changed then). */
bool decoder_grow(struct decoder *decoder, size_t limit);
void decoder_clear(struct decoder *decoder);

#endif
