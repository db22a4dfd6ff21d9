/* Tensors to encode, and what a codec makes of them: for tests of codecs. */
#ifndef EXPERTD_TESTS_SUPPORT_CODEC_H
#define EXPERTD_TESTS_SUPPORT_CODEC_H

#include <stdbool.h>
#include <stdint.h>

/* Normally distributed numbers; freed by the caller. */
float *codec_random(uint64_t elements, uint32_t seed);
/* Encodes into a frame that lies at an odd address, with a guard behind it, checks and decodes it. False: the codec
 * refuses the tensor. `to` is as large as `from`, with a guard of its own. Aborts on what no tensor may cause. */
bool codec_round_trip(uint32_t codec, const float *from, uint64_t elements, uint64_t last, float *to);
/* The mean of the squared differences. */
double codec_mse(const float *a, const float *b, uint64_t elements);

#endif
