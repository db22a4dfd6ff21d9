#include "client/struct_size.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { SIZE_MOST = 4096 }; /* no struct of ours comes near it: what is larger was never set */

static bool possible(size_t size)
{
    return size > sizeof(size_t) && size <= SIZE_MOST;
}

int struct_size_take(void *own, size_t own_size, const void *given)
{
    size_t size;
    memcpy(&size, given, sizeof size);
    if (!possible(size))
        return -EINVAL;
    for (size_t i = own_size; i < size; i++)
        if (((const unsigned char *)given)[i] != 0)
            return -E2BIG;
    memcpy(own, given, size < own_size ? size : own_size);
    memcpy(own, &own_size, sizeof own_size);
    return 0;
}

void struct_size_give(void *given, const void *own, size_t own_size)
{
    size_t size;
    memcpy(&size, given, sizeof size);
    if (!possible(size))
        return;
    memset((unsigned char *)given + sizeof size, 0, size - sizeof size);
    memcpy((unsigned char *)given + sizeof size, (const unsigned char *)own + sizeof size,
           (size < own_size ? size : own_size) - sizeof size);
}
