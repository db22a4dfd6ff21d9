/* Files of models as tests need them: tensors of any format, right or wrong. The tests fail if they cannot be written.
 */
#ifndef EXPERTD_TESTS_SUPPORT_MODEL_H
#define EXPERTD_TESTS_SUPPORT_MODEL_H

#include <stddef.h>
#include <stdint.h>

struct support_tensor {
    const char *name, *format; /* "F32" */
    uint64_t dims[4];
    unsigned ndim;
    const void *data;
    size_t bytes;
};

/* A folder of its own, which support_model_remove removes with all that is in it. */
const char *support_model_folder(void);
void support_model_remove(void);
/* <folder>/<name> */
const char *support_model_path(const char *name);
/* Writes a safetensors file of that name into the folder. */
void support_model_write(const char *name, const struct support_tensor *tensors, unsigned count);
void support_model_write_text(const char *name, const char *text);

#endif
