/* Trains a model on the handwritten digits whose middle is a mixture of experts that any number of servers host: a
 * linear layer here, the gate here, the experts wherever the DHT finds them, a linear layer here. Servers may come and
 * go meanwhile: an expert that does not answer contributes nothing, and one whose server is dead is soon not chosen any
 * more. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/expertd_moe.h"
#include "examples/digits/dataset.h"
#include "examples/digits/flags.h"
#include "examples/digits/head.h"
#include "examples/digits/middle.h"
#include "examples/digits/minibatch.h"
#include "examples/digits/order.h"
#include "examples/digits/stopwatch.h"

enum {
    MAX_DIMS = 4,
    MAX_EXPERTS = 65536,
    MAX_ROWS = 1024,
    MAX_EPOCHS = 100000,
    ERROR_SIZE = 512,
    PAUSE_MS = 100,
    PRINT_MS = 500,  /* between lines of progress, when nothing is wrong */
    PATIENCE_S = 60, /* without any answer: then a person has to look */
};

struct options {
    const char *dht, *data, *prefix, *grid_text;
    uint32_t grid[MAX_DIMS];
    size_t dims, epochs, rows, hidden, k_best;
    double learning_rate, balancing_weight, timeout_s, at_least;
    bool is_switch;
};

/* What a line of progress says: of the epochs since the last one. */
struct report {
    size_t seen, right;
    size_t wanted, unanswered; /* answers: rows times experts for each */
    size_t lost;               /* minibatches without any answer */
    double loss;
    bool used[MAX_EXPERTS];
    char failure[ERROR_SIZE]; /* the first one */
};

struct training {
    const struct options *options;
    const struct dataset *digits;
    struct order order;
    struct head head;
    struct expertd_dht *dht;
    struct middle middle;
    struct report report;
    uint64_t answered_ns; /* when there last was an answer */
    struct minibatch minibatch;
    float *inputs, *features; /* of the middle: rows x hidden */
};

/* The place in the grid of an expert of it. The library has checked what the DHT said. */
static size_t grid_index(const struct options *options, const char *uid)
{
    size_t index = 0;
    const char *coordinate = uid + strlen(options->prefix);
    for (size_t d = 0; d < options->dims; d++) {
        char *end;
        index = index * options->grid[d] + strtoul(coordinate, &end, 10);
        coordinate = end + (*end == '.');
    }
    return index;
}

static void note_answers(struct training *training, const struct expertd_pass *pass, size_t rows)
{
    struct report *report = &training->report;
    size_t slots = training->options->is_switch ? 1 : training->options->k_best;
    for (size_t place = 0; place < rows * slots; place++) {
        const char *uid = expertd_pass_uid(pass, place / slots, place % slots);
        bool answered = uid && expertd_pass_weight(pass, place / slots, place % slots) > 0;
        report->unanswered += !answered;
        if (answered) {
            report->used[grid_index(training->options, uid)] = true;
        }
    }
    report->wanted += rows * slots;
}

/* Keeps the first message since the last line of progress. "" is none. */
static void note_failure(struct training *training)
{
    if (!training->report.failure[0]) {
        snprintf(training->report.failure, ERROR_SIZE, "%s", middle_message(&training->middle));
    }
}

/* Says whether it is worth going on after a call that was not OK; after a pause, then. */
static bool bear(struct training *training, enum expertd_status status)
{
    bool transient = status == EXPERTD_UNAVAILABLE || status == EXPERTD_DEADLINE_EXCEEDED;
    if (!transient || stopwatch_seconds(training->answered_ns) > PATIENCE_S) {
        fprintf(stderr, "train_mixture: %s: %s\n", expertd_status_name(status), middle_message(&training->middle));
        return false;
    }
    note_failure(training);
    struct timespec pause = {0, PAUSE_MS * 1000000L};
    nanosleep(&pause, NULL);
    return true;
}

/* One minibatch. A status that is not OK: it is lost, at least for the layer in front and the gate. */
static enum expertd_status train_minibatch(struct training *training, float learning_rate)
{
    struct expertd_pass *pass;
    struct middle *middle = &training->middle;
    struct minibatch *minibatch = &training->minibatch;
    struct report *report = &training->report;
    struct head *head = &training->head;
    size_t right;
    linear_forward(&head->front, minibatch->pixels, minibatch->rows, training->inputs);
    enum expertd_status status = middle_forward(middle, training->inputs, minibatch->rows, training->features, &pass);
    if (status != EXPERTD_OK) {
        return status;
    }
    note_failure(training);
    note_answers(training, pass, minibatch->rows);
    double loss = minibatch_train_back(minibatch, head, training->features, learning_rate, &right);
    report->loss += (double)minibatch->rows * loss;
    report->right += right;
    report->seen += minibatch->rows;
    status = middle_backward(middle, &pass, minibatch->gradient, minibatch->gradient);
    if (status == EXPERTD_OK) {
        note_failure(training);
        minibatch_front_gradient(minibatch, head);
        linear_step(&head->front, minibatch->head_gradient, learning_rate);
        middle_step(middle, learning_rate);
        training->answered_ns = stopwatch_ns();
    }
    return status;
}

