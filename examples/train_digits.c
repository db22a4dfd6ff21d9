/* Trains a model on the handwritten digits whose middle is remote: a linear layer here, experts of a running server one
 * after the other, a linear layer here. The experts learn by the server's own optimizer from backward calls, the two
 * layers by Adam here. Several clients, each with a thread and a connection of its own, train at once on different
 * minibatches: asynchronously, as the clients of a decentralised mixture do. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertd.h"
#include "examples/digits/dataset.h"
#include "examples/digits/flags.h"
#include "examples/digits/head.h"
#include "examples/digits/minibatch.h"
#include "examples/digits/order.h"
#include "examples/digits/remote.h"
#include "examples/digits/stopwatch.h"

enum { MAX_EXPERTS = 16, MAX_CLIENTS = 64, MAX_ROWS = 1024, MAX_EPOCHS = 100000, ERROR_SIZE = 512 };

struct options {
    const char *endpoint, *data, *head;
    const char *uids[MAX_EXPERTS];
    size_t experts, clients, epochs, rows, hidden;
    double learning_rate, at_least;
    bool eval_only, no_checkpoint;
};

/* What the clients share; `lock` guards all that changes. */
struct training {
    const struct options *options;
    const struct dataset *digits;
    pthread_mutex_t lock;
    struct head head;
    struct order order;
    size_t seen, right, lost;
    double loss;
    float learning_rate;
    int failed;
};

/* One client: a connection, and a minibatch. */
struct worker {
    struct training *training;
    struct expertd_client *client;
    pthread_t thread;
    struct minibatch minibatch;
    float *activations[MAX_EXPERTS + 1]; /* rows x hidden: [0] into the first expert, the last out of the last */
};

static void worker_destroy(struct worker *worker)
{
    expertd_client_destroy(&worker->client);
    minibatch_destroy(&worker->minibatch);
    for (size_t i = 0; i <= MAX_EXPERTS; i++) {
        free(worker->activations[i]);
    }
    *worker = (struct worker){0};
}

static int worker_create(struct worker *worker, struct training *training)
{
    const struct options *options = training->options;
    const struct head *head = &training->head;
    *worker = (struct worker){.training = training};
    int rc = expertd_client_new(&worker->client, options->endpoint, NULL);
    if (rc != 0) {
        fprintf(stderr, "train_digits: %s: %s\n", options->endpoint, strerror(-rc));
        return rc;
    }
    bool whole = minibatch_create(&worker->minibatch, options->rows, head) == 0;
    for (size_t i = 0; whole && i <= options->experts; i++) {
        worker->activations[i] = malloc(options->rows * head->hidden * sizeof(float));
        whole = worker->activations[i] != NULL;
    }
    if (!whole) {
        fprintf(stderr, "train_digits: out of memory\n");
        worker_destroy(worker);
        return -ENOMEM;
    }
    return 0;
}

/* Through the experts: activations[0] to the last. */
static int forward_experts(struct worker *worker, size_t rows)
{
    const struct training *training = worker->training;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < training->options->experts; i++) {
        rc = remote_forward(worker->client, training->options->uids[i], worker->activations[i], rows,
                            training->head.hidden, worker->activations[i + 1]);
    }
    return rc;
}

/* Back through the experts, which learn: the minibatch's gradient is at the output, and then at the input. */
static int backward_experts(struct worker *worker)
{
    struct minibatch *minibatch = &worker->minibatch;
    const struct training *training = worker->training;
    int rc = 0;
    for (size_t i = training->options->experts; rc == 0 && i-- > 0;) {
        rc = remote_backward(worker->client, training->options->uids[i], worker->activations[i], minibatch->gradient,
                             minibatch->rows, training->head.hidden, minibatch->gradient);
    }
    return rc;
}

/* Takes the next minibatch, and computes the front layer on it. The number of its rows; 0: the epoch is over. */
static size_t take_minibatch(struct worker *worker)
{
    struct training *training = worker->training;
    pthread_mutex_lock(&training->lock);
    size_t rows = training->failed ? 0 : minibatch_take(&worker->minibatch, &training->order);
    linear_forward(&training->head.front, worker->minibatch.pixels, rows, worker->activations[0]);
    pthread_mutex_unlock(&training->lock);
    return rows;
}

