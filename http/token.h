/* The bearer token that requests must carry. Any thread, after token_read. */
#ifndef EXPERTD_HTTP_TOKEN_H
#define EXPERTD_HTTP_TOKEN_H

#include <stdbool.h>

struct token;

/* The first line of a file that others cannot read: 16 to 512 printable characters without a space. 0 or -errno,
 * logged. */
int token_read(struct token **token, const char *path);
void token_free(struct token **token);

/* Whether a header "Authorization" (NULL: there is none) carries it. The time that it takes tells nothing of where they
 * differ. */
bool token_matches(const struct token *token, const char *authorization);

#endif
