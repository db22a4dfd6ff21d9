/* One mixture-of-experts layer of a model, OLMoE's shape by default, whose experts live on any number of servers: the
 * router here, the experts there. Hidden states come on standard input and what the layer makes of them goes to
 * standard output, both float32, so that it fits into a pipe:
 *
 *     probabilities = softmax(router x),  y = sum over the k largest of probability * expert(x)
 *
 * A batch costs one message a server, which carries the rows of all experts that live there. Parts that a server does
 * not answer are sent again, also elsewhere if another server has the expert, until --patience is over: a server may be
 * killed and come back in the middle, and the answer is the same. */
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/expertd.h"
#include "examples/digits/flags.h"
#include "examples/digits/stopwatch.h"

enum {
    MAX_SERVERS = 16,
    MAX_EXPERTS = EXPERTD_MAX_PARTS, /* all of a layer fit into one message */
    MAX_HIDDEN = 65536,
    MAX_ROWS = 4096,
    CALL_MS = 10000,
    LIST_MS = 2000,
    PAUSE_MS = 100,
    NOWHERE = MAX_SERVERS,
};

struct options {
    const char *router, *layer; /* layer: what its experts' uids begin with */
    const char *urls[MAX_SERVERS];
    size_t servers, experts, hidden, k, rows;
    double patience_s;
    bool normalize;
};

/* One row for one expert. */
struct choice {
    uint32_t server, expert;
    uint32_t token, place; /* place: among the k of its token */
    bool answered;
};

/* What is under way to one server. */
struct shipment {
    struct expertd_call *call;
    struct expertd_part parts[MAX_EXPERTS];
    size_t n_parts, first; /* first: its first choice */
};

struct layer {
    const struct options *options;
    struct expertd_client *clients[MAX_SERVERS];
    char uids[MAX_EXPERTS][EXPERTD_MAX_UID + 1];
    uint32_t server_of[MAX_EXPERTS]; /* NOWHERE: nobody has said that he has it */
    struct shipment shipments[MAX_SERVERS];
    float *router;          /* experts x hidden */
    float *x, *y;           /* rows x hidden */
    struct choice *choices; /* rows x k */
    float *weights;         /* rows x k */
    float *sent, *answers;  /* rows x k x hidden: in the order of the choices; of tokens, then places */
    bool waits;             /* a person was told so */
};

/* ---- which server has which expert ----------------------------------------------------------------------------- */

/* What one server says that it has of this layer. Of two that have an expert, the first that is alive gets the rows. */
static void place_experts(struct layer *layer, uint32_t server, const struct expertd_list *list, bool *found)
{
    const struct options *options = layer->options;
    for (size_t i = 0; i < list->count; i++) {
        for (size_t e = 0; e < options->experts; e++) {
            bool is_this = strcmp(list->entries[i].uid, layer->uids[e]) == 0;
            if (is_this && !found[e] && (list->entries[i].alive || layer->server_of[e] == NOWHERE)) {
                layer->server_of[e] = server;
                found[e] = list->entries[i].alive;
            }
        }
    }
}

/* Asks all servers at once. One that does not answer keeps what it had. */
static void find_experts(struct layer *layer)
{
    const struct options *options = layer->options;
    struct expertd_call *calls[MAX_SERVERS] = {NULL};
    bool found[MAX_EXPERTS] = {false};
    char prefix[EXPERTD_MAX_UID + 1];
    snprintf(prefix, sizeof prefix, "%s.", options->layer);
    for (size_t s = 0; s < options->servers; s++) {
        expertd_list(layer->clients[s], prefix, 0, 0, LIST_MS, &calls[s]);
    }
    for (size_t s = 0; s < options->servers; s++) {
        if (calls[s]) {
            while (expertd_call_wait(calls[s], -1) == -EINTR) {
            }
            const struct expertd_list *list = expertd_call_list(calls[s]);
            if (list) {
                place_experts(layer, (uint32_t)s, list, found);
            }
            expertd_call_release(&calls[s]);
        }
    }
}

/* ---- the router ------------------------------------------------------------------------------------------------ */

/* In several sums side by side, as processors add several numbers at once. */
static float dot(const float *a, const float *b, size_t n)
{
    enum { LANES = 16 };
    float sums[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) {
            sums[lane] += a[i + lane] * b[i + lane];
        }
    }
    for (; i < n; i++) {
        sum += a[i] * b[i];
    }
    for (size_t lane = 0; lane < LANES; lane++) {
        sum += sums[lane];
    }
    return sum;
}

