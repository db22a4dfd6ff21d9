/* `wait`: asks until what is wanted is there. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/expertctl/expertctl.h"
#include "client/frontends.h"
#include "common/clock.h"

static const double default_timeout_s = 60;
enum { PAUSE_MS = 50, ANSWER_MS = 1000 };

struct waiting {
    struct expertctl *ctl;
    struct expertd_client *client;
    struct frontends frontends; /* of the server, the client's first */
    uint64_t end_ns;
    bool answered;              /* something is known of the server, if only that it does not answer */
    enum expertd_status status; /* of what is missing */
    char missing[512];
};

/* Asks one thing, no longer than a second, so that a server that hangs is not the last one asked. NULL: no answer, and
 * why is noted. */
static struct expertd_call *answer(struct waiting *waiting, struct expertd_client *client, const char *uid)
{
    struct expertd_call *call;
    const uint64_t now_ns = clock_now_ns();
    const uint64_t left_ms = now_ns < waiting->end_ns ? (waiting->end_ns - now_ns) / NS_PER_MS + 1 : 1;
    const uint32_t deadline_ms = left_ms < ANSWER_MS ? (uint32_t)left_ms : ANSWER_MS;
    const int rc = uid ? expertd_info(client, uid, deadline_ms, &call) : expertd_ping(client, deadline_ms, &call);
    if (rc < 0)
        return NULL;
    while (expertd_call_wait(call, -1) < 0)
        ;
    if (expertd_call_status(call) == EXPERTD_OK) {
        waiting->answered = true;
        return call;
    }
    /* The last moment's question has no time to be answered: what is known says more. */
    if (deadline_ms < ANSWER_MS && waiting->answered && expertd_call_status(call) == EXPERTD_DEADLINE_EXCEEDED) {
        expertd_call_release(&call);
        return NULL;
    }
    waiting->answered = true;
    waiting->status = expertd_call_status(call);
    snprintf(waiting->missing, sizeof waiting->missing, "%s%s%s", uid ? uid : "", uid ? ": " : "",
             expertd_call_message(call));
    expertd_call_release(&call);
    return NULL;
}

/* Experts of the server's other frontends, and how many of them are alive. False: one does not answer, so that it is
 * not known how many there are. */
static bool count_others(struct waiting *waiting, uint64_t *experts, uint64_t *alive)
{
    bool known = true;
    *experts = *alive = 0;
    for (size_t i = 1; i < waiting->frontends.count; i++) {
        struct expertd_call *call = answer(waiting, waiting->frontends.clients[i], NULL);
        const struct expertd_pong *pong = call ? expertd_call_pong(call) : NULL;
        known &= pong != NULL;
        *experts += pong ? pong->experts : 0;
        *alive += pong ? pong->experts_alive : 0;
        expertd_call_release(&call);
    }
    return known;
}

/* Whether so many are all, or as many as are asked for; what is missing is said as long as nothing else is known. */
static bool enough(struct waiting *waiting, uint64_t experts, uint64_t alive)
{
    const uint64_t all = experts > 0 ? experts : 1;
    const uint64_t wanted = waiting->ctl->experts_given ? waiting->ctl->experts : all;
    waiting->status = EXPERTD_DEADLINE_EXCEEDED;
    snprintf(waiting->missing, sizeof waiting->missing, "%" PRIu64 " of %" PRIu64 " experts are alive", alive, wanted);
    return alive >= wanted;
}

/* The others are asked only where it depends on them. */
static bool server_ready(struct waiting *waiting)
{
    struct expertd_call *call = answer(waiting, waiting->client, NULL);
    const bool given = waiting->ctl->experts_given;
    uint64_t others = 0, others_alive = 0;
    if (!call)
        return false;
    const struct expertd_pong *pong = expertd_call_pong(call);
    const uint64_t own = pong->experts, own_alive = pong->experts_alive;
    frontends_learn(&waiting->frontends, pong);
    expertd_call_release(&call);
    if (enough(waiting, own, own_alive) ? given : !given && own > 0)
        return given;
    const bool known = count_others(waiting, &others, &others_alive);
    if (!known && !given)
        return false; /* whose answer is missing was noted */
    return enough(waiting, own + others, own_alive + others_alive);
}

static bool expert_ready(struct waiting *waiting, const char *uid)
{
    struct expertd_call *call = answer(waiting, waiting->client, uid);
    if (!call)
        return false;
    const bool alive = expertd_call_info(call)->alive;
    expertd_call_release(&call);
    waiting->status = EXPERTD_DEADLINE_EXCEEDED;
    snprintf(waiting->missing, sizeof waiting->missing, "%s: its runtime is not up", uid);
    return alive;
}

static bool ready(struct waiting *waiting, size_t *experts_seen)
{
    const struct expertctl *ctl = waiting->ctl;
    if ((ctl->n_arguments == 0 || ctl->experts_given) && !server_ready(waiting))
        return false;
    while (*experts_seen < ctl->n_arguments && expert_ready(waiting, ctl->arguments[*experts_seen]))
        ++*experts_seen;
    return *experts_seen == ctl->n_arguments;
}

enum exit_code expertctl_wait(struct expertctl *ctl)
{
    const uint64_t start_ns = clock_now_ns();
    enum exit_code code = EXIT_OK;
    struct waiting waiting = {.ctl = ctl,
                              .client = expertctl_connect(ctl, &code),
                              .end_ns = start_ns + expertctl_timeout_ms(ctl, default_timeout_s) * NS_PER_MS,
                              .status = EXPERTD_UNAVAILABLE,
                              .missing = "no answer"};
    size_t experts_seen = 0;
    bool done = false;
    if (!waiting.client)
        return code;
    frontends_begin(&waiting.frontends, waiting.client);
    while (!(done = ready(&waiting, &experts_seen)) && clock_now_ns() < waiting.end_ns) {
        const struct timespec pause = {.tv_nsec = PAUSE_MS * (long)NS_PER_MS};
        nanosleep(&pause, NULL);
    }
    expertd_client_destroy(&waiting.client);
    if (!done)
        return expertctl_fail(ctl, waiting.status, waiting.missing);
    if (ctl->json) {
        struct json json = expertctl_json_start();
        json_number(&json, "waited_s", (double)(clock_now_ns() - start_ns) / 1e9);
        expertctl_json_end(&json);
    }
    return EXIT_OK;
}
