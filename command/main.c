/* expertd: one command for a whole server. It starts the programs that do the work, and shows and checks what they
 * would be started with. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/machine.h"
#include "command/options.h"
#include "command/plan.h"
#include "command/supervisor.h"
#include "command/supervisord_file.h"
#include "common/config.h"
#include "common/config_cut.h"
#include "common/config_reference.h"
#include "common/log.h"
#include "common/owner.h"
#include "common/process.h"
#include "common/suggest.h"

enum { EXIT_USAGE = 2, PATH_SIZE = PATH_MAX + 64 };

static const char *const sections[] = {"server",     "frontend", "frontends", "dht",     "http", "metrics",
                                       "checkpoint", "devices",  "blocks",    "experts", NULL};

/* --- the configuration ----------------------------------------------------------------------------------------------
 */

/* What a command was told: its configuration, and the file it came from if nothing else had a say in it. */
struct told {
    struct config config;
    char **argv;
    int argc;
    const char *file; /* --config's; NULL: none */
    bool file_alone;
};

/* Where the argument names a flag of ours, which the programs do not see. */
static bool is_own_flag(const char *argument)
{
    const size_t length = strcspn(argument + 2, "=");
    for (const struct config_flag *flag = options_flags; flag->name; flag++)
        if (strlen(flag->name) == length && strncmp(argument + 2, flag->name, length) == 0)
            return true;
    return false;
}

static void find_file(struct told *told)
{
    static const char flag[] = "--config";
    told->file_alone = true;
    for (int i = 1; i < told->argc; i++) {
        if (strncmp(told->argv[i], flag, strlen(flag)) == 0 && told->argv[i][strlen(flag)] == '=') {
            told->file = told->argv[i] + sizeof flag;
        } else if (strcmp(told->argv[i], flag) == 0 && i + 1 < told->argc) {
            told->file = told->argv[++i];
        } else if (strncmp(told->argv[i], "--", 2) == 0 && !is_own_flag(told->argv[i])) {
            told->file_alone = false;
        }
    }
}

/* The configuration that the options describe, in the place of the one without experts that is there. */
static int make(struct told *told, const struct config_program *program)
{
    struct options_device *devices = NULL;
    unsigned count = 0;
    char host[HOST_NAME_MAX + 64];
    if (told->file) {
        log_error("experts are described by --config FILE or by flags like --num-experts, not by both");
        return -EINVAL;
    }
    if (gethostname(host, HOST_NAME_MAX) != 0)
        host[0] = 0;
    host[HOST_NAME_MAX - 1] = 0;
    snprintf(host + strlen(host), sizeof host - strlen(host), "/%.40s", told->config.server.name);
    if (machine_devices(&devices, &count) < 0)
        return -EIO;
    char *text = options_configuration(&options, devices, count, host);
    free(devices);
    if (!text)
        return -EINVAL;
    config_destroy(&told->config);
    const int result = config_load_text(&told->config, program, told->argc, told->argv, text, "flags");
    free(text);
    return result;
}

static int tell(struct told *told, const struct config_program *program, int argc, char **argv)
{
    told->argv = options_translate(argc, argv, &told->argc);
    if (!told->argv)
        return -ENOMEM;
    find_file(told);
    int result = config_load(&told->config, program, told->argc, told->argv);
    if (result < 0)
        return result;
    if (options.cut_short) {
        log_error("'%.100s' belongs to a flag of hivemind's whose name was cut short: write it out, as --initial-peers "
                  "(%s --help)",
                  options.cut_short, program->name);
        return -EINVAL;
    }
    if (options.ignored)
        log_info("--%s means nothing here, and is left out", options.ignored);
    if (options_describe_experts(&options))
        return make(told, program);
    if (told->file || options.reference)
        return 0;
    log_error("what is it about? --config FILE, or --num-experts N, or --expert-uids UID... (%s --help)",
              program->name);
    return -EINVAL;
}

static void forget(struct told *told)
{
    config_destroy(&told->config);
    free(told->argv);
}

static bool is_served(const struct config *config, unsigned device)
{
    const char *name = config->devices[device].name;
    /* Of hivemind's options it has chosen the one that there is. */
    return config_experts_on(config, name) > 0 &&
           (options_describe_experts(&options) || options_want_device(&options, name));
}

/* Each word of --device is a device of the configuration. */
static int check_devices(const struct config *config)
{
    char name[64];
    const char *at = options.device && !options_describe_experts(&options) ? options.device : "";
    for (at += strspn(at, " "); *at; at += strspn(at, " ")) {
        const size_t length = strcspn(at, " ");
        snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), at);
        if (!config_find_device(config, name)) {
            log_error("--device: the configuration has no device '%s'", name);
            return -EINVAL;
        }
        at += length;
    }
    return 0;
}

