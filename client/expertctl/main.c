/* expertctl's main: options, and the table of commands. */
#include "client/expertctl/expertctl.h"
#include "common/numeral.h"
#include "common/process.h"
#include "common/suggest.h"

#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NO_LIMIT = -1,
    KEY_JSON = 256,
    KEY_DHT,
    KEY_COUNT,
    KEY_EXPERTS,
    KEY_COMPRESSION,
    KEY_NO_GRAD,
    KEY_METADATA,
    KEY_TRACEPARENT,
    KEY_SERVER_KEY,
    KEY_KEY_FILE,
    KEY_ROLE,
    KEY_NAME,
    KEY_RUN_DIR,
    KEY_SERVER,
    KEY_WATCH,
    KEY_INTERVAL,
    KEY_CONCURRENCY,
    KEY_ROWS,
    KEY_WINDOW,
    KEY_WINDOWS,
    KEY_STABILITY,
    KEY_BACKWARD,
    KEY_CSV,
    KEY_SETTING
};

static const struct {
    const char *name;
    expertctl_command *run;
    int least, most;     /* arguments; NO_LIMIT */
    const char *options; /* keys that it takes beyond the common ones */
} commands[] = {
    {"ping", expertctl_ping, 0, 0, ""},
    {"list", expertctl_list, 0, 1, ""},
    {"info", expertctl_info, 1, 1, ""},
    {"forward", expertctl_forward, 1, 1, "ioc"},
    {"backward", expertctl_backward, 1, 1, "igocq"},
    {"stats", expertctl_stats, 0, 0, "wn"},
    {"top", expertctl_top, 0, 1, "w"},
    {"bench", expertctl_bench, 1, 1, "b"},
    {"checkpoint", expertctl_checkpoint, 0, 1, ""},
    {"load", expertctl_load, 1, NO_LIMIT, "s"},
    {"unload", expertctl_unload, 1, 1, ""},
    {"set", expertctl_set, 1, NO_LIMIT, "s"},
    {"reload", expertctl_reload, 0, 0, ""},
    {"wait", expertctl_wait, 0, NO_LIMIT, "x"},
    {"resolve", expertctl_resolve, 1, NO_LIMIT, ""},
    {"search", expertctl_search, 1, NO_LIMIT, ""},
    {"draw", expertctl_draw, 1, 1, "n"},
    {"keygen", expertctl_keygen, 1, 1, "rN"},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static const char description[] =
    "Asks an expertd server, or an expertd-dht.\v"
    "Commands:\n"
    "  ping                      is the server there, and how many experts it has\n"
    "  list [PREFIX]             its experts\n"
    "  info UID                  one expert's schemas, settings and counters\n"
    "  forward UID -i A.npy ...  the expert's outputs; saved with -o\n"
    "  backward UID -i A.npy ... -g B.npy ...  gradients of the inputs; the expert learns\n"
    "  stats [--watch]           the server's counters, and expertd-dht's with --dht; or, again and again, those that "
    "changed and by how much a second\n"
    "  top [PREFIX]              what a server does, in the terminal: devices, and experts in the order of any column\n"
    "  bench UID                 how many calls a second an expert answers and how long each takes, with more and more "
    "of them in flight\n"
    "  checkpoint [UID]          writes a checkpoint of one expert, or of all\n"
    "  load UID [OPTION=VALUE ...]  one more expert, as the options of an entry of `experts` say, or without any as "
    "the configuration does\n"
    "  unload UID                one less; what it has learned is saved\n"
    "  set UID OPTION=VALUE ...  other settings of a living expert, such as learning_rate\n"
    "  reload                    the experts as the configuration file says now\n"
    "  wait [UID ...]            until these experts (or --experts N, or all of the server's) are alive\n"
    "  resolve UID ...           the servers that host experts, by the DHT\n"
    "  search PREFIX ...         the live coordinates behind prefixes, by the DHT\n"
    "  draw PATTERN --count N    uids of a pattern that no live server hosts, by the DHT\n"
    "  keygen FILE               makes a CURVE key: FILE, for the others, and FILE_secret, for whom it is\n"
    "load, unload, set and reload are for the server's own user, on its machine: they go over its UNIX socket, "
    "NAME.socket in its run_dir.\n"
    "Files are NumPy's (.npy); - is standard input or output. Where EXPERTD_ENDPOINT and EXPERTD_DHT are set, they "
    "stand for --endpoint and --dht; EXPERTD_SERVER_KEY and EXPERTD_KEY_FILE for --server-key and --key-file.\n\n"
    "Exit status: 0 done, 1 another failure, 2 wrong usage, 3 no server there or the expert's runtime is not up "
    "(UNAVAILABLE), 4 NOT_FOUND, 5 INVALID_ARGUMENT, 6 DEADLINE_EXCEEDED, 7 RESOURCE_EXHAUSTED, 8 ABORTED (a backward "
    "with NaN or Inf), 9 ALREADY_EXISTS, 10 a failure on this side, such as a file that cannot be read or written, 11 "
    "PERMISSION_DENIED. "
    "--json "
    "prints one object in every case but wrong usage: the status' name is \"status\", LOCAL_ERROR for a failure on "
    "this "
    "side, and there is a \"message\" unless it is OK.";

static const struct argp_option options[] = {
    {"endpoint", 'e', "ADDRESS", 0, "of the server's frontend (tcp://127.0.0.1:31330)", 0},
    {"dht", KEY_DHT, "ADDRESS", 0, "of expertd-dht (tcp://127.0.0.1:31331)", 0},
    {"timeout", 't', "SECONDS", 0,
     "how long to wait for answers (10; checkpoint and wait: 60; load, unload, set and reload: 600, but 10 for whether "
     "there is a server)",
     0},
    {"json", KEY_JSON, NULL, 0, "print one JSON object", 0},
    {"input", 'i', "FILE", 0, "an input of forward or backward; repeat it for several", 1},
    {"grad-output", 'g', "FILE", 0, "a gradient of an output, for backward", 1},
    {"output", 'o', "FILE", 0, "where an output (backward: a gradient of an input) goes", 1},
    {"no-grad", KEY_NO_GRAD, "N", 0,
     "backward: the gradient of the input of that number (the first is 0) is not wanted; repeat it for several", 1},
    {"compression", KEY_COMPRESSION, "CODEC", 0,
     "how float32 tensors travel, both ways: none, float16, bfloat16, meanstd_16bit, uniform_8bit, quantile_8bit, "
     "blockwise_8bit",
     1},
    {"metadata", KEY_METADATA, "TEXT", 0,
     "goes along, stands in the server's log (debug) and comes back with the answer", 1},
    {"traceparent", KEY_TRACEPARENT, "TEXT", 0, "the W3C trace that the call is part of; for the server's log", 1},
    {"count", KEY_COUNT, "N", 0, "of uids to draw (1); stats --watch: ends after so many times", 1},
    {"watch", KEY_WATCH, NULL, 0, "stats: again and again, until ^C", 1},
    {"interval", KEY_INTERVAL, "SECONDS", 0, "stats --watch, top: between two looks (1)", 1},
    {"concurrency", KEY_CONCURRENCY, "LIST", 0,
     "bench: calls in flight: 4, or 1,2,8, or 1:16 (doubled each time), or 4:20:8 (first, last, step) (1:16)", 1},
    {"rows", KEY_ROWS, "N", 0, "bench: of each call (1)", 1},
    {"backward", KEY_BACKWARD, NULL, 0, "bench: backwards, by which the expert LEARNS from made-up numbers", 1},
    {"window", KEY_WINDOW, "SECONDS", 0, "bench: what is measured at a time (1)", 1},
    {"stability", KEY_STABILITY, "PERCENT", 0,
     "bench: it is done when the last three windows' calls a second and mean latencies differ by no more from their "
     "means (10)",
     1},
    {"windows", KEY_WINDOWS, "N", 0, "bench: or after so many windows (10)", 1},
    {"csv", KEY_CSV, NULL, 0, "bench: comma-separated values", 1},
    {"experts", KEY_EXPERTS, "N", 0, "that many of the server's experts have to be alive", 1},
    {"server-key", KEY_SERVER_KEY, "KEY", 0,
     "the server's public key, or the file of its certificate: it has to prove that it is that one", 2},
    {"key-file", KEY_KEY_FILE, "FILE", 0, "the own certificate, with FILE_secret beside it", 2},
    {"role", KEY_ROLE, "ROLE", 0, "of a client's key: reader, trainer, operator (none: a server's key, or a reader's)",
     2},
    {"name", KEY_NAME, "TEXT", 0, "that stands in the key's files", 2},
    {"block", KEY_SETTING, "NAME", 0, "load: as the option of that name", 2},
    {"hidden-dim", KEY_SETTING + 1, "N", 0, "load", 2},
    {"weights", KEY_SETTING + 2, "FILE", 0, "load", 2},
    {"optimizer", KEY_SETTING + 3, "NAME", 0, "load", 2},
    {"learning-rate", KEY_SETTING + 4, "RATE", 0, "load, set", 2},
    {"device", KEY_SETTING + 5, "NAME", 0, "load", 2},
    {"max-batch-size", KEY_SETTING + 6, "ROWS", 0, "load; other options are written OPTION=VALUE", 2},
    {"run-dir", KEY_RUN_DIR, "DIR", 0, "load, unload, set, reload: server.run_dir of the server", 2},
    {"server", KEY_SERVER, "NAME", 0, "its server.name (expertd)", 2},
    {NULL, 'h', NULL, OPTION_HIDDEN, NULL, -1},
    {0}};

/* The options of an entry that are flags too; by KEY_SETTING + i. */
static const char *const setting_flags[] = {"block",         "hidden_dim", "weights",       "optimizer",
                                            "learning_rate", "device",     "max_batch_size"};
enum { SETTING_FLAGS = sizeof setting_flags / sizeof setting_flags[0] };

static char option_letter(int key)
{
    if (key >= KEY_SETTING)
        return 's';
    switch (key) {
    case KEY_COUNT:
        return 'n';
    case KEY_EXPERTS:
        return 'x';
    case KEY_COMPRESSION:
        return 'c';
    case KEY_NO_GRAD:
        return 'q';
    case KEY_ROLE:
        return 'r';
    case KEY_NAME:
        return 'N';
    case KEY_WATCH:
    case KEY_INTERVAL:
        return 'w';
    case KEY_CONCURRENCY:
        return 'b';
    default:
        return (char)key;
    }
}

static void add_path(struct argp_state *state, struct paths *paths, const char *path)
{
    if (paths->count == EXPERTCTL_MAX_FILES)
        argp_error(state, "more than %d files", EXPERTCTL_MAX_FILES);
    else
        paths->path[paths->count++] = path;
}

static uint64_t parse_number(struct argp_state *state, const char *text, uint64_t limit)
{
    uint64_t value = 0;
    if (numeral_read_whole(text, &value) < 0 || value > limit)
        argp_error(state, "'%s' is no number up to %llu%s", text, (unsigned long long)limit, numeral_hint(text));
    return value;
}

static double parse_positive(struct argp_state *state, const char *text, double limit, const char *what)
{
    double value = 0;
    if (numeral_read_real(text, &value) < 0 || !(value > 0 && value <= limit))
        argp_error(state, "'%s' is no %s%s", text, what, numeral_hint(text));
    return value;
}

static double parse_seconds(struct argp_state *state, const char *text)
{
    return parse_positive(state, text, 1e6, "time in seconds");
}

/* Options that are kept as they were written. */
static const struct {
    int key;
    size_t at; /* in struct expertctl */
} texts[] = {
    {'e', offsetof(struct expertctl, endpoint)},
    {KEY_DHT, offsetof(struct expertctl, dht)},
    {KEY_RUN_DIR, offsetof(struct expertctl, run_dir)},
    {KEY_SERVER, offsetof(struct expertctl, server)},
    {KEY_CONCURRENCY, offsetof(struct expertctl, concurrency)},
    {KEY_METADATA, offsetof(struct expertctl, metadata)},
    {KEY_TRACEPARENT, offsetof(struct expertctl, traceparent)},
    {KEY_SERVER_KEY, offsetof(struct expertctl, server_key)},
    {KEY_KEY_FILE, offsetof(struct expertctl, key_file)},
    {KEY_ROLE, offsetof(struct expertctl, role)},
    {KEY_NAME, offsetof(struct expertctl, name)},
};

/* What is true when the option was given: all that those without a value say, and of others that it is not the default.
 */
static const struct {
    int key;
    size_t at;
} given_flags[] = {
    {'e', offsetof(struct expertctl, endpoint_given)},
    {KEY_DHT, offsetof(struct expertctl, dht_given)},
    {KEY_JSON, offsetof(struct expertctl, json)},
    {KEY_COUNT, offsetof(struct expertctl, count_given)},
    {KEY_EXPERTS, offsetof(struct expertctl, experts_given)},
    {KEY_COMPRESSION, offsetof(struct expertctl, codec_given)},
    {KEY_NO_GRAD, offsetof(struct expertctl, no_grad_given)},
    {KEY_WATCH, offsetof(struct expertctl, watch)},
    {KEY_BACKWARD, offsetof(struct expertctl, backward)},
    {KEY_CSV, offsetof(struct expertctl, csv)},
};

/* Whether it is one of those two kinds. */
static bool keep(struct expertctl *ctl, int key, const char *argument)
{
    bool kept = false;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].key == key) {
            memcpy((char *)ctl + texts[i].at, &argument, sizeof argument);
            kept = true;
        }
    for (size_t i = 0; i < sizeof given_flags / sizeof given_flags[0]; i++)
        if (given_flags[i].key == key) {
            *(bool *)((char *)ctl + given_flags[i].at) = true;
            kept = true;
        }
    return kept;
}

