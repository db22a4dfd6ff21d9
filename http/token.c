#include "http/token.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

enum { TOKEN_LEAST = 16, TOKEN_MOST = 512 };

struct token {
    size_t length;
    char text[TOKEN_MOST + 2];
};

static int read_file(struct token *token, const char *path)
{
    struct stat status;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    ssize_t got = -1;
    int rc = fstat(fd, &status) < 0 ? -errno : !S_ISREG(status.st_mode) ? -EINVAL : 0;
    if (rc == 0 && (status.st_mode & 077) != 0)
        rc = -EPERM;
    if (rc == 0 && (got = read(fd, token->text, sizeof token->text - 1)) < 0)
        rc = -errno;
    close(fd);
    if (rc < 0)
        return rc;
    token->text[got] = 0;
    token->length = strcspn(token->text, "\r\n");
    token->text[token->length] = 0;
    for (size_t i = 0; i < token->length; i++)
        if (token->text[i] <= ' ' || token->text[i] > '~')
            return -EINVAL;
    return token->length >= TOKEN_LEAST && token->length <= TOKEN_MOST ? 0 : -EINVAL;
}

int token_read(struct token **token, const char *path)
{
    *token = calloc(1, sizeof **token);
    const int rc = *token ? read_file(*token, path) : -ENOMEM;
    if (rc == 0)
        return 0;
    token_free(token);
    if (rc == -EPERM)
        log_error("http.token_file '%s' can be read by others: chmod 600 it", path);
    else if (rc == -EINVAL)
        log_error("http.token_file '%s' has to begin with a line of %d to %d printable characters, without a space",
                  path, TOKEN_LEAST, TOKEN_MOST);
    else
        log_error("http.token_file '%s': %s", path, strerror(-rc));
    return rc;
}

void token_free(struct token **token)
{
    if (*token)
        explicit_bzero(*token, sizeof **token);
    free(*token);
    *token = NULL;
}

bool token_matches(const struct token *token, const char *authorization)
{
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
        return false;
    const char *given = authorization + 7;
    const size_t length = strlen(given);
    unsigned char difference = length != token->length;
    for (size_t i = 0; i < token->length; i++)
        difference |= (unsigned char)(token->text[i] ^ given[i < length ? i : 0]);
    return difference == 0;
}
