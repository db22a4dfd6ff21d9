/* Any bytes are a head, or are refused with a message. */
#include <stdlib.h>

#include "examples/digits/head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct head head;
    char error[128] = "";
    FILE *source = size ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
    if (!source) {
        return 0;
    }
    int rc = head_read(&head, source, "fuzz", error, sizeof error);
    if ((rc == 0) != (error[0] == '\0')) {
        abort();
    }
    head_destroy(&head);
    fclose(source);
    return 0;
}
