/* Classifies the handwritten digits with a model whose middle is remote: a linear layer here, experts of a running
 * server one after the other, a linear layer here. Many requests are in flight on one connection, so that the server
 * forms batches of them. Prints accuracy, latency and throughput. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertd.h"
#include "examples/digits/dataset.h"
#include "examples/digits/flags.h"
#include "examples/digits/head.h"
#include "examples/digits/remote.h"
#include "examples/digits/stopwatch.h"

enum { MAX_EXPERTS = 16, MAX_IN_FLIGHT = 1024, MAX_ROWS = 1024, DEADLINE_MS = 10000, ERROR_SIZE = 512 };

struct options {
    const char *endpoint, *data, *head;
    const char *uids[MAX_EXPERTS];
    size_t experts, rows, in_flight;
    double at_least; /* percent */
};

/* Some images on their way through the experts. */
struct chunk {
    size_t first, rows, stage; /* stage: index of the expert that has them */
    uint64_t started_ns;
    struct expertd_call *call;
};

struct run {
    const struct options *options;
    const struct dataset *digits;
    const struct head *head;
    struct expertd_client *client;
    struct chunk *chunks; /* options->in_flight */
    float *hidden;        /* rows x hidden, of the chunk that is being sent */
    uint64_t *latency_ns; /* one for each chunk that has come through */
    size_t next, done, right, right_in_test, samples;
};

static int send_chunk(struct run *run, struct chunk *chunk, const float *rows)
{
    struct expertd_tensor input = expertd_tensor_f32(rows, chunk->rows, run->head->hidden);
    int rc = expertd_forward(run->client, run->options->uids[chunk->stage], &input, 1, DEADLINE_MS, &chunk->call);
    if (rc != 0) {
        fprintf(stderr, "classify_digits: %s\n", strerror(-rc));
        return rc;
    }
    expertd_call_set_user(chunk->call, chunk);
    return 0;
}

/* The next images, to the first expert. */
static int start_chunk(struct run *run, struct chunk *chunk)
{
    size_t left = run->digits->count - run->next;
    chunk->first = run->next;
    chunk->rows = left < run->options->rows ? left : run->options->rows;
    chunk->stage = 0;
    chunk->started_ns = stopwatch_ns();
    run->next += chunk->rows;
    linear_forward(&run->head->front, run->digits->pixels + chunk->first * DATASET_PIXELS, chunk->rows, run->hidden);
    return send_chunk(run, chunk, run->hidden);
}

/* What the last expert gave, to digits. */
static void finish_chunk(struct run *run, const struct chunk *chunk, const float *rows)
{
    for (size_t r = 0; r < chunk->rows; r++) {
        float logits[DATASET_CLASSES];
        size_t best = 0, image = chunk->first + r;
        linear_forward(&run->head->back, rows + r * run->head->hidden, 1, logits);
        for (size_t c = 1; c < DATASET_CLASSES; c++) {
            best = logits[c] > logits[best] ? c : best;
        }
        bool right = best == run->digits->labels[image];
        run->right += right;
        run->right_in_test += right && image >= run->digits->train_count;
    }
    run->latency_ns[run->samples++] = stopwatch_ns() - chunk->started_ns;
    run->done += chunk->rows;
}

/* Takes one answer on: to the next expert, or to the count. */
static int advance_chunk(struct run *run, struct chunk *chunk)
{
    const float *rows = remote_output(chunk->call, run->options->uids[chunk->stage], chunk->rows, run->head->hidden);
    if (!rows) {
        return -EIO;
    }
    struct expertd_call *answered = chunk->call;
    int rc = 0;
    chunk->call = NULL;
    if (++chunk->stage < run->options->experts) {
        rc = send_chunk(run, chunk, rows);
    } else {
        finish_chunk(run, chunk, rows);
        if (run->next < run->digits->count) {
            rc = start_chunk(run, chunk);
        }
    }
    expertd_call_release(&answered);
    return rc;
}

static int classify(struct run *run)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < run->options->in_flight && run->next < run->digits->count; i++) {
        rc = start_chunk(run, &run->chunks[i]);
    }
    while (rc == 0 && run->done < run->digits->count) {
        struct expertd_call *call;
        expertd_poll(run->client, -1);
        while (rc == 0 && (call = expertd_next_done(run->client))) {
            rc = advance_chunk(run, expertd_call_user(call));
        }
    }
    return rc;
}