/* The layer behind: loss, one step, and the gradient for the last expert. */
static void train_back(struct worker *worker)
{
    struct training *training = worker->training;
    struct minibatch *minibatch = &worker->minibatch;
    const float *features = worker->activations[training->options->experts];
    size_t right;
    pthread_mutex_lock(&training->lock);
    double loss = minibatch_train_back(minibatch, &training->head, features, training->learning_rate, &right);
    training->loss += (double)minibatch->rows * loss;
    training->right += right;
    training->seen += minibatch->rows;
    pthread_mutex_unlock(&training->lock);
}

static void train_front(struct worker *worker)
{
    struct training *training = worker->training;
    minibatch_front_gradient(&worker->minibatch, &training->head); /* reads none of what changes */
    pthread_mutex_lock(&training->lock);
    linear_step(&training->head.front, worker->minibatch.head_gradient, training->learning_rate);
    pthread_mutex_unlock(&training->lock);
}

static void *train_epoch(void *argument)
{
    struct worker *worker = argument;
    struct training *training = worker->training;
    size_t rows;
    int rc = 0;
    while (rc >= 0 && (rows = take_minibatch(worker)) > 0) {
        rc = forward_experts(worker, rows);
        if (rc == 0) {
            train_back(worker);
            rc = backward_experts(worker);
        }
        if (rc == 0) {
            train_front(worker);
        }
        if (rc != 0) {
            pthread_mutex_lock(&training->lock);
            training->lost += rc == REMOTE_LOST;
            training->failed = rc < 0 ? rc : training->failed;
            pthread_mutex_unlock(&training->lock);
        }
    }
    return NULL;
}

/* Percent of the test images that the model gets right now; negative when a call failed. No other thread is at work. */
static double test_accuracy(struct worker *worker)
{
    struct training *training = worker->training;
    const struct dataset *digits = training->digits;
    size_t right = 0, first = digits->train_count, count = digits->count;
    for (size_t rows; first < count; first += rows) {
        size_t right_now;
        rows = count - first < training->options->rows ? count - first : training->options->rows;
        linear_forward(&training->head.front, digits->pixels + first * DATASET_PIXELS, rows, worker->activations[0]);
        if (forward_experts(worker, rows) != 0) {
            return -1;
        }
        linear_forward(&training->head.back, worker->activations[training->options->experts], rows,
                       worker->minibatch.logits);
        linear_cross_entropy(worker->minibatch.logits, digits->labels + first, rows, DATASET_CLASSES, &right_now);
        right += right_now;
    }
    return 100.0 * (double)right / (double)(count - digits->train_count);
}

