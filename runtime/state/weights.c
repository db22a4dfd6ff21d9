#include "runtime/state/weights.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "common/tensor_part.h"
#include "runtime/compute/quantized.h"
#include "runtime/state/checkpoint.h"
#include "runtime/state/layouts.h"
#include "runtime/state/stored.h"

struct model {
    char *path;
    struct shards *shards;
    bool looked_beside; /* for an optimizer's state */
};

struct weights {
    struct model *items;
    unsigned count;
};

int weights_create(struct weights **weights)
{
    *weights = calloc(1, sizeof **weights);
    return *weights ? 0 : -ENOMEM;
}

void weights_close(struct weights *weights)
{
    for (unsigned i = 0; i < weights->count; i++) {
        shards_close(&weights->items[i].shards);
        free(weights->items[i].path);
    }
    free(weights->items);
    *weights = (struct weights){0};
}

void weights_destroy(struct weights **weights)
{
    if (*weights)
        weights_close(*weights);
    free(*weights);
    *weights = NULL;
}

/* The model is good until the next one is opened. */
static int open_model(struct weights *weights, const char *path, struct model **model, char *error)
{
    for (unsigned i = 0; i < weights->count; i++) {
        if (strcmp(weights->items[i].path, path) == 0) {
            *model = &weights->items[i];
            return 0;
        }
    }
    struct shards *shards;
    struct model *items = realloc(weights->items, (weights->count + 1) * sizeof *items);
    if (items)
        weights->items = items;
    char *copy = items ? strdup(path) : NULL;
    if (!copy) {
        snprintf(error, SHARDS_ERROR_SIZE, "there is not enough memory");
        return -ENOMEM;
    }
    const int rc = shards_open(&shards, path, error);
    if (rc < 0) {
        free(copy);
        return rc;
    }
    *model = &items[weights->count++];
    **model = (struct model){.path = copy, .shards = shards};
    return 0;
}

/* --- one expert of a model ---------------------------------------------------------------------------------------- */

struct loading {
    struct expert *expert;
    struct shards *shards;
    const char *uid;
    const struct layout *layout; /* NULL: the entry's `tensors` say it all */
    const char *prefix;
    struct tensor_part part; /* of the parameter that is being read */
    char error[SHARDS_ERROR_SIZE];
};

/* What the entry says; or else the layout; NULL. */
static const char *template_of(const struct loading *loading, const char *parameter, char text[LAYOUTS_TEMPLATE_SIZE])
{
    const struct config_expert *config = loading->expert->config;
    for (unsigned i = 0; i < config->templates.count; i++)
        if (config->templates.items[i].template && strcmp(config->templates.items[i].parameter, parameter) == 0)
            return config->templates.items[i].template;
    return loading->layout ? layout_template(loading->layout, loading->prefix, parameter, text) : NULL;
}

static int refuse_unknown(struct loading *loading, const char *parameter)
{
    const char *example = shards_example(loading->shards, "model.layers.");
    example = example ? example : shards_example(loading->shards, "");
    if (loading->layout)
        snprintf(loading->error, sizeof loading->error,
                 "its layout (%s) has no parameter '%s', which the block has: say with `tensors` where it is",
                 layout_name(loading->layout), parameter);
    else
        snprintf(loading->error, sizeof loading->error,
                 "%s no experts of a known layout for uid '%s' (one of its tensors is '%.200s'): say with `tensors` "
                 "where parameter '%s' is",
                 shards_is_index(loading->shards) ? "it is the shard index of a model that has" : "it has",
                 loading->uid, example ? example : "", parameter);
    return -EINVAL;
}

static bool fits(const struct tensor_view *view, const struct expert_tensor *wanted)
{
    return view->ndim == wanted->ndim && memcmp(view->dims, wanted->dims, wanted->ndim * sizeof *wanted->dims) == 0;
}