/* Sends the first image once, so that the connection stands and the server is known to answer before the clock runs. */
static int warm_up(struct run *run)
{
    linear_forward(&run->head->front, run->digits->pixels, 1, run->hidden);
    for (size_t i = 0; i < run->options->experts; i++) {
        int rc = remote_forward(run->client, run->options->uids[i], run->hidden, 1, run->head->hidden, run->hidden);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int compare_ns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double percentile_ms(const struct run *run, double part)
{
    return (double)run->latency_ns[(size_t)(part * (double)(run->samples - 1) + 0.5)] / 1e6;
}

static int report(struct run *run, uint64_t took_ns)
{
    size_t count = run->digits->count, test_count = count - run->digits->train_count;
    double accuracy = 100.0 * (double)run->right / (double)count, seconds = (double)took_ns / 1e9;
    qsort(run->latency_ns, run->samples, sizeof *run->latency_ns, compare_ns);
    printf("accuracy:   %.2f %% of %zu digits", accuracy, count);
    if (test_count > 0) {
        printf(" (%.2f %% of the %zu test digits)", 100.0 * (double)run->right_in_test / (double)test_count,
               test_count);
    }
    printf("\nlatency:    p50 %.2f ms, p99 %.2f ms for %zu image(s) through %zu experts, %zu in flight\n",
           percentile_ms(run, 0.5), percentile_ms(run, 0.99), run->options->rows, run->options->experts,
           run->options->in_flight);
    printf("throughput: %.0f images/s, %.0f calls/s\n", (double)count / seconds,
           (double)(run->samples * run->options->experts) / seconds);
    if (accuracy < run->options->at_least) {
        fprintf(stderr, "classify_digits: accuracy is below %.2f %%\n", run->options->at_least);
        return -ERANGE;
    }
    return 0;
}

static int run_all(struct run *run)
{
    const struct options *options = run->options;
    int rc = expertd_client_new(&run->client, options->endpoint, NULL);
    if (rc != 0) {
        fprintf(stderr, "classify_digits: %s: %s\n", options->endpoint, strerror(-rc));
        return rc;
    }
    run->chunks = calloc(options->in_flight, sizeof *run->chunks);
    run->hidden = malloc(options->rows * run->head->hidden * sizeof *run->hidden);
    run->latency_ns = malloc(run->digits->count * sizeof *run->latency_ns);
    if (!run->chunks || !run->hidden || !run->latency_ns) {
        fprintf(stderr, "classify_digits: out of memory\n");
        rc = -ENOMEM;
    }
    if (rc == 0) {
        rc = warm_up(run);
    }
    if (rc == 0) {
        uint64_t begin_ns = stopwatch_ns();
        rc = classify(run);
        if (rc == 0) {
            rc = report(run, stopwatch_ns() - begin_ns);
        }
    }
    expertd_client_destroy(&run->client);
    free(run->chunks);
    free(run->hidden);
    free(run->latency_ns);
    return rc;
}

static void parse_options(struct options *options, int argc, char **argv)
{
    const struct flag all[] = {
        {"endpoint", "URL", "of the server's frontend", .text = &options->endpoint},
        {"data", "FILE", "the digits", .text = &options->data},
        {"head", "FILE", "the linear layers", .text = &options->head},
        {"rows", "N", "images in a request", .count = &options->rows, .most = MAX_ROWS},
        {"in-flight", "N", "requests in flight", .count = &options->in_flight, .most = MAX_IN_FLIGHT},
        {"at-least", "P", "exit with 1 when accuracy is below P percent", .number = &options->at_least, .most = 100},
        {0}};
    const struct flags flags = {
        .usage = "[options] UID...",
        .purpose = "Classifies the handwritten digits through the experts UID... of a running server, one after the "
                   "other.",
        .all = all,
        .words = options->uids,
        .words_count = &options->experts,
        .most_words = MAX_EXPERTS};
    flags_parse(&flags, argc, argv);
}

int main(int argc, char **argv)
{
    struct options options = {.endpoint = "tcp://127.0.0.1:31330",
                              .data = "examples/data/digits.csv",
                              .head = "examples/data/digits-experts/head.safetensors",
                              .rows = 1,
                              .in_flight = 16};
    char error[ERROR_SIZE];
    struct dataset digits;
    struct head head;
    expertd_tune_allocator();
    parse_options(&options, argc, argv);
    if (dataset_load(&digits, options.data, error, sizeof error) != 0) {
        fprintf(stderr, "classify_digits: %s\n", error);
        return 1;
    }
    int rc = head_load(&head, options.head, error, sizeof error);
    if (rc != 0) {
        fprintf(stderr, "classify_digits: %s\n", error);
    } else {
        struct run run = {.options = &options, .digits = &digits, .head = &head};
        rc = run_all(&run);
    }
    head_destroy(&head);
    dataset_destroy(&digits);
    return rc != 0;
}
