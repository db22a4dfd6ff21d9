/* The flags of an example program: each is declared once, in a table, from which its help comes, too. What is wrong
 * with the command line ends the program with 2, after a message. */
#ifndef EXPERTD_EXAMPLES_DIGITS_FLAGS_H
#define EXPERTD_EXAMPLES_DIGITS_FLAGS_H

#include <stdbool.h>
#include <stddef.h>

/* One of the four pointers says where the value goes, and its type; what is there before is the default. */
struct flag {
    const char *name, *value; /* value: as the help names it; NULL for one that is only given or not */
    const char *help;
    const char **text;
    size_t *count; /* a whole number from 1 to most */
    double *number;
    double least, most; /* of a number; of a count only most */
    bool *given;
};

struct flags {
    const char *usage;      /* "[options] UID..." */
    const char *purpose;    /* a sentence */
    const struct flag *all; /* ends with one that has no name */
    const char **words;     /* where what is no flag goes: from 1 to most_words. NULL: there is none */
    size_t *words_count, most_words;
};

enum { FLAGS_MAX = 16 };

/* Reads the command line; --help and --version print and end the program with 0. */
void flags_parse(const struct flags *flags, int argc, char **argv);
/* Ends the program after "program: message", for flags that do not go together. */
_Noreturn void flags_refuse(const char *message);
/* A whole number from 1 to most; name is the flag's, for the message. */
size_t flags_count(const char *name, const char *text, size_t most);

#endif
