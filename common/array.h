/* Arrays that grow: room for more than is needed now, so that n appended items are copied 2 n times at most. */
#ifndef EXPERTD_COMMON_ARRAY_H
#define EXPERTD_COMMON_ARRAY_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ARRAY_FIRST_CAPACITY = 4 };

/* items: where the pointer to the array is, which NULL with a capacity of 0 begins. 0; -ENOMEM: nothing has changed. */
static inline int array_reserve(void *items, size_t *capacity, size_t item_size, size_t count)
{
    if (count <= *capacity)
        return 0;
    if (count > SIZE_MAX / 2 / item_size)
        return -ENOMEM;
    size_t wanted = *capacity ? *capacity : ARRAY_FIRST_CAPACITY;
    while (wanted < count)
        wanted *= 2;
    void *array;
    memcpy(&array, items, sizeof array);
    void *bigger = reallocarray(array, wanted, item_size);
    if (!bigger)
        return -ENOMEM;
    memcpy(items, &bigger, sizeof bigger);
    *capacity = wanted;
    return 0;
}

/* So that array[0 ... count) is there. */
#define ARRAY_RESERVE(array, capacity, count) array_reserve(&(array), &(capacity), sizeof *(array), count)

#endif
