/* Sizes and numbers of a block's declaration: + - * / and parentheses over numbers and named arguments,
 * "4 * hidden_dim", "1 / (1 - rate)". Numbers are common/numeral.h's; those of a size have no power of ten. */
#ifndef EXPERTD_COMMON_EXPRESSION_H
#define EXPERTD_COMMON_EXPRESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXPRESSION_PROBLEM_SIZE = 160 };

/* The value of the argument whose name is the `length` characters at `name`; false if there is none. */
typedef bool expression_lookup(const void *context, const char *name, size_t length, double *value);

/* 0; or -EINVAL and a sentence in `problem`: what cannot be read, an unknown name, a division by zero, a value that is
 * not finite. */
int expression_number(const char *text, expression_lookup *lookup, const void *context, double *value,
                      char problem[EXPRESSION_PROBLEM_SIZE]);
/* The same for a size: also whole, and from 1 to 2^40. */
int expression_size(const char *text, expression_lookup *lookup, const void *context, uint64_t *value,
                    char problem[EXPRESSION_PROBLEM_SIZE]);

#endif
