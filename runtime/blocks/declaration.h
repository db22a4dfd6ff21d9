/* The declaration of an expert's block (common/block.h): built in, of the configuration, or of a shared object. */
#ifndef EXPERTD_RUNTIME_DECLARATION_H
#define EXPERTD_RUNTIME_DECLARATION_H

#include "common/block.h"
#include "common/config.h"

/* NULL if the expert's block has none. */
const struct block *declaration_find(const struct config_expert *config);
/* What it is with the expert's arguments (free() it), or -EINVAL after a logged message. */
int declaration_graph(const struct config_expert *config, struct block_graph **graph);
/* The tensors of one row; likewise. */
int declaration_schema(const struct config_expert *config, struct schema *inputs, struct schema *outputs);

#endif
