/* A mixture over a grid of experts that two servers may host, found through a DHT that the test fills: a checked
 * fixture, and what the mixture has to compute. */
#ifndef EXPERTD_TESTS_SUPPORT_MIXING_H
#define EXPERTD_TESTS_SUPPORT_MIXING_H

#include "client/expertd_moe.h"
#include "tests/unit/support_experts.h"

enum {
    MIXING_ROWS = 5,
    MIXING_GRID_A = 3,
    MIXING_GRID_B = 4,
    MIXING_SCORES = MIXING_GRID_A + MIXING_GRID_B,
    MIXING_K = 3,
    MIXING_LONG_MS = 500000,
};

struct mixing {
    struct fake_dht known;
    struct experts servers[2];
    struct expertd_dht *dht;
    struct expertd_mixture_options options; /* a top-k mixture of "ffn.", which waits for every answer */
    struct expertd_mixture *mixture;        /* NULL before mixing_make() */
    struct expertd_pass *pass;
    float x[MIXING_ROWS * EXPERTS_IN], grad_x[MIXING_ROWS * EXPERTS_IN];
    float y[MIXING_ROWS * EXPERTS_OUT], g[MIXING_ROWS * EXPERTS_OUT]; /* g: gradient by y */
};
extern struct mixing mixing;

/* The fixture: both servers run, the DHT knows of no expert. */
void mixing_open(void);
void mixing_close(void);

/* All experts of the grid at that server. */
void mixing_host_all(size_t server);
/* A new mixture of the options. */
void mixing_make(void);
/* y of x, as a new pass. */
void mixing_forward_as(enum expertd_status status);
/* Ends the pass: grad_x of g. */
void mixing_backward_as(enum expertd_status status);

/* What the gate says of an expert. */
double mixing_uid_score(const float *row, const char *uid);
/* y is what the mixture has to give when the expert `missing` (NULL: none) does not answer. */
void mixing_outputs_are_right(const char *missing);
/* `gradient` is that of the sum of g * y by *parameter: central differences. */
void mixing_derivative_is(float *parameter, float gradient);

#endif