static int find_part(struct loading *loading, const struct expert_tensor *wanted, struct stored *stored,
                     struct tensor_view *view)
{
    char text[LAYOUTS_TEMPLATE_SIZE], problem[TENSOR_PART_ERROR_SIZE], shape[128], is[128], expected[128];
    struct tensor_part *part = &loading->part;
    const char *template = template_of(loading, wanted->name, text);
    if (!template)
        return refuse_unknown(loading, wanted->name);
    int rc = tensor_part_parse(part, template, loading->uid, problem);
    if (rc == 0) {
        rc = stored_find(stored, loading->shards, part->name, loading->error);
        if (rc < 0)
            return rc;
        rc = tensor_part_view(view, part, stored->dims, stored->ndim, problem);
    }
    if (rc < 0) {
        snprintf(loading->error, sizeof loading->error, "%s", problem);
        return rc;
    }
    if (fits(view, wanted))
        return 0;
    snprintf(
        loading->error, sizeof loading->error,
        "'%.200s' is %s, and what '%.200s' names of it %s: parameter '%s' is %s (do hidden_dim and arguments fit the "
        "model?)",
        part->name, stored_shape(stored, shape, sizeof shape), template,
        safetensors_shape_format("", view->dims, view->ndim, is, sizeof is), wanted->name,
        safetensors_shape_format("", wanted->dims, wanted->ndim, expected, sizeof expected));
    return -EINVAL;
}

static int check_values(struct loading *loading, const struct expert_tensor *wanted, const float *values)
{
    for (uint64_t i = 0; i < wanted->count; i++) {
        if (values[i] >= wanted->least && values[i] <= wanted->greatest)
            continue;
        snprintf(loading->error, sizeof loading->error,
                 "element %" PRIu64 " of what '%.200s' gives for parameter '%s' is %g; possible are %g to %g", i,
                 loading->part.name, wanted->name, (double)values[i], (double)wanted->least, (double)wanted->greatest);
        return -EPROTO;
    }
    return 0;
}

/* What was read of a parameter: floats, or the numbers of a format that is kept as it is. */
struct values {
    float *floats;
    const struct weight_format *format; /* NULL: of floats */
    struct quantized_numbers numbers;
};

static int say_no_memory(struct loading *loading)
{
    snprintf(loading->error, sizeof loading->error, "there is not enough memory to read it");
    return -ENOMEM;
}

static int check_format(struct loading *loading, const struct stored *stored, const struct weight_format *format)
{
    char shape[128];
    const char *precision = stored_precision(stored);
    if (precision && strcmp(precision, format->precision) == 0)
        return 0;
    snprintf(loading->error, sizeof loading->error,
             "'%.200s' is %s, and device %s keeps weights in %s as a file has them: set precision: %s, which keeps "
             "these, or int8 or int4, to which they are rounded",
             loading->part.name, stored_shape(stored, shape, sizeof shape), loading->expert->config->device,
             format->precision, precision ? precision : "bf16");
    return -EINVAL;
}

static int check_numbers(struct loading *loading, const struct expert_tensor *wanted,
                         const struct weight_format *format, const uint8_t *codes, const float *scales)
{
    float number_of[256];
    for (unsigned code = 0; code < 256; code++)
        number_of[code] = format->number((uint8_t)code);
    for (uint64_t i = 0; i < wanted->count; i++) {
        const float value = number_of[codes[i]] * scales[i];
        if (isfinite(value) && isfinite(scales[i] * format->most))
            continue;
        snprintf(loading->error, sizeof loading->error,
                 "element %" PRIu64
                 " of what '%.200s' gives for parameter '%s' is %g (code 0x%02x, scale %g), which no "
                 "weight may be",
                 i, loading->part.name, wanted->name, (double)value, codes[i], (double)scales[i]);
        return -EPROTO;
    }
    return 0;
}

