#include "http/web.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/address.h"
#include "common/log.h"
#include "http/health.h"
#include "http/history.h"
#include "http/metrics.h"
#include "http/models.h"
#include "http/page.h"
#include "http/status.h"
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
    struct history *history;
    struct token *token; /* NULL: none is asked for */
    struct MHD_Daemon *daemon;
    _Atomic uint64_t body_bytes; /* of all requests that are coming in or being answered */
};

/* --- routes ----------------------------------------------------------------------------------------------------------
 */

struct request {
    struct MHD_Connection *connection;
    const char *path;
    bool post, verbose;
    const struct text *body;
};

static bool is_under(const char *path, const char *folder)
{
    const size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == 0 || path[length] == '/');
}

/* As whoever asks there reads it: the Open Inference Protocol has errors in JSON. */
static void refuse(struct response *response, const char *path, unsigned status, const char *message)
{
    response->status = status;
    if (is_under(path, "/v2")) {
        response->content_type = "application/json";
        text_add(&response->body, "{\"error\":");
        text_add_json(&response->body, message);
        text_add(&response->body, "}");
    } else {
        response->content_type = "text/plain; charset=utf-8";
        text_add(&response->body, "%s\n", message);
    }
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
    uint32_t experts = 0;
    (void)config_metrics_experts(web->config->metrics.experts, &experts); /* was checked when it was read */
    struct expertd_client *client = upstream_take(web->upstream);
    snapshot_take(&snapshot, client, web->config, experts, upstream_patience_ms(web->upstream));
    metrics_write(&response->body, &snapshot);
    metrics_write_dht(&response->body, web->history);
    metrics_write_processes(&response->body, &snapshot, web->history);
    snapshot_release(&snapshot);
    upstream_give(web->upstream, client);
    response->status = 200;
    response->content_type = "text/plain; version=0.0.4; charset=utf-8";
}

static void answer_status(struct web *web, const struct request *request, struct response *response)
{
    (void)request;
    status_answer(response, web->upstream, web->history, web->config);
}

static void answer_history(struct web *web, const struct request *request, struct response *response)
{
    (void)request;
    history_answer(web->history, response);
}

/* It holds nothing of the server's: what it shows it asks for, with the token. */
static void answer_page(struct web *web, const struct request *request, struct response *response)
{
    (void)web;
    (void)request;
    response->status = 200;
    response->content_type = "text/html; charset=utf-8";
    text_add_bytes(&response->body, page_html, page_html_bytes);
}

static void answer_health_live(struct web *web, const struct request *request, struct response *response)
{
    (void)web;
    (void)request;
    response->status = 200;
    response->content_type = "application/json";
    text_add(&response->body, "{\"live\":true}");
}

static void answer_health_ready(struct web *web, const struct request *request, struct response *response)
{
    (void)request;
    health_ready(response, web->upstream, false);
    text_free(&response->body);
    response->content_type = "application/json";
    text_add(&response->body, "{\"ready\":%s}", response->status == 200 ? "true" : "false");
}

/* How much of the body is JSON; 0: all of it. */
static size_t json_length(struct MHD_Connection *connection, bool *bad)
{
    const char *text = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Inference-Header-Content-Length");
    if (!text)
        return 0;
    char *end;
    errno = 0;
    const unsigned long length = strtoul(text, &end, 10);
    *bad = errno != 0 || end == text || *end != 0 || text[0] == '-' || text[0] == '+' || length == 0;
    return length;
}

static void answer_models(struct web *web, const struct request *request, struct response *response)
{
    bool bad = false;
    const struct models_request models = {
        .path = request->path + strlen("/v2"),
        .post = request->post,
        .body = request->body->data ? request->body->data : "",
        .body_bytes = request->body->length,
        .json_bytes = json_length(request->connection, &bad),
    };
    if (bad)
        refuse(response, request->path, MHD_HTTP_BAD_REQUEST, "Inference-Header-Content-Length is no number of bytes");
    else
        models_answer(response, web->upstream, &models);
}

