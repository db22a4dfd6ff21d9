#include "http/datatype.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    [EXPERTD_FLOAT32] = "FP32", [EXPERTD_FLOAT64] = "FP64", [EXPERTD_FLOAT16] = "FP16", [EXPERTD_BFLOAT16] = "BF16",
    [EXPERTD_INT8] = "INT8",    [EXPERTD_INT16] = "INT16",  [EXPERTD_INT32] = "INT32",  [EXPERTD_INT64] = "INT64",
    [EXPERTD_UINT8] = "UINT8",  [EXPERTD_BOOL] = "BOOL",
};
enum { NAMES = sizeof names / sizeof names[0] };

const char *datatype_name(enum expertd_dtype dtype)
{
    return (unsigned)dtype < NAMES ? names[dtype] : NULL;
}

enum expertd_dtype datatype_find(const char *name)
{
    for (unsigned i = 1; i < NAMES; i++)
        if (strcmp(names[i], name) == 0)
            return (enum expertd_dtype)i;
    return (enum expertd_dtype)0;
}

bool datatype_has_json(enum expertd_dtype dtype)
{
    return dtype != EXPERTD_FLOAT16 && dtype != EXPERTD_BFLOAT16;
}

static bool store_integer(enum expertd_dtype dtype, void *data, size_t i, int64_t value)
{
    switch (dtype) {
    case EXPERTD_INT8:
        ((int8_t *)data)[i] = (int8_t)value;
        return value >= INT8_MIN && value <= INT8_MAX;
    case EXPERTD_INT16:
        ((int16_t *)data)[i] = (int16_t)value;
        return value >= INT16_MIN && value <= INT16_MAX;
    case EXPERTD_INT32:
        ((int32_t *)data)[i] = (int32_t)value;
        return value >= INT32_MIN && value <= INT32_MAX;
    case EXPERTD_INT64:
        ((int64_t *)data)[i] = value;
        return true;
    case EXPERTD_UINT8:
        ((uint8_t *)data)[i] = (uint8_t)value;
        return value >= 0 && value <= UINT8_MAX;
    case EXPERTD_BOOL:
        ((uint8_t *)data)[i] = value != 0;
        return value == 0 || value == 1;
    default:
        return false;
    }
}

bool datatype_store(enum expertd_dtype dtype, void *data, size_t i, struct json_object *value)
{
    const json_type type = json_object_get_type(value);
    if (type == json_type_boolean && dtype == EXPERTD_BOOL)
        return store_integer(dtype, data, i, json_object_get_boolean(value));
    if (type != json_type_int && type != json_type_double)
        return false;
    if (dtype == EXPERTD_FLOAT32 || dtype == EXPERTD_FLOAT64) {
        const double number = json_object_get_double(value);
        if (dtype == EXPERTD_FLOAT64)
            ((double *)data)[i] = number;
        else
            ((float *)data)[i] = (float)number;
        return isfinite(dtype == EXPERTD_FLOAT64 ? number : (double)((float *)data)[i]);
    }
    /* json-c gives the nearest int64 for a number that is none; only what says so itself is one. */
    if (type != json_type_int ||
        (json_object_get_int64(value) == INT64_MAX && json_object_get_uint64(value) > INT64_MAX))
        return false;
    return store_integer(dtype, data, i, json_object_get_int64(value));
}

static void write_float(struct text *text, double value, int digits)
{
    if (value == 0 && signbit(value))
        text_add(text, "-0.0"); /* "-0" would be read as a whole number, which has no sign */
    else if (isfinite(value))
        text_add(text, "%.*g", digits, value);
    else
        text_add(text, "null");
}

void datatype_write(enum expertd_dtype dtype, const void *data, size_t i, struct text *text)
{
    switch (dtype) {
    case EXPERTD_FLOAT32:
        write_float(text, (double)((const float *)data)[i], 9);
        break;
    case EXPERTD_FLOAT64:
        write_float(text, ((const double *)data)[i], 17);
        break;
    case EXPERTD_INT8:
        text_add(text, "%d", ((const int8_t *)data)[i]);
        break;
    case EXPERTD_INT16:
        text_add(text, "%d", ((const int16_t *)data)[i]);
        break;
    case EXPERTD_INT32:
        text_add(text, "%" PRId32, ((const int32_t *)data)[i]);
        break;
    case EXPERTD_INT64:
        text_add(text, "%" PRId64, ((const int64_t *)data)[i]);
        break;
    case EXPERTD_UINT8:
        text_add(text, "%u", ((const uint8_t *)data)[i]);
        break;
    case EXPERTD_BOOL:
        text_add(text, ((const uint8_t *)data)[i] ? "true" : "false");
        break;
    default:
        text_add(text, "null");
    }
}
