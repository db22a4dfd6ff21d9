/* Any bytes are a dataset, or are refused with a message. */
#include <stdlib.h>

#include "examples/digits/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dataset dataset;
    char error[128] = "";
    FILE *source = size ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
    if (!source) {
        return 0;
    }
    int rc = dataset_read(&dataset, source, "fuzz", error, sizeof error);
    if ((rc == 0) != (error[0] == '\0') || (rc == 0 && dataset.train_count > dataset.count)) {
        abort();
    }
    dataset_destroy(&dataset);
    fclose(source);
    return 0;
}
