#include "unit/support_model.h"

#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[128];

const char *support_model_folder(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/model.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    return folder;
}

void support_model_remove(void)
{
    char command[sizeof folder + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

const char *support_model_path(const char *name)
{
    static char path[sizeof folder + 256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static FILE *open_file(const char *name)
{
    FILE *file = fopen(support_model_path(name), "w");
    ck_assert_ptr_nonnull(file);
    return file;
}

void support_model_write(const char *name, const struct support_tensor *tensors, unsigned count)
{
    char *header = NULL;
    size_t length = 0;
    uint64_t offset = 0;
    FILE *text = open_memstream(&header, &length);
    fputc('{', text);
    for (unsigned i = 0; i < count; i++) {
        const struct support_tensor *tensor = &tensors[i];
        fprintf(text, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i > 0 ? "," : "", tensor->name, tensor->format);
        for (unsigned dim = 0; dim < tensor->ndim; dim++)
            fprintf(text, "%s%" PRIu64, dim > 0 ? "," : "", tensor->dims[dim]);
        fprintf(text, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", offset, offset + tensor->bytes);
        offset += tensor->bytes;
    }
    fputc('}', text);
    fclose(text);
    const uint64_t size = length;
    FILE *file = open_file(name);
    fwrite(&size, 1, sizeof size, file);
    fwrite(header, 1, length, file);
    for (unsigned i = 0; i < count; i++)
        fwrite(tensors[i].data, 1, tensors[i].bytes, file);
    ck_assert_int_eq(fclose(file), 0);
    free(header);
}

void support_model_write_text(const char *name, const char *text)
{
    FILE *file = open_file(name);
    fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
}
