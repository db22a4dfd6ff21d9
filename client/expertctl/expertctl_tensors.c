/* forward and backward: .npy files in, .npy files out. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/expertctl/expertctl.h"
#include "client/expertctl/npy.h"
#include "common/clock.h"

enum { METADATA_SIZE = 1025 };
static const double default_timeout_s = 10;

/* The files' arrays, and the same as tensors. */
struct arrays {
    struct npy arrays[EXPERTCTL_MAX_FILES];
    struct expertd_tensor tensors[EXPERTCTL_MAX_FILES];
    size_t count;
};

static void clear(struct arrays *arrays)
{
    for (size_t i = 0; i < arrays->count; i++)
        npy_clear(&arrays->arrays[i]);
    arrays->count = 0;
}

static enum exit_code read_files(const struct expertctl *ctl, const struct paths *paths, struct arrays *arrays)
{
    char error[512];
    for (size_t i = 0; i < paths->count; i++) {
        struct npy *array = &arrays->arrays[i];
        struct expertd_tensor *tensor = &arrays->tensors[i];
        if (npy_read(paths->path[i], array, error, sizeof error) < 0)
            return expertctl_fail_here(ctl, error);
        arrays->count++;
        if (array->ndim < 1 || array->ndim > EXPERTD_MAX_DIMS) {
            snprintf(error, sizeof error, "%s: a tensor has 1 to %d dimensions, of which the first are its rows",
                     paths->path[i], EXPERTD_MAX_DIMS);
            return expertctl_fail_here(ctl, error);
        }
        *tensor = (struct expertd_tensor){
            .dtype = (enum expertd_dtype)array->dtype, .ndim = array->ndim, .data = array->data, .bytes = array->bytes};
        memcpy(tensor->shape, array->shape, array->ndim * sizeof tensor->shape[0]);
    }
    return EXIT_OK;
}

/* Where the outputs go: opened before anything is asked, so that an expert learns nothing for an answer that has no
 * place to go. What was there stays until there is an answer. */
struct outputs {
    int fd[EXPERTCTL_MAX_FILES];
    bool made[EXPERTCTL_MAX_FILES];
    size_t count;
};

static enum exit_code open_outputs(const struct expertctl *ctl, struct outputs *outputs)
{
    for (size_t i = 0; i < ctl->outputs.count; i++) {
        const char *path = ctl->outputs.path[i];
        int fd = STDOUT_FILENO;
        if (strcmp(path, "-") != 0) {
            fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
            outputs->made[i] = fd >= 0;
            if (fd < 0 && errno == EEXIST)
                fd = open(path, O_WRONLY | O_CLOEXEC);
        }
        if (fd < 0) {
            char error[512];
            snprintf(error, sizeof error, "%.400s: %s", path, strerror(errno));
            return expertctl_fail_here(ctl, error);
        }
        outputs->fd[outputs->count++] = fd;
    }
    return EXIT_OK;
}

/* Files that were made for an answer that did not come go again. */
static void close_outputs(const struct expertctl *ctl, struct outputs *outputs, bool written)
{
    for (size_t i = 0; i < outputs->count; i++) {
        if (outputs->fd[i] >= 0 && outputs->fd[i] != STDOUT_FILENO)
            close(outputs->fd[i]);
        if (outputs->made[i] && !written)
            unlink(ctl->outputs.path[i]);
    }
    outputs->count = 0;
}

static int write_output(const struct expertctl *ctl, struct outputs *outputs, size_t i,
                        const struct expertd_tensor *tensor, char *error, size_t error_size)
{
    const char *path = ctl->outputs.path[i];
    struct npy array = {.dtype = (uint32_t)tensor->dtype,
                        .ndim = tensor->ndim,
                        .data = (void *)(uintptr_t)tensor->data,
                        .bytes = tensor->bytes};
    memcpy(array.shape, tensor->shape, tensor->ndim * sizeof array.shape[0]);
    const int fd = outputs->fd[i];
    if (fd == STDOUT_FILENO)
        return npy_write_to(fd, "standard output", &array, error, error_size);
    if (ftruncate(fd, 0) < 0 && errno != EINVAL) { /* a pipe has no length */
        snprintf(error, error_size, "%.400s: %s", path, strerror(errno));
        return -1;
    }
    if (npy_write_to(fd, path, &array, error, error_size) < 0)
        return -1;
    outputs->fd[i] = -1;
    if (close(fd) < 0) {
        snprintf(error, error_size, "%.400s: %s", path, strerror(errno));
        return -1;
    }
    return 0;
}

