/* A module backend: an expert, its forward and its backward pool, and its record in the control segment. The runtime's
 * thread only. */
#ifndef EXPERTD_RUNTIME_BACKEND_H
#define EXPERTD_RUNTIME_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "pools/control.h"
#include "pools/pool.h"
#include "runtime/blocks/expert.h"
#include "runtime/state/checkpoint.h"
#include "runtime/state/checkpoint_owner.h"
#include "runtime/state/weights.h"

struct backend_pool {
    struct pool *pool; /* NULL until backend_open_pools */
    struct device_slab inputs[SCHEMA_MAX_TENSORS], outputs[SCHEMA_MAX_TENSORS];
};

/* What its parameters are from. */
enum backend_origin {
    BACKEND_OF_CHECKPOINT,
    BACKEND_OF_WEIGHTS,
    BACKEND_OF_MODEL, /* they alone: its optimizer, which it has, begins anew */
    BACKEND_OF_SEED,
    BACKEND_OF_NOTHING /* it has none */
};

struct backend {
    char uid[UID_SIZE];
    const struct config_expert *config;
    struct expert *expert;
    struct control_expert_shared *record; /* NULL while there is no control segment */
    struct backend_pool pools[2];         /* by enum pool_kind */
    struct pool_limits limits;
    enum backend_origin origin;
    struct checkpoint_window *window; /* of the checkpoint, until its pools have it; NULL: empty */
};

/* Creates the expert, with its newest checkpoint, whose owner it then is, or else the `weights` of its entry. owner
 * NULL: no checkpoints. weights: the models that are open, NULL: none stays so. 0 or -errno, logged. Everything given
 * but uid must outlive the backend. */
int backend_create(struct backend *backend, struct device *device, const struct config_expert *config, const char *uid,
                   const struct config_checkpoint *checkpoint, struct checkpoint_owner *owner, struct weights *weights);
/* Detaches from the pools, destroys the expert; safe on half-made ones and zeros. */
void backend_destroy(struct backend *backend);

/* Which segments the backend's pools live in. */
struct backend_place {
    const char *server, *device;
    uint64_t generation;
};
/* Chains what its two pools and its record depend on, for control_create. Its schemas are known before the segments
 * are, so this needs no place. */
uint64_t backend_fingerprint(const struct backend *backend, uint64_t chain);
/* Creates or adopts the two pools of expert number `index`; what failed of it, and the errors, as with pool_create and
 * pool_adopt. */
int backend_open_pools(struct backend *backend, const struct backend_place *place, uint32_t index, bool adopt);
/* Whether the names of both still lead to them. */
bool backend_pools_named(const struct backend *backend);
/* Unwraps the slabs and unmaps the segments, which stay. No batch may be in flight. */
void backend_close_pools(struct backend *backend);
/* Fills the record of a control segment that is not yet published, or brings the counters of an adopted one up to date;
 * keeps it. */
void backend_set_record(struct backend *backend, struct control_expert_shared *record, bool adopted);
/* Other settings, between two batches: those that a living expert can take on. `config` is kept in the place of its
 * entry; but what it was made of must live as well. */
void backend_set(struct backend *backend, const struct config_expert *config);
/* After a backward: shows the expert's counters. */
void backend_update_record(struct backend *backend);

#endif
