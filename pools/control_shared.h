/* A device's control segment, byte for byte: "/expertd.<server>.<device>.control". What the frontend and one runtime
 * share beside the pools. Each runtime (device) has its own, so that devices come and go alone.
 *
 *     page 0           struct control_shared
 *     ready_offset     _Atomic uint64_t[words]: bit p: pool p may have queued tasks   (frontend sets, runtime takes)
 *     done_offset      _Atomic uint64_t[words]: bit p: pool p may have results        (runtime sets, frontend takes)
 *     experts_offset   struct control_expert_shared[experts_count]; expert e has pools 2e (forward) and 2e + 1
 * (backward)
 *
 * Experts come and go while a server runs, so the table has room for more of them than there are: experts_count counts
 * its slots, of which each is used or free. The runtime alone says which: a slot's record and pools are made before it
 * is used, and it is free before they go. slots_version grows with every change, so that a frontend looks again.
 *
 * How it is changed: the frontend writes a proposal (common/config_live.h), asks each runtime to PREPARE what differs
 * for it (it saves what is to go and makes what is to come, in free slots: nothing that is served changes), lets the
 * proposal be what is live, which is the moment from which on it counts whoever dies, and then asks for COMMIT; or,
 * when one of them refuses, for ABORT. Before it asks it has ended what it had in the pools of those that go, so that
 * they are empty. A new frontend ends the claim: it begins an epoch before it looks at slots, and the runtime looks at
 * the epoch after it has set a slot free (all of them sequentially consistent): one of the two sees the other.
 *
 * words = ceil(2 * experts_count / 64): 8,192 pools are 128 words to scan. A bit is set (fetch_or, release) after the
 * pool's position moved, and taken (exchange with 0, acquire) before the position is read; a position that moves after
 * that read sets the bit again. So no task is missed.
 *
 * Death. The runtime publishes state = CONTROL_READY last; a segment in another state is thrown away by the next one. A
 * restarted runtime with the same fingerprint adopts control and pools; else it sets CONTROL_RETIRED, removes the
 * segments and creates the next generation. A frontend that sees RETIRED answers UNAVAILABLE for what it had there,
 * detaches and waits for the next one. A dead runtime's segments stay READY: that it is dead is seen by its owner lock
 * (common/owner.h), that it hangs by completed_batches standing still while busy_since_ns is set.
 *
 * Damage. A live runtime whose segments have lost their names, or in which either side has found what cannot be, makes
 * all of them anew under the next generation, and the old ones RETIRED: so what waits is answered, and both sides agree
 * by the rules above. A frontend that finds it says so in renewal_wanted; or, when it cannot attach at all, by the
 * state CONTROL_REFUSED. */
#ifndef EXPERTD_POOLS_CONTROL_SHARED_H
#define EXPERTD_POOLS_CONTROL_SHARED_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>

#include "common/block.h"
#include "common/doorbell.h"
#include "common/histogram.h"
#include "common/tensor.h"
#include "common/uid.h"
#include "pools/pool_shared.h"

#define CONTROL_MAGIC UINT64_C(0x31306c7274637865) /* "exctrl01" */
enum { CONTROL_VERSION = 6, CONTROL_NAME_SIZE = 40, CONTROL_MAX_EXPERTS = 1 << 20 };

enum control_state { CONTROL_CREATING = 0, CONTROL_READY = 1, CONTROL_RETIRED = 2, CONTROL_REFUSED = 3 };

enum control_slot { CONTROL_SLOT_USED = 0, CONTROL_SLOT_FREE = 1 };

enum control_phase { CONTROL_PREPARE = 1, CONTROL_COMMIT = 2, CONTROL_ABORT = 3 };
enum { CONTROL_WHY_SIZE = 384 };

/* Counters of the runtime; control_counter_name() has their names. */
enum control_counter {
    CONTROL_BATCHES,           /* completed */
    CONTROL_TASKS,             /* completed with OK */
    CONTROL_ROWS,              /* of them */
    CONTROL_FAILED_TASKS,      /* completed with INTERNAL */
    CONTROL_SKIPPED_TASKS,     /* not run: expired, cancelled, or a backward applied before */
    CONTROL_STEPS,             /* optimizer steps */
    CONTROL_SKIPPED_STEPS,     /* for NaN or Inf */
    CONTROL_BUSY_NS,           /* time with a batch on the device */
    CONTROL_CHECKPOINTS,       /* written */
    CONTROL_CHECKPOINT_ERRORS, /* not written */
    CONTROL_SLEEPS,            /* of the runtime on its doorbell */
    CONTROL_PAGE_FAULTS,       /* of the runtime, since READY */
    CONTROL_CLOSED_FULL,       /* batches taken because no further task could join them */
    CONTROL_CLOSED_ROWS,       /* because the rows that they waited for were there */
    CONTROL_CLOSED_TIMEOUT,    /* because the wait was over */
    CONTROL_CLOSED_FREE,       /* because the device was free, and nothing was waited for */
    CONTROL_CLOSED_PACE,       /* because a wait for clients that had just been answered was over */
    CONTROL_MEMORY_USED,       /* not counted but set: bytes of the device that the experts take */
    CONTROL_MEMORY_LIMIT,      /* likewise: bytes that they may take */
    CONTROL_CHECKPOINT_TIME,   /* likewise: when the newest checkpoint was written, in s since 1970 */
    CONTROL_COUNTERS,
};