/* "3 experts on device0 and 5 on device1" */
static char *describe_experts(const struct config *config)
{
    char *text = NULL;
    size_t length;
    const char *separator = "";
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    for (unsigned i = 0; i < config->devices_count; i++)
        if (is_served(config, i)) {
            fprintf(out, "%s%" PRIu64 "%s on %s", separator, config_experts_on(config, config->devices[i].name),
                    *separator ? "" : " experts", config->devices[i].name);
            separator = ", ";
        }
    if (!*separator)
        fputs("no experts", out);
    return fclose(out) == 0 ? text : NULL;
}

/* "tcp://10.0.0.7:31330 or tcp://10.0.0.7:31340" */
static char *describe_endpoints(const struct config *config)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    if (config->frontends_count == 0)
        fputs(config->frontend.advertise, out);
    for (unsigned i = 0; i < config->frontends_count; i++)
        fprintf(out, "%s%s", i ? " or " : "", config->frontends[i].advertise);
    return fclose(out) == 0 ? text : NULL;
}

/* --- serve ----------------------------------------------------------------------------------------------------------
 */

/* What the programs are to read: the file itself, or what flags have made of it, beside the locks. */
static int write_file(struct told *told, char path[PATH_SIZE])
{
    const struct config_server *server = &told->config.server;
    char next[PATH_SIZE];
    if (told->file && told->file_alone) {
        snprintf(path, PATH_SIZE, "%s", told->file);
        return 0;
    }
    int result = owner_prepare_run_dir(server->run_dir);
    if (result < 0)
        return result;
    snprintf(path, PATH_SIZE, "%s/%s.served.yaml", server->run_dir, server->name);
    snprintf(next, sizeof next, "%.*s.%d", PATH_MAX, path, (int)getpid());
    const mode_t mask = umask(077);
    FILE *out = fopen(next, "we");
    umask(mask);
    if (out)
        config_print(out, &told->config);
    if (!out || fclose(out) != 0 || rename(next, path) != 0) {
        result = -errno;
        log_error("cannot write the configuration to %s: %s", path, strerror(-result));
    }
    return result;
}

/* `which`: the value of the flag. */
static int add(struct supervisor *supervisor, const char *program, const char *file, const char *flag,
               const char *which)
{
    char path[PATH_SIZE], name[96];
    const char *const argv[] = {path, "--config", file, which ? flag : NULL, which, NULL};
    snprintf(path, sizeof path, "%s/%s", machine_programs(), program);
    snprintf(name, sizeof name, "%s%s%s", program, which ? " of " : "", which ? which : "");
    return supervisor_add(supervisor, name, argv);
}

/* Whether a device of the frontend is served. */
static bool is_asked(const struct config *config, unsigned frontend)
{
    for (unsigned d = 0; d < config->devices_count; d++)
        if (is_served(config, d) && config_cut_owner(config, config->devices[d].name) == frontend)
            return true;
    return false;
}

/* One of the program for each frontend that has experts; and the first: the others' directories, and who looks experts
 * up, find what is at its addresses. */
static int add_each(struct supervisor *supervisor, const struct config *config, const char *program, const char *file)
{
    int result = 0;
    for (unsigned i = 0; result == 0 && i < config->frontends_count; i++)
        if (i == 0 || is_asked(config, i))
            result = add(supervisor, program, file, "--frontend", config->frontends[i].name);
    return result;
}

/* A frontend, or the first and each that has experts; and a runtime for each device that does. */
static int add_all(struct supervisor *supervisor, const struct config *config, const char *file)
{
    int result = config->frontends_count ? 0 : add(supervisor, "expertd-frontend", file, NULL, NULL);
    if (result == 0)
        result = add_each(supervisor, config, "expertd-frontend", file);
    for (unsigned i = 0; result == 0 && i < config->devices_count; i++)
        if (is_served(config, i))
            result = add(supervisor, "expertd-runtime", file, "--device", config->devices[i].name);
    if (result == 0 && !options.no_dht && (config->frontends_count == 0 || strcmp(config->dht.frontend, "none") == 0))
        result = add(supervisor, "expertd-dht", file, NULL, NULL);
    else if (result == 0 && !options.no_dht)
        result = add_each(supervisor, config, "expertd-dht", file);
    if (result == 0 && config->http.start)
        result = add(supervisor, "expertd-http", file, NULL, NULL);
    return result;
}

