#include <check.h>
#include <stddef.h>

/* An assertion that holds tells libcheck's runner where it was, with a write to a file: most of the time of those that
 * go through numbers. The linker puts this before it (--wrap), which tells nothing of the places that were told last:
 * so of a loop over a few assertions each is told once, and what is said of a crash in it may name another one of them.
 */
void __real__mark_point(const char *file, int line);
void __wrap__mark_point(const char *file, int line);

enum { PLACES = 4 };

void __wrap__mark_point(const char *file, int line)
{
    static _Thread_local struct {
        const char *file;
        int line;
    } told[PLACES];
    static _Thread_local unsigned next;
    for (unsigned i = 0; i < PLACES; i++) {
        if (told[i].line == line && told[i].file == file)
            return;
    }
    told[next].file = file;
    told[next].line = line;
    next = (next + 1) % PLACES;
    __real__mark_point(file, line);
}
