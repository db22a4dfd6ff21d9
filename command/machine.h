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
/* Asks expertd-runtime --measure about a device of the configuration in `file`: GFLOP/s, and how many experts like the
 * first of its entry fit. 0, or -errno; what is wrong is then in the log, of this program or the other. */
int machine_measure(const char *file, const char *device, double *gflops, uint64_t *room);

#endif
