/* libexpertd, second part: experts that are found by their uid, and mixtures of them.
 *
 *     struct expertd_dht *dht;
 *     struct expertd_mixture *mixture;
 *     struct expertd_mixture_options options;
 *     const uint32_t grid_size[] = {4, 16};
 *     expertd_dht_new(&dht, "tcp://127.0.0.1:31331", NULL);
 *     expertd_mixture_options_init(&options);
 *     options.in_features = 1024;
 *     options.grid_size = grid_size, options.n_grid = 2, options.prefix = "ffn.", options.k_best = 4;
 *     expertd_mixture_new(&mixture, dht, &options);
 *     expertd_mixture_forward(mixture, x, rows, y, &pass);
 *     expertd_mixture_backward(mixture, &pass, grad_y, grad_x);    // the experts learn; the gate's gradients are added
 * up
 *     ... the program's optimizer steps on the gate's weight and bias by their gradients ...
 *
 * Threads: a dht, and everything that was made with it, is used by one thread at a time. Nothing hangs: every function
 * that waits has a deadline. An expertd_dht must outlive what was made with it. */
#ifndef EXPERTD_CLIENT_EXPERTD_MOE_H
#define EXPERTD_CLIENT_EXPERTD_MOE_H

#include "expertd.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- dht: look-ups, and the connections to the servers that they find ------------------------------------------ */

struct expertd_dht;

/* Begin with expertd_dht_options_init(). Zero in a field means its default. */
struct expertd_dht_options {
    size_t size;                /* of this struct */
    uint32_t lookup_timeout_ms; /* of one look-up; 5000 */
    uint32_t cache_ms;          /* for how long a uid's servers are believed; 10000. A failure ends it early */
    const struct expertd_client_options *client; /* of the connections, copied; their zmq_context is shared by all */
};
static inline void expertd_dht_options_init(struct expertd_dht_options *options)
{
    const struct expertd_dht_options defaults = {sizeof(struct expertd_dht_options), 0, 0, NULL};
    *options = defaults;
}

/* endpoint: of an expertd-dht; NULL: there is none, and experts are named by endpoint and uid. options may be NULL.
 * -EINVAL, -E2BIG, -EMFILE, -ENOMEM as of expertd_client_new(). */
EXPERTD_API int expertd_dht_new(struct expertd_dht **dht, const char *endpoint,
                                const struct expertd_dht_options *options);
EXPERTD_API void expertd_dht_destroy(struct expertd_dht **dht);

struct expertd_dht_counters {
    size_t size;      /* of this struct */
    uint64_t lookups; /* questions to expertd-dht: RESOLVE and BEAM_SEARCH */
    uint64_t failed_lookups;
    uint64_t servers;   /* connections now */
    uint64_t failovers; /* calls repeated on another server */
    uint64_t retries;   /* backward calls repeated on the same server */
};
/* Fills the counters up to counters->size, which has to be set. */
EXPERTD_API void expertd_dht_read_counters(const struct expertd_dht *dht, struct expertd_dht_counters *counters);
static inline void expertd_dht_counters(const struct expertd_dht *dht, struct expertd_dht_counters *counters)
{
    counters->size = sizeof *counters;
    expertd_dht_read_counters(dht, counters);
}

/* ---- tasks of remote experts ----------------------------------------------------------------------------------- */

/* An expert somewhere (hivemind's RemoteExpert). By uid alone it is looked up when it is called: calls go to the server
 * with the fewest of this dht's calls in flight, in turn among equals; when a server fails, to the next; when all have,
 * the uid is looked up again, until the deadline. */
struct expertd_expert;

/* -EINVAL for what is no uid, or for no dht endpoint to look it up; -ENOMEM. */
EXPERTD_API int expertd_expert_new(struct expertd_expert **expert, struct expertd_dht *dht, const char *uid);
/* On that server only, without any look-up. -EINVAL, too, for what is no endpoint. */
EXPERTD_API int expertd_expert_at(struct expertd_expert **expert, struct expertd_dht *dht, const char *endpoint,
                                  const char *uid);
EXPERTD_API void expertd_expert_destroy(struct expertd_expert **expert); /* its tasks may live on */

/* A call that finds its server: as struct expertd_call, but it may go to several servers in turn. A backward goes to
 * another server only if the one before has certainly not applied it; otherwise it is repeated on the same server,
 * where it is applied at most once. */
struct expertd_task;

/* Each returns 0 and a task, or -ENOMEM. deadline_ms is of the whole task; 0: the client options'. Tensors are copied,
 * or borrowed as their free_fn says: until the task is released. */
EXPERTD_API int expertd_expert_forward(struct expertd_expert *expert, const struct expertd_tensor *inputs,
                                       size_t n_inputs, uint32_t deadline_ms, struct expertd_task **task);
