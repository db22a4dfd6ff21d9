#include "command/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/log.h"
#include "common/uid.h"

struct options options;

const struct config_flag options_flags[] = {
    {"num-experts", "N", "serve so many experts: expert.0 to expert.N-1, or drawn from --expert-pattern",
     &options.num_experts},
    {"expert-pattern", "PATTERN", "uids to draw from, like \"ffn.[0:32].[0:256]\" (the ends are not in it)",
     &options.expert_pattern},
    {"expert-uids", "UID...", "serve these", &options.expert_uids},
    {"expert-cls", "BLOCK", "their block (ffn), or the path of an own one's shared object", &options.expert_cls},
    {"hidden-dim", "N", "their hidden size (1024)", &options.hidden_dim},
    {"min-batch-size", "ROWS", "rows that a batch waits for (1)", &options.min_batch_size},
    {"max-batch-size", "ROWS", "largest task and batch (4096)", &options.max_batch_size},
    {"optimizer", "WORD", "adam, adamw, sgd or none (adam)", &options.optimizer},
    {"learning-rate", "NUMBER", "of the optimizer (0.001)", &options.learning_rate},
    {"scheduler", "WORD", "linear, cosine or none (none)", &options.scheduler},
    {"num-warmup-steps", "N", "of the schedule (0)", &options.num_warmup_steps},
    {"num-training-steps", "N", "of the schedule", &options.num_training_steps},
    {"clip-grad-norm", "NUMBER", "global L2 norm to which gradients are scaled down (0: never)",
     &options.clip_grad_norm},
    {"device", "WHICH...",
     "gpu or cuda, with :N the next ones, or cpu; default a GPU if there is one, else the first device; with --config: "
     "only these devices of it",
     &options.device},
    {"compression", "WORD",
     "how clients are advised to send their tensors: NONE, FLOAT16, BFLOAT16, MEANSTD_16BIT, UNIFORM_8BIT, "
     "QUANTILE_8BIT or BLOCKWISE_8BIT (NONE)",
     &options.compression},
    {"custom-module-path", "FILE", "refused: an own block is one of the configuration's, or a shared object",
     &options.custom_module_path},
    /* These arrive as what they are here (see aliases), if they are written out, and stand here to be found. */
    {"initial-peers", "ADDRESS...", "as --dht-bootstrap", &options.cut_short},
    {"host-maddrs", "ADDRESS...", "as --frontend-listen; /ip4/0.0.0.0/tcp/31330, too", &options.cut_short},
    {"announce-maddrs", "ADDRESS...", "as --frontend-advertise", &options.cut_short},
    {"identity-path", "FILE", "as --dht-identity-file", &options.cut_short},
    {"update-period", "NUMBER", "as --dht-update-period", &options.cut_short},
    {"expiration", "NUMBER", "as --dht-expiration", &options.cut_short},
    {"stats-report-interval", "NUMBER", "as --server-stats-interval", &options.cut_short},
    {"no-dht", NULL, "do not start expertd-dht: clients know the server's address", &options.no_dht},
    {"reference", NULL, "print: every option of the configuration as a page in Markdown", &options.reference},
    {"supervisord", NULL, "print: the supervisord file instead of the configuration", &options.supervisord},
    {"alert", "COMMAND", "print --supervisord: have this run when a program crashes (expertd-alert --help)",
     &options.alert},
    {"ignored", "WORD",
     "what --num-handlers, --no-relay, --use-auto-relay, --use-ipfs and --increase-file-limit become here",
     &options.ignored},
    {NULL, NULL, NULL, NULL},
};

/* --- flags ----------------------------------------------------------------------------------------------------------
 */

enum kind { PLAIN, WORDS, ADDRESSES, ENDPOINTS, NOTHING, NOTHING_OF_ONE };

