#include "tests/unit/support_codec.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/tensor.h"
#include "proto/codec.h"

/* Box and Muller's, of a linear congruence. */
float *codec_random(uint64_t elements, uint32_t seed)
{
    float *x = malloc((elements + 1) * sizeof *x);
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    ck_assert_ptr_nonnull(x);
    for (uint64_t i = 0; i < elements; i++) {
        double u[2];
        for (int k = 0; k < 2; k++) {
            state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            u[k] = ((double)(state >> 11) + 0.5) / 0x1p53;
        }
        x[i] = (float)(sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]));
    }
    return x;
}

bool codec_round_trip(uint32_t codec, const float *from, uint64_t elements, uint64_t last, float *to)
{
    enum { GUARD = 64 };
    uint64_t bytes;
    ck_assert(codec_frame_bytes(codec, DTYPE_FLOAT32, elements, last, &bytes));
    unsigned char *memory = malloc(1 + bytes + GUARD);
    float *decoded = malloc((elements + GUARD) * sizeof *decoded);
    ck_assert(memory && decoded);
    unsigned char *frame = memory + 1;
    unsigned char untouched[GUARD * sizeof *decoded];
    memset(untouched, 0x77, sizeof untouched);
    memset(memory, 0x77, 1 + bytes + GUARD);
    memset(decoded, 0x77, (elements + GUARD) * sizeof *decoded);
    const bool encoded = codec_encode(codec, from, elements, last, frame);
    for (int i = 0; i < GUARD; i++)
        ck_assert_int_eq(frame[bytes + (uint64_t)i], 0x77);
    ck_assert_int_eq(memory[0], 0x77);
    if (encoded) {
        const char *problem = codec_check(codec, frame, elements);
        ck_assert_msg(!problem, "%s: %s", codec_name(codec), problem);
        /* In pieces, as a call for many experts takes them, which begin and end within a row, too; and as a whole. */
        const uint64_t pieces[] = {last, last / 3 + 1, last + 1};
        for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; k++) {
            memset(decoded, 0x77, elements * sizeof *decoded);
            for (uint64_t first = 0, count; last > 0 && first < elements; first += count) {
                count = pieces[k] < elements - first ? pieces[k] : elements - first;
                codec_decode_some(codec, frame, elements, last, first, count, decoded + first);
                const unsigned char *behind = (const unsigned char *)(decoded + first + count);
                ck_assert_msg(memcmp(behind, untouched, sizeof untouched) == 0,
                              "%s: %llu elements from %llu on are more", codec_name(codec), (unsigned long long)count,
                              (unsigned long long)first);
            }
            ck_assert(k == 0 || memcmp(to, decoded, elements * sizeof *to) == 0);
            memcpy(to, decoded, elements * sizeof *to);
        }
        memset(decoded, 0x77, elements * sizeof *decoded);
        codec_decode(codec, frame, elements, last, decoded);
        ck_assert(elements == 0 || memcmp(to, decoded, elements * sizeof *to) == 0);
        for (size_t i = 0; i < GUARD * sizeof *decoded; i++)
            ck_assert_int_eq(((unsigned char *)(decoded + elements))[i], 0x77);
        memcpy(to, decoded, elements * sizeof *to);
    }
    free(memory);
    free(decoded);
    return encoded;
}

double codec_mse(const float *a, const float *b, uint64_t elements)
{
    double sum = 0;
    for (uint64_t i = 0; i < elements; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum / (double)elements;
}