/* Options with a value that has to be read; true where it is one. */
static bool parse_value(struct expertctl *ctl, int key, char *argument, struct argp_state *state)
{
    switch (key) {
    case 't':
        ctl->timeout_s = parse_seconds(state, argument);
        return true;
    case 'i':
        add_path(state, &ctl->inputs, argument);
        return true;
    case 'g':
        add_path(state, &ctl->grad_outputs, argument);
        return true;
    case 'o':
        add_path(state, &ctl->outputs, argument);
        return true;
    case KEY_COUNT:
        ctl->count = (uint32_t)parse_number(state, argument, UINT32_MAX);
        return true;
    case KEY_EXPERTS:
        ctl->experts = parse_number(state, argument, UINT32_MAX);
        return true;
    case KEY_INTERVAL:
        ctl->interval_s = parse_seconds(state, argument);
        return true;
    case KEY_ROWS:
        ctl->rows = parse_number(state, argument, UINT32_MAX);
        return true;
    case KEY_WINDOW:
        ctl->window_s = parse_seconds(state, argument);
        return true;
    case KEY_WINDOWS:
        ctl->windows = parse_number(state, argument, 1000);
        return true;
    case KEY_STABILITY:
        ctl->stability = parse_positive(state, argument, 1000, "percentage");
        return true;
    case KEY_COMPRESSION:
        if (expertd_codec_of_name(argument, &ctl->codec) < 0)
            argp_error(state, "'%s' is no codec; --help names them", argument);
        return true;
    case KEY_NO_GRAD:
        ctl->no_grad[parse_number(state, argument, EXPERTCTL_MAX_FILES - 1)] = true;
        return true;
    default:
        return false;
    }
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct expertctl *ctl = state->input;
    const bool kept = keep(ctl, key, argument);
    if (parse_value(ctl, key, argument, state) || kept)
        return 0;
    if (key >= KEY_SETTING && key < KEY_SETTING + SETTING_FLAGS) {
        expertctl_add_setting(ctl, setting_flags[key - KEY_SETTING], argument);
        return 0;
    }
    switch (key) {
    case 'h':
        argp_state_help(state, stdout, ARGP_HELP_STD_HELP); /* ends the process */
        return 0;
    case ARGP_KEY_ARG:
        if (!ctl->command)
            ctl->command = argument;
        else
            ctl->arguments[ctl->n_arguments++] = argument;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no command");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    .options = options, .parser = parse_option, .args_doc = "COMMAND [ARGUMENT...]", .doc = description};

/* Whether the options that were given are the command's. */
static const char *stray_option(const struct expertctl *ctl, const char *allowed)
{
    const struct {
        int key;
        bool given;
        const char *name;
    } given[] = {{'i', ctl->inputs.count > 0, "--input"},
                 {'g', ctl->grad_outputs.count > 0, "--grad-output"},
                 {'o', ctl->outputs.count > 0, "--output"},
                 {KEY_NO_GRAD, ctl->no_grad_given, "--no-grad"},
                 {KEY_COMPRESSION, ctl->codec_given, "--compression"},
                 {KEY_COUNT, ctl->count_given, "--count"},
                 {KEY_EXPERTS, ctl->experts_given, "--experts"},
                 {KEY_SETTING, ctl->n_settings > 0, "an option of an entry"},
                 {KEY_WATCH, ctl->watch || ctl->interval_s > 0, "--watch or --interval"},
                 {KEY_CONCURRENCY,
                  ctl->concurrency || ctl->rows || ctl->windows || ctl->window_s > 0 || ctl->stability > 0 ||
                      ctl->backward || ctl->csv,
                  "an option of bench"},
                 {KEY_ROLE, ctl->role != NULL, "--role"},
                 {KEY_NAME, ctl->name != NULL, "--name"}};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++)
        if (given[i].given && !strchr(allowed, option_letter(given[i].key)))
            return given[i].name;
    return NULL;
}

static enum exit_code run(struct expertctl *ctl)
{
    char problem[128];
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(ctl->command, commands[i].name) != 0)
            continue;
        const char *stray = stray_option(ctl, commands[i].options);
        if (stray) {
            snprintf(problem, sizeof problem, "%s is not for this command", stray);
            return expertctl_usage(ctl, problem);
        }
        if (ctl->n_arguments < (size_t)commands[i].least)
            return expertctl_usage(ctl, "an argument is missing");
        if (commands[i].most != NO_LIMIT && ctl->n_arguments > (size_t)commands[i].most)
            return expertctl_usage(ctl, "too many arguments");
        return commands[i].run(ctl);
    }
    struct suggest suggest;
    suggest_begin(&suggest, ctl->command);
    for (size_t i = 0; i < N_COMMANDS; i++)
        suggest_offer(&suggest, commands[i].name);
    snprintf(problem, sizeof problem, "no such command%s%s%s", suggest.nearest ? "; is '" : "",
             suggest.nearest ? suggest.nearest : "", suggest.nearest ? "' meant?" : "");
    return expertctl_usage(ctl, problem);
}