/* The k most probable experts of one token, and their probabilities among all, or among themselves. */
static void route_token(const struct layer *layer, uint32_t token)
{
    const struct options *options = layer->options;
    const float *x = layer->x + token * options->hidden;
    float *weights = layer->weights + token * options->k;
    float logits[MAX_EXPERTS] = {0};
    double top = -INFINITY, all = 0, chosen = 0;
    for (size_t e = 0; e < options->experts; e++) {
        logits[e] = dot(x, layer->router + e * options->hidden, options->hidden);
        top = fmax(top, (double)logits[e]);
    }
    for (size_t e = 0; e < options->experts; e++) {
        all += exp((double)logits[e] - top);
    }
    for (size_t place = 0; place < options->k; place++) {
        size_t best = 0;
        for (size_t e = 1; e < options->experts; e++) {
            best = logits[e] > logits[best] ? e : best;
        }
        weights[place] = (float)(exp((double)logits[best] - top) / all);
        chosen += (double)weights[place];
        logits[best] = -INFINITY;
        layer->choices[token * options->k + place] =
            (struct choice){NOWHERE, (uint32_t)best, token, (uint32_t)place, false};
    }
    for (size_t place = 0; options->normalize && place < options->k; place++) {
        weights[place] = (float)((double)weights[place] / chosen);
    }
}

/* ---- rows to the servers, and back ----------------------------------------------------------------------------- */

/* Choices without an answer first, those of one server together, and among them those of one expert. */
static int compare_choices(const void *one, const void *other)
{
    const struct choice *a = one, *b = other;
    if (a->answered != b->answered) {
        return a->answered - b->answered;
    }
    if (a->server != b->server) {
        return a->server < b->server ? -1 : 1;
    }
    if (a->expert != b->expert) {
        return a->expert < b->expert ? -1 : 1;
    }
    return (a->token > b->token) - (a->token < b->token);
}

/* One message with the choices [first, end), all of them of one server's. */
static int ship(struct layer *layer, size_t first, size_t end)
{
    const struct options *options = layer->options;
    uint32_t server = layer->choices[first].server;
    struct shipment *shipment = &layer->shipments[server];
    shipment->n_parts = 0;
    shipment->first = first;
    for (size_t i = first; i < end; i++) {
        const struct choice *choice = &layer->choices[i];
        if (i == first || choice->expert != choice[-1].expert) {
            shipment->parts[shipment->n_parts++] = (struct expertd_part){.uid = layer->uids[choice->expert]};
        }
        shipment->parts[shipment->n_parts - 1].rows++;
        memcpy(layer->sent + i * options->hidden, layer->x + choice->token * options->hidden,
               options->hidden * sizeof *layer->sent);
    }
    struct expertd_tensor rows =
        expertd_tensor_f32(layer->sent + first * options->hidden, end - first, options->hidden);
    return expertd_forward_parts(layer->clients[server], shipment->parts, shipment->n_parts, &rows, 1, CALL_MS,
                                 &shipment->call);
}

static bool is_transient(enum expertd_status status)
{
    return status == EXPERTD_UNAVAILABLE || status == EXPERTD_DEADLINE_EXCEEDED ||
           status == EXPERTD_RESOURCE_EXHAUSTED || status == EXPERTD_NOT_FOUND;
}

/* What is not OK, with what a person reads of it. -EIO where asking again is of no use. */
static int bear(struct layer *layer, const char *uid, enum expertd_status status, const char *message)
{
    if (!is_transient(status)) {
        fprintf(stderr, "moe_layer: %s: %s: %s\n", uid, expertd_status_name(status), message);
        return -EIO;
    }
    if (!layer->waits) {
        fprintf(stderr, "moe_layer: waiting for %s: %s: %s\n", uid, expertd_status_name(status), message);
        layer->waits = true;
    }
    return 0;
}

/* Waits for one server's answer, and keeps the rows of each part that is OK. */
static int take_answer(struct layer *layer, struct shipment *shipment)
{
    const size_t hidden = layer->options->hidden;
    int rc = 0;
    while (expertd_call_wait(shipment->call, -1) == -EINTR) {
    }
    const struct expertd_tensor *output = expertd_call_output(shipment->call, 0);
    bool parts_known = expertd_call_part_count(shipment->call) == shipment->n_parts;
    if (output && (output->dtype != EXPERTD_FLOAT32 || output->ndim != 2 || output->shape[1] != hidden)) {
        fprintf(stderr, "moe_layer: %s: its outputs are not rows of %zu float32\n", shipment->parts[0].uid, hidden);
        rc = -EIO;
    }
    size_t row = 0;
    for (size_t p = 0; rc == 0 && p < shipment->n_parts; row += shipment->parts[p++].rows) {
        enum expertd_status status =
            parts_known ? expertd_call_part_status(shipment->call, p) : expertd_call_status(shipment->call);
        if (status != EXPERTD_OK || !output) {
            rc =
                bear(layer, shipment->parts[p].uid, status,
                     parts_known ? expertd_call_part_message(shipment->call, p) : expertd_call_message(shipment->call));
            continue;
        }
        for (size_t i = row; i < row + shipment->parts[p].rows; i++) {
            struct choice *choice = &layer->choices[shipment->first + i];
            memcpy(layer->answers + (choice->token * layer->options->k + choice->place) * hidden,
                   (const float *)output->data + i * hidden, hidden * sizeof *layer->answers);
            choice->answered = true;
        }
    }
    expertd_call_release(&shipment->call);
    return rc;
}

