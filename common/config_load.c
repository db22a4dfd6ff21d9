/* How a program gets its configuration: the text and the flags read, completed, checked. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_check.h"
#include "common/config_complete.h"
#include "common/config_flags.h"
#include "common/config_value.h"
#include "common/config_yaml.h"
#include "common/log.h"

enum { FILE_MAX = 16 << 20 };

static void set_defaults(struct config *config)
{
    *config = (struct config){0};
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++)
        if (!config_sections[s].list)
            config_value_defaults(&config_sections[s], (char *)config + config_sections[s].offset);
}

static int finish(struct config *config, const struct config_source *source)
{
    const int rc = config_complete(config);
    if (rc == 0)
        return config_check(config, source);
    log_error("out of memory");
    return rc;
}

int config_parse(struct config *config, const char *text, size_t length, const char *origin)
{
    const struct config_source source = {.origin = origin, .text = text, .length = length};
    set_defaults(config);
    int rc = config_yaml_read(config, &source);
    if (rc == 0)
        rc = finish(config, &source);
    if (rc < 0)
        config_destroy(config);
    return rc;
}

/* The whole of a file (or of a pipe), malloc'd. */
static char *read_file(const char *file, size_t *length)
{
    char *text = NULL;
    size_t used = 0;
    ssize_t n = -1;
    const int fd = open(file, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && used < FILE_MAX) {
        char *larger = realloc(text, used + 65536);
        if (!larger)
            break;
        text = larger;
        n = read(fd, text + used, 65536);
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    const int error = errno;
    if (fd >= 0)
        close(fd);
    *length = used;
    if (fd >= 0 && n == 0)
        return text;
    if (used >= FILE_MAX)
        log_error("%s: larger than %d bytes, so no configuration", file, FILE_MAX);
    else
        log_error("cannot read the configuration '%s': %s", file, strerror(error));
    free(text);
    return NULL;
}

/* The absolute path of the folder that a file is in, as it is called and not where a link to it leads; of what is no
 * file (a pipe, /dev/stdin) where the process stands. malloc'd; NULL when it cannot be told. */
static char *folder_of(const char *file)
{
    struct stat found;
    const char *slash = stat(file, &found) == 0 && S_ISREG(found.st_mode) ? strrchr(file, '/') : NULL;
    char *folder = slash ? strndup(file, slash == file ? 1 : (size_t)(slash - file)) : NULL;
    char *absolute = realpath(folder ? folder : ".", NULL);
    free(folder);
    return absolute;
}

/* What the file seems to say of the log's format, where no flag has: what is wrong in it is said in it, too. */
static void guess_log_format(const struct config_source *source)
{
    static const char key[] = "log_format:";
    char word[16];
    size_t length = 0;
    enum log_format format;
    const char *end = source->text + source->length, *at = memmem(source->text, source->length, key, strlen(key));
    if (!at || log_get_format() != LOG_FORMAT_TEXT)
        return;
    for (at += strlen(key); at < end && (*at == ' ' || *at == '\t' || *at == '"' || *at == '\''); at++)
        ;
    for (; at < end && *at >= 'a' && *at <= 'z' && length + 1 < sizeof word; at++)
        word[length++] = *at;
    word[length] = 0;
    if (log_format_parse(word, &format) == 0)
        log_set_format(format);
}

/* When the flags were read. */
static unsigned needs_of(const struct config_program *program)
{
    const bool publishes_not = program->publishes_not && *program->publishes_not;
    return publishes_not ? program->needs & ~(unsigned)CONFIG_PUBLISHES : program->needs;
}

/* The file's text (if there is one), the flags, then what hangs on both. */
static int load(struct config *config, const struct config_program *program, int argc, char **argv,
                const struct config_source *source)
{
    enum log_level level;
    enum log_format format;
    if (source->text)
        guess_log_format(source);
    int rc = source->text ? config_yaml_read(config, source) : 0;
    if (rc == 0)
        rc = config_flags_apply(config, program, argc, argv);
    if (rc == 0)
        rc = log_format_parse(config->server.log_format, &format);
    if (rc == 0) { /* and what the checks find is said in it */
        log_set_format(format);
        rc = finish(config, source);
    }
    if (rc == 0)
        rc = config_check_needs(config, source, needs_of(program));
    if (rc == 0)
        rc = log_level_parse(config->server.log_level, &level);
    if (rc == 0)
        log_open(program->name, level);
    return rc;
}

static int load_file(struct config *config, const struct config_program *program, int argc, char **argv)
{
    struct config_source source = {0};
    const int begun = config_flags_begin(program, argc, argv, &source.origin);
    if (begun < 0)
        return begun;
    char *text = source.origin ? read_file(source.origin, &source.length) : NULL;
    char *folder = source.origin ? folder_of(source.origin) : NULL;
    source.text = text;
    source.folder = folder;
    const int rc = source.origin && !text ? -EINVAL : load(config, program, argc, argv, &source);
    free(folder);
    free(text);
    return rc;
}

int config_load(struct config *config, const struct config_program *program, int argc, char **argv)
{
    log_open(program->name, LOG_LEVEL_INFO);
    set_defaults(config);
    const int rc = load_file(config, program, argc, argv);
    if (rc < 0)
        config_destroy(config);
    return rc;
}

int config_load_text(struct config *config, const struct config_program *program, int argc, char **argv,
                     const char *text, const char *origin)
{
    const struct config_source source = {.origin = origin, .text = text, .length = strlen(text)};
    const char *file;
    set_defaults(config);
    int rc = config_flags_begin(program, argc, argv, &file);
    if (rc == 0)
        rc = load(config, program, argc, argv, &source);
    if (rc < 0)
        config_destroy(config);
    return rc;
}