static int train_epoch(struct training *training, float learning_rate)
{
    order_shuffle(&training->order);
    while (minibatch_take(&training->minibatch, &training->order) > 0) {
        enum expertd_status status = train_minibatch(training, learning_rate);
        if (status != EXPERTD_OK) {
            training->report.lost++;
            if (!bear(training, status)) {
                return -EIO;
            }
        }
    }
    return 0;
}

/* Percent of the test images that the model gets right; negative when the experts cannot be had. */
static double test_accuracy(struct training *training)
{
    const struct dataset *digits = training->digits;
    size_t right = 0, first = digits->train_count, count = digits->count;
    for (size_t rows; first < count; first += rows) {
        enum expertd_status status;
        size_t right_now;
        rows = count - first < training->options->rows ? count - first : training->options->rows;
        linear_forward(&training->head.front, digits->pixels + first * DATASET_PIXELS, rows, training->inputs);
        while ((status = middle_forward(&training->middle, training->inputs, rows, training->features, NULL)) !=
               EXPERTD_OK) {
            if (!bear(training, status)) {
                return -1;
            }
        }
        note_failure(training);
        training->answered_ns = stopwatch_ns();
        linear_forward(&training->head.back, training->features, rows, training->minibatch.logits);
        linear_cross_entropy(training->minibatch.logits, digits->labels + first, rows, DATASET_CLASSES, &right_now);
        right += right_now;
    }
    return 100.0 * (double)right / (double)(count - digits->train_count);
}

static void print_progress(const struct training *training, size_t epoch, double accuracy, double took, double since)
{
    const struct report *report = &training->report;
    double seen = report->seen ? (double)report->seen : 1;
    size_t used = 0;
    for (size_t i = 0; i < MAX_EXPERTS; i++) {
        used += report->used[i];
    }
    printf("epoch %3zu/%zu  loss %.4f  train %6.2f %%  test %6.2f %%  experts %2zu  unanswered %zu of %zu  "
           "%5.0f images/s  %5.1f s\n",
           epoch, training->options->epochs, report->loss / seen, 100.0 * (double)report->right / seen, accuracy, used,
           report->unanswered, report->wanted, (double)report->seen / took, since);
    if (report->lost > 0) {
        printf("  %zu minibatches were lost\n", report->lost);
    }
    if (report->failure[0]) {
        printf("  %s\n", report->failure);
    }
    fflush(stdout);
}

static int train(struct training *training)
{
    const struct options *options = training->options;
    const uint64_t begin_ns = stopwatch_ns();
    double accuracy = 0, printed = 0, took = 0;
    training->answered_ns = begin_ns;
    for (size_t epoch = 1; epoch <= options->epochs; epoch++) {
        double before = stopwatch_seconds(begin_ns);
        double rate = options->learning_rate * (double)(options->epochs + 1 - epoch) / (double)options->epochs;
        int rc = train_epoch(training, (float)rate);
        took += stopwatch_seconds(begin_ns) - before;
        accuracy = rc == 0 ? test_accuracy(training) : -1;
        if (accuracy < 0) {
            return -EIO;
        }
        double now = stopwatch_seconds(begin_ns);
        if (epoch == options->epochs || training->report.failure[0] || now - printed > PRINT_MS / 1e3) {
            print_progress(training, epoch, accuracy, took, now);
            printed = now;
            took = 0;
            training->report = (struct report){0};
        }
    }
    printf("test accuracy: %.2f %% of %zu digits\n", accuracy, training->digits->count - training->digits->train_count);
    if (accuracy < options->at_least) {
        fprintf(stderr, "train_mixture: accuracy is below %.2f %%\n", options->at_least);
        return -ERANGE;
    }
    return 0;
}

static void training_destroy(struct training *training)
{
    middle_destroy(&training->middle);
    expertd_dht_destroy(&training->dht);
    head_destroy(&training->head);
    order_destroy(&training->order);
    minibatch_destroy(&training->minibatch);
    free(training->inputs);
    free(training->features);
}

static int create_middle(struct training *training)
{
    const struct options *options = training->options;
    struct expertd_mixture_options mixture;
    if (options->is_switch) {
        expertd_switch_options_init(&mixture);
    } else {
        expertd_mixture_options_init(&mixture);
        mixture.k_best = (uint32_t)options->k_best;
    }
    mixture.in_features = (uint32_t)options->hidden;
    mixture.grid_size = options->grid;
    mixture.n_grid = options->dims;
    mixture.prefix = options->prefix;
    mixture.forward_timeout_ms = mixture.backward_timeout_ms = (uint32_t)(options->timeout_s * 1000);
    mixture.timeout_after_k_min_ms = mixture.forward_timeout_ms / 4;
    mixture.allow_zero_outputs = true;
    mixture.seed = 1;
    return middle_create(&training->middle, training->dht, &mixture, options->is_switch,
                         (float)options->balancing_weight);
}

