/* What the device can do at best, measured by OpenCL kernels in the same run as what is compared with it. */
#ifndef EXPERTD_BENCH_SUPPORT_PEAK_H
#define EXPERTD_BENCH_SUPPORT_PEAK_H

#include <stdbool.h>

struct device;
struct peak;

/* On an open device. 0; -1 after a message on stderr. */
int peak_open(struct peak **peak, struct device *device);
void peak_close(struct peak **peak);
/* Nanoseconds of another clock than the wall's, as `context` says; for passes from now on. */
void peak_use_clock(struct peak *peak, double (*now_ns)(const void *context), const void *context);
/* Multiply-adds in registers, on every core: one pass of some 10 ms; GFLOP/s, a multiply-add being two. */
double peak_fma(struct peak *peak);
/* The same by the matrix units, in the precision of the device's configuration; 0 on a device without (fp32). On a CPU
 * device it is the emulation's and says nothing of the machine. */
double peak_mma(struct peak *peak);
/* Bytes read once from memory by all cores: one pass over 256 MiB; GB/s. */
double peak_read(struct peak *peak);

#endif
