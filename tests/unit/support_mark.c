#include <check.h>
#include <stddef.h>

/* An assertion that holds tells libcheck's runner where it was, with a write to a file: most of the time of those that
 * go through numbers. The linker puts this before it (--wrap): again at the same place, nothing new is to be told. */
void __real__mark_point(const char *file, int line);
void __wrap__mark_point(const char *file, int line);

void __wrap__mark_point(const char *file, int line)
{
    static _Thread_local const char *last_file;
    static _Thread_local int last_line;
    if (file == last_file && line == last_line)
        return;
    last_file = file;
    last_line = line;
    __real__mark_point(file, line);
}
