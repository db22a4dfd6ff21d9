/* Where the programs of a server meet, unless server.run_dir says else. */
#ifndef EXPERTD_COMMON_RUN_DIR_H
#define EXPERTD_COMMON_RUN_DIR_H

#include <stddef.h>

/* /run/expertd for root, else $XDG_RUNTIME_DIR/expertd, else /tmp/expertd-<user id>. 0 or -ENAMETOOLONG. */
int run_dir_default(char *path, size_t size);

#endif
