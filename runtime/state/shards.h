/* The files of a model, as public checkpoints have them: a folder with model.safetensors, or with many files (shards)
 * and an index, model.safetensors.index.json, whose "weight_map" says for each tensor in which file it is.
 *
 * Files are opened when a tensor of theirs is asked for, and stay open; of a file only its header and what is asked for
 * are read (by pread: a mapped file that someone shortens would end the process). So a machine needs only the shards
 * whose experts it hosts. An index names files of its own folder alone: one that names another place is refused.
 *
 * Functions return 0 or -errno (-EPROTO: a file is not what it should be), with a sentence that names the file in
 * `error`. One thread at a time. */
#ifndef EXPERTD_RUNTIME_SHARDS_H
#define EXPERTD_RUNTIME_SHARDS_H

#include <stdbool.h>

#include "runtime/state/safetensors.h"

enum { SHARDS_ERROR_SIZE = 1024, SHARDS_MAX_INDEX = 256 << 20 /* bytes */ };

struct shards;

/* `path`: a folder, an index (its name ends in ".json"), or one file. A folder has an index or one file, or is refused.
 */
int shards_open(struct shards **shards, const char *path, char error[SHARDS_ERROR_SIZE]);
/* Of an index in memory (`bytes` are not kept), in a folder that is not looked at before a tensor is asked for. */
int shards_parse(struct shards **shards, const char *folder, const char *bytes, size_t length,
                 char error[SHARDS_ERROR_SIZE]);
void shards_close(struct shards **shards);

/* A tensor by name, and the file that has it. -ENOENT, with a sentence too: the model has none of that name. */
int shards_find(struct shards *shards, const char *name, const struct safetensors **file,
                const struct safetensors_tensor **tensor, char error[SHARDS_ERROR_SIZE]);
/* Whether there is one, by the index alone; the file of a model without one has been opened. */
bool shards_has(const struct shards *shards, const char *name);
/* The path that people know: the folder, index or file. */
const char *shards_path(const struct shards *shards);
/* Whether it is an index, given by its own path. */
bool shards_is_index(const struct shards *shards);
/* A name that begins with `prefix`, or any; NULL if there is none. For messages. */
const char *shards_example(const struct shards *shards, const char *prefix);

#endif