/* What is measured of the batches of each kind of pool. */
enum control_histogram {
    CONTROL_QUEUE_TIME,   /* of each task, from its arrival until its batch was taken */
    CONTROL_COMPUTE_TIME, /* of each batch, from when it was taken, or the batch before it was done, until it was done
                           */
    CONTROL_BATCH_ROWS,   /* of each batch */
    CONTROL_HISTOGRAMS,
};

/* A value of one of the block's arguments. */
struct control_argument_shared {
    char name[BLOCK_NAME_SIZE];
    double value;
    char text[BLOCK_WORD_SIZE]; /* of one that is a word; "" */
};

struct control_expert_shared {
    char uid[UID_SIZE];
    char block[32];
    char optimizer[16];
    char schedule[16];
    uint64_t hidden_dim, max_batch_size;
    double learning_rate, beta1, beta2, epsilon, momentum, clip_norm;
    uint64_t warmup_steps, total_steps, grad_accumulation;
    uint64_t forward_only; /* 1: it takes no backward */
    uint64_t arguments_count;
    struct control_argument_shared arguments[BLOCK_ARGUMENTS_MAX];
    struct schema inputs, outputs; /* of forward */
    struct {
        alignas(POOL_LINE) _Atomic uint64_t updates, examples, skipped_steps;
        _Atomic uint64_t checkpoint_served; /* newest ticket that was carried out */
        _Atomic uint32_t checkpoint_errno;  /* of that one; 0: written */
        _Atomic uint32_t slot;              /* enum control_slot */
        _Atomic uint64_t version;           /* odd while what is above is being changed */
        _Atomic uint64_t fingerprint;       /* of the expert's layouts and settings */
    } runtime;
    struct {
        alignas(POOL_LINE) _Atomic uint64_t checkpoint_requested; /* ticket */
    } frontend;
};

struct control_shared {
    uint64_t magic;
    uint32_t version;
    uint32_t experts_count;
    uint64_t segment_bytes;
    uint64_t generation;
    uint64_t fingerprint; /* of what makes two segments alike, beside the experts */
    uint64_t ready_offset, done_offset, experts_offset;
    char server[CONTROL_NAME_SIZE], device[CONTROL_NAME_SIZE];

    struct {
        alignas(POOL_LINE) _Atomic uint32_t state; /* enum control_state; released last, acquired first */
        _Atomic uint32_t pid;
        _Atomic uint64_t completed_batches; /* the heartbeat: completed work */
        _Atomic uint64_t completed_ns;
        _Atomic uint64_t busy_since_ns; /* 0: nothing to do */
        _Atomic uint64_t slots_version;
        _Atomic uint64_t config; /* the fingerprint of the live configuration that it has */
    } runtime;
    struct {
        alignas(POOL_LINE) _Atomic uint64_t served; /* the change that was asked for last, and done or refused */
        _Atomic uint32_t status;                    /* of that; enum status */
        char why[CONTROL_WHY_SIZE];                 /* for a person, unless it is OK */
    } change;
    struct {
        alignas(POOL_LINE) _Atomic uint64_t counters[CONTROL_COUNTERS];
        alignas(POOL_LINE) struct histogram histograms[2][CONTROL_HISTOGRAMS]; /* by enum pool_kind */
    } statistics;                      /* the runtime's too, on lines that the frontend reads seldom */
    struct doorbell_word runtime_bell; /* the runtime sleeps here, the frontend rings */
    struct {
        alignas(POOL_LINE) _Atomic uint64_t epoch; /* of the frontend; grows at each of its starts */
        _Atomic uint32_t sleeping;                 /* ring the frontend's FIFO (set by it, cleared by either) */
        _Atomic uint32_t pid;
        _Atomic uint64_t checkpoint_commands; /* grows with every ticket that is written to an expert */
        _Atomic uint64_t change_wanted;       /* its number << 2 | enum control_phase */
        _Atomic uint64_t renewal_wanted;      /* the generation, of which something is damaged or gone */
    } frontend;
};

_Static_assert(sizeof(struct control_shared) <= POOL_PAGE, "the header is one page");

#endif