/* Before argp refuses it: what an option that there is not may have been meant to be. */
static void suggest_options(int argc, char **argv)
{
    static const char *const standard[] = {"help", "usage", "version"}; /* argp's own */
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        char word[64];
        struct suggest suggest;
        bool known = strncmp(argv[i], "--", 2) != 0;
        snprintf(word, sizeof word, "%.*s", known ? 0 : (int)strcspn(argv[i] + 2, "="), known ? "" : argv[i] + 2);
        suggest_begin(&suggest, word);
        for (const struct argp_option *option = options; option->key && !known; option++) {
            known = option->name && strncmp(option->name, word, strlen(word)) == 0; /* argp takes beginnings, too */
            if (option->name)
                suggest_offer(&suggest, option->name);
        }
        for (size_t s = 0; s < sizeof standard / sizeof standard[0]; s++) {
            known = known || strncmp(standard[s], word, strlen(word)) == 0;
            suggest_offer(&suggest, standard[s]);
        }
        if (!known && suggest.nearest)
            fprintf(stderr, "expertctl: there is no --%s; is --%s meant?\n", word, suggest.nearest);
    }
}

int main(int argc, char **argv)
{
    const char *endpoint = getenv("EXPERTD_ENDPOINT");
    const char *dht = getenv("EXPERTD_DHT");
    struct expertctl ctl = {
        .endpoint = endpoint && *endpoint ? endpoint : "tcp://127.0.0.1:31330",
        .dht = dht && *dht ? dht : "tcp://127.0.0.1:31331",
        .endpoint_given = endpoint && strncmp(endpoint, "ipc://", 6) == 0,
        .dht_given = dht && *dht,
        .count = 1,
        .arguments = calloc((size_t)argc + 1, sizeof(char *)),
    };
    process_open_standard();
    if (!ctl.arguments)
        return EXIT_LOCAL;
    argp_program_version = "expertctl " EXPERTD_VERSION;
    argp_err_exit_status = EXIT_USAGE;
    signal(SIGPIPE, SIG_IGN); /* a reader that has gone is a write error, and so is a file that may not grow */
    signal(SIGXFSZ, SIG_IGN);
    suggest_options(argc, argv);
    argp_parse(&parser, argc, argv, 0, NULL, &ctl);
    expertd_tune_allocator();
    enum exit_code code = run(&ctl);
    if (fclose(stdout) != 0 && code == EXIT_OK) {
        fprintf(stderr, "expertctl: %s: standard output: %s\n", ctl.command, strerror(errno));
        code = EXIT_LOCAL;
    }
    for (size_t i = 0; i < ctl.n_settings; i++)
        free(ctl.settings[i]);
    free(ctl.arguments);
    return (int)code;
}