/* A scale for each group of an output's inputs, of one for each weight. */
static int take_scales(struct loading *loading, const struct expert_tensor *wanted, const struct weight_format *format,
                       const float *scales, float *of_groups)
{
    const uint64_t out = wanted->dims[0], in = wanted->dims[1];
    bool fits = true;
    for (uint64_t c = 0; c < out; c++) {
        for (uint64_t k = 0; k < in; k++) {
            const float scale = scales[c * in + k],
                        first = scales[c * in + k / WEIGHT_FORMAT_GROUP * WEIGHT_FORMAT_GROUP];
            fits = fits && scale == first;
            if (k % WEIGHT_FORMAT_GROUP == 0)
                *of_groups++ = scale;
        }
    }
    of_groups -= out * ((in + WEIGHT_FORMAT_GROUP - 1) / WEIGHT_FORMAT_GROUP);
    if (fits && quantized_fits(format, out, in, of_groups))
        return 0;
    snprintf(loading->error, sizeof loading->error,
             "what '%.200s' gives for parameter '%s' begins inside of weights that share a scale, or crosses them: it "
             "cannot be kept in %s as it is: set precision: bf16",
             loading->part.name, wanted->name, format->precision);
    return -EINVAL;
}

static int read_numbers(struct loading *loading, const struct expert_tensor *wanted, const struct stored *stored,
                        const struct tensor_view *view, struct values *values)
{
    int rc = check_format(loading, stored, values->format);
    if (rc < 0)
        return rc;
    float *scales = malloc(wanted->count * sizeof *scales);
    if (!scales || quantized_numbers_create(&values->numbers, wanted->dims[0], wanted->dims[1]) < 0) {
        free(scales);
        return say_no_memory(loading);
    }
    rc = stored_read_codes(stored, view, values->numbers.codes, scales, loading->error);
    if (rc == 0)
        rc = check_numbers(loading, wanted, values->format, values->numbers.codes, scales);
    if (rc == 0)
        rc = take_scales(loading, wanted, values->format, scales, values->numbers.scales);
    free(scales);
    return rc;
}

static int read_parameter(struct loading *loading, const struct expert_tensor *wanted, struct values *values)
{
    struct stored stored = {0};
    struct tensor_view view = {0};
    int rc = find_part(loading, wanted, &stored, &view);
    if (rc < 0)
        return rc;
    if (values->format)
        return read_numbers(loading, wanted, &stored, &view, values);
    values->floats = malloc(wanted->count * sizeof *values->floats);
    if (!values->floats)
        return say_no_memory(loading);
    rc = stored_read(&stored, &view, values->floats, loading->error);
    return rc == 0 ? check_values(loading, wanted, values->floats) : rc;
}

static int write_parameters(struct loading *loading, const struct values *values, unsigned count)
{
    int rc = 0;
    for (unsigned i = 0; i < count && rc == 0; i++)
        rc = values[i].format ? expert_tensor_write_numbers(loading->expert, i, &values[i].numbers)
                              : expert_tensor_write(loading->expert, i, values[i].floats);
    if (rc < 0)
        snprintf(loading->error, sizeof loading->error, "they cannot be loaded into the device: %.200s",
                 device_error(loading->expert->device));
    return rc;
}

static unsigned count_parameters(const struct expert *expert)
{
    unsigned count = 0;
    for (struct expert_tensor tensor; count < expert_tensors(expert); count++) {
        expert_tensor(expert, count, &tensor);
        if (!tensor.is_parameter)
            break;
    }
    return count;
}

static int load_parameters(struct loading *loading)
{
    const unsigned count = count_parameters(loading->expert);
    struct values *values = calloc(count, sizeof *values);
    int rc = values ? 0 : -ENOMEM;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        struct expert_tensor wanted;
        expert_tensor(loading->expert, i, &wanted);
        values[i].format = expert_tensor_format(loading->expert, i);
        rc = read_parameter(loading, &wanted, &values[i]);
    }
    if (rc == 0)
        rc = write_parameters(loading, values, count);
    for (unsigned i = 0; i < count && values; i++) {
        free(values[i].floats);
        quantized_numbers_destroy(&values[i].numbers);
    }
    free(values);
    return rc;
}

