/* The codecs' own: one file for those of 16 bits, one for those with a codebook. As codec.h says of decode and encode.
 */
#ifndef EXPERTD_PROTO_CODEC_PRIVATE_H
#define EXPERTD_PROTO_CODEC_PRIVATE_H

#include "proto/codec.h"

/* Numbers in a frame, which lies at any address. */
typedef uint16_t __attribute__((aligned(1), may_alias)) codec_u16;
typedef float __attribute__((aligned(1), may_alias)) codec_f32;

/* Loops that a compiler turns into vectors get a version for each class of processor: by what it can do, as a name
 * of one ("arch=haswell") would be that one alone, and none that came after it. */
#if defined(__x86_64__) && defined(__GLIBC__) && __GNUC__ >= 12 && !defined(__clang__) &&                              \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CODEC_VECTORS __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define CODEC_VECTORS
#endif

/* Sums of x and of (x - mean)^2, in floats by lanes within a thousand, in doubles of those. Not finite if an element is
 * not, or if a thousand of them are beyond floats. */
double codec_sum(const float *x, uint64_t count);
double codec_sum_squares(const float *x, uint64_t count, float mean);
/* Of x - pivot, in one pass: for a pivot that is not far off the mean. */
void codec_moments(const float *x, uint64_t count, float pivot, double *sum, double *squares);

void codec_float16_decode(const void *frame, uint64_t elements, float *to);
void codec_float16_encode(const float *from, uint64_t elements, void *frame);
void codec_bfloat16_decode(const void *frame, uint64_t elements, float *to);
void codec_bfloat16_encode(const float *from, uint64_t elements, void *frame);
void codec_meanstd_decode(const void *frame, uint64_t elements, uint64_t last, uint64_t first, uint64_t count,
                          float *to);
void codec_meanstd_move(const void *frame, uint64_t elements, uint64_t last, uint64_t first, uint64_t count, void *to,
                        uint64_t to_elements, uint64_t to_first);
bool codec_meanstd_encode(const float *from, uint64_t elements, uint64_t last, void *frame);

const char *codec_codebook_check(const void *frame);
void codec_codebook_decode(const void *frame, uint64_t first, uint64_t count, float *to);
bool codec_uniform_encode(const float *from, uint64_t elements, void *frame);
bool codec_quantile_encode(const float *from, uint64_t elements, void *frame);
const char *codec_blockwise_check(const void *frame, uint64_t elements);
void codec_blockwise_decode(const void *frame, uint64_t elements, uint64_t first, uint64_t count, float *to);
void codec_blockwise_move(const void *frame, uint64_t elements, uint64_t first, uint64_t count, void *to,
                          uint64_t to_elements, uint64_t to_first);
bool codec_blockwise_encode(const float *from, uint64_t elements, void *frame);

#endif
