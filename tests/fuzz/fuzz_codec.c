/* A frame that a stranger sends as encoded, and one's own numbers, whatever they are, encoded: checks, decodes, encodes
 * within exactly the bytes that there are. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/tensor.h"
#include "proto/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As a whole, and some of them, which begin and end in the midst of a last dimension, too. */
static void decode_both(uint32_t codec, const uint8_t *frame, uint64_t elements, uint64_t last, float *to)
{
    const uint64_t first = elements / 3, count = elements / 2;
    float *some = malloc(count * sizeof *some + 1);
    codec_decode(codec, frame, elements, last, to);
    codec_decode_some(codec, frame, elements, last, first, count, some);
    if (count && memcmp(some, to + first, count * sizeof *some) != 0)
        abort();
    free(some);
}

static void decode(uint32_t codec, const uint8_t *data, size_t size, uint64_t elements, uint64_t last)
{
    uint64_t bytes;
    if (!codec_frame_bytes(codec, DTYPE_FLOAT32, elements, last, &bytes) || bytes > size)
        return;
    uint8_t *frame = malloc(bytes + 1); /* at an odd address, and ends where it ends */
    float *to = malloc(elements * sizeof *to + 1);
    memcpy(frame + 1, data, bytes);
    if (!codec_check(codec, frame + 1, elements))
        decode_both(codec, frame + 1, elements, last, to);
    free(frame);
    free(to);
}

static void encode(uint32_t codec, const uint8_t *data, size_t size, uint64_t last)
{
    const uint64_t elements = size / sizeof(float) / last * last;
    uint64_t bytes;
    float *from = malloc(elements * sizeof *from + 1);
    memcpy(from, data, elements * sizeof *from);
    if (codec_frame_bytes(codec, DTYPE_FLOAT32, elements, last, &bytes)) {
        uint8_t *frame = malloc(bytes + 1);
        if (codec_encode(codec, from, elements, last, frame + 1)) {
            if (codec_check(codec, frame + 1, elements))
                abort(); /* what is encoded here can be decoded there */
            codec_decode(codec, frame + 1, elements, last, from);
        }
        free(frame);
    }
    free(from);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    const uint32_t codec = 1 + data[0] % (CODEC_COUNT - 1);
    const uint64_t last = data[3] ? data[3] : 1, elements = (data[1] | (uint64_t)(data[2] & 63) << 8) / last * last;
    decode(codec, data + 4, size - 4, elements, last);
    encode(codec, data + 4, size - 4, last);
    return 0;
}
