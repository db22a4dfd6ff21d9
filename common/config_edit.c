#include "common/config_edit.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_diff.h"
#include "common/config_memory.h"
#include "common/config_tree.h"
#include "common/config_value.h"
#include "common/numeral.h"
#include "common/suggest.h"

/* The configuration that is printed in the end: a shallow copy, with entries and their nodes of its own. */
struct edit {
    struct config config;
    struct config_expert *experts;
    struct config_node *nodes; /* what stands in trees of each; kind CONFIG_NODE_MAP, maybe empty */
    struct config_node root, *sections;
    struct config_memory *memory;
    char *why;
};

static int complain(const struct edit *edit, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int complain(const struct edit *edit, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(edit->why, CONFIG_EDIT_WHY_SIZE, format, args);
    va_end(args);
    return error;
}

static const struct config_node *entry_node(const struct config *config, unsigned index)
{
    const struct config_node *list = config->tree ? config_tree_find(config->tree, "experts") : NULL;
    return list && list->kind == CONFIG_NODE_LIST && index < list->count ? &list->children[index] : NULL;
}

/* more: entries that will be added at most */
static int begin(struct edit *edit, const struct config *config, size_t more, char *why)
{
    const size_t room = config->experts_count + more;
    *edit = (struct edit){.config = *config, .why = why};
    edit->experts = config_memory_alloc(&edit->memory, room * sizeof *edit->experts);
    edit->nodes = config_memory_alloc(&edit->memory, room * sizeof *edit->nodes);
    edit->sections = config_memory_alloc(&edit->memory, 2 * sizeof *edit->sections);
    if (!edit->experts || !edit->nodes || !edit->sections)
        return complain(edit, -ENOMEM, "no memory");
    for (unsigned i = 0; i < config->experts_count; i++) {
        const struct config_node *node = entry_node(config, i);
        edit->experts[i] = config->experts[i];
        edit->nodes[i] = node ? *node : (struct config_node){.kind = CONFIG_NODE_MAP};
    }
    return 0;
}

static int finish(struct edit *edit, int result, char **text)
{
    size_t length = 0;
    const struct config_node *blocks = edit->config.tree ? config_tree_find(edit->config.tree, "blocks") : NULL;
    FILE *out = result == 0 ? open_memstream(text, &length) : NULL;
    if (result == 0 && !out)
        result = complain(edit, -ENOMEM, "no memory");
    if (result == 0) {
        edit->config.experts = edit->experts;
        edit->sections[0] = (struct config_node){
            .kind = CONFIG_NODE_LIST, .key = "experts", .children = edit->nodes, .count = edit->config.experts_count};
        if (blocks)
            edit->sections[1] = *blocks;
        edit->root = (struct config_node){.kind = CONFIG_NODE_MAP, .children = edit->sections, .count = blocks ? 2 : 1};
        edit->config.tree = &edit->root;
        config_print(out, &edit->config);
        const bool failed = ferror(out) != 0;
        if (fclose(out) != 0 || failed) {
            free(*text);
            result = complain(edit, -ENOMEM, "no memory");
        }
    }
    config_memory_destroy(&edit->memory);
    return result;
}

/* --- settings --------------------------------------------------------------------------------------------------------
 */

static const struct config_option *find_option(const char *name, size_t length, struct suggest *suggest)
{
    const struct config_section *section = config_section_find("experts");
    for (unsigned i = 0; i < section->count; i++) {
        const struct config_option *option = &section->options[i];
        size_t c = 0;
        while (c < length && option->name[c] && (name[c] == '-' ? '_' : name[c]) == option->name[c])
            c++;
        if (c == length && option->name[c] == 0)
            return option;
        suggest_offer(suggest, option->name);
    }
    return NULL;
}

static bool is_name(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isascii((unsigned char)text[i]) || !(isalnum((unsigned char)text[i]) || text[i] == '_'))
            return false;
    return length > 0;
}

