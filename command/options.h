/* The command line of `expertd serve` and its like: the options that users of hivemind-server know, with underscores or
 * hyphens, beside the flags that all programs of this project have. */
#ifndef EXPERTD_COMMAND_OPTIONS_H
#define EXPERTD_COMMAND_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/config.h"

/* Values of the flags in options_flags (NULL: not given). */
struct options {
    const char *num_experts, *expert_pattern, *expert_uids, *expert_cls, *hidden_dim, *min_batch_size, *max_batch_size;
    const char *device, *optimizer, *learning_rate, *scheduler, *num_warmup_steps, *num_training_steps, *clip_grad_norm;
    const char *compression, *custom_module_path;
    const char *no_dht, *supervisord, *alert, *reference, *ignored; /* ignored: what has no meaning here */
    const char *cut_short; /* the value of one of hivemind's names that was not written out, and so not translated */
};
extern struct options options;
/* For config_program.flags. */
extern const struct config_flag options_flags[];

/* argv with every flag as the programs know it: "--initial_peers A B" is "--dht-bootstrap A --dht-bootstrap B", and
 * addresses like /ip4/10.0.0.7/tcp/31330 are tcp://10.0.0.7:31330. A malloc'd array in one block with its strings,
 * which NULL ends: free() it. NULL: out of memory. */
char **options_translate(int argc, char **argv, int *translated_argc);

/* Whether one of the options that say what to serve was given. */
bool options_describe_experts(const struct options *given);
/* Whether a device of the configuration is to be served: those that --device names, or all. */
bool options_want_device(const struct options *given, const char *name);
/* What an entry of `experts` says beside its uids, each line with four spaces before it. */
void options_print_settings(FILE *out, const struct options *given);
/* A device of the machine, as expertd-runtime --list-devices names it. */
struct options_device {
    unsigned platform, device;
    bool gpu, cpu;
    char class[24]; /* "gpu", "integrated gpu", "cpu", "accelerator" */
    char platform_name[128], name[128], vendor[128];
    char pci[16]; /* "0000:65:00.0"; "" */
    uint64_t memory_mib;
};
/* The configuration's text for them: experts, and the device that --device names among the `count` there are. malloc'd;
 * NULL after a message. `host` makes different boxes draw different experts of one pattern. */
char *options_configuration(const struct options *given, const struct options_device *devices, unsigned count,
                            const char *host);

#endif