static const struct route {
    const char *path; /* one that ends in '*': all that begin so */
    bool open;        /* asks for no token */
    bool post;        /* may be a POST; whoever answers looks at it */
    void (*answer)(struct web *web, const struct request *request, struct response *response);
} routes[] = {
    {"/", true, false, answer_page},
    {"/status.json", false, false, answer_status},
    {"/history.json", false, false, answer_history},
    {"/livez", true, false, answer_live},
    {"/readyz", true, false, answer_ready},
    {"/metrics", false, false, answer_metrics},
    {"/v2/health/live", true, false, answer_health_live},
    {"/v2/health/ready", true, false, answer_health_ready},
    {"/v2", false, false, answer_models},
    {"/v2/*", false, true, answer_models},
};

static bool matches(const struct route *route, const char *path)
{
    const size_t length = strlen(route->path) - 1;
    return route->path[length] == '*' ? strncmp(path, route->path, length) == 0 : strcmp(path, route->path) == 0;
}

static const struct route *find_route(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
        if (matches(&routes[i], path))
            return &routes[i];
    return NULL;
}

static bool may_ask(const struct web *web, const struct route *route, struct MHD_Connection *connection)
{
    return route->open || !web->token ||
           token_matches(web->token,
                         MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION));
}

static void answer(struct web *web, const struct request *request, struct response *response)
{
    const struct route *route = find_route(request->path);
    if (!route)
        refuse(response, request->path, MHD_HTTP_NOT_FOUND,
               "there is /, /status.json, /history.json, /metrics, /livez, /readyz and /v2");
    else if (!may_ask(web, route, request->connection))
        refuse(response, request->path, MHD_HTTP_UNAUTHORIZED, "this needs the header: Authorization: Bearer TOKEN");
    else if (request->post && !route->post)
        refuse(response, request->path, MHD_HTTP_METHOD_NOT_ALLOWED, "GET, please");
    else
        route->answer(web, request, response);
}

/* --- libmicrohttpd ---------------------------------------------------------------------------------------------------
 */

