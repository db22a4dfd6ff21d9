/* How fast a device is and how many experts it holds, for whoever divides experts among devices (expertd plan). */
#ifndef EXPERTD_RUNTIME_MEASURE_H
#define EXPERTD_RUNTIME_MEASURE_H

#include "common/config.h"

/* Prints one line to stdout:
 *     measured: SPEED GFLOP/s; room for N experts
 * SPEED: of products of 256 rows with 1024 x 1024 weights, as the entry's settings make them; N: experts like the first
 * one that the configuration has on the device, as far as its memory goes. Takes no role and makes no segments. Takes a
 * second; more where kernels are to be compiled. 0; -errno after a message. */
int measure_device(const struct config *config, const struct config_device *entry);

#endif