EXPERTD_API int expertd_expert_backward(struct expertd_expert *expert, const struct expertd_tensor *inputs,
                                        size_t n_inputs, const struct expertd_tensor *grad_outputs,
                                        size_t n_grad_outputs, uint32_t deadline_ms, struct expertd_task **task);
/* Of those inputs alone whose gradients are wanted: requires_grad as for expertd_backward_for(). */
EXPERTD_API int expertd_expert_backward_for(struct expertd_expert *expert, const struct expertd_tensor *inputs,
                                            size_t n_inputs, const bool *requires_grad,
                                            const struct expertd_tensor *grad_outputs, size_t n_grad_outputs,
                                            uint32_t deadline_ms, struct expertd_task **task);

/* As expertd_call_wait() and expertd_poll(), for all tasks of the dht. */
EXPERTD_API int expertd_task_wait(struct expertd_task *task, int timeout_ms);
EXPERTD_API int expertd_dht_poll(struct expertd_dht *dht, int timeout_ms);
EXPERTD_API bool expertd_task_done(const struct expertd_task *task);
EXPERTD_API void expertd_task_release(struct expertd_task **task);

EXPERTD_API enum expertd_status expertd_task_status(const struct expertd_task *task);
EXPERTD_API const char *expertd_task_message(const struct expertd_task *task);
EXPERTD_API bool expertd_task_not_applied(const struct expertd_task *task);
EXPERTD_API const char *expertd_task_endpoint(const struct expertd_task *task); /* the last server; NULL: none */
EXPERTD_API size_t expertd_task_output_count(const struct expertd_task *task);
EXPERTD_API const struct expertd_tensor *expertd_task_output(const struct expertd_task *task, size_t index);

/* ---- mixtures -------------------------------------------------------------------------------------------------- */

/* The gate is a linear layer from in_features to sum(grid_size) scores; an expert's score is the sum of its
 * coordinates' scores. Each row goes to the k_best live experts with the highest scores, which a beam search by the
 * expertd-dht finds; each expert gets one call with all rows that chose it (several, if they are more than max_rows).
 * Inputs and outputs are float32. */

/* Begin with expertd_mixture_options_init() or expertd_switch_options_init(). */
struct expertd_mixture_options {
    size_t size; /* of this struct */
    uint32_t in_features;
    uint32_t out_features;     /* 0: as in_features */
    const uint32_t *grid_size; /* n_grid numbers; copied */
    size_t n_grid;
    const char *prefix; /* what stands before the first coordinate, with its dot: "ffn."; copied */
    uint32_t k_best;    /* experts for each row; 4 */
    /* Once each row has answers of k_min experts, others are waited for no longer than timeout_after_k_min_ms. Fewer
     * answers than k_min to all rows together are an error. 1; of a switch 0: wait for all, accept none. */
    uint32_t k_min;
    uint32_t backward_k_min;         /* the same of a backward; 1; of a switch 0 */
    uint32_t forward_timeout_ms;     /* 30000 */
    uint32_t timeout_after_k_min_ms; /* 1000 */
    uint32_t backward_timeout_ms;    /* 30000 */
    bool detect_anomalies; /* inputs and gradients with NaN or Inf are refused, answers with them count as failures; no
                            */
    bool allow_zero_outputs; /* a row without any answer becomes zeros, not an error; no; of a switch yes */
    uint32_t max_rows;       /* of one call: the experts' max_batch_size or less; 1024 */
    uint64_t seed;           /* of the gate's first weights, and of a switch's jitter and dropout; 0: random */
    /* Of a switch only: */
    float utilization_alpha; /* of the moving average of how often each coordinate is used; 0.9 */
    float grid_dropout;      /* the probability that a coordinate is KEPT in a training pass; 1 */
    float jitter_eps;        /* the gate sees inputs times a uniform random number within 1 - eps ... 1 + eps; 0.01 */
};

/* hivemind's RemoteMixtureOfExperts: outputs are averaged by the softmax of the scores of the experts that answered. */
struct expertd_mixture;
/* hivemind's RemoteSwitchMixtureOfExperts (Switch Transformers, Fedus et al. 2021): each output is multiplied by its
 * expert's probability, the product over the dimensions of the softmax over that dimension's scores; k_best is 1.
 * A balancing loss, sum over the dimensions of size * sum over coordinates of (mean probability * utilization), keeps
 * the experts busy alike. */
struct expertd_switch;
/* What a backward needs of its forward. */
struct expertd_pass;