/* hivemind's flags that are an option of the configuration, take several words, or mean nothing here. */
static const struct alias {
    const char *from, *to;
    enum kind kind;
} aliases[] = {
    {"config", "config", PLAIN},
    {"update-period", "dht-update-period", PLAIN},
    {"expiration", "dht-expiration", PLAIN},
    {"stats-report-interval", "server-stats-interval", PLAIN},
    {"identity-path", "dht-identity-file", PLAIN},
    {"initial-peers", "dht-bootstrap", ADDRESSES},
    {"host-maddrs", "frontend-listen", ENDPOINTS},
    {"announce-maddrs", "frontend-advertise", ENDPOINTS},
    {"expert-uids", "expert-uids", WORDS},
    {"device", "device", WORDS},
    {"num-handlers", "ignored", NOTHING_OF_ONE},
    {"refresh-period", "ignored", NOTHING_OF_ONE},
    {"no-relay", "ignored", NOTHING},
    {"use-auto-relay", "ignored", NOTHING},
    {"use-relay", "ignored", NOTHING},
    {"use-ipfs", "ignored", NOTHING},
    {"increase-file-limit", "ignored", NOTHING},
};

static const struct alias *find_alias(const char *name)
{
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (strcmp(aliases[i].from, name) == 0)
            return &aliases[i];
    return NULL;
}

/* "/ip4/10.0.0.7/tcp/31330/p2p/..." is 10.0.0.7:31330; what is none stays. */
static void print_address(FILE *out, const char *scheme, const char *text)
{
    char family[8], host[256], transport[8], port[8];
    if (sscanf(text, "/%7[^/]/%255[^/]/%7[^/]/%7[0-9]", family, host, transport, port) != 4) {
        fputs(text, out);
        return;
    }
    const bool bracketed = strcmp(family, "ip6") == 0;
    fprintf(out, "%s%s%s%s:%s", scheme, bracketed ? "[" : "", host, bracketed ? "]" : "",
            strcmp(port, "0") == 0 && *scheme ? "*" : port);
}

/* The arguments one after another, each with its zero. */
struct arguments {
    FILE *out;
    char *text;
    size_t length;
    int count;
    char *words[sizeof aliases / sizeof aliases[0]]; /* gathered, of flags that may stand several times */
};

static void end_argument(struct arguments *arguments)
{
    fputc('\0', arguments->out);
    arguments->count++;
}

/* One flag's words, of which the first may be behind its "=". */
static void print_flag(struct arguments *arguments, const struct alias *alias, const char *word)
{
    fprintf(arguments->out, "--%s=", alias->to);
    print_address(arguments->out, alias->kind == ENDPOINTS ? "tcp://" : "", word);
    end_argument(arguments);
}

/* Behind what was gathered of the flag before. */
static void gather(struct arguments *arguments, const struct alias *alias, const char *word)
{
    char **words = &arguments->words[alias - aliases];
    char *longer;
    if (asprintf(&longer, "%s%s%s", *words ? *words : "", *words ? " " : "", word) < 0)
        return;
    free(*words);
    *words = longer;
}

static void take_word(struct arguments *arguments, const struct alias *alias, const char *word)
{
    if (alias->kind == WORDS)
        gather(arguments, alias, word);
    else
        print_flag(arguments, alias, word);
}

static int translate_words(struct arguments *arguments, const struct alias *alias, const char *first, int argc,
                           char **argv, int next)
{
    if (first)
        take_word(arguments, alias, first);
    for (; next < argc && argv[next][0] != '-'; next++)
        take_word(arguments, alias, argv[next]);
    return next;
}

/* The argument at `at`; returns which is next. */
static int translate(struct arguments *arguments, int argc, char **argv, int at)
{
    char name[64];
    const char *text = argv[at];
    if (strcmp(text, "-c") == 0)
        text = "--config";
    if (strncmp(text, "--", 2) != 0 || !text[2]) {
        fputs(text, arguments->out);
        end_argument(arguments);
        return at + 1;
    }
    const size_t length = strcspn(text + 2, "=");
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), text + 2);
    for (char *c = name; *c; c++)
        if (*c == '_')
            *c = '-';
    const struct alias *alias = find_alias(name);
    const char *value = text[2 + length] == '=' ? text + 2 + length + 1 : NULL;
    if (alias && (alias->kind == NOTHING || alias->kind == NOTHING_OF_ONE)) {
        fprintf(arguments->out, "--%s=%s", alias->to, alias->from);
        end_argument(arguments);
        return at + 1 + (alias->kind == NOTHING_OF_ONE && !value && at + 1 < argc);
    }
    if (alias && alias->kind != PLAIN)
        return translate_words(arguments, alias, value, argc, argv, at + 1);
    fprintf(arguments->out, "--%s%s%s", length < sizeof name ? (alias ? alias->to : name) : text + 2, value ? "=" : "",
            value && length < sizeof name ? value : "");
    end_argument(arguments);
    return at + 1;
}