/* Sends and frees. */
static handled send_response(struct MHD_Connection *connection, const char *path, struct response *response)
{
    if (response->body.failed) {
        text_free(&response->body);
        refuse(response, path, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
    }
    struct MHD_Response *made =
        MHD_create_response_from_buffer(response->body.length, response->body.data, MHD_RESPMEM_MUST_FREE);
    if (!made) {
        text_free(&response->body);
        return MHD_NO;
    }
    MHD_add_response_header(made, MHD_HTTP_HEADER_CONTENT_TYPE, response->content_type);
    /* The page loads nothing from elsewhere, and nobody shows it in theirs. */
    MHD_add_response_header(
        made, "Content-Security-Policy",
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'");
    MHD_add_response_header(made, "X-Content-Type-Options", "nosniff");
    if (response->json_bytes > 0) {
        char length[32];
        snprintf(length, sizeof length, "%zu", response->json_bytes);
        MHD_add_response_header(made, "Inference-Header-Content-Length", length);
    }
    if (response->status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(made, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    const handled result = MHD_queue_response(connection, response->status, made);
    MHD_destroy_response(made);
    return result;
}

/* A request's body while it comes. */
struct incoming {
    struct text body;
    bool wanted;    /* else it is read and forgotten: nobody may ask for that, or nobody reads a body there */
    bool too_large; /* or no memory */
    bool too_many;  /* all requests together are larger than what may wait */
};

/* What all bodies together may take: so many of the largest as are worked on at once. */
static uint64_t body_budget(const struct web *web)
{
    return web->config->http.threads * web->config->http.max_body;
}

static void drop_body(struct web *web, struct incoming *incoming)
{
    atomic_fetch_sub(&web->body_bytes, incoming->body.length);
    text_free(&incoming->body);
}

static struct incoming *expect_body(const struct web *web, struct MHD_Connection *connection, const char *path)
{
    struct incoming *incoming = calloc(1, sizeof *incoming);
    const struct route *route = find_route(path);
    if (incoming)
        incoming->wanted = route && route->post && may_ask(web, route, connection);
    return incoming;
}

static void take_body(struct web *web, struct incoming *incoming, const char *data, size_t bytes)
{
    if (!incoming->wanted)
        return;
    incoming->too_large = bytes > web->config->http.max_body - incoming->body.length;
    if (!incoming->too_large) {
        incoming->too_many = atomic_fetch_add(&web->body_bytes, bytes) + bytes > body_budget(web);
        text_add_bytes(&incoming->body, data, bytes);
        if (incoming->body.failed) {
            atomic_fetch_sub(&web->body_bytes, bytes);
            incoming->too_many = true;
        }
    }
    incoming->wanted = !incoming->too_large && !incoming->too_many;
    if (!incoming->wanted)
        drop_body(web, incoming);
}

static handled handle(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                      const char *version, const char *data, size_t *data_bytes, void **state)
{
    struct web *web = context;
    (void)version;
    if (!*state) { /* the header has come; answered when all has */
        *state = expect_body(web, connection, url);
        return *state ? MHD_YES : MHD_NO;
    }
    struct incoming *incoming = *state;
    if (*data_bytes > 0) {
        take_body(web, incoming, data, *data_bytes);
        *data_bytes = 0;
        return MHD_YES;
    }
    struct response response = {0};
    const struct request request = {
        .connection = connection,
        .path = url,
        .post = strcmp(method, MHD_HTTP_METHOD_POST) == 0,
        .verbose = MHD_lookup_connection_value_n(connection, MHD_GET_ARGUMENT_KIND, "verbose", strlen("verbose"), NULL,
                                                 NULL) == MHD_YES,
        .body = &incoming->body,
    };
    if (incoming->too_many)
        refuse(&response, url, MHD_HTTP_TOO_MANY_REQUESTS, "no room for so many large requests; come back later");
    else if (incoming->too_large)
        refuse(&response, url, MHD_HTTP_CONTENT_TOO_LARGE, "the request is larger than http.max_body");
    else if (request.post || strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0)
        answer(web, &request, &response);
    else
        refuse(&response, url, MHD_HTTP_METHOD_NOT_ALLOWED, "GET or POST, please");
    return send_response(connection, url, &response);
}

/* Called once for each request, however it ended. */
static void forget(void *context, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode code)
{
    struct incoming *incoming = *state;
    (void)connection;
    (void)code;
    if (incoming)
        drop_body(context, incoming);
    free(incoming);
    *state = NULL;
}

__attribute__((format(printf, 2, 0))) static void log_library(void *context, const char *format, va_list arguments)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    char line[256];
    (void)context;
    vsnprintf(line, sizeof line, format, arguments);
    line[strcspn(line, "\n")] = 0;
    if (log_burst_allows(&burst, &left_out, format))
        log_warning("%s (%u more like it)", line, left_out);
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
    if (rc == 0)
        rc = history_create(&w->history, w->upstream, config);
    const int fd = rc == 0 ? listen_at(config->http.listen) : rc;
    if (fd >= 0) {
        w->daemon = MHD_start_daemon(
            MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG, 0, NULL, NULL, handle, w, MHD_OPTION_EXTERNAL_LOGGER,
            log_library, NULL, MHD_OPTION_NOTIFY_COMPLETED, forget, w, MHD_OPTION_LISTEN_SOCKET, fd,
            MHD_OPTION_THREAD_POOL_SIZE, (unsigned)config->http.threads, MHD_OPTION_CONNECTION_LIMIT,
            (unsigned)MAX_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S, MHD_OPTION_END);
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
    history_destroy(&(*web)->history);
    upstream_destroy(&(*web)->upstream);
    token_free(&(*web)->token);
    free(*web);
    *web = NULL;
}
