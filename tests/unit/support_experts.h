/* Servers of experts that compute something differentiable, and an expertd-dht that knows where they are: in threads of
 * this process, for tests of those who look experts up and mix them. */
#ifndef EXPERTD_TESTS_SUPPORT_EXPERTS_H
#define EXPERTD_TESTS_SUPPORT_EXPERTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "proto/dht.pb-c.h"
#include "tests/unit/support_router.h"

enum { EXPERTS_MAX = 512, EXPERTS_IN = 3, EXPERTS_OUT = 2 };

/* Every uid is an expert here: y = tanh(A x + c), with A and c drawn from a hash of the uid, EXPERTS_IN -> EXPERTS_OUT
 * floats a row. */
void experts_forward(const char *uid, const float *x, float *y);

struct experts {
    struct router *router;
    atomic_int forwards, backwards; /* answered OK */
    atomic_int rows;                /* of the forwards */
    /* What goes wrong from now on; 0: nothing. */
    atomic_int status;                    /* every FORWARD and BACKWARD is answered so */
    atomic_int failing;                   /* only so many of them; -1: all */
    atomic_int then_status, then_failing; /* after those so many so */
    atomic_bool silent;                   /* no answers at all */
    atomic_bool nan;                      /* outputs are NaN */
    atomic_bool wrong_shape;              /* outputs have a feature too many */
    char silent_uid[64];                  /* set before the start: this expert never answers */
    _Atomic uint64_t last_backward_id;    /* its request id */
    atomic_int repeated_backwards;        /* with the id of the one before */
};
/* endpoint NULL: a free one. */
void experts_start(struct experts *experts, const char *endpoint);
void experts_stop(struct experts *experts);

/* An expertd-dht that answers RESOLVE and BEAM_SEARCH (by exhaustive search) over what it was told. */
struct fake_dht {
    struct router *router;
    pthread_mutex_t mutex;
    size_t count;
    struct {
        char uid[64];
        char endpoint[128];
    } known[EXPERTS_MAX];
    atomic_int resolves, beams;
    atomic_bool silent;
};
void fake_dht_start(struct fake_dht *dht);
void fake_dht_stop(struct fake_dht *dht);
void fake_dht_add(struct fake_dht *dht, const char *uid, const char *endpoint);
/* All uids of this endpoint; NULL: all. */
void fake_dht_remove(struct fake_dht *dht, const char *endpoint);

#endif
