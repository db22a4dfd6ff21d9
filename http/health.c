#include "http/health.h"

#include <inttypes.h>
#include <stdio.h>

#include "client/frontends.h"

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
    struct frontends frontends;
    struct frontends_look look;
    uint64_t experts = 0, alive = 0;
    char text[96];
    response->content_type = plain;
    frontends_begin(&frontends, client);
    const bool asked =
        frontends_look(&frontends, &look, NULL, FRONTENDS_PING_ALONE, upstream_patience_ms(upstream)) == 0;
    bool good = asked;
    if (!asked)
        line(response, verbose, false, "frontend", "no memory");
    for (size_t f = 0; asked && f < look.count; f++) {
        const struct expertd_pong *pong = frontends_pong(&look, f);
        snprintf(text, sizeof text, "frontend%s%s", look.count > 1 ? " " : "",
                 look.count > 1 ? expertd_client_endpoint(frontends.clients[f]) : "");
        line(response, verbose, pong != NULL, text, pong ? "" : expertd_call_message(look.pings[f]));
        good &= pong != NULL;
        experts += pong ? pong->experts : 0;
        alive += pong ? pong->experts_alive : 0;
    }
    if (asked && frontends_pong(&look, 0)) {
        snprintf(text, sizeof text, "%" PRIu64 " of %" PRIu64 " alive", alive, experts);
        line(response, verbose, alive == experts, "experts", text);
    }
    good &= alive == experts;
    response->status = good ? 200 : 503;
    if (verbose)
        text_add(&response->body, "readyz check %s\n", good ? "passed" : "failed");
    else if (good)
        text_add(&response->body, "ok\n");
    if (asked)
        frontends_release(&look);
    upstream_give(upstream, client);
}
