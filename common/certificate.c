#include "common/certificate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char z85[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

bool certificate_is_key(const char *text)
{
    return strspn(text, z85) == CERTIFICATE_KEY_SIZE - 1 && text[CERTIFICATE_KEY_SIZE - 1] == 0;
}

/* --- ZPL, as much of it as certificates have: sections, and in them `name = "value"` indented by four spaces --------
 */

struct line {
    size_t indent;
    const char *name, *value; /* value NULL: a section's beginning */
    size_t name_length, value_length;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* False: there is nothing in the line. */
static bool read_line(struct line *line, const char *text, size_t length)
{
    size_t at = 0;
    *line = (struct line){0};
    while (at < length && is_space(text[at]))
        at++;
    line->indent = at;
    line->name = text + at;
    while (at < length && !is_space(text[at]) && text[at] != '=' && text[at] != '#')
        at++;
    line->name_length = (size_t)(text + at - line->name);
    if (line->name_length == 0)
        return false;
    while (at < length && is_space(text[at]))
        at++;
    if (at == length || text[at] != '=')
        return true;
    at++;
    while (at < length && is_space(text[at]))
        at++;
    /* In quotes, as czmq writes it, or up to a blank: keys may have a '#', so that is no comment here. */
    const char quote = at < length && (text[at] == '"' || text[at] == '\'') ? text[at++] : 0;
    line->value = text + at;
    while (at < length && text[at] != quote && (quote || !is_space(text[at])))
        at++;
    line->value_length = (size_t)(text + at - line->value);
    return true;
}

static bool is_named(const struct line *line, const char *name)
{
    return line->name_length == strlen(name) && memcmp(line->name, name, line->name_length) == 0;
}

static bool take_key(char key[CERTIFICATE_KEY_SIZE], const struct line *line)
{
    if (line->value_length != CERTIFICATE_KEY_SIZE - 1 || memchr(line->value, 0, line->value_length))
        return false;
    memcpy(key, line->value, line->value_length);
    key[line->value_length] = 0;
    return certificate_is_key(key);
}

static void take_text(char text[CERTIFICATE_TEXT_SIZE], const struct line *line)
{
    size_t length = 0;
    for (; length < line->value_length && length < CERTIFICATE_TEXT_SIZE - 1; length++) {
        const char c = line->value[length];
        text[length] = c >= ' ' && c <= '~' ? c : '?';
    }
    text[length] = 0;
}

int certificate_parse(struct certificate *certificate, const char *text, size_t length, const char **why)
{
    enum { OTHER, METADATA, CURVE } section = OTHER;
    *certificate = (struct certificate){0};
    for (const char *end = text + length, *next; text < end; text = next) {
        struct line line;
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const size_t line_length = (size_t)((newline ? newline : end) - text);
        next = text + line_length + (newline != NULL);
        if (!read_line(&line, text, line_length))
            continue;
        if (line.indent == 0)
            section = is_named(&line, "curve") ? CURVE : is_named(&line, "metadata") ? METADATA : OTHER;
        *why = "a key in it is not 40 characters of Z85";
        if (line.indent == 0 || !line.value)
            continue;
        if (section == CURVE && is_named(&line, "public-key") && !take_key(certificate->public_key, &line))
            return -EINVAL;
        if (section == CURVE && is_named(&line, "secret-key") && !take_key(certificate->secret_key, &line))
            return -EINVAL;
        if (section == METADATA && is_named(&line, "name"))
            take_text(certificate->name, &line);
        if (section == METADATA && is_named(&line, "role"))
            take_text(certificate->role, &line);
    }
    *why = "it has no public-key in a section curve";
    return certificate->public_key[0] ? 0 : -EINVAL;
}

/* --- files ----------------------------------------------------------------------------------------------------------
 */

static int secret_path(char **path, const char *of)
{
    return asprintf(path, "%s_secret", of) < 0 ? -ENOMEM : 0;
}

static int read_file(const char *path, char *text, size_t size, size_t *length)
{
    struct stat status;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait */
    if (fd < 0)
        return -errno;
    int rc = fstat(fd, &status) < 0 ? -errno : S_ISREG(status.st_mode) ? 0 : -EINVAL;
    *length = 0;
    while (rc == 0) {
        const ssize_t n = *length < size ? read(fd, text + *length, size - *length) : -1;
        if (n == 0)
            break;
        if (n > 0)
            *length += (size_t)n;
        else if (*length == size)
            rc = -EFBIG;
        else if (errno != EINTR)
            rc = -errno;
    }
    close(fd);
    return rc;
}

int certificate_read(struct certificate *certificate, const char *path, const char **why)
{
    char *secret = NULL, *text = malloc(CERTIFICATE_FILE_MAX);
    size_t length = 0;
    int rc = text ? secret_path(&secret, path) : -ENOMEM;
    if (rc == 0)
        rc = read_file(secret, text, CERTIFICATE_FILE_MAX, &length);
    if (rc == -ENOENT)
        rc = read_file(path, text, CERTIFICATE_FILE_MAX, &length);
    if (rc < 0)
        *why = strerror(-rc);
    else
        rc = certificate_parse(certificate, text, length, why);
    if (text)
        explicit_bzero(text, CERTIFICATE_FILE_MAX);
    free(text);
    free(secret);
    return rc;
}

static int write_file(const char *path, const struct certificate *certificate, bool secret)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, secret ? 0600 : 0644);
    if (fd < 0)
        return -errno;
    FILE *file = fdopen(fd, "w");
    if (!file) {
        close(fd);
        return -ENOMEM;
    }
    fprintf(file, "#   ZeroMQ CURVE %s Certificate\n", secret ? "**Secret**" : "Public");
    fprintf(file, secret ? "#   DO NOT PROVIDE THIS FILE TO OTHER USERS nor change its permissions.\n\n"
                         : "#   Exchange it over a way that you trust: who can change it can speak as its owner.\n\n");
    fprintf(file, "metadata\n");
    if (certificate->name[0])
        fprintf(file, "    name = \"%s\"\n", certificate->name);
    if (certificate->role[0])
        fprintf(file, "    role = \"%s\"\n", certificate->role);
    fprintf(file, "curve\n    public-key = \"%s\"\n", certificate->public_key);
    if (secret)
        fprintf(file, "    secret-key = \"%s\"\n", certificate->secret_key);
    const bool written = fflush(file) == 0 && !ferror(file);
    const int rc = written ? 0 : -errno;
    return fclose(file) == 0 ? rc : -errno;
}

int certificate_write(const struct certificate *certificate, const char *path)
{
    char *secret = NULL;
    int rc = access(path, F_OK) == 0 ? -EEXIST : secret_path(&secret, path);
    if (rc == 0)
        rc = write_file(secret, certificate, true);
    if (rc == 0) {
        rc = write_file(path, certificate, false);
        if (rc < 0)
            unlink(secret);
    }
    free(secret);
    return rc;
}
