/* Changes of the experts while the server runs, where all its programs find them: <run_dir>/<server>.live.yaml is a
 * whole configuration, of which the experts and blocks count. It is written by the frontend alone, by rename: it is
 * either there or not, and says what is to be; what a runtime that was killed makes of its restart, and the frontend,
 * is what it says.
 *
 * It stands for changes of one configuration, by a number of that one's experts: when these are changed in the file and
 * the programs are started anew, then what is live counts no more. */
#ifndef EXPERTD_COMMON_CONFIG_LIVE_H
#define EXPERTD_COMMON_CONFIG_LIVE_H

#include "common/config.h"

/* Reads it. `file` is what the program was started with. 1 and *live, complete and checked, to be destroyed; 0: nothing
 * is live but the file. What is damaged, or of another configuration, is logged and counts as nothing. */
int config_live_read(struct config *live, const struct config *file);
/* Of the file as it is now: another number when it was written since. 0: there is none. */
uint64_t config_live_stamp(const struct config *file);
/* Reads what config_live_propose wrote. 0 or -errno; logged. */
int config_live_read_proposal(struct config *live, const struct config *file);
/* The frontend. Writes a text that it wants to become what is live, of the configuration `base`. 0 or -errno. */
int config_live_propose(const struct config *file, const struct config *base, const char *text);
/* The proposal is what is live, from this moment. 0 or -errno, and then it is not. */
int config_live_accept(const struct config *file);

#endif