/* A template for what the block has not would be a mistake that nothing shows. */
static int check_templates(struct loading *loading)
{
    const struct config_expert *config = loading->expert->config;
    for (unsigned i = 0; i < config->templates.count; i++) {
        const char *name = config->templates.items[i].parameter;
        const int index = expert_tensor_find(loading->expert, name);
        if (index >= 0 && (unsigned)index < count_parameters(loading->expert))
            continue;
        snprintf(loading->error, sizeof loading->error, "`tensors` names '%.100s', and block %s has no such parameter",
                 name, loading->expert->block);
        return -EINVAL;
    }
    return 0;
}

static int load_model(struct expert *expert, struct shards *shards, const char *uid)
{
    struct loading loading = {.expert = expert, .shards = shards, .uid = uid};
    int rc = check_templates(&loading);
    loading.layout = layouts_find(shards, uid, &loading.prefix);
    if (rc == 0)
        rc = load_parameters(&loading);
    if (rc < 0)
        log_error("cannot load the weights of '%s' from '%s': %s", uid, shards_path(shards),
                  *loading.error ? loading.error : strerror(-rc));
    else
        log_debug("loaded '%s' from '%s' (%s)", uid, shards_path(shards),
                  loading.layout ? layout_name(loading.layout) : "by its templates");
    return rc;
}

/* What stands beside the parameters of a file of ours, once for each model. */
static void say_what_is_left_out(struct model *model, const struct expert *expert, const char *uid)
{
    if (expert->optimizer.kind == OPTIMIZER_NONE || model->looked_beside)
        return;
    model->looked_beside = true;
    const char *state = shards_example(model->shards, "optimizer.");
    if (!state)
        return;
    log_warning("'%s' has an optimizer's state ('%.200s'): it is left out, and so is the number of updates, where "
                "parameters are named by `tensors` or a model's layout, as those of '%s' are; both go along with a "
                "file of one expert, by the parameters' own names",
                shards_path(model->shards), state, uid);
}

/* --- which of the two --------------------------------------------------------------------------------------------- */

static bool is_file(const char *path)
{
    struct stat info;
    const size_t length = strlen(path);
    return stat(path, &info) == 0 && !S_ISDIR(info.st_mode) && !(length > 5 && strcmp(path + length - 5, ".json") == 0);
}

/* A null is what an option has without being named. */
static bool has_templates(const struct config_expert *config)
{
    unsigned i = 0;
    while (i < config->templates.count && !config->templates.items[i].template)
        i++;
    return i < config->templates.count;
}

/* A file with the state dict of one expert: its parameters stand there by their own names, or at least no model's. */
static bool is_state_dict(const struct expert *expert, const struct shards *shards, const char *uid)
{
    const char *prefix;
    struct expert_tensor tensor;
    expert_tensor(expert, 0, &tensor);
    return !has_templates(expert->config) &&
           (shards_has(shards, tensor.name) || layouts_find(shards, uid, &prefix) == NULL);
}

int weights_load(struct weights *weights, struct expert *expert, const char *uid)
{
    const struct config_expert *config = expert->config;
    char path[PATH_MAX], error[SHARDS_ERROR_SIZE];
    struct model *model;
    if (expert_tensors(expert) == 0)
        return 0;
    int rc = checkpoint_weights_path(path, sizeof path, config->weights, uid);
    if (rc < 0)
        return rc;
    /* Each expert has its own: it is no model, and not kept open. */
    if (!has_templates(config) && strstr(config->weights, "{uid}") && is_file(path))
        return checkpoint_load_weights(expert, config->weights, uid);
    rc = open_model(weights, path, &model, error);
    if (rc < 0) {
        log_error("cannot load the weights of '%s': %s", uid, error);
        return rc;
    }
    if (is_file(path) && is_state_dict(expert, model->shards, uid))
        return checkpoint_load_weights(expert, config->weights, uid);
    rc = load_model(expert, model->shards, uid);
    if (rc < 0)
        return rc;
    say_what_is_left_out(model, expert, uid);
    return 1;
}
