/* Structs of programs that were compiled against another version of the public headers: their first member is a size_t,
 * their size, and they only grow at their end. */
#ifndef EXPERTD_CLIENT_STRUCT_SIZE_H
#define EXPERTD_CLIENT_STRUCT_SIZE_H

#include <stddef.h>

/* Copies a program's struct over `own`, which holds the defaults of what the program's may lack, and keeps its own
 * size. -EINVAL: a size that cannot be; -E2BIG: something other than zero behind what is known here. */
int struct_size_take(void *own, size_t own_size, const void *given);

/* Copies `own` to a program's struct, as far as that goes; its size stays. Nothing if its size cannot be. */
void struct_size_give(void *given, const void *own, size_t own_size);

#endif
