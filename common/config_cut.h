/* Of a configuration with several `frontends` the part that one of them, and the runtimes of its devices, work with: a
 * configuration like any other with one frontend, its devices and their experts, under the server's name with the
 * frontend's behind it ("box1-left"), so that locks, sockets, segments and live changes are its own. */
#ifndef EXPERTD_COMMON_CONFIG_CUT_H
#define EXPERTD_COMMON_CONFIG_CUT_H

#include "common/config.h"

/* Makes *cut, to be destroyed, of the entry frontends[index]. 0, or -ENOMEM, logged. */
int config_cut(struct config *cut, const struct config *whole, unsigned index);
/* The same of a name that a person gave (--frontend; NULL: none). Where there is one frontend alone, *cut is empty and
 * *chosen the whole; else *chosen is `cut`. -EINVAL after a message that names those there are. */
int config_cut_frontend(const struct config **chosen, struct config *cut, const struct config *whole, const char *name);
/* The same of the frontend that a device belongs to. */
int config_cut_device(const struct config **chosen, struct config *cut, const struct config *whole, const char *device);
/* The frontend that has the device; frontends_count: none. */
unsigned config_cut_owner(const struct config *whole, const char *device);

#endif
