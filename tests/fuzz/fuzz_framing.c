/* Any stream, in any pieces: what is counted does not depend on where it is cut, and no message within the limits ends.
 */
#include <stdlib.h>

#include "proto/framing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    const struct framing_limits limits = {.frames = data[0] % 8, .bytes = (uint64_t)data[1] << data[2] % 56};
    const size_t piece = 1 + data[2] % 13;
    struct framing whole = {0}, cut = {0};
    data += 3;
    size -= 3;
    const bool passes = framing_take(&whole, &limits, data, size);
    bool all = true;
    for (size_t at = 0; at < size; at += piece)
        all = framing_take(&cut, &limits, data + at, size - at < piece ? size - at : piece);
    if (size > 0 && (passes != all || whole.frames != cut.frames || framing_bytes(&whole) != framing_bytes(&cut)))
        abort();
    if (passes && (whole.frames > limits.frames || framing_bytes(&whole) > limits.bytes))
        abort();
    return 0;
}
