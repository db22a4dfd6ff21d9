/* The HTTP server: takes requests, has them answered, and limits what strangers can ask of it. Threads of
 * libmicrohttpd, config->http.threads of them. */
#ifndef EXPERTD_HTTP_WEB_H
#define EXPERTD_HTTP_WEB_H

#include "common/config.h"

struct web;

/* Listens. 0 or -errno, logged. Keeps config. */
int web_create(struct web **web, const struct config *config);
/* Finishes what is being answered. Nulls. */
void web_destroy(struct web **web);

#endif
