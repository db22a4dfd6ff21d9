#include "unit/support_fixture.h"

#include <check.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct support_fixture {
    char *content;
    const char *tensors;
    struct json_object *header;
};

struct support_fixture *support_fixture_open(const char *name)
{
    struct support_fixture *fixture = calloc(1, sizeof *fixture);
    char path[256];
    uint64_t header_bytes;
    snprintf(path, sizeof path, "tests/fixtures/%s.safetensors", name);
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s: run the tests in the root of the tree", path);
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    const size_t size = (size_t)ftell(file);
    rewind(file);
    fixture->content = malloc(size);
    ck_assert_uint_eq(fread(fixture->content, 1, size, file), size);
    fclose(file);
    memcpy(&header_bytes, fixture->content, sizeof header_bytes);
    ck_assert_uint_lt(header_bytes, size);
    struct json_tokener *tokener = json_tokener_new();
    fixture->header = json_tokener_parse_ex(tokener, fixture->content + 8, (int)header_bytes);
    json_tokener_free(tokener);
    ck_assert_ptr_nonnull(fixture->header);
    fixture->tensors = fixture->content + 8 + header_bytes;
    return fixture;
}

void support_fixture_close(struct support_fixture **fixture)
{
    json_object_put((*fixture)->header);
    free((*fixture)->content);
    free(*fixture);
    *fixture = NULL;
}

const float *support_fixture_find(const struct support_fixture *fixture, size_t *count, const char *format, ...)
{
    char name[128];
    struct json_object *tensor, *offsets;
    va_list list;
    va_start(list, format);
    vsnprintf(name, sizeof name, format, list);
    va_end(list);
    ck_assert_msg(json_object_object_get_ex(fixture->header, name, &tensor), "no %s in the fixture", name);
    ck_assert(json_object_object_get_ex(tensor, "data_offsets", &offsets));
    const int64_t begin = json_object_get_int64(json_object_array_get_idx(offsets, 0));
    const int64_t end = json_object_get_int64(json_object_array_get_idx(offsets, 1));
    *count = (size_t)(end - begin) / sizeof(float);
    return (const float *)(const void *)(fixture->tensors + begin);
}
