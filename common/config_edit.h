/* A configuration with one change of its experts, as the text that gives it: for changes while the server runs. What
 * the result is worth is for config_parse to say; here is refused what cannot even be written down. */
#ifndef EXPERTD_COMMON_CONFIG_EDIT_H
#define EXPERTD_COMMON_CONFIG_EDIT_H

#include <stddef.h>

#include "common/config.h"

enum { CONFIG_EDIT_WHY_SIZE = 384 };

/* Settings are "option=value", of the options of an entry of `experts`; "arguments.NAME=NUMBER" is one of the block's
 * arguments. Paths have to be absolute. */
struct config_settings {
    const char *const *items;
    size_t count;
};

/* Each makes a malloc'd text. 0; or -errno and a sentence in `why`: -EINVAL, -ENOMEM, -ENOENT: there is no such expert,
 * -EEXIST: there is one already. */

/* One more entry, uid (or a pattern), with these settings over the defaults. None: as `file`, the configuration that
 * the server was started with, has it, -ENOENT if that has no such expert. */
int config_edit_load(const struct config *config, const struct config *file, const char *uid,
                     const struct config_settings *settings, char **text, char why[CONFIG_EDIT_WHY_SIZE]);
/* Without the expert. */
int config_edit_unload(const struct config *config, const char *uid, char **text, char why[CONFIG_EDIT_WHY_SIZE]);
struct config_move {
    const char *uid, *device;
};
/* Each of the experts on that device, in an entry of its own; all else stays, also of these. */
int config_edit_move(const struct config *config, const struct config_move *moves, size_t count, char **text,
                     char why[CONFIG_EDIT_WHY_SIZE]);
/* With other settings of the expert, all of them such that a living one can take on (config_option_is_live). */
int config_edit_set(const struct config *config, const char *uid, const struct config_settings *settings, char **text,
                    char why[CONFIG_EDIT_WHY_SIZE]);

#endif