/* The reply is there: whatever goes wrong now, the server has done its part. */
static enum exit_code write_files(const struct expertctl *ctl, struct outputs *outputs, const struct expertd_call *call)
{
    char error[512], message[600];
    int rc = 0;
    if (outputs->count > expertd_call_output_count(call)) {
        snprintf(error, sizeof error, "%zu --output are given, but the reply has %zu tensors", outputs->count,
                 expertd_call_output_count(call));
        rc = -1;
    }
    for (size_t i = 0; i < outputs->count && rc == 0; i++)
        rc = write_output(ctl, outputs, i, expertd_call_output(call, i), error, sizeof error);
    if (rc == 0)
        return EXIT_OK;
    snprintf(message, sizeof message, "%s%s", error,
             expertd_call_not_applied(call) ? "" : "; the backward was applied");
    return expertctl_fail_here(ctl, message);
}

/* ---- what is told about a tensor ------------------------------------------------------------------------------- */

static double half_value(uint16_t bits)
{
    const int exponent = bits >> 10 & 31;
    const int fraction = bits & 1023;
    const double magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                             : exponent == 0 ? ldexp(fraction, -24)
                                             : ldexp(1024 + fraction, exponent - 25);
    return bits >> 15 ? -magnitude : magnitude;
}

static double bfloat_value(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static double element(const struct expertd_tensor *tensor, size_t index)
{
    switch (tensor->dtype) {
    case EXPERTD_FLOAT32:
        return ((const float *)tensor->data)[index];
    case EXPERTD_FLOAT64:
        return ((const double *)tensor->data)[index];
    case EXPERTD_FLOAT16:
        return half_value(((const uint16_t *)tensor->data)[index]);
    case EXPERTD_BFLOAT16:
        return bfloat_value(((const uint16_t *)tensor->data)[index]);
    case EXPERTD_INT8:
        return ((const int8_t *)tensor->data)[index];
    case EXPERTD_INT16:
        return ((const int16_t *)tensor->data)[index];
    case EXPERTD_INT32:
        return ((const int32_t *)tensor->data)[index];
    case EXPERTD_INT64:
        return (double)((const int64_t *)tensor->data)[index];
    default:
        return ((const uint8_t *)tensor->data)[index];
    }
}

struct summary {
    double least, most, mean;
    size_t not_finite;
};

static struct summary summarise(const struct expertd_tensor *tensor)
{
    struct summary summary = {INFINITY, -INFINITY, 0, 0};
    const size_t count = tensor->bytes / expertd_dtype_size(tensor->dtype);
    for (size_t i = 0; i < count; i++) {
        const double value = element(tensor, i);
        if (!isfinite(value)) {
            summary.not_finite++;
            continue;
        }
        summary.least = fmin(summary.least, value);
        summary.most = fmax(summary.most, value);
        summary.mean += value;
    }
    summary.mean /= (double)(count - summary.not_finite);
    return summary;
}

/* As the server returned it; for a terminal. */
static const char *metadata_of(const struct expertd_call *call, char text[METADATA_SIZE])
{
    size_t bytes;
    const void *metadata = expertd_call_metadata(call, &bytes);
    snprintf(text, METADATA_SIZE, "%.*s", (int)bytes, (const char *)metadata);
    for (char *at = text; *at; at++) {
        if (*at < ' ' || *at > '~')
            *at = '?';
    }
    return text;
}

static void show_json(const struct expertctl *ctl, const struct expertd_call *call, double latency_ms)
{
    char metadata[METADATA_SIZE];
    struct json json = expertctl_json_start();
    json_string(&json, "uid", ctl->arguments[0]);
    json_number(&json, "latency_ms", latency_ms);
    if (ctl->metadata)
        json_string(&json, "metadata", metadata_of(call, metadata));
    json_open(&json, "outputs", '[');
    for (size_t i = 0; i < expertd_call_output_count(call); i++) {
        const struct expertd_tensor *tensor = expertd_call_output(call, i);
        const struct summary summary = summarise(tensor);
        json_open(&json, NULL, '{');
        json_string(&json, "dtype", expertd_dtype_name(tensor->dtype));
        json_open(&json, "shape", '[');
        for (uint32_t d = 0; d < tensor->ndim; d++)
            json_unsigned(&json, NULL, tensor->shape[d]);
        json_close(&json, ']');
        json_number(&json, "min", summary.least);
        json_number(&json, "max", summary.most);
        json_number(&json, "mean", summary.mean);
        json_unsigned(&json, "not_finite", summary.not_finite);
        if (i < ctl->outputs.count)
            json_string(&json, "file", ctl->outputs.path[i]);
        json_close(&json, '}');
    }
    json_close(&json, ']');
    expertctl_json_end(&json);
}

/* To where the arrays themselves do not go. */
static FILE *listener(const struct expertctl *ctl)
{
    for (size_t i = 0; i < ctl->outputs.count; i++)
        if (strcmp(ctl->outputs.path[i], "-") == 0)
            return stderr;
    return stdout;
}

static void show_text(const struct expertctl *ctl, const struct expertd_call *call, double latency_ms)
{
    FILE *stream = listener(ctl);
    for (size_t i = 0; i < expertd_call_output_count(call); i++) {
        const struct expertd_tensor *tensor = expertd_call_output(call, i);
        const struct summary summary = summarise(tensor);
        fprintf(stream, "%s[", expertd_dtype_name(tensor->dtype));
        for (uint32_t d = 0; d < tensor->ndim; d++)
            fprintf(stream, "%s%" PRIu64, d ? ", " : "", tensor->shape[d]);
        const bool some = summary.least <= summary.most; /* a number */
        fputc(']', stream);
        if (some)
            fprintf(stream, " min %g max %g mean %g", summary.least, summary.most, summary.mean);
        if (summary.not_finite)
            fprintf(stream, "%s %zu NaN or Inf", some ? "," : "", summary.not_finite);
        if (i < ctl->outputs.count)
            fprintf(stream, " -> %s", ctl->outputs.path[i]);
        fputc('\n', stream);
    }
    char metadata[METADATA_SIZE];
    if (ctl->metadata)
        fprintf(stream, "metadata %s\n", metadata_of(call, metadata));
    fprintf(stream, "%.3f ms\n", latency_ms);
}

/* ---- the commands ---------------------------------------------------------------------------------------------- */

static enum exit_code ask(struct expertctl *ctl, struct expertd_client *client, const struct arrays *inputs,
                          const struct arrays *grad_outputs, struct outputs *outputs)
{
    struct expertd_call *call;
    const char *uid = ctl->arguments[0];
    const uint32_t timeout_ms = expertctl_timeout_ms(ctl, default_timeout_s);
    const uint64_t start_ns = clock_now_ns();
    bool requires_grad[EXPERTCTL_MAX_FILES];
    for (size_t i = 0; i < inputs->count; i++)
        requires_grad[i] = !ctl->no_grad[i];
    const int made = grad_outputs ? expertd_backward_for(client, uid, inputs->tensors, inputs->count,
                                                         ctl->no_grad_given ? requires_grad : NULL,
                                                         grad_outputs->tensors, grad_outputs->count, timeout_ms, &call)
                                  : expertd_forward(client, uid, inputs->tensors, inputs->count, timeout_ms, &call);
    enum exit_code code = expertctl_finish(ctl, made, &call);
    if (code != EXIT_OK)
        return code;
    const double latency_ms = (double)(clock_now_ns() - start_ns) / 1e6;
    code = write_files(ctl, outputs, call);
    if (code == EXIT_OK && ctl->json)
        show_json(ctl, call, latency_ms);
    else if (code == EXIT_OK)
        show_text(ctl, call, latency_ms);
    return code;
}

static enum exit_code run(struct expertctl *ctl, bool backward)
{
    struct arrays inputs = {0};
    struct arrays grad_outputs = {0};
    struct outputs outputs = {0};
    struct expertd_client *client = NULL;
    if (backward) {
        size_t gradients = ctl->inputs.count;
        for (size_t i = 0; i < EXPERTCTL_MAX_FILES; i++) {
            if (ctl->no_grad[i] && i >= ctl->inputs.count)
                return expertctl_usage(ctl, "there is no --input of the number that --no-grad names; the first is 0");
            gradients -= ctl->no_grad[i];
        }
        if (ctl->outputs.count > gradients)
            return expertctl_usage(ctl, "more --output than gradients: there is one for each --input, but for those "
                                        "that --no-grad names");
    }
    enum exit_code code = read_files(ctl, &ctl->inputs, &inputs);
    if (code == EXIT_OK)
        code = read_files(ctl, &ctl->grad_outputs, &grad_outputs);
    if (code == EXIT_OK)
        code = open_outputs(ctl, &outputs);
    if (code == EXIT_OK)
        client = expertctl_connect(ctl, &code);
    if (client)
        code = ask(ctl, client, &inputs, backward ? &grad_outputs : NULL, &outputs);
    expertd_client_destroy(&client);
    close_outputs(ctl, &outputs, code == EXIT_OK);
    clear(&inputs);
    clear(&grad_outputs);
    return code;
}

enum exit_code expertctl_forward(struct expertctl *ctl)
{
    return run(ctl, false);
}

enum exit_code expertctl_backward(struct expertctl *ctl)
{
    return run(ctl, true);
}
