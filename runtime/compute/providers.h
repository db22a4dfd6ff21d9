/* The providers there are (runtime/compute/provider.h), each in a file of its own. */
#ifndef EXPERTD_RUNTIME_PROVIDERS_H
#define EXPERTD_RUNTIME_PROVIDERS_H

#include "runtime/compute/provider.h"

extern const struct kernel_provider provider_cpu;     /* linear_cpu.c */
extern const struct kernel_provider provider_amx;     /* linear_amx.c */
extern const struct kernel_provider provider_gpu;     /* linear_gpu.c */
extern const struct kernel_provider provider_mma;     /* linear_mma.c */
extern const struct kernel_provider provider_clblast; /* linear_clblast.c */

#endif
