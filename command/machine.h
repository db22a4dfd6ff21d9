/* What the machine has, and where the programs are. */
#ifndef EXPERTD_COMMAND_MACHINE_H
#define EXPERTD_COMMAND_MACHINE_H

#include "command/options.h"

/* The folder of this program, in which the others are too; "" if it cannot be told. */
const char *machine_programs(void);
/* Asks expertd-runtime --list-devices. A malloc'd array of *count; 0, or -errno after a message. */
int machine_devices(struct options_device **devices, unsigned *count);
/* Of one of its lines; false: it is none. */
bool machine_parse_device(const char *line, struct options_device *device);

#endif