/* "arguments.NAME=NUMBER" */
static int set_argument(struct edit *edit, struct config_node *node, const char *name, size_t length, const char *value)
{
    double number;
    if (!is_name(name, length) || numeral_read_real(value, &number) < 0)
        return complain(edit, -EINVAL, "'arguments.%.60s': an argument is arguments.NAME=NUMBER%s", name,
                        numeral_hint(value));
    const struct config_node *found = config_tree_find(node, "arguments");
    const unsigned count = found && found->kind == CONFIG_NODE_MAP ? found->count : 0;
    struct config_node *arguments = config_memory_alloc(&edit->memory, (count + 1) * sizeof *arguments);
    struct config_node *map = config_memory_alloc(&edit->memory, sizeof *map);
    char *key = config_memory_copy(&edit->memory, name);
    char *text = config_memory_copy(&edit->memory, value);
    if (!arguments || !map || !key || !text)
        return complain(edit, -ENOMEM, "no memory");
    key[length] = 0;
    unsigned at = 0;
    for (unsigned i = 0; i < count; i++)
        if (strcmp(found->children[i].key, key) != 0)
            arguments[at++] = found->children[i];
    arguments[at++] = (struct config_node){.kind = CONFIG_NODE_SCALAR, .key = key, .text = text};
    *map = (struct config_node){.kind = CONFIG_NODE_MAP, .key = "arguments", .children = arguments, .count = at};
    node->children = map; /* no other option of an expert is a tree */
    node->count = 1;
    return 0;
}

static int set_one(struct edit *edit, struct config_expert *expert, struct config_node *node, const char *setting,
                   bool live)
{
    static const char arguments[] = "arguments.";
    char problem[CONFIG_PROBLEM_SIZE];
    struct suggest suggest;
    const size_t length = strcspn(setting, "=");
    if (setting[length] != '=')
        return complain(edit, -EINVAL, "'%.100s' is no setting: write option=value", setting);
    const char *value = setting + length + 1;
    if (!live && strncmp(setting, arguments, sizeof arguments - 1) == 0)
        return set_argument(edit, node, setting + sizeof arguments - 1, length - (sizeof arguments - 1), value);
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), setting);
    suggest_begin(&suggest, name);
    const struct config_option *option = find_option(setting, length, &suggest);
    if (!option)
        return complain(edit, -EINVAL, "an expert has no option '%.60s'%s%s%s", name, suggest.nearest ? ": is '" : "",
                        suggest.nearest ? suggest.nearest : "", suggest.nearest ? "' meant?" : "");
    if (live && !config_option_is_live(option->name))
        return complain(edit, -EINVAL, "'%s' cannot be changed in a living expert: unload it, and load it with another",
                        option->name);
    if (option->kind == CONFIG_TREE || option->kind == CONFIG_STRINGS || strcmp(option->name, "uid") == 0)
        return complain(edit, -EINVAL, "'%s' cannot be set so", option->name);
    const bool path = option->kind == CONFIG_PATH || (option->kind == CONFIG_BLOCK && config_value_is_path(value));
    if (path && *value && *value != '/')
        return complain(edit, -EINVAL, "%s: the path '%.100s' has to be absolute", option->name, value);
    if (config_value_set(option, expert, &edit->memory, value, problem) < 0)
        return complain(edit, -EINVAL, "%s: %s", option->name, problem);
    return 0;
}

static int set_all(struct edit *edit, struct config_expert *expert, struct config_node *node,
                   const struct config_settings *settings, bool live)
{
    int result = 0;
    for (size_t i = 0; i < settings->count && result == 0; i++)
        result = set_one(edit, expert, node, settings->items[i], live);
    return result;
}

/* --- experts ---------------------------------------------------------------------------------------------------------
 */

/* The entry that the uid is of, and how many it has. -ENOENT, -ENOMEM. */
static int find_expert(const struct config *config, const char *uid, unsigned *entry, uint64_t *of)
{
    for (unsigned i = 0; i < config->experts_count; i++) {
        char **uids;
        const int result = config_expert_uids(&config->experts[i], &uids, of);
        if (result < 0)
            return result;
        uint64_t at = 0;
        while (at < *of && strcmp(uids[at], uid) != 0)
            at++;
        free(uids);
        *entry = i;
        if (at < *of)
            return 0;
    }
    return -ENOENT;
}

