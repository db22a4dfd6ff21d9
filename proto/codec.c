#include "proto/codec.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "common/tensor.h"
#include "proto/codec_private.h"

enum { CODEBOOK_HEAD = 8 + 4 * CODEC_CODES };

static const char *const names[CODEC_COUNT] = {"none",         "meanstd_16bit",  "float16", "quantile_8bit",
                                               "uniform_8bit", "blockwise_8bit", "bfloat16"};

const char *codec_name(uint32_t codec)
{
    return codec < CODEC_COUNT ? names[codec] : "unknown";
}

int codec_of_name(const char *name)
{
    for (int i = 0; i < CODEC_COUNT; i++)
        if (strcasecmp(name, names[i]) == 0)
            return i;
    return -EINVAL;
}

bool codec_takes(uint32_t codec, uint32_t dtype)
{
    return codec == CODEC_NONE ? dtype_size(dtype) > 0 : codec < CODEC_COUNT && dtype == DTYPE_FLOAT32;
}

bool codec_frame_bytes(uint32_t codec, uint32_t dtype, uint64_t elements, uint64_t last, uint64_t *bytes)
{
    const uint64_t rows = last ? elements / last : 0;
    unsigned __int128 all = elements;
    if (!codec_takes(codec, dtype))
        return false;
    switch (codec) {
    case CODEC_NONE:
        all *= dtype_size(dtype);
        break;
    case CODEC_FLOAT16:
    case CODEC_BFLOAT16:
        all *= 2;
        break;
    case CODEC_MEANSTD_16BIT:
        all = 2 * all + (unsigned __int128)8 * rows;
        break;
    case CODEC_BLOCKWISE_8BIT:
        all += 8 + CODEBOOK_HEAD + 4 * ((all + CODEC_BLOCK - 1) / CODEC_BLOCK);
        break;
    default:
        all += CODEBOOK_HEAD;
    }
    *bytes = (uint64_t)all;
    return all <= INT64_MAX;
}

bool codec_pays(uint32_t codec, uint32_t dtype, uint64_t elements, uint64_t last)
{
    uint64_t plain, encoded;
    return codec != CODEC_NONE && codec_frame_bytes(CODEC_NONE, dtype, elements, last, &plain) &&
           codec_frame_bytes(codec, dtype, elements, last, &encoded) && encoded < plain;
}

const char *codec_check(uint32_t codec, const void *frame, uint64_t elements)
{
    switch (codec) {
    case CODEC_QUANTILE_8BIT:
    case CODEC_UNIFORM_8BIT:
        return codec_codebook_check(frame);
    case CODEC_BLOCKWISE_8BIT:
        return codec_blockwise_check(frame, elements);
    default:
        return NULL;
    }
}

void codec_decode_some(uint32_t codec, const void *frame, uint64_t elements, uint64_t last, uint64_t first,
                       uint64_t count, float *to)
{
    switch (codec) {
    case CODEC_MEANSTD_16BIT:
        codec_meanstd_decode(frame, elements, last, first, count, to);
        break;
    case CODEC_FLOAT16:
        codec_float16_decode((const codec_u16 *)frame + first, count, to);
        break;
    case CODEC_BFLOAT16:
        codec_bfloat16_decode((const codec_u16 *)frame + first, count, to);
        break;
    case CODEC_BLOCKWISE_8BIT:
        codec_blockwise_decode(frame, elements, first, count, to);
        break;
    default:
        codec_codebook_decode(frame, first, count, to);
    }
}

void codec_decode(uint32_t codec, const void *frame, uint64_t elements, uint64_t last, float *to)
{
    codec_decode_some(codec, frame, elements, last, 0, elements, to);
}

bool codec_moves(uint32_t codec, uint64_t last, uint64_t first, uint64_t count, uint64_t to_elements, uint64_t to_first)
{
    switch (codec) {
    case CODEC_MEANSTD_16BIT:
        return last > 0 && first % last == 0 && count % last == 0 && to_first % last == 0;
    case CODEC_BLOCKWISE_8BIT:
        return first % CODEC_BLOCK == 0 && to_first % CODEC_BLOCK == 0 &&
               (count % CODEC_BLOCK == 0 || to_first + count == to_elements);
    default:
        return codec != CODEC_NONE;
    }
}

void codec_move(uint32_t codec, const void *frame, uint64_t elements, uint64_t last, uint64_t first, uint64_t count,
                void *to, uint64_t to_elements, uint64_t to_first)
{
    const unsigned char *from = frame;
    unsigned char *at = to;
    switch (codec) {
    case CODEC_MEANSTD_16BIT:
        codec_meanstd_move(frame, elements, last, first, count, to, to_elements, to_first);
        break;
    case CODEC_FLOAT16:
    case CODEC_BFLOAT16:
        memcpy(at + 2 * to_first, from + 2 * first, 2 * count);
        break;
    case CODEC_BLOCKWISE_8BIT:
        codec_blockwise_move(frame, elements, first, count, to, to_elements, to_first);
        break;
    default:
        memcpy(at, from, CODEBOOK_HEAD);
        memcpy(at + CODEBOOK_HEAD + to_first, from + CODEBOOK_HEAD + first, count);
    }
}

bool codec_encode(uint32_t codec, const float *from, uint64_t elements, uint64_t last, void *frame)
{
    switch (codec) {
    case CODEC_MEANSTD_16BIT:
        return codec_meanstd_encode(from, elements, last, frame);
    case CODEC_FLOAT16:
        codec_float16_encode(from, elements, frame);
        return true;
    case CODEC_BFLOAT16:
        codec_bfloat16_encode(from, elements, frame);
        return true;
    case CODEC_QUANTILE_8BIT:
        return codec_quantile_encode(from, elements, frame);
    case CODEC_UNIFORM_8BIT:
        return codec_uniform_encode(from, elements, frame);
    default:
        return codec_blockwise_encode(from, elements, frame);
    }
}
