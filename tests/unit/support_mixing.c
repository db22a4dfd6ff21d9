#include "tests/unit/support_mixing.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct mixing mixing;

static const uint32_t grid[] = {MIXING_GRID_A, MIXING_GRID_B};

static float pseudo_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1;
}

void mixing_open(void)
{
    uint32_t state = 7;
    memset(&mixing.known, 0, sizeof mixing.known);
    memset(mixing.servers, 0, sizeof mixing.servers);
    for (size_t i = 0; i < sizeof mixing.x / sizeof mixing.x[0]; i++)
        mixing.x[i] = pseudo_random(&state);
    for (size_t i = 0; i < sizeof mixing.g / sizeof mixing.g[0]; i++)
        mixing.g[i] = pseudo_random(&state);
    fake_dht_start(&mixing.known);
    for (size_t i = 0; i < 2; i++)
        experts_start(&mixing.servers[i], NULL);
    ck_assert_int_eq(expertd_dht_new(&mixing.dht, router_endpoint(mixing.known.router), NULL), 0);
    expertd_mixture_options_init(&mixing.options);
    mixing.options.in_features = EXPERTS_IN;
    mixing.options.out_features = EXPERTS_OUT;
    mixing.options.grid_size = grid;
    mixing.options.n_grid = 2;
    mixing.options.prefix = "ffn.";
    mixing.options.k_best = MIXING_K;
    mixing.options.forward_timeout_ms = mixing.options.backward_timeout_ms = mixing.options.timeout_after_k_min_ms =
        MIXING_LONG_MS;
    mixing.options.seed = 11;
    mixing.mixture = NULL;
    mixing.pass = NULL;
}

void mixing_close(void)
{
    expertd_pass_release(&mixing.pass);
    expertd_mixture_destroy(&mixing.mixture);
    expertd_dht_destroy(&mixing.dht);
    fake_dht_stop(&mixing.known);
    for (size_t i = 0; i < 2; i++)
        experts_stop(&mixing.servers[i]);
}

void mixing_host_all(size_t server)
{
    char uid[64];
    for (unsigned a = 0; a < MIXING_GRID_A; a++) {
        for (unsigned b = 0; b < MIXING_GRID_B; b++) {
            snprintf(uid, sizeof uid, "ffn.%u.%u", a, b);
            fake_dht_add(&mixing.known, uid, router_endpoint(mixing.servers[server].router));
        }
    }
}

void mixing_make(void)
{
    expertd_mixture_destroy(&mixing.mixture);
    ck_assert_int_eq(expertd_mixture_new(&mixing.mixture, mixing.dht, &mixing.options), 0);
}

void mixing_forward_as(enum expertd_status status)
{
    expertd_pass_release(&mixing.pass);
    const enum expertd_status is =
        expertd_mixture_forward(mixing.mixture, mixing.x, MIXING_ROWS, mixing.y, &mixing.pass);
    ck_assert_msg(is == status, "%s: %s", expertd_status_name(is), expertd_mixture_message(mixing.mixture));
    ck_assert((mixing.pass != NULL) == (status == EXPERTD_OK));
}

void mixing_backward_as(enum expertd_status status)
{
    const enum expertd_status is = expertd_mixture_backward(mixing.mixture, &mixing.pass, mixing.g, mixing.grad_x);
    ck_assert_msg(is == status, "%s: %s", expertd_status_name(is), expertd_mixture_message(mixing.mixture));
    ck_assert_ptr_null(mixing.pass);
}

static double score(const float *row, unsigned s)
{
    const struct expertd_gate *gate = expertd_mixture_gate(mixing.mixture);
    double sum = gate->bias[s];
    for (size_t i = 0; i < EXPERTS_IN; i++)
        sum += gate->weight[s * EXPERTS_IN + i] * row[i];
    return sum;
}

double mixing_uid_score(const float *row, const char *uid)
{
    unsigned a, b;
    ck_assert_int_eq(sscanf(uid, "ffn.%u.%u", &a, &b), 2);
    return score(row, a) + score(row, MIXING_GRID_A + b);
}

/* From the definition: the K best of all experts. */
static void reference(const float *row, const char *missing, double *out)
{
    char uids[MIXING_GRID_A * MIXING_GRID_B][64];
    bool taken[MIXING_GRID_A * MIXING_GRID_B] = {false};
    double weight[MIXING_K], sum = 0;
    const char *chosen[MIXING_K];
    for (unsigned i = 0; i < MIXING_GRID_A * MIXING_GRID_B; i++)
        snprintf(uids[i], sizeof uids[i], "ffn.%u.%u", i / MIXING_GRID_B, i % MIXING_GRID_B);
    for (size_t k = 0; k < MIXING_K; k++) {
        int best = -1;
        for (int i = 0; i < MIXING_GRID_A * MIXING_GRID_B; i++)
            if (!taken[i] && (best < 0 || mixing_uid_score(row, uids[i]) > mixing_uid_score(row, uids[best])))
                best = i;
        taken[best] = true;
        chosen[k] = uids[best];
        weight[k] = missing && strcmp(missing, chosen[k]) == 0 ? 0 : exp(mixing_uid_score(row, chosen[k]));
        sum += weight[k];
    }
    memset(out, 0, EXPERTS_OUT * sizeof *out);
    for (size_t k = 0; k < MIXING_K; k++) {
        float one[EXPERTS_OUT];
        experts_forward(chosen[k], row, one);
        for (size_t o = 0; o < EXPERTS_OUT && sum > 0; o++)
            out[o] += weight[k] / sum * one[o];
    }
}

void mixing_outputs_are_right(const char *missing)
{
    for (size_t r = 0; r < MIXING_ROWS; r++) {
        double expected[EXPERTS_OUT];
        reference(mixing.x + r * EXPERTS_IN, missing, expected);
        for (size_t o = 0; o < EXPERTS_OUT; o++)
            ck_assert_double_eq_tol(mixing.y[r * EXPERTS_OUT + o], expected[o], 1e-5);
    }
}

static double loss(void)
{
    double sum = 0;
    ck_assert_int_eq(expertd_mixture_forward(mixing.mixture, mixing.x, MIXING_ROWS, mixing.y, NULL), EXPERTD_OK);
    for (size_t i = 0; i < MIXING_ROWS * EXPERTS_OUT; i++)
        sum += (double)mixing.g[i] * mixing.y[i];
    return sum;
}

void mixing_derivative_is(float *parameter, float gradient)
{
    const float before = *parameter, step = 4e-3F;
    *parameter = before + step;
    const double up = loss();
    *parameter = before - step;
    const double down = loss();
    *parameter = before;
    ck_assert_double_eq_tol(gradient, (up - down) / (2 * (double)step), 2e-4);
}
