/* A configuration of supervisord that runs a server's programs. */
#ifndef EXPERTD_COMMAND_SUPERVISORD_FILE_H
#define EXPERTD_COMMAND_SUPERVISORD_FILE_H

#include <stdbool.h>
#include <stdio.h>

#include "common/config.h"

/* The folder of the programs and the configuration's file, both absolute; socket, pid and logs go to `folder`. `alert`:
 * NULL, or the command, as supervisord reads one, that expertd-alert runs when a program crashes; the programs are then
 * a group. 0; -EINVAL after a message about a text that cannot be written there; -EIO. */
int supervisord_file_print(FILE *out, const struct config *config, const char *programs, const char *file,
                           const char *folder, bool with_dht, const char *alert);

#endif