/* Set every field, up to options->size, which has to be set, to its default. */
EXPERTD_API void expertd_mixture_options_default(struct expertd_mixture_options *options);
EXPERTD_API void expertd_switch_options_default(struct expertd_mixture_options *options);
static inline void expertd_mixture_options_init(struct expertd_mixture_options *options)
{
    options->size = sizeof *options;
    expertd_mixture_options_default(options);
}
static inline void expertd_switch_options_init(struct expertd_mixture_options *options)
{
    options->size = sizeof *options;
    expertd_switch_options_default(options);
}

/* -EINVAL for options that make no sense (a missing size or prefix, k_min above k_best, ...); -E2BIG; -ENOMEM. The
 * gate's weights start uniform within 1/sqrt(in_features), as PyTorch's. */
EXPERTD_API int expertd_mixture_new(struct expertd_mixture **mixture, struct expertd_dht *dht,
                                    const struct expertd_mixture_options *options);
EXPERTD_API void expertd_mixture_destroy(struct expertd_mixture **mixture); /* release its passes before */
EXPERTD_API int expertd_switch_new(struct expertd_switch **mixture, struct expertd_dht *dht,
                                   const struct expertd_mixture_options *options);
EXPERTD_API void expertd_switch_destroy(struct expertd_switch **mixture);

/* inputs: rows x in_features; outputs: rows x out_features. pass NULL: no backward follows; a switch then neither
 * jitters nor drops, and its utilization stays. OK, or
 *   DEADLINE_EXCEEDED  fewer than k_min answers in time, or a row without any (unless allow_zero_outputs),
 *   UNAVAILABLE        no live expert, or no answer from expertd-dht,
 *   INVALID_ARGUMENT   NaN or Inf in the inputs (detect_anomalies) or in the scores,
 *   RESOURCE_EXHAUSTED no memory;
 * outputs are then not changed and there is no pass. Experts that fail contribute nothing. */
EXPERTD_API enum expertd_status expertd_mixture_forward(struct expertd_mixture *mixture, const float *inputs,
                                                        size_t rows, float *outputs, struct expertd_pass **pass);
/* balancing_loss may be NULL. */
EXPERTD_API enum expertd_status expertd_switch_forward(struct expertd_switch *mixture, const float *inputs, size_t rows,
                                                       float *outputs, float *balancing_loss,
                                                       struct expertd_pass **pass);

/* grad_outputs: of the loss by the outputs. Sends each expert that answered the forward its rows' gradients (it
 * learns), writes the gradient by the inputs to grad_inputs (NULL: not wanted), adds the gradient by the gate's weight
 * and bias to their gradients. Experts that fail now contribute nothing to grad_inputs. Releases the pass, in every
 * case. Statuses as of a forward; the gate's gradients and grad_inputs have not changed unless it is OK. */
EXPERTD_API enum expertd_status expertd_mixture_backward(struct expertd_mixture *mixture, struct expertd_pass **pass,
                                                         const float *grad_outputs, float *grad_inputs);
/* The loss by which is derived includes balancing_weight times the balancing loss. */
EXPERTD_API enum expertd_status expertd_switch_backward(struct expertd_switch *mixture, struct expertd_pass **pass,
                                                        const float *grad_outputs, float balancing_weight,
                                                        float *grad_inputs);

/* Why the last forward or backward was not OK, or which experts failed though it was; "" when none did. */
EXPERTD_API const char *expertd_mixture_message(const struct expertd_mixture *mixture);
EXPERTD_API const char *expertd_switch_message(const struct expertd_switch *mixture);

/* The gate, of the mixture or switch: weight is sum(grid_size) x in_features, bias sum(grid_size). The program reads
 * and writes them between calls: it steps, zeroes the gradients, saves and loads. */
struct expertd_gate {
    size_t in_features, n_scores;
    float *weight, *bias;
    float *weight_grad, *bias_grad;
};
EXPERTD_API struct expertd_gate *expertd_mixture_gate(struct expertd_mixture *mixture);
EXPERTD_API struct expertd_gate *expertd_switch_gate(struct expertd_switch *mixture);
/* sum(grid_size) numbers: of each dimension, how often each coordinate was used, as shares of 1. */
EXPERTD_API const float *expertd_switch_utilization(const struct expertd_switch *mixture);

/* What a pass chose: the slot-th best expert of a row (NULL: none), and its weight in the output (0: it gave no
 * answer). slot < k_best. */
EXPERTD_API const char *expertd_pass_uid(const struct expertd_pass *pass, size_t row, size_t slot);
EXPERTD_API float expertd_pass_weight(const struct expertd_pass *pass, size_t row, size_t slot);
/* Gives up the backward. Nulls *pass; NULL is fine. */
EXPERTD_API void expertd_pass_release(struct expertd_pass **pass);

#ifdef __cplusplus
}
#endif

#endif