/* Sends everything that has no answer yet, a message a server, and takes in what comes. Returns how many choices are
 * left, or -errno. */
static long ask_once(struct layer *layer, size_t count)
{
    int rc = 0;
    long left = 0;
    for (size_t i = 0; i < count; i++) {
        layer->choices[i].server = layer->server_of[layer->choices[i].expert];
    }
    qsort(layer->choices, count, sizeof *layer->choices, compare_choices);
    for (size_t first = 0, end; rc == 0 && first < count && !layer->choices[first].answered; first = end) {
        const struct choice *choice = &layer->choices[first];
        for (end = first + 1;
             end < count && !layer->choices[end].answered && layer->choices[end].server == choice->server;) {
            end++;
        }
        rc = choice->server == NOWHERE
                 ? bear(layer, layer->uids[choice->expert], EXPERTD_NOT_FOUND, "no server has said that it hosts it")
                 : ship(layer, first, end);
    }
    for (size_t s = 0; s < layer->options->servers; s++) {
        if (layer->shipments[s].call) {
            int taken = take_answer(layer, &layer->shipments[s]);
            rc = rc != 0 ? rc : taken;
        }
    }
    for (size_t i = 0; i < count; i++) {
        left += !layer->choices[i].answered;
    }
    return rc != 0 ? rc : left;
}

/* y of the rows in x. */
static int forward(struct layer *layer, size_t rows)
{
    const struct options *options = layer->options;
    const size_t hidden = options->hidden, count = rows * options->k;
    uint64_t began_ns = stopwatch_ns();
    long left;
    for (size_t token = 0; token < rows; token++) {
        route_token(layer, (uint32_t)token);
    }
    layer->waits = false;
    while ((left = ask_once(layer, count)) > 0) {
        const struct timespec pause = {0, PAUSE_MS * 1000000L};
        if (stopwatch_seconds(began_ns) > options->patience_s) {
            fprintf(stderr, "moe_layer: %ld of %zu rows have no answer after %.0f s\n", left, count,
                    options->patience_s);
            return -ETIMEDOUT;
        }
        nanosleep(&pause, NULL);
        find_experts(layer);
    }
    memset(layer->y, 0, rows * hidden * sizeof *layer->y);
    for (size_t i = 0; left == 0 && i < count; i++) {
        float *y = layer->y + i / options->k * hidden;
        for (size_t h = 0; h < hidden; h++) {
            y[h] += layer->weights[i] * layer->answers[i * hidden + h];
        }
    }
    return (int)left;
}

/* ---- the program ----------------------------------------------------------------------------------------------- */

static int read_router(const struct layer *layer)
{
    const struct options *options = layer->options;
    size_t numbers = options->experts * options->hidden;
    FILE *file = fopen(options->router, "rb");
    if (!file) {
        fprintf(stderr, "moe_layer: %s: %s\n", options->router, strerror(errno));
        return -EIO;
    }
    bool fits = fread(layer->router, sizeof *layer->router, numbers, file) == numbers && fgetc(file) == EOF;
    if (!fits) {
        fprintf(stderr, "moe_layer: %s: is not %zu x %zu float32\n", options->router, options->experts,
                options->hidden);
    }
    fclose(file);
    return fits ? 0 : -EIO;
}

