#include "http/infer_request.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/datatype.h"

enum { MAX_DEPTH = 16 }; /* nested lists of a tensor of EXPERTD_MAX_DIMS dimensions, and what is around them */

/* What is left of the bytes behind the JSON. */
struct bytes {
    const char *at;
    size_t left;
};

__attribute__((format(printf, 2, 3))) static int wrong(char why[INFER_WHY_SIZE], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, INFER_WHY_SIZE, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* A member of that type; NULL: it is absent, or (then *bad is set) of another one. */
static struct json_object *member(struct json_object *object, const char *name, json_type type, bool *bad)
{
    struct json_object *value = NULL;
    if (!json_object_object_get_ex(object, name, &value) || !value)
        return NULL;
    if (json_object_get_type(value) == type)
        return value;
    *bad = true;
    return NULL;
}

/* A string without a NUL in it, which would hide the rest. */
static const char *string_of(struct json_object *value)
{
    const char *text = value ? json_object_get_string(value) : NULL;
    return text && strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

static int parse_shape(struct expertd_tensor *tensor, struct json_object *shape, const char *name, uint64_t *elements,
                       char why[INFER_WHY_SIZE])
{
    const size_t ndim = shape ? json_object_array_length(shape) : 0;
    if (ndim == 0 || ndim > EXPERTD_MAX_DIMS)
        return wrong(why, "input '%.80s' needs a shape of 1 to %d dimensions", name, EXPERTD_MAX_DIMS);
    *elements = 1;
    for (size_t d = 0; d < ndim; d++) {
        struct json_object *size = json_object_array_get_idx(shape, d);
        const int64_t value = json_object_is_type(size, json_type_int) ? json_object_get_int64(size) : -1;
        if (value < 0 || value > UINT32_MAX || __builtin_mul_overflow(*elements, (uint64_t)value, elements) ||
            *elements > INT32_MAX)
            return wrong(why, "input '%.80s' has an impossible shape", name);
        tensor->shape[d] = (uint64_t)value;
    }
    tensor->ndim = (uint32_t)ndim;
    return 0;
}

/* Bytes behind the JSON. They may lie at any address, elements may not. */
static int take_bytes(struct infer_input *input, struct json_object *size, struct bytes *bytes,
                      char why[INFER_WHY_SIZE])
{
    const size_t wanted = input->tensor.bytes;
    if (json_object_get_int64(size) < 0 || (uint64_t)json_object_get_int64(size) != wanted)
        return wrong(why, "input '%.80s': binary_data_size is %" PRId64 ", but its shape takes %zu bytes", input->name,
                     json_object_get_int64(size), wanted);
    if (wanted > bytes->left)
        return wrong(why, "input '%.80s': the body ends before its %zu bytes", input->name, wanted);
    input->owned = malloc(wanted + 1);
    if (!input->owned)
        return -ENOMEM;
    memcpy(input->owned, bytes->at, wanted);
    bytes->at += wanted;
    bytes->left -= wanted;
    return 0;
}

/* Numbers in lists, nested as deep as they like, in row-major order. */
static bool store_numbers(struct infer_input *input, struct json_object *list, size_t elements, size_t *stored)
{
    const size_t length = json_object_array_length(list);
    for (size_t i = 0; i < length; i++) {
        struct json_object *value = json_object_array_get_idx(list, i);
        if (json_object_is_type(value, json_type_array)) {
            if (!store_numbers(input, value, elements, stored)) /* as deep as the parser allowed */
                return false;
        } else if (*stored == elements || !datatype_store(input->tensor.dtype, input->owned, (*stored)++, value)) {
            return false;
        }
    }
    return true;
}

static int take_numbers(struct infer_input *input, struct json_object *data, uint64_t elements,
                        char why[INFER_WHY_SIZE])
{
    size_t stored = 0;
    const char *type = datatype_name(input->tensor.dtype);
    if (!datatype_has_json(input->tensor.dtype))
        return wrong(why, "input '%.80s': %s travels as binary data only", input->name, type);
    input->owned = malloc(input->tensor.bytes + 1);
    if (!input->owned)
        return -ENOMEM;
    if (!store_numbers(input, data, elements, &stored) || stored != elements)
        return wrong(why, "input '%.80s': data is not %" PRIu64 " numbers of %s", input->name, elements, type);
    return 0;
}

static int parse_input(struct infer_input *input, struct json_object *object, struct bytes *bytes,
                       char why[INFER_WHY_SIZE])
{
    bool bad = false;
    uint64_t elements = 0;
    if (!json_object_is_type(object, json_type_object))
        return wrong(why, "an input is no object");
    input->name = string_of(member(object, "name", json_type_string, &bad));
    const char *datatype = string_of(member(object, "datatype", json_type_string, &bad));
    if (!input->name || !datatype)
        return wrong(why, "an input needs a name and a datatype");
    input->tensor.dtype = datatype_find(datatype);
    if (!input->tensor.dtype)
        return wrong(why, "input '%.80s': the datatype '%.20s' is not known here", input->name, datatype);
    int rc = parse_shape(&input->tensor, member(object, "shape", json_type_array, &bad), input->name, &elements, why);
    if (rc < 0)
        return rc;
    input->tensor.bytes = (size_t)elements * expertd_dtype_size(input->tensor.dtype);
    struct json_object *parameters = member(object, "parameters", json_type_object, &bad);
    struct json_object *size = parameters ? member(parameters, "binary_data_size", json_type_int, &bad) : NULL;
    struct json_object *data = member(object, "data", json_type_array, &bad);
    if (bad || (size != NULL) == (data != NULL))
        return wrong(why, "input '%.80s' needs either data, a list, or parameters.binary_data_size, a number",
                     input->name);
    rc = size ? take_bytes(input, size, bytes, why) : take_numbers(input, data, elements, why);
    input->tensor.data = input->owned;
    return rc;
}

static int parse_inputs(struct infer_request *request, struct bytes *bytes, char why[INFER_WHY_SIZE])
{
    bool bad = false;
    struct json_object *inputs = member(request->root, "inputs", json_type_array, &bad);
    const size_t count = inputs ? json_object_array_length(inputs) : 0;
    if (count == 0 || count > EXPERTD_MAX_TENSORS)
        return wrong(why, "a request needs inputs, a list of 1 to %d", EXPERTD_MAX_TENSORS);
    for (size_t i = 0; i < count; i++) {
        request->inputs_count = i + 1;
        const int rc = parse_input(&request->inputs[i], json_object_array_get_idx(inputs, i), bytes, why);
        if (rc < 0)
            return rc;
        for (size_t j = 0; j < i; j++)
            if (strcmp(request->inputs[i].name, request->inputs[j].name) == 0)
                return wrong(why, "input '%.80s' stands twice", request->inputs[i].name);
    }
    return bytes->left == 0 ? 0 : wrong(why, "%zu bytes follow the last input's", bytes->left);
}

static int parse_outputs(struct infer_request *request, char why[INFER_WHY_SIZE])
{
    bool bad = false;
    struct json_object *parameters = member(request->root, "parameters", json_type_object, &bad);
    struct json_object *binary = parameters ? member(parameters, "binary_data_output", json_type_boolean, &bad) : NULL;
    struct json_object *outputs = member(request->root, "outputs", json_type_array, &bad);
    struct json_object *id = member(request->root, "id", json_type_string, &bad);
    request->binary_output = binary && json_object_get_boolean(binary);
    request->id = string_of(id);
    request->outputs_count = outputs ? json_object_array_length(outputs) : 0;
    if (bad || request->outputs_count > EXPERTD_MAX_TENSORS || (id && !request->id))
        return wrong(why, "id, parameters or outputs are not of their types");
    for (size_t i = 0; i < request->outputs_count; i++) {
        struct json_object *output = json_object_array_get_idx(outputs, i);
        if (!json_object_is_type(output, json_type_object))
            return wrong(why, "an output is no object");
        request->outputs[i].name = string_of(member(output, "name", json_type_string, &bad));
        parameters = member(output, "parameters", json_type_object, &bad);
        binary = parameters ? member(parameters, "binary_data", json_type_boolean, &bad) : NULL;
        request->outputs[i].binary = binary ? json_object_get_boolean(binary) : request->binary_output;
        if (bad || !request->outputs[i].name)
            return wrong(why, "an output needs a name");
    }
    return 0;
}

static struct json_object *parse_json(const char *body, size_t bytes, char why[INFER_WHY_SIZE])
{
    struct json_tokener *tokener = json_tokener_new_ex(MAX_DEPTH);
    if (!tokener) {
        snprintf(why, INFER_WHY_SIZE, "no memory");
        return NULL;
    }
    struct json_object *root = json_tokener_parse_ex(tokener, body, (int)bytes);
    enum json_tokener_error error = json_tokener_get_error(tokener);
    /* White space may follow; and a number or a word at the very end could go on. */
    size_t end = json_tokener_get_parse_end(tokener);
    while (end < bytes && strchr(" \t\r\n", body[end]) && body[end])
        end++;
    if (error == json_tokener_success && end == bytes && json_object_is_type(root, json_type_object)) {
        json_tokener_free(tokener);
        return root;
    }
    snprintf(why, INFER_WHY_SIZE, "the request is no JSON object: %s",
             error == json_tokener_success    ? "something follows it, or it is another value"
             : error == json_tokener_continue ? "it ends too early"
                                              : json_tokener_error_desc(error));
    json_object_put(root);
    json_tokener_free(tokener);
    return NULL;
}

int infer_request_parse(struct infer_request *request, const char *body, size_t bytes, size_t json_bytes,
                        char why[INFER_WHY_SIZE])
{
    *request = (struct infer_request){0};
    if (json_bytes == 0)
        json_bytes = bytes;
    if (json_bytes > bytes || json_bytes > INT32_MAX)
        return wrong(why, "Inference-Header-Content-Length is larger than the body");
    request->root = parse_json(body, json_bytes, why);
    if (!request->root)
        return -EINVAL;
    struct bytes rest = {body + json_bytes, bytes - json_bytes};
    const int rc = parse_inputs(request, &rest, why);
    if (rc == -ENOMEM)
        snprintf(why, INFER_WHY_SIZE, "no memory");
    return rc < 0 ? rc : parse_outputs(request, why);
}

void infer_request_free(struct infer_request *request)
{
    for (size_t i = 0; i < request->inputs_count; i++)
        free(request->inputs[i].owned);
    json_object_put(request->root);
    *request = (struct infer_request){0};
}

int infer_request_order(const struct infer_request *request, const struct expertd_schema *schema,
                        struct expertd_tensor tensors[EXPERTD_MAX_TENSORS], char why[INFER_WHY_SIZE])
{
    if (request->inputs_count != schema->count)
        return wrong(why, "the model has %zu inputs, %zu came", schema->count, request->inputs_count);
    for (size_t f = 0; f < schema->count; f++) {
        size_t i = 0;
        while (i < request->inputs_count && strcmp(request->inputs[i].name, schema->fields[f].name) != 0)
            i++;
        if (i == request->inputs_count)
            return wrong(why, "the model's input '%.80s' did not come", schema->fields[f].name);
        tensors[f] = request->inputs[i].tensor;
    }
    return 0;
}

bool infer_request_wants(const struct infer_request *request, const char *output, bool *binary)
{
    *binary = request->binary_output;
    for (size_t i = 0; i < request->outputs_count; i++) {
        if (strcmp(request->outputs[i].name, output) != 0)
            continue;
        *binary = request->outputs[i].binary;
        return true;
    }
    return request->outputs_count == 0;
}
