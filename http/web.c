#include "http/web.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/address.h"
#include "common/log.h"
#include "http/health.h"
#include "http/metrics.h"
#include "http/token.h"

/* libmicrohttpd's result is an int in old versions and an enum in new ones; both have the same values. */
#if MHD_VERSION >= 0x00097002
typedef enum MHD_Result handled;
#else
typedef int handled;
#endif

enum { MAX_CONNECTIONS = 256, IDLE_S = 30 };

struct web {
    const struct config *config;
    struct upstream *upstream;
    struct token *token; /* NULL: none is asked for */
    struct MHD_Daemon *daemon;
};

/* --- routes ----------------------------------------------------------------------------------------------------------
 */

struct request {
    struct MHD_Connection *connection;
    const char *path;
    bool verbose;
};

static void refuse(struct response *response, unsigned status, const char *message)
{
    response->status = status;
    response->content_type = "text/plain; charset=utf-8";
    text_add(&response->body, "%s\n", message);
}

static void answer_live(struct web *web, const struct request *request, struct response *response)
{
    (void)web;
    health_live(response, request->verbose);
}

static void answer_ready(struct web *web, const struct request *request, struct response *response)
{
    health_ready(response, web->upstream, request->verbose);
}

static void answer_metrics(struct web *web, const struct request *request, struct response *response)
{
    (void)request;
    struct snapshot snapshot;
    struct expertd_client *client = upstream_take(web->upstream);
    snapshot_take(&snapshot, client, web->config, upstream_patience_ms(web->upstream));
    metrics_write(&response->body, &snapshot);
    snapshot_release(&snapshot);
    upstream_give(web->upstream, client);
    response->status = 200;
    response->content_type = "text/plain; version=0.0.4; charset=utf-8";
}

static const struct route {
    const char *path;
    bool open; /* asks for no token */
    void (*answer)(struct web *web, const struct request *request, struct response *response);
} routes[] = {
    {"/livez", true, answer_live},
    {"/readyz", true, answer_ready},
    {"/metrics", false, answer_metrics},
};

static void route(struct web *web, const struct request *request, struct response *response)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (strcmp(request->path, routes[i].path) != 0)
            continue;
        const char *authorization =
            MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
        if (!routes[i].open && web->token && !token_matches(web->token, authorization))
            refuse(response, MHD_HTTP_UNAUTHORIZED, "this needs the header: Authorization: Bearer TOKEN");
        else
            routes[i].answer(web, request, response);
        return;
    }
    refuse(response, MHD_HTTP_NOT_FOUND, "there is /metrics, /livez and /readyz");
}

/* --- libmicrohttpd ---------------------------------------------------------------------------------------------------
 */

/* Sends and frees. */
static handled send_response(struct MHD_Connection *connection, struct response *response)
{
    if (response->body.failed) {
        text_free(&response->body);
        refuse(response, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
    }
    struct MHD_Response *made =
        MHD_create_response_from_buffer(response->body.length, response->body.data, MHD_RESPMEM_MUST_FREE);
    if (!made) {
        text_free(&response->body);
        return MHD_NO;
    }
    MHD_add_response_header(made, MHD_HTTP_HEADER_CONTENT_TYPE, response->content_type);
    if (response->status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(made, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    const handled result = MHD_queue_response(connection, response->status, made);
    MHD_destroy_response(made);
    return result;
}

static handled handle(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                      const char *version, const char *data, size_t *data_bytes, void **state)
{
    static int begun;
    (void)version;
    (void)data;
    if (!*state) { /* the header has come; answered when all has */
        *state = &begun;
        return MHD_YES;
    }
    if (*data_bytes > 0) { /* a body that nobody reads */
        *data_bytes = 0;
        return MHD_YES;
    }
    struct response response = {0};
    const struct request request = {
        .connection = connection,
        .path = url,
        .verbose = MHD_lookup_connection_value_n(connection, MHD_GET_ARGUMENT_KIND, "verbose", strlen("verbose"), NULL,
                                                 NULL) == MHD_YES,
    };
    if (strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0)
        route(context, &request, &response);
    else
        refuse(&response, MHD_HTTP_METHOD_NOT_ALLOWED, "GET, please");
    return send_response(connection, &response);
}

static void log_library(void *context, const char *format, va_list arguments)
{
    static struct log_burst burst;
    char line[256];
    (void)context;
    vsnprintf(line, sizeof line, format, arguments);
    line[strcspn(line, "\n")] = 0;
    if (log_burst_allows(&burst))
        log_warning("%s (%u more like it)", line, burst.suppressed_before);
}

/* A listening socket at the configured address. A descriptor, or -errno after it was logged. */
static int listen_at(const char *where)
{
    struct address address;
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char port[8];
    if (address_parse(&address, where) < 0)
        return -EINVAL;
    snprintf(port, sizeof port, "%u", address.port);
    const int wrong = getaddrinfo(address.host, port, &hints, &found);
    if (wrong != 0) {
        log_error("http.listen '%s': %s", where, gai_strerror(wrong));
        return -EINVAL;
    }
    int error = 0, yes = 1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, 64) < 0)
        error = -errno;
    freeaddrinfo(found);
    if (error == 0)
        return fd;
    log_error("cannot listen at http.listen '%s': %s", where, strerror(-error));
    if (fd >= 0)
        close(fd);
    return error;
}

int web_create(struct web **web, const struct config *config)
{
    struct web *w = *web = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->config = config;
    int rc = config->http.token_file[0] ? token_read(&w->token, config->http.token_file) : 0;
    if (rc == 0)
        rc = upstream_create(&w->upstream, config);
    const int fd = rc == 0 ? listen_at(config->http.listen) : rc;
    if (fd >= 0) {
        w->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG, 0, NULL, NULL, handle, w,
                                     MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
                                     MHD_OPTION_THREAD_POOL_SIZE, (unsigned)config->http.threads,
                                     MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS,
                                     MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S, MHD_OPTION_END);
        if (!w->daemon) {
            log_error("cannot start the HTTP server");
            close(fd);
        }
    }
    if (w->daemon)
        return 0;
    web_destroy(web);
    return fd < 0 ? fd : -EIO;
}

void web_destroy(struct web **web)
{
    if (!*web)
        return;
    if ((*web)->daemon)
        MHD_stop_daemon((*web)->daemon); /* closes the socket */
    upstream_destroy(&(*web)->upstream);
    token_free(&(*web)->token);
    free(*web);
    *web = NULL;
}