static int find_or_say(const struct edit *edit, const char *uid, unsigned *entry, uint64_t *of)
{
    const int result = find_expert(&edit->config, uid, entry, of);
    if (result == -ENOENT)
        return complain(edit, result, "no expert \"%.100s\" on this server", uid);
    return result < 0 ? complain(edit, result, "%s", strerror(-result)) : 0;
}

static void drop_entry(struct edit *edit, unsigned entry)
{
    const unsigned behind = --edit->config.experts_count - entry;
    memmove(&edit->experts[entry], &edit->experts[entry + 1], behind * sizeof *edit->experts);
    memmove(&edit->nodes[entry], &edit->nodes[entry + 1], behind * sizeof *edit->nodes);
}

static int except(struct edit *edit, unsigned entry, const char *uid)
{
    struct config_strings *list = &edit->experts[entry].except;
    const char **items = config_memory_alloc(&edit->memory, ((size_t)list->count + 1) * sizeof *items);
    if (!items)
        return complain(edit, -ENOMEM, "no memory");
    if (list->count)
        memcpy(items, list->items, list->count * sizeof *items);
    items[list->count] = uid;
    *list = (struct config_strings){items, list->count + 1};
    return 0;
}

/* An entry more, of one expert of that entry. */
static unsigned add_alone(struct edit *edit, unsigned entry, const char *uid)
{
    const unsigned at = edit->config.experts_count++;
    edit->experts[at] = edit->experts[entry];
    edit->experts[at].uid = uid;
    edit->experts[at].count = 0;
    edit->experts[at].except = (struct config_strings){0};
    edit->nodes[at] = edit->nodes[entry];
    return at;
}

/* An expert that was taken out of a pattern is in it again. */
static bool readmit(struct edit *edit, const char *uid)
{
    for (unsigned i = 0; i < edit->config.experts_count; i++) {
        struct config_strings *list = &edit->experts[i].except;
        for (unsigned e = 0; e < list->count; e++) {
            if (strcmp(list->items[e], uid) != 0)
                continue;
            const char **items = config_memory_alloc(&edit->memory, list->count * sizeof *items);
            if (!items)
                return false;
            memcpy(items, list->items, e * sizeof *items);
            memcpy(items + e, list->items + e + 1, (list->count - e - 1) * sizeof *items);
            *list = (struct config_strings){items, list->count - 1};
            return true;
        }
    }
    return false;
}

/* As the file has it, alone. */
static int load_configured(struct edit *edit, const struct config *file, const char *uid)
{
    unsigned entry = 0;
    uint64_t of = 0;
    if (readmit(edit, uid))
        return 0;
    const int result = find_expert(file, uid, &entry, &of);
    if (result == -ENOENT)
        return complain(edit, result, "the configuration has no expert \"%.100s\": say what it is (block=...)", uid);
    if (result < 0)
        return complain(edit, result, "%s", strerror(-result));
    const struct config_node *node = entry_node(file, entry);
    const unsigned at = edit->config.experts_count++;
    edit->experts[at] = file->experts[entry];
    edit->experts[at].uid = uid;
    edit->experts[at].count = 0;
    edit->experts[at].except = (struct config_strings){0};
    edit->nodes[at] = node ? *node : (struct config_node){.kind = CONFIG_NODE_MAP};
    return 0;
}

int config_edit_load(const struct config *config, const struct config *file, const char *uid,
                     const struct config_settings *settings, char **text, char why[CONFIG_EDIT_WHY_SIZE])
{
    struct edit edit;
    unsigned entry;
    uint64_t of;
    int result = begin(&edit, config, 1, why);
    if (result == 0 && find_expert(config, uid, &entry, &of) == 0)
        result = complain(&edit, -EEXIST, "\"%.100s\" is on this server already", uid);
    if (result == 0 && settings->count == 0) {
        result = load_configured(&edit, file, uid);
    } else if (result == 0) {
        const unsigned at = edit.config.experts_count++;
        config_value_defaults(config_section_find("experts"), &edit.experts[at]);
        edit.experts[at].device = config->devices[0].name;
        edit.nodes[at] = (struct config_node){.kind = CONFIG_NODE_MAP};
        result = set_all(&edit, &edit.experts[at], &edit.nodes[at], settings, false);
        edit.experts[at].uid = uid;
    }
    return finish(&edit, result, text);
}

