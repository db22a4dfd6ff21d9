#include "http/history.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/dht_client.h"
#include "client/frontends.h"
#include "common/clock.h"
#include "common/log.h"

enum { PATIENCE_MS = 500, DHT_COUNTERS = 128 };

struct sample {
    double wall_s, asked, in_flight, refused;
};
/* What a frontend has counted: of one that does not answer now what it said last, so that a sum does not fall. */
struct counted {
    double asked, refused;
};
struct dht_counter {
    char name[48];
    double value;
};

struct history {
    struct upstream *upstream;
    const struct config *config;
    struct dht_client *dht;                /* NULL: http.dht is none. The thread's alone */
    struct counted counted[FRONTENDS_MAX]; /* likewise */
    pthread_t thread;
    bool runs;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t stop;
    bool stopping;
    struct sample samples[HISTORY_SAMPLES];
    unsigned first, count;
    struct dht_counter counters[DHT_COUNTERS];
    unsigned counters_count; /* 0: it did not answer */
};

/* --- what is asked ---------------------------------------------------------------------------------------------------
 */

static bool begins(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static void add_counter(struct sample *sample, const struct expertd_counter *counter)
{
    if (strcmp(counter->name, "frontend.requests.forward") == 0 ||
        strcmp(counter->name, "frontend.requests.backward") == 0)
        sample->asked += counter->value;
    else if (strcmp(counter->name, "frontend.in_flight") == 0)
        sample->in_flight = counter->value;
    else if (begins(counter->name, "frontend.replies.") && strcmp(counter->name, "frontend.replies.OK") != 0)
        sample->refused += counter->value;
}

static void add_frontend(struct history *history, size_t frontend, const struct expertd_stats *stats,
                         struct sample *sample)
{
    struct sample own = {0};
    struct counted *counted = &history->counted[frontend];
    for (size_t i = 0; stats && i < stats->count; i++)
        add_counter(&own, &stats->counters[i]);
    if (stats)
        *counted = (struct counted){own.asked, own.refused};
    sample->asked += counted->asked;
    sample->refused += counted->refused;
    sample->in_flight += own.in_flight;
}

/* Whether the frontend answered; and what it, and the server's others, have counted. */
static bool ask_frontends(struct history *history, struct sample *sample)
{
    struct frontends frontends;
    struct frontends_look look;
    struct expertd_client *client = upstream_take(history->upstream);
    frontends_begin(&frontends, client);
    bool answered = frontends_look(&frontends, &look, NULL, FRONTENDS_NO_EXPERTS, PATIENCE_MS) == 0;
    *sample = (struct sample){.wall_s = (double)clock_wall_ns() / NS_PER_S};
    if (answered) {
        for (size_t f = 0; f < look.count; f++)
            add_frontend(history, f, frontends_stats(&look, f), sample);
        answered = frontends_stats(&look, 0) != NULL;
        frontends_release(&look);
    }
    upstream_give(history->upstream, client);
    return answered;
}

static void ask_dht(struct history *history)
{
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    const Expertd__Dht__Reply *reply = NULL;
    char message[DHT_CLIENT_MESSAGE];
    request.method = EXPERTD__DHT__METHOD__STATUS;
    const bool answered = dht_client_ask(history->dht, &request, PATIENCE_MS, &reply, message) == EXPERTD_OK;
    pthread_mutex_lock(&history->lock);
    history->counters_count = 0;
    for (size_t i = 0; answered && i < reply->node->n_counters && i < DHT_COUNTERS; i++) {
        struct dht_counter *counter = &history->counters[i];
        strncpy(counter->name, reply->node->counters[i]->name, sizeof counter->name - 1);
        counter->value = reply->node->counters[i]->value;
        history->counters_count++;
    }
    pthread_mutex_unlock(&history->lock);
}

static void keep(struct history *history, const struct sample *sample)
{
    pthread_mutex_lock(&history->lock);
    history->samples[(history->first + history->count) % HISTORY_SAMPLES] = *sample;
    if (history->count < HISTORY_SAMPLES)
        history->count++;
    else
        history->first = (history->first + 1) % HISTORY_SAMPLES;
    pthread_mutex_unlock(&history->lock);
}

/* True: it is time to end. */
static bool pause_until_next(struct history *history)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += HISTORY_PERIOD_S;
    pthread_mutex_lock(&history->lock);
    while (!history->stopping && pthread_cond_timedwait(&history->stop, &history->lock, &until) != ETIMEDOUT) {
    }
    const bool stopping = history->stopping;
    pthread_mutex_unlock(&history->lock);
    return stopping;
}

static void *run(void *context)
{
    struct history *history = context;
    struct sample sample;
    do {
        if (ask_frontends(history, &sample))
            keep(history, &sample);
        if (history->dht)
            ask_dht(history);
        log_bursts_settle();
    } while (!pause_until_next(history));
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------------------------------
 */

static int open_dht(struct history *history)
{
    const struct config *config = history->config;
    struct keys keys;
    if (strcmp(config->http.dht, "none") == 0)
        return 0;
    int rc = 0;
    if (config->server.key_file[0]) /* the server's own key is an operator's */
        rc = keys_take(&keys, config->server.key_file, config->server.key_file);
    if (rc == 0)
        rc = dht_client_new(&history->dht, config->http.dht, NULL, config->server.key_file[0] ? &keys : NULL);
    if (rc < 0)
        log_error("http.dht '%s': %s", config->http.dht, strerror(-rc));
    return rc;
}

int history_create(struct history **history, struct upstream *upstream, const struct config *config)
{
    struct history *h = *history = calloc(1, sizeof *h);
    pthread_condattr_t monotonic;
    if (!h)
        return -ENOMEM;
    h->upstream = upstream;
    h->config = config;
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&h->stop, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int rc = open_dht(h);
    if (rc == 0) {
        rc = -pthread_create(&h->thread, NULL, run, h);
        h->runs = rc == 0;
        if (rc < 0)
            log_error("cannot start a thread: %s", strerror(-rc));
    }
    if (rc < 0)
        history_destroy(history);
    return rc;
}

void history_destroy(struct history **history)
{
    struct history *h = *history;
    *history = NULL;
    if (!h)
        return;
    if (h->runs) {
        pthread_mutex_lock(&h->lock);
        h->stopping = true;
        pthread_cond_signal(&h->stop);
        pthread_mutex_unlock(&h->lock);
        pthread_join(h->thread, NULL);
    }
    dht_client_destroy(&h->dht);
    pthread_cond_destroy(&h->stop);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

/* --- what is told ----------------------------------------------------------------------------------------------------
 */

void history_answer(struct history *history, struct response *response)
{
    struct text *text = &response->body;
    response->status = 200;
    response->content_type = "application/json";
    text_add(text, "{\"period\":%d,\"samples\":[", HISTORY_PERIOD_S);
    pthread_mutex_lock(&history->lock);
    for (unsigned i = 0; i < history->count; i++) {
        const struct sample *s = &history->samples[(history->first + i) % HISTORY_SAMPLES];
        text_add(text, "%s[%.3f,%.0f,%.0f,%.0f]", i ? "," : "", s->wall_s, s->asked, s->in_flight, s->refused);
    }
    pthread_mutex_unlock(&history->lock);
    text_add(text, "]}");
}

bool history_dht(struct history *history, history_visit *visit, void *context)
{
    pthread_mutex_lock(&history->lock);
    const bool answered = history->counters_count > 0;
    for (unsigned i = 0; i < history->counters_count; i++)
        visit(context, history->counters[i].name, history->counters[i].value);
    pthread_mutex_unlock(&history->lock);
    return answered;
}
