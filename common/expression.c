#include "common/expression.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/numeral.h"

static const double size_max = 1099511627776.0; /* 2^40: sums and products of sizes stay exact in a double */

enum { DEPTH_MAX = 32 };

struct reader {
    const char *at;
    expression_lookup *lookup;
    const void *context;
    char *problem; /* "" as long as there is none */
    unsigned depth;
    bool is_size;
};

static double sum(struct reader *reader);

static double complain(struct reader *reader, const char *what, const char *name, size_t length)
{
    if (!reader->problem[0])
        snprintf(reader->problem, EXPRESSION_PROBLEM_SIZE, "%s'%.*s'", what, (int)(length < 60 ? length : 60), name);
    return 0;
}

static double explain(struct reader *reader, const char *why)
{
    const size_t length = strlen(reader->problem);
    snprintf(reader->problem + length, EXPRESSION_PROBLEM_SIZE - length, "%s", why);
    return 0;
}

static char peek(struct reader *reader)
{
    while (*reader->at == ' ' || *reader->at == '\t')
        reader->at++;
    return *reader->at;
}

static double named(struct reader *reader)
{
    const char *name = reader->at;
    double value = 0;
    while (isalnum((unsigned char)*reader->at) || *reader->at == '_')
        reader->at++;
    const size_t length = (size_t)(reader->at - name);
    if (!reader->lookup(reader->context, name, length, &value))
        return complain(reader, "there is no argument ", name, length);
    return value;
}

static double literal(struct reader *reader)
{
    const char *at = reader->at;
    const size_t length = numeral_length(at, NUMERAL_REAL);
    if (length == 0) {
        complain(reader, "expected a number at ", at, strlen(at));
        return explain(reader, numeral_hint(at));
    }
    if (reader->is_size && strcspn(at, "eE") < length)
        return complain(reader, "a size has no power of ten: ", at, length);
    reader->at += length;
    return strtod(at, NULL);
}

static double factor(struct reader *reader)
{
    const char next = peek(reader);
    double value;
    if (reader->problem[0])
        return 0;
    if (++reader->depth > DEPTH_MAX)
        return complain(reader, "too many parentheses at ", reader->at, strlen(reader->at));
    if (next == '(') {
        reader->at++;
        value = sum(reader);
        if (peek(reader) != ')')
            return complain(reader, "expected ) at ", reader->at, strlen(reader->at));
        reader->at++;
    } else if (next == '-') {
        reader->at++;
        value = -factor(reader);
    } else if (next == '+') {
        reader->at++;
        value = factor(reader);
    } else if (isalpha((unsigned char)next) || next == '_') {
        value = named(reader);
    } else {
        value = literal(reader);
    }
    reader->depth--;
    return value;
}

static double product(struct reader *reader)
{
    double value = factor(reader);
    for (char next = peek(reader); (next == '*' || next == '/') && !reader->problem[0]; next = peek(reader)) {
        const char *at = reader->at++;
        const double right = factor(reader);
        if (next == '/' && right == 0 && !reader->problem[0])
            return complain(reader, "division by zero at ", at, strlen(at));
        value = next == '*' ? value * right : value / right;
    }
    return value;
}

static double sum(struct reader *reader)
{
    double value = product(reader);
    for (char next = peek(reader); (next == '+' || next == '-') && !reader->problem[0]; next = peek(reader)) {
        reader->at++;
        const double right = product(reader);
        value = next == '+' ? value + right : value - right;
    }
    return value;
}

static int evaluate(const char *text, bool is_size, expression_lookup *lookup, const void *context, double *value,
                    char problem[EXPRESSION_PROBLEM_SIZE])
{
    struct reader reader = {.at = text, .lookup = lookup, .context = context, .problem = problem, .is_size = is_size};
    problem[0] = '\0';
    *value = sum(&reader);
    if (!problem[0] && peek(&reader) != '\0')
        complain(&reader, "did not expect ", reader.at, strlen(reader.at));
    if (!problem[0] && !isfinite(*value))
        complain(&reader, "is not finite: ", text, strlen(text));
    return problem[0] ? -EINVAL : 0;
}

int expression_number(const char *text, expression_lookup *lookup, const void *context, double *value,
                      char problem[EXPRESSION_PROBLEM_SIZE])
{
    return evaluate(text, false, lookup, context, value, problem);
}

int expression_size(const char *text, expression_lookup *lookup, const void *context, uint64_t *value,
                    char problem[EXPRESSION_PROBLEM_SIZE])
{
    double number;
    const int result = evaluate(text, true, lookup, context, &number, problem);
    if (result != 0)
        return result;
    if (number < 1 || number > size_max || number != floor(number)) {
        snprintf(problem, EXPRESSION_PROBLEM_SIZE, "'%.60s' is %g, not a whole number from 1 to 2^40", text, number);
        return -EINVAL;
    }
    *value = (uint64_t)number;
    return 0;
}
