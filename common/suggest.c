#include "common/suggest.h"

#include <string.h>

enum { LENGTH_MAX = 63 };

static char letter(char c)
{
    return c == '_' ? '-' : c;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Optimal string alignment: the three newest rows of the table of distances between beginnings of both. */
static size_t edits(const char *from, size_t from_length, const char *to, size_t to_length)
{
    size_t rows[3][LENGTH_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= to_length; j++)
        last[j] = j;
    for (size_t i = 1; i <= from_length; i++) {
        row[0] = i;
        for (size_t j = 1; j <= to_length; j++) {
            const char a = letter(from[i - 1]), b = letter(to[j - 1]);
            row[j] = smaller(smaller(last[j] + 1, row[j - 1] + 1), last[j - 1] + (a != b));
            if (i > 1 && j > 1 && a == letter(to[j - 2]) && letter(from[i - 2]) == b)
                row[j] = smaller(row[j], before[j - 2] + 1);
        }
        size_t *const oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[to_length];
}

void suggest_begin(struct suggest *suggest, const char *word)
{
    *suggest = (struct suggest){.word = word, .distance = strlen(word) / 3 + 1};
}

void suggest_offer(struct suggest *suggest, const char *known)
{
    const size_t length = strlen(suggest->word), known_length = strlen(known);
    /* At least as many edits as one is longer than the other. */
    const size_t least = length > known_length ? length - known_length : known_length - length;
    if (length == 0 || length > LENGTH_MAX || known_length > LENGTH_MAX || least >= suggest->distance)
        return;
    const size_t distance = edits(suggest->word, length, known, known_length);
    if (distance < suggest->distance) {
        suggest->distance = distance;
        suggest->nearest = known;
    }
}