static int training_create(struct training *training, const struct options *options, const struct dataset *digits)
{
    *training = (struct training){.options = options, .digits = digits};
    int rc = expertd_dht_new(&training->dht, options->dht, NULL);
    if (rc != 0) {
        fprintf(stderr, "train_mixture: %s: %s\n", options->dht, strerror(-rc));
        return rc;
    }
    rc = create_middle(training);
    if (rc == 0) {
        rc = head_create(&training->head, options->hidden, 1);
    }
    if (rc == 0) {
        rc = order_create(&training->order, digits, 1);
    }
    if (rc == 0) {
        rc = minibatch_create(&training->minibatch, options->rows, &training->head);
    }
    training->inputs = malloc(options->rows * options->hidden * sizeof(float));
    training->features = malloc(options->rows * options->hidden * sizeof(float));
    if (rc == 0 && (!training->inputs || !training->features)) {
        rc = -ENOMEM;
    }
    if (rc != 0) {
        fprintf(stderr, "train_mixture: %s\n",
                rc == -EINVAL ? "no mixture can have such a prefix, grid, --k or --timeout" : strerror(-rc));
    }
    return rc;
}

/* "4x16" */
static void parse_grid(struct options *options)
{
    size_t experts = 1;
    char *text = strdup(options->grid_text), *save;
    options->dims = 0;
    for (char *size = text ? strtok_r(text, "x", &save) : NULL; size; size = strtok_r(NULL, "x", &save)) {
        if (options->dims == MAX_DIMS) {
            flags_refuse("--grid has too many dimensions");
        }
        options->grid[options->dims] = (uint32_t)flags_count("grid", size, MAX_EXPERTS / experts);
        experts *= options->grid[options->dims++];
    }
    free(text);
    if (options->dims == 0) {
        flags_refuse("--grid must be like 4x16");
    }
}

static void parse_options(struct options *options, int argc, char **argv)
{
    const struct flag all[] = {
        {"dht", "URL", "of any expertd-dht", .text = &options->dht},
        {"prefix", "PREFIX", "of the experts' uids, with its dot", .text = &options->prefix},
        {"grid", "N[xN...]", "coordinates behind the prefix", .text = &options->grid_text},
        {"k", "N", "experts for each image", .count = &options->k_best, .most = MAX_EXPERTS},
        {"switch", NULL, "a switch instead: one expert for each image, and a loss that balances them",
         .given = &options->is_switch},
        {"balance", "R", "weight of that loss", .number = &options->balancing_weight, .most = 10},
        {"data", "FILE", "the digits", .text = &options->data},
        {"epochs", "N", "of training", .count = &options->epochs, .most = MAX_EPOCHS},
        {"rows", "N", "images in a minibatch", .count = &options->rows, .most = MAX_ROWS},
        {"hidden", "N", "hidden size of the experts", .count = &options->hidden, .most = HEAD_MAX_HIDDEN},
        {"learning-rate", "R", "of gate and layers at the start, falling to 0", .number = &options->learning_rate,
         .most = 10},
        {"timeout", "S", "how long experts are waited for", .number = &options->timeout_s, .least = 0.01, .most = 3600},
        {"at-least", "P", "exit with 1 when the test accuracy is below P percent", .number = &options->at_least,
         .most = 100},
        {0}};
    const struct flags flags = {
        .usage = "[options]",
        .purpose = "Trains on the handwritten digits through a mixture of experts that an expertd-dht finds.",
        .all = all};
    flags_parse(&flags, argc, argv);
    parse_grid(options);
}

int main(int argc, char **argv)
{
    struct options options = {.dht = "tcp://127.0.0.1:31331",
                              .prefix = "ffn.",
                              .data = "examples/data/digits.csv",
                              .grid_text = "4x4",
                              .epochs = 30,
                              .rows = 64,
                              .hidden = 64,
                              .k_best = 4,
                              .learning_rate = 0.003,
                              .balancing_weight = 0.5,
                              .timeout_s = 3};
    static struct training training;
    char error[ERROR_SIZE];
    struct dataset digits;
    expertd_tune_allocator();
    parse_options(&options, argc, argv);
    int rc = dataset_load_parts(&digits, options.data, error, sizeof error);
    if (rc != 0) {
        fprintf(stderr, "train_mixture: %s\n", error);
    } else {
        rc = training_create(&training, &options, &digits);
        if (rc == 0) {
            rc = train(&training);
        }
        training_destroy(&training);
    }
    dataset_destroy(&digits);
    return rc != 0;
}