/* Batch by batch, until the input ends. */
static int run(struct layer *layer)
{
    const struct options *options = layer->options;
    const size_t row_bytes = options->hidden * sizeof *layer->x;
    size_t tokens = 0, bytes;
    uint64_t ns = 0;
    find_experts(layer);
    while ((bytes = fread(layer->x, 1, options->rows * row_bytes, stdin)) > 0) {
        size_t rows = bytes / row_bytes;
        uint64_t began_ns = stopwatch_ns();
        if (bytes % row_bytes != 0) {
            fprintf(stderr, "moe_layer: the input ends within a row of %zu float32\n", options->hidden);
            return -EIO;
        }
        int rc = forward(layer, rows);
        if (rc != 0) {
            return rc;
        }
        ns += stopwatch_ns() - began_ns;
        tokens += rows;
        if (fwrite(layer->y, row_bytes, rows, stdout) != rows || fflush(stdout) != 0) {
            fprintf(stderr, "moe_layer: the output: %s\n", strerror(errno));
            return -EIO;
        }
    }
    if (ferror(stdin)) {
        fprintf(stderr, "moe_layer: the input: %s\n", strerror(errno));
        return -EIO;
    }
    fprintf(stderr, "%zu tokens, %.0f tokens/s\n", tokens, ns ? (double)tokens / ((double)ns / 1e9) : 0.0);
    return 0;
}

static int open_layer(struct layer *layer, const struct options *options)
{
    size_t rows = options->rows, count = rows * options->k, hidden = options->hidden;
    layer->options = options;
    for (size_t e = 0; e < options->experts; e++) {
        layer->server_of[e] = NOWHERE;
        snprintf(layer->uids[e], sizeof layer->uids[e], "%.100s.%zu", options->layer, e);
    }
    layer->router = malloc(options->experts * hidden * sizeof *layer->router);
    layer->x = malloc(rows * hidden * sizeof *layer->x);
    layer->y = malloc(rows * hidden * sizeof *layer->y);
    layer->choices = malloc(count * sizeof *layer->choices);
    layer->weights = malloc(count * sizeof *layer->weights);
    layer->sent = malloc(count * hidden * sizeof *layer->sent);
    layer->answers = malloc(count * hidden * sizeof *layer->answers);
    if (!layer->router || !layer->x || !layer->y || !layer->choices || !layer->weights || !layer->sent ||
        !layer->answers) {
        fprintf(stderr, "moe_layer: out of memory\n");
        return -ENOMEM;
    }
    for (size_t s = 0; s < options->servers; s++) {
        int rc = expertd_client_new(&layer->clients[s], options->urls[s], NULL);
        if (rc != 0) {
            fprintf(stderr, "moe_layer: %s: %s\n", options->urls[s], strerror(-rc));
            return rc;
        }
    }
    return read_router(layer);
}

static void close_layer(struct layer *layer)
{
    for (size_t s = 0; s < MAX_SERVERS; s++) {
        expertd_client_destroy(&layer->clients[s]);
    }
    free(layer->router);
    free(layer->x);
    free(layer->y);
    free(layer->choices);
    free(layer->weights);
    free(layer->sent);
    free(layer->answers);
}

static void parse_options(struct options *options, int argc, char **argv)
{
    const struct flag all[] = {
        {"router", "FILE", "the layer's router: experts x hidden numbers, float32, nothing else",
         .text = &options->router},
        {"layer", "NAME", "of the layer: its experts are NAME.0, NAME.1, ...", .text = &options->layer},
        {"experts", "N", "of the layer", .count = &options->experts, .most = MAX_EXPERTS},
        {"hidden", "N", "numbers in a hidden state", .count = &options->hidden, .most = MAX_HIDDEN},
        {"top-k", "K", "experts for a token", .count = &options->k, .most = MAX_EXPERTS},
        {"normalize", NULL, "weights are probabilities among the K (Mixtral, Qwen3), not among all",
         .given = &options->normalize},
        {"rows", "N", "tokens in a batch", .count = &options->rows, .most = MAX_ROWS},
        {"patience", "S", "seconds to wait for an expert", .number = &options->patience_s, .most = 1e6},
        {0}};
    const struct flags flags = {
        .usage = "[options] --router FILE URL... < hidden-states > outputs",
        .purpose = "Computes a mixture-of-experts layer whose experts the servers at URL... host: one message a server "
                   "and batch.",
        .all = all,
        .words = options->urls,
        .words_count = &options->servers,
        .most_words = MAX_SERVERS};
    flags_parse(&flags, argc, argv);
    if (!options->router) {
        flags_refuse("--router FILE has to be given");
    }
    if (options->k > options->experts) {
        flags_refuse("--top-k is more than --experts");
    }
}

int main(int argc, char **argv)
{
    static struct layer layer;
    struct options options = {.layer = "olmoe.0", .experts = 64, .hidden = 2048, .k = 8, .rows = 128, .patience_s = 60};
    expertd_tune_allocator();
    parse_options(&options, argc, argv);
    int rc = open_layer(&layer, &options);
    if (rc == 0) {
        rc = run(&layer);
    }
    close_layer(&layer);
    return rc != 0;
}
