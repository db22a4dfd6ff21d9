#include "runtime/layers/reference.h"

#include <stdint.h>
#include <string.h>

void reference_mask(size_t count, const float *x, const void *mask, bool wide, double scale, float *y)
{
    for (size_t i = 0; i < count; i++) {
        int64_t number = ((const unsigned char *)mask)[i] != 0;
        if (wide) /* at any byte */
            memcpy(&number, (const unsigned char *)mask + i * sizeof number, sizeof number);
        y[i] = (float)((double)x[i] * (double)number * scale);
    }
}
