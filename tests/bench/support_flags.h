/* The flags that programs with the clients of support_traffic.h have in common, as an argp for the children of their
 * own. What is wrong with them ends the program with 2. */
#ifndef EXPERTD_BENCH_SUPPORT_FLAGS_H
#define EXPERTD_BENCH_SUPPORT_FLAGS_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

#include "bench/support_traffic.h"

struct flags {
    struct traffic_options traffic; /* what is there before is the default */
    bool json;
};
/* Its input is a struct flags. */
extern const struct argp_child flags_children[];

/* Reads the command line with the program's own `argp`, which has flags_children, and whose input is `input`. */
void flags_parse(const struct argp *argp, int argc, char **argv, void *input);
/* A whole number up to most. */
uint64_t flags_number(struct argp_state *state, const char *text, uint64_t most);

#endif