char **options_translate(int argc, char **argv, int *translated_argc)
{
    struct arguments arguments = {0};
    arguments.out = open_memstream(&arguments.text, &arguments.length);
    if (!arguments.out)
        return NULL;
    for (int at = 0; at < argc;)
        at = translate(&arguments, argc, argv, at);
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        if (arguments.words[i]) {
            fprintf(arguments.out, "--%s=%s", aliases[i].to, arguments.words[i]);
            end_argument(&arguments);
        }
        free(arguments.words[i]);
    }
    if (fclose(arguments.out) != 0) {
        free(arguments.text);
        return NULL;
    }
    char **list = malloc(((size_t)arguments.count + 1) * sizeof *list + arguments.length + 1);
    char *text = list ? memcpy(list + arguments.count + 1, arguments.text, arguments.length + 1) : NULL;
    for (int i = 0; list && i < arguments.count; i++) {
        list[i] = text;
        text += strlen(text) + 1;
    }
    if (list)
        list[arguments.count] = NULL;
    free(arguments.text);
    *translated_argc = arguments.count;
    return list;
}

/* --- a configuration made of them -----------------------------------------------------------------------------------
 */

bool options_describe_experts(const struct options *given)
{
    return given->num_experts || given->expert_pattern || given->expert_uids || given->expert_cls ||
           given->hidden_dim || given->min_batch_size || given->max_batch_size || given->optimizer ||
           given->learning_rate || given->scheduler || given->num_warmup_steps || given->num_training_steps ||
           given->clip_grad_norm || given->compression || given->custom_module_path;
}

bool options_want_device(const struct options *given, const char *name)
{
    const size_t length = strlen(name);
    if (!given->device)
        return true;
    for (const char *at = given->device; (at = strstr(at, name)); at += length)
        if ((at == given->device || at[-1] == ' ') && (!at[length] || at[length] == ' '))
            return true;
    return false;
}

static void print_value(FILE *out, const char *key, const char *value)
{
    if (!value)
        return;
    fprintf(out, "    %s: ", key);
    config_print_text(out, value);
    fputc('\n', out);
}

/* What hivemind passes over in silence: a schedule's steps without one, and how to train what does not. */
static bool has_effect(const struct options *given, const char *flag, const char *value, bool scheduled)
{
    const bool trains = !given->optimizer || strcmp(given->optimizer, "none") != 0;
    const bool has = trains && (!scheduled || (given->scheduler && strcmp(given->scheduler, "none") != 0));
    if (value && !has)
        log_warning("--%s has no effect %s", flag, trains ? "without --scheduler" : "with --optimizer none");
    return has;
}

