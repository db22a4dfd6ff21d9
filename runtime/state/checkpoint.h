/* Checkpoints of experts: safetensors files <dir>/<uid>/<updates, 20 digits>.safetensors.
 *
 * A file holds every tensor of the expert (runtime/blocks/expert.h has the names: the parameters as in PyTorch's
 * state_dict, then "optimizer.<state>.<parameter>"), all F32, and these strings as metadata, numbers in decimal: format
 * "expertd.checkpoint.1" uid, block, hidden_dim, optimizer update_count  optimizer steps applied      examples   rows
 * of applied backward batches skipped       backward batches skipped     accumulated   batches whose gradients wait for
 * the step data_checksum runtime/state/checksum.h of the data; whoever changes the tensors leaves it out A file of
 * another program needs only the parameters: what is missing of the optimizer starts at zero, and a missing
 * update_count is taken from the file's name.
 *
 * In the folder's name '/' and '%' of the uid are written %2F and %25. The folder belongs to one running server. */
#ifndef EXPERTD_RUNTIME_CHECKPOINT_H
#define EXPERTD_RUNTIME_CHECKPOINT_H

#include "runtime/blocks/expert.h"

/* The uid as a file name, into name[size]; -ENAMETOOLONG. */
int checkpoint_uid_name(const char *uid, char *name, size_t size);

/* Before the first write, when no other writes there: loads the newest checkpoint into the expert. One that is damaged
 * is set aside (<name>.damaged) with a warning, and the one before is taken; temporary files are removed. 1: loaded;
 * 0: there is none; or -errno after it logged what is wrong: all are damaged, the newest cannot be read, or a tensor
 * does not fit the expert (-EINVAL). */
int checkpoint_load(struct expert *expert, const char *dir, const char *uid);

/* Loads the parameters, and nothing else, from the file that the option `weights` names: {uid} in it is replaced by
 * checkpoint_uid_name. 0, or -errno after it logged what is wrong. */
int checkpoint_load_weights(struct expert *expert, const char *weights, const char *uid);

/* Writes a snapshot of the expert and then removes all but the `keep` newest files. Any one thread, while the expert
 * works on. 0 or -errno; logs nothing. */
int checkpoint_write(const struct expert *expert, const struct expert_snapshot *snapshot, const char *dir,
                     const char *uid, unsigned keep);

#endif