/* One epoch by all clients. 0 or -errno. */
static int run_epoch(struct training *training, struct worker *workers)
{
    size_t started = 0;
    training->seen = training->right = 0;
    training->loss = 0;
    for (; started < training->options->clients; started++) {
        int rc = pthread_create(&workers[started].thread, NULL, train_epoch, &workers[started]);
        if (rc != 0) {
            fprintf(stderr, "train_digits: cannot start a thread: %s\n", strerror(rc));
            pthread_mutex_lock(&training->lock);
            training->failed = -rc;
            pthread_mutex_unlock(&training->lock);
            break;
        }
    }
    for (size_t i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    return training->failed;
}

static int train(struct training *training, struct worker *workers)
{
    const struct options *options = training->options;
    const uint64_t begin_ns = stopwatch_ns();
    for (size_t epoch = 1; epoch <= options->epochs; epoch++) {
        double before = stopwatch_seconds(begin_ns);
        order_shuffle(&training->order);
        training->learning_rate =
            (float)(options->learning_rate * (double)(options->epochs + 1 - epoch) / (double)options->epochs);
        int rc = run_epoch(training, workers);
        double took = stopwatch_seconds(begin_ns) - before, accuracy = rc == 0 ? test_accuracy(&workers[0]) : -1;
        if (accuracy < 0) {
            return rc ? rc : -EIO;
        }
        printf("epoch %3zu/%zu  loss %.4f  train %6.2f %%  test %6.2f %%  %6.0f images/s  %5.1f s\n", epoch,
               options->epochs, training->loss / (double)training->seen,
               100.0 * (double)training->right / (double)training->seen, accuracy, (double)training->seen / took,
               stopwatch_seconds(begin_ns));
        fflush(stdout);
    }
    if (training->lost > 0) {
        printf("%zu minibatches were lost on their way back\n", training->lost);
    }
    return 0;
}

/* Keeps what was learnt: the experts' part with the server, ours in the head's file. */
static int keep(struct training *training, struct worker *worker)
{
    char error[ERROR_SIZE];
    int rc = 0;
    for (size_t i = 0; rc == 0 && !training->options->no_checkpoint && i < training->options->experts; i++) {
        rc = remote_checkpoint(worker->client, training->options->uids[i]);
    }
    if (rc == 0 && training->options->head) {
        rc = head_save(&training->head, training->options->head, error, sizeof error);
        if (rc != 0) {
            fprintf(stderr, "train_digits: %s\n", error);
        }
    }
    return rc;
}

static int work(struct training *training, struct worker *workers)
{
    const struct options *options = training->options;
    int rc = 0;
    assert(options->clients > 0);
    for (size_t i = 0; i < options->clients; i++) {
        rc = worker_create(&workers[i], training);
        if (rc != 0) {
            return rc;
        }
    }
    if (!options->eval_only) {
        rc = train(training, workers);
        if (rc == 0) {
            rc = keep(training, &workers[0]);
        }
        if (rc != 0) {
            return rc;
        }
    }
    double accuracy = test_accuracy(&workers[0]);
    if (accuracy < 0) {
        return -EIO;
    }
    printf("test accuracy: %.2f %% of %zu digits\n", accuracy, training->digits->count - training->digits->train_count);
    if (accuracy < options->at_least) {
        fprintf(stderr, "train_digits: accuracy is below %.2f %%\n", options->at_least);
        return -ERANGE;
    }
    return 0;
}

static int run_all(const struct options *options, const struct dataset *digits)
{
    struct training training = {.options = options, .digits = digits, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct worker *workers = calloc(options->clients, sizeof *workers);
    char error[ERROR_SIZE] = "out of memory";
    int rc = options->eval_only ? head_load(&training.head, options->head, error, sizeof error)
                                : head_create(&training.head, options->hidden, 1);
    if (rc == 0 && (!workers || order_create(&training.order, digits, 1) != 0)) {
        rc = -ENOMEM;
    }
    if (rc != 0) {
        fprintf(stderr, "train_digits: %s\n", error);
    } else {
        rc = work(&training, workers);
    }
    for (size_t i = 0; workers && i < options->clients; i++) {
        worker_destroy(&workers[i]);
    }
    free(workers);
    order_destroy(&training.order);
    head_destroy(&training.head);
    pthread_mutex_destroy(&training.lock);
    return rc;
}

static void parse_options(struct options *options, int argc, char **argv)
{
    const struct flag all[] = {
        {"endpoint", "URL", "of the server's frontend", .text = &options->endpoint},
        {"data", "FILE", "the digits", .text = &options->data},
        {"head", "FILE", "where the two linear layers are kept after training (they are not)", .text = &options->head},
        {"eval-only", NULL, "no training: load the layers from --head, and only test", .given = &options->eval_only},
        {"no-checkpoint", NULL, "do not ask the server for a checkpoint after training",
         .given = &options->no_checkpoint},
        {"clients", "N", "that train at once", .count = &options->clients, .most = MAX_CLIENTS},
        {"epochs", "N", "of training", .count = &options->epochs, .most = MAX_EPOCHS},
        {"rows", "N", "images in a minibatch", .count = &options->rows, .most = MAX_ROWS},
        {"hidden", "N", "hidden size of the experts", .count = &options->hidden, .most = HEAD_MAX_HIDDEN},
        {"learning-rate", "R", "of the two layers at the start, falling to 0", .number = &options->learning_rate,
         .most = 10},
        {"at-least", "P", "exit with 1 when the test accuracy is below P percent", .number = &options->at_least,
         .most = 100},
        {0}};
    const struct flags flags = {
        .usage = "[options] UID...",
        .purpose = "Trains on the handwritten digits through the experts UID... of a running server, one after the "
                   "other.",
        .all = all,
        .words = options->uids,
        .words_count = &options->experts,
        .most_words = MAX_EXPERTS};
    flags_parse(&flags, argc, argv);
    if (options->eval_only && !options->head) {
        flags_refuse("--eval-only needs --head, where the layers are");
    }
}

int main(int argc, char **argv)
{
    struct options options = {.endpoint = "tcp://127.0.0.1:31330",
                              .data = "examples/data/digits.csv",
                              .clients = 4,
                              .epochs = 30,
                              .rows = 64,
                              .hidden = 64,
                              .learning_rate = 0.003};
    char error[ERROR_SIZE];
    struct dataset digits;
    expertd_tune_allocator();
    parse_options(&options, argc, argv);
    if (dataset_load_parts(&digits, options.data, error, sizeof error) != 0) {
        fprintf(stderr, "train_digits: %s\n", error);
        return 1;
    }
    int rc = run_all(&options, &digits);
    dataset_destroy(&digits);
    return rc != 0;
}