/* hivemind writes them in capital letters. */
static void print_compression(FILE *out, const char *value)
{
    char word[32];
    if (!value)
        return;
    snprintf(word, sizeof word, "%s", value);
    for (char *c = word; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    print_value(out, "compression", word);
}

void options_print_settings(FILE *out, const struct options *given)
{
    print_value(out, "block", given->expert_cls);
    print_value(out, "hidden_dim", given->hidden_dim);
    print_value(out, "min_batch_size", given->min_batch_size);
    print_value(out, "max_batch_size", given->max_batch_size);
    print_value(out, "optimizer", given->optimizer);
    if (has_effect(given, "learning-rate", given->learning_rate, false))
        print_value(out, "learning_rate", given->learning_rate);
    if (has_effect(given, "scheduler", given->scheduler, false))
        print_value(out, "schedule", given->scheduler);
    if (has_effect(given, "num-warmup-steps", given->num_warmup_steps, true))
        print_value(out, "warmup_steps", given->num_warmup_steps);
    if (has_effect(given, "num-training-steps", given->num_training_steps, true))
        print_value(out, "total_steps", given->num_training_steps);
    if (has_effect(given, "clip-grad-norm", given->clip_grad_norm, false))
        print_value(out, "clip_norm", given->clip_grad_norm);
    print_compression(out, given->compression);
}

static void print_uids(FILE *out, const struct options *given)
{
    const char *at = given->expert_uids;
    for (at += strspn(at, " "); *at; at += strspn(at, " ")) {
        const size_t length = strcspn(at, " ");
        char *uid = strndup(at, length);
        fputs("  - uid: ", out);
        config_print_text(out, uid ? uid : "");
        fputc('\n', out);
        options_print_settings(out, given);
        free(uid);
        at += length;
    }
}

static void print_experts(FILE *out, const struct options *given, const char *host)
{
    fputs("experts:\n", out);
    if (given->expert_uids) {
        print_uids(out, given);
        return;
    }
    if (given->expert_pattern) {
        fputs("  - uid: ", out);
        config_print_text(out, given->expert_pattern);
        /* Of a box the same ones at each start, of two boxes different ones. */
        fprintf(out, "\n    seed: %" PRIu64 "\n", uid_hash(host, strlen(host)));
        print_value(out, "count", given->num_experts);
    } else {
        fprintf(out, "  - uid: \"expert.[0:%s]\"\n", given->num_experts);
    }
    options_print_settings(out, given);
}

/* The device that "gpu:1", "cuda", "cpu" or "" names; `count` if there is none. */
static unsigned find_device(const char *which, const struct options_device *devices, unsigned count)
{
    const size_t length = strcspn(which, ":");
    const bool gpu = !length || strncasecmp(which, "gpu", length) == 0 || strncasecmp(which, "cuda", length) == 0;
    const bool cpu = length == 3 && strncasecmp(which, "cpu", length) == 0;
    unsigned skip = which[length] ? (unsigned)strtoul(which + length + 1, NULL, 10) : 0;
    for (unsigned i = 0; i < count; i++)
        if ((gpu && devices[i].gpu) || (cpu && devices[i].cpu)) {
            if (skip == 0)
                return i;
            skip--;
        }
    return !length && count ? 0 : count;
}

static int check(const struct options *given)
{
    if (given->expert_uids && (given->num_experts || given->expert_pattern))
        log_error("--expert-uids are the experts, so --num-experts and --expert-pattern have no place beside them");
    else if (!given->expert_uids && !given->num_experts && !given->expert_pattern)
        log_error("which experts? --num-experts N, with --expert-pattern or without, or --expert-uids UID...");
    else if (!given->expert_uids && given->num_experts &&
             strspn(given->num_experts, "0123456789") != strlen(given->num_experts))
        log_error("--num-experts: '%.100s' is not a whole number", given->num_experts);
    else if (given->custom_module_path)
        log_error("--custom-module-path: there is no Python here; an own block is declared under 'blocks:' of a "
                  "configuration, or is a shared object: --expert-cls ./NAME.so");
    else
        return 0;
    return -EINVAL;
}

char *options_configuration(const struct options *given, const struct options_device *devices, unsigned count,
                            const char *host)
{
    const char *which = given->device ? given->device : "";
    const unsigned found = find_device(which, devices, count);
    char *text = NULL;
    size_t length;
    if (check(given) < 0)
        return NULL;
    if (found == count) {
        log_error("--device %s: there is no such OpenCL device (expertd-runtime --list-devices shows what there is)",
                  which);
        return NULL;
    }
    FILE *out = open_memstream(&text, &length);
    if (!out) {
        log_error("out of memory");
        return NULL;
    }
    fprintf(out, "devices:\n  - {name: device0, platform: \"%u\", device: \"%u\"}\n", devices[found].platform,
            devices[found].device);
    print_experts(out, given, host);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