static int run(struct told *told)
{
    struct supervisor *supervisor = NULL;
    struct config *config = &told->config;
    char file[PATH_SIZE];
    int result = check_devices(config);
    if (result == 0)
        result = process_init("expertd serve");
    if (result == 0)
        result = write_file(told, file);
    if (result == 0)
        result = supervisor_create(&supervisor, &supervisor_default_limits);
    if (result == 0)
        result = add_all(supervisor, config, file);
    if (result < 0) {
        supervisor_destroy(&supervisor);
        return result == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
    }
    char *experts = describe_experts(config), *endpoints = describe_endpoints(config);
    log_info("server '%s': %s; clients connect to %s%s%s%s%s", config->server.name, experts ? experts : "",
             endpoints ? endpoints : "", options.no_dht ? "" : ", look-ups to ",
             options.no_dht ? "" : config->dht.listen, config->http.start ? ", HTTP at " : "",
             config->http.start ? config->http.listen : "");
    free(experts);
    free(endpoints);
    const int status = supervisor_run(supervisor);
    supervisor_destroy(&supervisor);
    return status;
}

static const struct config_program serve_program = {
    .name = "expertd serve",
    .purpose = "Runs a whole server in the foreground: expertd-frontend (one for each entry of frontends), an "
               "expertd-runtime for each device of the "
               "configuration, expertd-dht, and with http.start expertd-http. What dies is started again, after longer "
               "and longer pauses; a stop "
               "signal ends all of them, which then save what changed. Flags may be written with underscores. Exit "
               "status: 0 after a stop signal, 1 when something cannot start, 2 for a wrong flag or configuration.",
    .sections = sections,
    .flags = options_flags,
    .needs = CONFIG_PUBLISHES | CONFIG_STARTS_HTTP,
    .publishes_not = &options.no_dht,
};

static int serve(int argc, char **argv)
{
    struct told told = {0};
    int status = EXIT_USAGE;
    const int result = tell(&told, &serve_program, argc, argv);
    if (result == 0 && config_experts_on(&told.config, NULL) == 0)
        log_error("the configuration has no experts");
    else if (result == 0)
        status = run(&told);
    else if (result != -EINVAL)
        status = EXIT_FAILURE;
    forget(&told);
    return status;
}

/* --- dht ------------------------------------------------------------------------------------------------------------
 */

/* What expertd-dht is told instead of it; NULL: nothing. */
static const char *dht_argument(const char *argument, char text[64])
{
    static const char listen[] = "--frontend-listen=", advertise[] = "--frontend-advertise=", ignored[] = "--ignored=";
    const char *port = strrchr(argument, ':');
    if (strncmp(argument, ignored, strlen(ignored)) == 0 || strncmp(argument, advertise, strlen(advertise)) == 0) {
        log_info("%.100s means nothing here, and is left out", argument);
        return NULL;
    }
    if (strncmp(argument, listen, strlen(listen)) != 0 || !port)
        return argument;
    snprintf(text, 64, "--dht-port=%.40s", strcmp(port + 1, "*") == 0 ? "0" : port + 1);
    return text;
}

/* A node that publishes nothing, for others to join by. */
static int dht(int argc, char **argv)
{
    char path[PATH_SIZE], text[64];
    int translated_argc = 0, count = 0;
    bool has_file = false;
    char **translated = options_translate(argc, argv, &translated_argc);
    const char **arguments = translated ? calloc((size_t)translated_argc + 4, sizeof *arguments) : NULL;
    if (!arguments) {
        free(translated);
        return EXIT_FAILURE;
    }
    snprintf(path, sizeof path, "%s/expertd-dht", machine_programs());
    arguments[count++] = path;
    for (int i = 1; i < translated_argc; i++)
        has_file |= strncmp(translated[i], "--config", 8) == 0;
    if (!has_file)
        arguments[count++] = "--server-name=dht";
    arguments[count++] = "--dht-frontend=none";
    for (int i = 1; i < translated_argc; i++) {
        const char *argument = dht_argument(translated[i], text);
        if (argument)
            arguments[count++] = argument;
    }
    execv(path, (char **)(uintptr_t)arguments);
    log_error("cannot start %s: %s", path, strerror(errno));
    free(arguments);
    free(translated);
    return EXIT_FAILURE;
}

/* --- check ----------------------------------------------------------------------------------------------------------
 */

static const struct config_flag check_flags[] = {
    {"no-dht", NULL, "expertd-dht will not be started, so that the frontend may have no endpoint to publish",
     &options.no_dht},
    {NULL, NULL, NULL, NULL},
};

