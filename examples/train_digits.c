/* Trains a model on the handwritten digits whose middle is remote: a linear layer here, experts of a running server one
 * after the other, a linear layer here. The experts learn by the server's own optimizer from backward calls, the two
 * layers by Adam here. Several clients, each with a thread and a connection of its own, train at once on different
 * minibatches: asynchronously, as the clients of a decentralised mixture do. */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/expertd.h"
#include "examples/digits/dataset.h"
#include "examples/digits/flags.h"
#include "examples/digits/head.h"
#include "examples/digits/order.h"
#include "examples/digits/remote.h"

enum { MAX_EXPERTS = 16, MAX_CLIENTS = 64, MAX_ROWS = 1024, ERROR_SIZE = 512 };

struct options {
    const char *endpoint, *data, *head;
    const char *uids[MAX_EXPERTS];
    size_t experts, clients, epochs, rows, hidden;
    double learning_rate, at_least;
    bool eval_only, checkpoint;
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

/* One client: a connection, and room for one minibatch. rows x hidden floats each, but for those said otherwise. */
struct worker {
    struct training *training;
    struct expertd_client *client;
    pthread_t thread;
    float *pixels;                       /* rows x DATASET_PIXELS */
    uint8_t *labels;                     /* rows */
    float *activations[MAX_EXPERTS + 1]; /* [0] goes into the first expert, the last comes out of the last */
    float *logits;                       /* rows x DATASET_CLASSES */
    float *gradient;                     /* of rows at an expert's output, then at its input */
    float *head_gradient;                /* of the larger layer's parameters */
};

static void worker_destroy(struct worker *worker)
{
    expertd_client_destroy(&worker->client);
    free(worker->pixels);
    free(worker->labels);
    for (size_t i = 0; i <= MAX_EXPERTS; i++) {
        free(worker->activations[i]);
    }
    free(worker->logits);
    free(worker->gradient);
    free(worker->head_gradient);
    *worker = (struct worker){0};
}

static int worker_create(struct worker *worker, struct training *training)
{
    const struct options *options = training->options;
    const struct head *head = &training->head;
    size_t row_bytes = options->rows * sizeof(float);
    size_t parameters = head->front.count > head->back.count ? head->front.count : head->back.count;
    *worker = (struct worker){.training = training};
    int rc = expertd_client_new(&worker->client, options->endpoint, NULL);
    if (rc != 0) {
        fprintf(stderr, "train_digits: %s: %s\n", options->endpoint, strerror(-rc));
        return rc;
    }
    worker->pixels = malloc(row_bytes * DATASET_PIXELS);
    worker->labels = malloc(options->rows);
    worker->logits = malloc(row_bytes * DATASET_CLASSES);
    worker->gradient = malloc(row_bytes * head->hidden);
    worker->head_gradient = malloc(parameters * sizeof(float));
    bool whole = worker->pixels && worker->labels && worker->logits && worker->gradient && worker->head_gradient;
    for (size_t i = 0; whole && i <= options->experts; i++) {
        worker->activations[i] = malloc(row_bytes * head->hidden);
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

/* Back through the experts, which learn: worker->gradient is at the output, and then at the input. */
static int backward_experts(struct worker *worker, size_t rows)
{
    const struct training *training = worker->training;
    int rc = 0;
    for (size_t i = training->options->experts; rc == 0 && i-- > 0;) {
        rc = remote_backward(worker->client, training->options->uids[i], worker->activations[i], worker->gradient, rows,
                             training->head.hidden, worker->gradient);
    }
    return rc;
}

/* Takes the next minibatch, and computes the front layer on it. The number of its rows; 0: the epoch is over. */
static size_t take_minibatch(struct worker *worker)
{
    struct training *training = worker->training;
    pthread_mutex_lock(&training->lock);
    size_t rows =
        training->failed ? 0 : order_take(&training->order, training->options->rows, worker->pixels, worker->labels);
    linear_forward(&training->head.front, worker->pixels, rows, worker->activations[0]);
    pthread_mutex_unlock(&training->lock);
    return rows;
}

/* The layer behind: loss, one step, and the gradient for the last expert. */
static void train_back(struct worker *worker, size_t rows)
{
    struct training *training = worker->training;
    struct linear *back = &training->head.back;
    const float *features = worker->activations[training->options->experts];
    size_t right;
    memset(worker->head_gradient, 0, back->count * sizeof(float));
    pthread_mutex_lock(&training->lock);
    linear_forward(back, features, rows, worker->logits);
    training->loss +=
        (double)rows * linear_cross_entropy(worker->logits, worker->labels, rows, DATASET_CLASSES, &right);
    training->right += right;
    training->seen += rows;
    linear_backward(back, features, worker->logits, rows, worker->head_gradient, worker->gradient);
    linear_step(back, worker->head_gradient, training->learning_rate);
    pthread_mutex_unlock(&training->lock);
}

static void train_front(struct worker *worker, size_t rows)
{
    struct training *training = worker->training;
    struct linear *front = &training->head.front;
    memset(worker->head_gradient, 0, front->count * sizeof(float));
    linear_backward(front, worker->pixels, worker->gradient, rows, worker->head_gradient, NULL);
    pthread_mutex_lock(&training->lock);
    linear_step(front, worker->head_gradient, training->learning_rate);
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
            train_back(worker, rows);
            rc = backward_experts(worker, rows);
        }
        if (rc == 0) {
            train_front(worker, rows);
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
        linear_forward(&training->head.back, worker->activations[training->options->experts], rows, worker->logits);
        linear_cross_entropy(worker->logits, digits->labels + first, rows, DATASET_CLASSES, &right_now);
        right += right_now;
    }
    return 100.0 * (double)right / (double)(count - digits->train_count);
}

static double seconds_since(const struct timespec *begin)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begin->tv_sec) + (double)(now.tv_nsec - begin->tv_nsec) / 1e9;
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
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (size_t epoch = 1; epoch <= options->epochs; epoch++) {
        double before = seconds_since(&begin);
        order_shuffle(&training->order);
        training->learning_rate =
            (float)(options->learning_rate * (double)(options->epochs + 1 - epoch) / (double)options->epochs);
        int rc = run_epoch(training, workers);
        double took = seconds_since(&begin) - before, accuracy = rc == 0 ? test_accuracy(&workers[0]) : -1;
        if (accuracy < 0) {
            return rc ? rc : -EIO;
        }
        printf("epoch %3zu/%zu  loss %.4f  train %6.2f %%  test %6.2f %%  %6.0f images/s  %5.1f s\n", epoch,
               options->epochs, training->loss / (double)training->seen,
               100.0 * (double)training->right / (double)training->seen, accuracy, (double)training->seen / took,
               seconds_since(&begin));
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
    for (size_t i = 0; rc == 0 && training->options->checkpoint && i < training->options->experts; i++) {
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

static const char help[] =
    "usage: train_digits [options] UID...\n"
    "Trains on the handwritten digits through the experts UID... of a running server, one after the other.\n\n"
    "  --endpoint URL       of the server's frontend (tcp://127.0.0.1:31330)\n"
    "  --data FILE          the digits (examples/data/digits.csv)\n"
    "  --head FILE          where the two linear layers are kept after training (they are not)\n"
    "  --eval-only          no training: load the layers from --head, and only test\n"
    "  --no-checkpoint      do not ask the server for a checkpoint after training\n"
    "  --clients N          that train at once (4)\n"
    "  --epochs N           (30)\n"
    "  --rows N             images in a minibatch (64)\n"
    "  --hidden N           hidden size of the experts (64)\n"
    "  --learning-rate R    of the two layers at the start, falling to 0 (0.003)\n"
    "  --at-least P         exit with 1 when the test accuracy is below P percent (0)\n";

static void take_option(struct options *options, int option)
{
    switch (option) {
    case 'e':
        options->endpoint = optarg;
        break;
    case 'd':
        options->data = optarg;
        break;
    case 'h':
        options->head = optarg;
        break;
    case 'o':
        options->eval_only = true;
        break;
    case 'k':
        options->checkpoint = false;
        break;
    case 'c':
        options->clients = flags_count("clients", optarg, MAX_CLIENTS);
        break;
    case 'n':
        options->epochs = flags_count("epochs", optarg, 100000);
        break;
    case 'r':
        options->rows = flags_count("rows", optarg, MAX_ROWS);
        break;
    case 'w':
        options->hidden = flags_count("hidden", optarg, HEAD_MAX_HIDDEN);
        break;
    case 'l':
        options->learning_rate = flags_number("learning-rate", optarg, 0, 10);
        break;
    case 'a':
        options->at_least = flags_number("at-least", optarg, 0, 100);
        break;
    case 'H':
        fputs(help, stdout);
        exit(0);
    default:
        fputs(help, stderr);
        exit(2);
    }
}

static void parse_options(struct options *options, int argc, char **argv)
{
    static const struct option known[] = {{"endpoint", required_argument, NULL, 'e'},
                                          {"data", required_argument, NULL, 'd'},
                                          {"head", required_argument, NULL, 'h'},
                                          {"eval-only", no_argument, NULL, 'o'},
                                          {"no-checkpoint", no_argument, NULL, 'k'},
                                          {"clients", required_argument, NULL, 'c'},
                                          {"epochs", required_argument, NULL, 'n'},
                                          {"rows", required_argument, NULL, 'r'},
                                          {"hidden", required_argument, NULL, 'w'},
                                          {"learning-rate", required_argument, NULL, 'l'},
                                          {"at-least", required_argument, NULL, 'a'},
                                          {"help", no_argument, NULL, 'H'},
                                          {0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        take_option(options, option);
    }
    for (; optind < argc && options->experts < MAX_EXPERTS; optind++) {
        options->uids[options->experts++] = argv[optind];
    }
    if (options->experts == 0 || optind < argc || (options->eval_only && !options->head)) {
        fputs(help, stderr);
        exit(2);
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
                              .learning_rate = 0.003,
                              .checkpoint = true};
    char error[ERROR_SIZE];
    struct dataset digits;
    expertd_tune_allocator();
    parse_options(&options, argc, argv);
    if (dataset_load(&digits, options.data, error, sizeof error) != 0) {
        fprintf(stderr, "train_digits: %s\n", error);
        return 1;
    }
    if (digits.train_count == digits.count) {
        fprintf(stderr, "train_digits: %s: too few images to keep some for testing\n", options.data);
        dataset_destroy(&digits);
        return 1;
    }
    int rc = run_all(&options, &digits);
    dataset_destroy(&digits);
    return rc != 0;
}
