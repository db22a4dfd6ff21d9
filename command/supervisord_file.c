#include "command/supervisord_file.h"

#include <errno.h>
#include <string.h>

#include "common/log.h"

/* supervisord expands %(names)s, and takes what follows " ;" for a comment, for which there is no escape. */
static int check(const char *path)
{
    for (const char *at = path; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f || (*at == ';' && at > path && at[-1] == ' ')) {
            log_error("supervisord cannot be told '%s': it has a control character, or a ';' after a space", path);
            return -EINVAL;
        }
    return 0;
}

static void print_path(FILE *out, const char *path, unsigned expansions)
{
    for (; *path; path++)
        for (unsigned i = 0; i < (*path == '%' ? 1U << expansions : 1U); i++)
            fputc(*path, out);
}

/* A word of a command, in quotes as of a shell's: in them only '"' and '\' mean something. */
static void print_word(FILE *out, const char *word)
{
    fputs(" \"", out);
    for (; *word; word++)
        if (*word == '%')
            fputs("%%", out);
        else
            fprintf(out, *word == '"' || *word == '\\' ? "\\%c" : "%c", *word);
    fputc('"', out);
}

static void print_key(FILE *out, const char *key, const char *folder, const char *file)
{
    fprintf(out, "%s=", key);
    print_path(out, folder, strstr(key, "_logfile") != NULL ? 2 : 1); /* which it expands twice (4.2.5) */
    fprintf(out, "/%s\n", file);
}

static void print_program(FILE *out, const char *name, const char *const *words, const char *folder, int stop_seconds)
{
    char log[96];
    fprintf(out, "\n[program:%s]\ncommand=", name);
    for (; *words; words++)
        print_word(out, *words);
    fprintf(out,
            "\nautorestart=true\nstartsecs=1\nstartretries=10\nstopsignal=TERM\nstopwaitsecs=%d\n"
            "redirect_stderr=true\n",
            stop_seconds);
    snprintf(log, sizeof log, "%s.log", name);
    print_key(out, "stdout_logfile", folder, log);
}

/* How many frontends have an expertd-dht each; 0: there is one for all. */
static unsigned directories(const struct config *config)
{
    return strcmp(config->dht.frontend, "none") == 0 ? 0 : config->frontends_count;
}

/* What ends unasked is told to a command, by an event listener. */
static void print_alert(FILE *out, const struct config *config, const char *programs, const char *folder, bool with_dht,
                        const char *command)
{
    char path[4096];
    fputs("\n[group:expertd]\nprograms=", out);
    if (config->frontends_count == 0)
        fputs("expertd-frontend", out);
    for (unsigned i = 0; i < config->frontends_count; i++)
        fprintf(out, "%sexpertd-frontend-%s", i ? "," : "", config->frontends[i].name);
    for (unsigned i = 0; i < config->devices_count; i++)
        fprintf(out, ",expertd-runtime-%s", config->devices[i].name);
    for (unsigned i = 0; with_dht && i < directories(config); i++)
        fprintf(out, ",expertd-dht-%s", config->frontends[i].name);
    fprintf(out, "%s%s\n", with_dht && directories(config) == 0 ? ",expertd-dht" : "",
            config->http.start ? ",expertd-http" : "");
    snprintf(path, sizeof path, "%s/expertd-alert", programs);
    fputs("\n[eventlistener:expertd-alert]\ncommand=", out);
    print_word(out, path);
    fputc(' ', out);
    print_path(out, command, 1);
    fputs("\nevents=PROCESS_STATE\nbuffer_size=1000\nautorestart=true\n", out);
    print_key(out, "stderr_logfile", folder, "expertd-alert.log");
}

int supervisord_file_print(FILE *out, const struct config *config, const char *programs, const char *file,
                           const char *folder, bool with_dht, const char *alert)
{
    char path[4096], name[64];
    const char *words[] = {path, "--config", file, NULL, NULL, NULL};
    if (check(programs) < 0 || check(file) < 0 || check(folder) < 0 || (alert && check(alert) < 0))
        return -EINVAL;
    fputs("; Made by expertd print --supervisord. The programs may start in any order and be restarted one by one. A "
          "stopping\n"
          "; runtime writes its checkpoints first, so that it needs time.\n[unix_http_server]\n",
          out);
    print_key(out, "file", folder, "supervisor.sock");
    fputs("chmod=0700\n\n[supervisord]\n", out);
    print_key(out, "pidfile", folder, "supervisord.pid");
    print_key(out, "logfile", folder, "supervisord.log");
    fputs("childlogdir=", out);
    print_path(out, folder, 1);
    fputs("\n\n[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory="
          "supervisor.rpcinterface:make_main_rpcinterface\n\n[supervisorctl]\n",
          out);
    fputs("serverurl=unix://", out);
    print_path(out, folder, 1);
    fputs("/supervisor.sock\n", out);
    snprintf(path, sizeof path, "%s/expertd-frontend", programs);
    if (config->frontends_count == 0)
        print_program(out, "expertd-frontend", words, folder, 30);
    words[3] = "--frontend";
    for (unsigned i = 0; i < config->frontends_count; i++) {
        words[4] = config->frontends[i].name;
        snprintf(name, sizeof name, "expertd-frontend-%s", config->frontends[i].name);
        print_program(out, name, words, folder, 30);
    }
    snprintf(path, sizeof path, "%s/expertd-runtime", programs);
    words[3] = "--device";
    for (unsigned i = 0; i < config->devices_count; i++) {
        words[4] = config->devices[i].name;
        snprintf(name, sizeof name, "expertd-runtime-%s", config->devices[i].name);
        print_program(out, name, words, folder, 120);
    }
    words[3] = NULL;
    snprintf(path, sizeof path, "%s/expertd-dht", programs);
    if (with_dht && directories(config) == 0)
        print_program(out, "expertd-dht", words, folder, 30);
    words[3] = "--frontend";
    for (unsigned i = 0; with_dht && i < directories(config); i++) {
        words[4] = config->frontends[i].name;
        snprintf(name, sizeof name, "expertd-dht-%s", config->frontends[i].name);
        print_program(out, name, words, folder, 30);
    }
    words[3] = NULL;
    snprintf(path, sizeof path, "%s/expertd-http", programs);
    if (config->http.start)
        print_program(out, "expertd-http", words, folder, 10);
    if (alert)
        print_alert(out, config, programs, folder, with_dht, alert);
    return ferror(out) ? -EIO : 0;
}