static const struct config_program check_program = {
    .name = "expertd check",
    .purpose = "Checks a configuration for all programs at once, and that the files which its experts name are there: "
               "expertd check FILE [flags]. Exit status: 0 if it is good, 2 if it is not.",
    .sections = sections,
    .flags = check_flags,
    .needs = CONFIG_HAS_FILES | CONFIG_PUBLISHES | CONFIG_STARTS_HTTP,
    .publishes_not = &options.no_dht,
};

static int check(int argc, char **argv)
{
    struct config config;
    char flag[] = "--config";
    const bool bare = argc > 1 && argv[1][0] != '-'; /* expertd check FILE */
    if (argc < 2) {
        log_error("which file? expertd check FILE (%s --help)", check_program.name);
        return EXIT_USAGE;
    }
    char **loaded = calloc((size_t)argc + 2, sizeof *loaded);
    int count = 0;
    if (!loaded)
        return EXIT_FAILURE;
    loaded[count++] = argv[0];
    if (bare)
        loaded[count++] = flag;
    for (int i = 1; i < argc; i++)
        loaded[count++] = argv[i];
    const int result = config_load(&config, &check_program, count, loaded);
    free(loaded);
    if (result < 0)
        return EXIT_USAGE;
    char *experts = describe_experts(&config);
    printf("good: server '%s', %s\n", config.server.name, experts ? experts : "");
    free(experts);
    config_destroy(&config);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- print ----------------------------------------------------------------------------------------------------------
 */

static const struct config_program print_program = {
    .name = "expertd print",
    .purpose =
        "Prints the configuration that expertd serve would use with the same flags, every default filled in; with "
        "--reference what each option means; with "
        "--supervisord (and --config FILE alone) the file with which supervisord runs the same programs, its "
        "socket and logs beside the configuration.",
    .sections = sections,
    .flags = options_flags,
};

static int print_supervisord(struct told *told)
{
    if (!told->file || !told->file_alone) {
        log_error("--supervisord goes with --config FILE and no other flags: write what they stand for to a file first "
                  "(expertd print ... >FILE)");
        return -EINVAL;
    }
    char *file = realpath(told->file, NULL);
    char *slash = file ? strrchr(file, '/') : NULL;
    char *folder = slash ? strndup(file, slash == file ? 1 : (size_t)(slash - file)) : NULL;
    const int result = folder ? supervisord_file_print(stdout, &told->config, machine_programs(), file, folder,
                                                       !options.no_dht, options.alert)
                              : -errno;
    free(folder);
    free(file);
    return result;
}

static int print(int argc, char **argv)
{
    struct told told = {0};
    int result = tell(&told, &print_program, argc, argv);
    if (result == 0 && options.reference)
        config_reference_print(stdout);
    else if (result == 0 && options.supervisord)
        result = print_supervisord(&told);
    else if (result == 0)
        config_print(stdout, &told.config);
    forget(&told);
    if (result < 0)
        return result == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --------------------------------------------------------------------------------------------------------------------
 */

static const struct command {
    const char *name;
    const char *purpose;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"serve", "run a whole server: frontend, a runtime for each device, dht", serve},
    {"dht", "run a DHT node that publishes nothing, for others to join by", dht},
    {"check", "check a configuration for all programs: expertd check FILE", check},
    {"plan", "write a configuration for all OpenCL devices of this machine, by their speed and memory", plan},
    {"print", "print the configuration that serve would use, or a supervisord file for it", print},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static int help(FILE *out, int status)
{
    fputs("expertd: hosts experts of mixtures-of-experts.\n\nUsage: expertd COMMAND [flags]\n\n", out);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-8s%s\n", commands[i].name, commands[i].purpose);
    fputs("\nexpertd COMMAND --help tells its flags. expertctl talks to a server that runs.\n", out);
    return fflush(out) == 0 ? status : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct suggest suggest;
    log_open("expertd", LOG_LEVEL_INFO);
    if (argc < 2)
        return help(stderr, EXIT_USAGE);
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0)
        return help(stdout, EXIT_SUCCESS);
    if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0) {
        printf("expertd %s\n", EXPERTD_VERSION);
        return EXIT_SUCCESS;
    }
    suggest_begin(&suggest, word);
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(word, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
        suggest_offer(&suggest, commands[i].name);
    }
    suggest_offer(&suggest, "--help");
    suggest_offer(&suggest, "--version");
    log_error("there is no command '%.100s'%s%s%s (expertd --help)", word, suggest.nearest ? ": is '" : "",
              suggest.nearest ? suggest.nearest : "", suggest.nearest ? "' meant?" : "");
    return EXIT_USAGE;
}
