/* Any request for a change of experts: it is refused with a sentence, or gives a configuration's text, which is refused
 * or differs from the one before only in what was asked for. The input is a method, a uid and settings, a line each. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_diff.h"
#include "frontend/change_order.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LINES_MAX = 200 };

static const char start[] =
    "server: {run_dir: /run/x}\n"
    "blocks:\n"
    "  - {name: two, arguments: {inner: 8}, inputs: [{name: x, shape: [hidden_dim]}],\n"
    "     layers: [{name: a, layer: linear, input: x, size: inner}, {name: y, layer: linear, input: a, size: "
    "hidden_dim}],\n"
    "     outputs: [{name: output, value: y}]}\n"
    "experts:\n"
    "  - {uid: 'many.[0:4]', block: two, hidden_dim: 4, arguments: {inner: 16}, optimizer: sgd}\n"
    "  - {uid: one.0, block: nop, hidden_dim: 4}\n";

static void check(const struct config *before, const struct config *after, const Expertd__RequestHeader *header)
{
    struct config_diff diff;
    unsigned changed = 0;
    if (config_diff_make(&diff, before, after, NULL) < 0)
        abort();
    for (size_t i = 0; i < diff.count; i++) {
        const enum config_difference difference = diff.items[i].difference;
        const bool wanted = header->method == EXPERTD__METHOD__LOAD     ? difference == CONFIG_ADDED
                            : header->method == EXPERTD__METHOD__UNLOAD ? difference == CONFIG_REMOVED
                                                                        : difference == CONFIG_SET;
        if (difference == CONFIG_SAME)
            continue;
        if (!wanted || strcmp(diff.items[i].uid, header->uid) != 0)
            abort();
        changed++;
    }
    if (changed > 1 || (changed == 0 && header->method != EXPERTD__METHOD__SET))
        abort();
    config_diff_free(&diff);
}

static void ask(const struct config *config, const Expertd__RequestHeader *header)
{
    char why[CONFIG_EDIT_WHY_SIZE] = "", *text = NULL;
    struct config after;
    struct change_order *order = change_order_create(header);
    if (!order)
        return;
    const int rc = change_order_edit(order, config, config, &text, why);
    if (rc < 0 && !why[0])
        abort();
    if (rc == 0 && config_parse(&after, text, strlen(text), "fuzz") == 0)
        check(config, &after, header);
    if (rc == 0) {
        config_destroy(&after);
        free(text);
    }
    change_order_destroy(&order);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    static const Expertd__Method methods[] = {EXPERTD__METHOD__LOAD, EXPERTD__METHOD__UNLOAD, EXPERTD__METHOD__SET};
    Expertd__RequestHeader header = EXPERTD__REQUEST_HEADER__INIT;
    char *lines[LINES_MAX], *input = malloc(size + 1);
    if (!config.experts_count && config_parse(&config, start, strlen(start), "start") < 0)
        abort();
    if (!input || size == 0) {
        free(input);
        return 0;
    }
    memcpy(input, data, size);
    input[size] = 0;
    header.method = methods[data[0] % 3];
    header.uid = input + 1;
    header.settings = lines;
    for (char *end = strchr(header.uid, '\n'); end && header.n_settings < LINES_MAX; end = strchr(end + 1, '\n')) {
        *end = 0;
        lines[header.n_settings++] = end + 1;
    }
    if (!change_order_fault(&header))
        ask(&config, &header);
    free(input);
    return 0;
}
