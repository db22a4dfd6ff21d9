/* Which devices of a machine are to be used, and how experts are divided among them. */
#ifndef EXPERTD_COMMAND_PLANNER_H
#define EXPERTD_COMMAND_PLANNER_H

#include "command/options.h"

struct planner_device {
    struct options_device is;
    const char *left_out; /* why; NULL: it is used */
    double gflops;        /* measured */
    uint64_t room;        /* experts that its memory holds */
    uint64_t experts;     /* that it is given */
};

struct planner_choice {
    const char *class; /* "gpu" (with those that share the host's memory), "cpu", "accelerator", "all"; NULL: GPUs
                          if there are any, else all */
    const char *include, *exclude; /* words between commas; NULL: none. A word is a device's "PLATFORM.DEVICE" numbers,
                                      its PCI id, or a part of its name, vendor, platform or class */
};

/* Whether the word means the device. */
bool planner_matches(const struct options_device *device, const char *word);
/* Sets left_out of those that are not to be used. 0; -EINVAL after a message: a word means no device, or a class is
 * none, or no device is left. */
int planner_choose(struct planner_device *devices, unsigned count, const struct planner_choice *choice);
/* Divides `experts` among those that are used: by their speed, as far as their memory goes. 0; -ENOSPC after a message:
 * they do not fit. */
int planner_divide(struct planner_device *devices, unsigned count, uint64_t experts);

#endif
