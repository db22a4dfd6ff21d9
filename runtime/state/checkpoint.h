/* Checkpoints of experts: safetensors files <dir>/<uid>/<updates, 20 digits>.safetensors.
 *
 * A file holds every tensor of the expert (runtime/blocks/expert.h has the names: the parameters as in PyTorch's
 * state_dict, then "optimizer.<state>.<parameter>"), all F32; "optimizer.applied", the window of at-most-once, if it is
 * not empty; and these strings as metadata, numbers in decimal:
 *     format           "expertd.checkpoint.2"
 *     uid, block, hidden_dim, optimizer
 *     update_count     optimizer steps applied
 *     examples         rows of applied backward batches
 *     skipped          backward batches skipped
 *     accumulated      batches whose gradients wait for the step
 *     data_checksum    runtime/state/checksum.h of the data
 *     header_checksum  of the header (runtime/state/safetensors.h)
 * Whoever changes a file leaves out the format and both checksums. A file of another program needs only the parameters:
 * what is missing of the optimizer starts at zero, and a missing update_count is taken from the file's name.
 *
 * "optimizer.applied" is I64[n, 3]: the client's two halves and the request id of each applied backward, oldest first,
 * as the bits of unsigned numbers. So a repeat of one that these parameters have learned from is known as such by the
 * next runtime, whatever became of the task pools.
 *
 * In the folder's name '/' and '%' of the uid are written %2F and %25. An expert's folder has one owner at a time
 * (runtime/state/checkpoint_owner.h); files and folders are for its user alone. What does not train is only read. */
#ifndef EXPERTD_RUNTIME_CHECKPOINT_H
#define EXPERTD_RUNTIME_CHECKPOINT_H

#include "pools/applied.h"
#include "runtime/blocks/expert.h"

/* The newest applied backwards of an expert, oldest first. */
struct checkpoint_window {
    uint32_t count;
    struct applied_key keys[POOL_APPLIED_RECORDS];
};

/* The uid as a file name, into name[size]; -ENAMETOOLONG. */
int checkpoint_uid_name(const char *uid, char *name, size_t size);

/* Makes the folder for this user alone; its parent must be there. 0 too when it is there already. */
int checkpoint_make_folder(const char *path);

/* Before the first write, when no other writes there: loads the newest checkpoint into the expert, and its window. A
 * file that is damaged, or of which a tensor holds what no expert may have (NaN, Inf), is no checkpoint: the one before
 * is taken, and the damaged one set aside (<name>.damaged). Where no good one is left nothing is touched, so that every
 * start is refused until a person decides: restores one, empties the folder, or sets start_anew, which sets all aside.
 * Temporary files are removed. One that has fewer updates than its name says (a copy of an older one, by which a person
 * goes back) is called after them from now on, and those that are not older than it are set aside (<name>.superseded).
 * 1: loaded; 0: there is none; or -errno after it logged what is wrong: all are damaged (-EPROTO), the newest cannot be
 * read, or a tensor does not fit the expert (-EINVAL). */
int checkpoint_load(struct expert *expert, const char *dir, const char *uid, bool start_anew,
                    struct checkpoint_window *window);

/* What the option `weights` names for an expert: {uid} in it is replaced by checkpoint_uid_name. `size` at least
 * PATH_MAX. -ENAMETOOLONG, logged. */
int checkpoint_weights_path(char *path, size_t size, const char *weights, const char *uid);
/* Loads such a file with a state dict of one expert. Of the optimizer's state and counters what is there goes along. 0,
 * or -errno after it logged what is wrong. */
int checkpoint_load_weights(struct expert *expert, const char *weights, const char *uid);

/* Writes a snapshot of the expert and then removes all but the `keep` newest files. window: NULL is an empty one. Any
 * one thread, while the expert works on. 0 or -errno; logs no error. */
int checkpoint_write(const struct expert *expert, const struct expert_snapshot *snapshot,
                     const struct checkpoint_window *window, const char *dir, const char *uid, unsigned keep);

#endif