int config_edit_unload(const struct config *config, const char *uid, char **text, char why[CONFIG_EDIT_WHY_SIZE])
{
    struct edit edit;
    unsigned entry = 0;
    uint64_t of = 0;
    int result = begin(&edit, config, 1, why);
    if (result == 0)
        result = find_or_say(&edit, uid, &entry, &of);
    if (result == 0 && of > 1)
        result = except(&edit, entry, uid);
    else if (result == 0)
        drop_entry(&edit, entry);
    return finish(&edit, result, text);
}

static int by_uid(const void *a, const void *b)
{
    return strcmp(((const struct config_move *)a)->uid, ((const struct config_move *)b)->uid);
}

/* Those of the entry that are among the moves (sorted) get entries of their own; 1: it has no others. */
static int move_of(struct edit *edit, unsigned entry, const struct config_move *moves, size_t count, size_t *moved)
{
    struct config_expert *expert = &edit->experts[entry];
    char **uids;
    uint64_t of = 0, gone = 0;
    const int result = config_expert_uids(expert, &uids, &of);
    if (result < 0)
        return complain(edit, result, "%s", strerror(-result));
    const char **items = config_memory_alloc(&edit->memory, (size_t)(expert->except.count + of) * sizeof *items);
    if (!items) {
        free(uids);
        return complain(edit, -ENOMEM, "no memory");
    }
    if (expert->except.items)
        memcpy(items, expert->except.items, expert->except.count * sizeof *items);
    for (uint64_t u = 0; u < of; u++) {
        const struct config_move wanted = {.uid = uids[u]};
        const struct config_move *found = bsearch(&wanted, moves, count, sizeof *moves, by_uid);
        if (!found)
            continue;
        items[expert->except.count + gone++] = found->uid;
        edit->experts[add_alone(edit, entry, found->uid)].device = found->device;
    }
    free(uids);
    *moved += gone;
    if (gone > 0 && gone < of)
        expert->except = (struct config_strings){items, expert->except.count + (unsigned)gone};
    return gone > 0 && gone == of;
}

int config_edit_move(const struct config *config, const struct config_move *moves, size_t count, char **text,
                     char why[CONFIG_EDIT_WHY_SIZE])
{
    struct edit edit;
    size_t moved = 0;
    int result = begin(&edit, config, count, why);
    struct config_move *sorted = result == 0 ? config_memory_alloc(&edit.memory, (count + 1) * sizeof *sorted) : NULL;
    if (!sorted)
        return finish(&edit, result < 0 ? result : complain(&edit, -ENOMEM, "no memory"), text);
    memcpy(sorted, moves, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_uid);
    for (unsigned entry = config->experts_count; entry-- > 0 && result >= 0;) {
        result = move_of(&edit, entry, sorted, count, &moved);
        if (result == 1)
            drop_entry(&edit, entry);
    }
    if (result >= 0)
        result = moved == count ? 0 : complain(&edit, -ENOENT, "one of the experts is not on this server");
    return finish(&edit, result, text);
}

int config_edit_set(const struct config *config, const char *uid, const struct config_settings *settings, char **text,
                    char why[CONFIG_EDIT_WHY_SIZE])
{
    struct edit edit;
    unsigned entry = 0;
    uint64_t of = 0;
    int result = begin(&edit, config, 1, why);
    if (result == 0 && settings->count == 0)
        result = complain(&edit, -EINVAL, "what is to be set? option=value");
    if (result == 0)
        result = find_or_say(&edit, uid, &entry, &of);
    if (result == 0 && of > 1) { /* one of many gets an entry of its own */
        result = except(&edit, entry, uid);
        entry = add_alone(&edit, entry, uid);
    }
    if (result == 0)
        result = set_all(&edit, &edit.experts[entry], &edit.nodes[entry], settings, true);
    return finish(&edit, result, text);
}
