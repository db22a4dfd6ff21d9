/* Codecs: how a tensor's elements travel (PROTOCOL.md has the formulas and layouts, which are hivemind's). Each but
 * CODEC_NONE is for float32. Encoding and decoding are the copy out of, and into, the memory where the tensor lies: no
 * second buffer, no allocation. Frames lie anywhere, and are hostile until checked. Pure functions; any thread. */
#ifndef EXPERTD_PROTO_CODEC_H
#define EXPERTD_PROTO_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers of the wire: proto/expertd.proto has the same ones. */
enum codec {
    CODEC_NONE = 0,
    CODEC_MEANSTD_16BIT = 1,
    CODEC_FLOAT16 = 2,
    CODEC_QUANTILE_8BIT = 3,
    CODEC_UNIFORM_8BIT = 4,
    CODEC_BLOCKWISE_8BIT = 5,
    CODEC_BFLOAT16 = 6,
    CODEC_COUNT,
};

enum { CODEC_CODES = 256, CODEC_BLOCK = 4096 };

/* "none", "meanstd_16bit", ...; "unknown" for another number. */
const char *codec_name(uint32_t codec);
/* The number of a name, in small or capital letters; -EINVAL. */
int codec_of_name(const char *name);
/* Whether it is a codec, and one of tensors of that dtype. */
bool codec_takes(uint32_t codec, uint32_t dtype);

/* Bytes of the frame of a tensor with `elements` elements of that dtype, `last` of them in its last dimension. False if
 * codec_takes() says no, or for 2^63 bytes and more. */
bool codec_frame_bytes(uint32_t codec, uint32_t dtype, uint64_t elements, uint64_t last, uint64_t *bytes);

/* What is wrong with a frame of the right size; NULL: it can be decoded. Cheap: looks at what is not elements. */
const char *codec_check(uint32_t codec, const void *frame, uint64_t elements);
/* Writes `elements` elements; the frame was checked. Not of CODEC_NONE. */
void codec_decode(uint32_t codec, const void *frame, uint64_t elements, uint64_t last, float *to);
/* The same of `count` elements from `first` on, wherever in a last dimension these begin and end: a tensor of one
 * number a row has its rows in the last one. first + count is at most `elements`. */
void codec_decode_some(uint32_t codec, const void *frame, uint64_t elements, uint64_t last, uint64_t first,
                       uint64_t count, float *to);
/* Writes a frame of codec_frame_bytes(). False: the codec cannot say that (NaN or Inf; never of FLOAT16, which makes of
 * Inf the largest number, and BFLOAT16), and the frame's content means nothing. Not of CODEC_NONE. */
bool codec_encode(uint32_t codec, const float *from, uint64_t elements, uint64_t last, void *frame);

/* Whether these elements can be taken over into another frame of the codec, of `to_elements` elements, from its element
 * to_first on, as the codes that they are: with whatever says what these mean, which must not say it of others. Both
 * frames have the same last dimension. Not of CODEC_NONE. */
bool codec_moves(uint32_t codec, uint64_t last, uint64_t first, uint64_t count, uint64_t to_elements,
                 uint64_t to_first);
/* Does so, where it can be; all that go to one frame come from one frame, which was checked, and together are all of
 * `to`. */
void codec_move(uint32_t codec, const void *frame, uint64_t elements, uint64_t last, uint64_t first, uint64_t count,
                void *to, uint64_t to_elements, uint64_t to_first);

/* Whether to encode pays: the frame is smaller than the elements are. */
bool codec_pays(uint32_t codec, uint32_t dtype, uint64_t elements, uint64_t last);

#endif
