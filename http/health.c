#include "http/health.h"

#include <stdio.h>

#include "client/expertd.h"

static const char plain[] = "text/plain; charset=utf-8";

void health_live(struct response *response, bool verbose)
{
    response->status = 200;
    response->content_type = plain;
    text_add(&response->body, verbose ? "[+]expertd-http ok\nlivez check passed\n" : "ok\n");
}

static void line(struct response *response, bool verbose, bool good, const char *name, const char *why)
{
    if (verbose || !good)
        text_add(&response->body, "[%c]%s %s%s%s\n", good ? '+' : '-', name, good ? "ok" : "failed", why[0] ? ": " : "",
                 why);
}

void health_ready(struct response *response, struct upstream *upstream, bool verbose)
{
    struct expertd_client *client = upstream_take(upstream);
    struct expertd_call *call = NULL;
    char text[64] = "";
    response->content_type = plain;
    const bool asked = expertd_ping(client, upstream_patience_ms(upstream), &call) == 0;
    const struct expertd_pong *pong = asked && upstream_wait(call) ? expertd_call_pong(call) : NULL;
    line(response, verbose, pong != NULL, "frontend", pong ? "" : asked ? expertd_call_message(call) : "no memory");
    const bool alive = pong && pong->experts_alive == pong->experts;
    if (pong) {
        snprintf(text, sizeof text, "%u of %u alive", pong->experts_alive, pong->experts);
        line(response, verbose, alive, "experts", text);
    }
    response->status = alive ? 200 : 503;
    if (verbose)
        text_add(&response->body, "readyz check %s\n", alive ? "passed" : "failed");
    else if (alive)
        text_add(&response->body, "ok\n");
    expertd_call_release(&call);
    upstream_give(upstream, client);
}
