/* What the option `weights` of an expert's entry names, loaded into the expert:
 *   - a file with the state dict of one expert, by the parameters' own names (runtime/state/checkpoint.h);
 *   - or a model: a folder, an index or a file of a public checkpoint (runtime/state/shards.h), where the entry's
 * `tensors` say for each parameter which part of which tensor it is (common/tensor_part.h), or else the layout is one
 * that is known (runtime/state/layouts.h). What the files store is read as runtime/state/stored.h says. Everything of
 * an expert is read and checked before any of it is written. The thread of the device. */
#ifndef EXPERTD_RUNTIME_WEIGHTS_H
#define EXPERTD_RUNTIME_WEIGHTS_H

#include "runtime/blocks/expert.h"

/* Models whose files are open, so that the experts of one open them once. */
struct weights;

int weights_create(struct weights **weights); /* -ENOMEM */
void weights_destroy(struct weights **weights);
/* Closes the files, until an expert needs one again. */
void weights_close(struct weights *weights);

/* 0: with what the file knows of the optimizer; 1: parameters alone, of a model's tensors, and an optimizer's state
 * that stands beside them is said to be left out; -errno after it logged what is wrong. */
int weights_load(struct weights *weights, struct expert *expert, const char *uid);

#endif
