/* A decoded header against a schema: what is accepted fits its frames; what is refused has a reason. */
#include <stdlib.h>
#include <string.h>

#include "frontend/validate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct schema schema = {.count = 2,
                                         .tensors = {{.dtype = DTYPE_FLOAT32, .ndim = 1, .dims = {4}, .name = "x"},
                                                     {.dtype = DTYPE_BOOL, .ndim = 0, .name = "mask"}}};
    static _Alignas(16) unsigned char memory[MESSAGE_REQUEST_ARENA];
    struct message_arena arena;
    Expertd__RequestHeader *header;
    const char *reason;
    char why[VALIDATE_WHY_SIZE];
    uint32_t rows = 0;
    if (size < 4)
        return 0;
    const size_t bytes[MESSAGE_MAX_TENSORS] = {data[0], data[1]};
    message_arena_init(&arena, memory, sizeof memory);
    if (message_decode_request(&arena, data + 4, size - 4, &header, &reason) < 0)
        return 0;
    const enum status status = validate_tensors(&schema, 16, header, bytes, data[2] % 4, &rows, why);
    if (memchr(why, 0, sizeof why) == NULL || (status == STATUS_OK) != (why[0] == 0))
        abort();
    if (status == STATUS_OK && (rows == 0 || rows > 16 || bytes[0] != rows * 16 || bytes[1] != rows))
        abort();
    return 0;
}
