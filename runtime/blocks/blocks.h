/* The blocks that are built in, and what they share. */
#ifndef EXPERTD_RUNTIME_BLOCKS_H
#define EXPERTD_RUNTIME_BLOCKS_H

#include "runtime/blocks/expert.h"

extern const struct expert_ops expert_engine; /* runtime/blocks/engine.c */
extern const struct expert_ops expert_nop;    /* runtime/blocks/nop.c */

/* Fills the common part of an expert that is being created: config, optimizer, schemas. */
int blocks_prepare(struct expert *expert, const struct expert_ops *ops, struct device *device,
                   const struct config_expert *config);

#endif
