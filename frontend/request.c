#include "frontend/request.h"

#include <errno.h>
#include <stdlib.h>

struct requests {
    uint32_t capacity, taken, touched; /* slots beyond `touched` were never used, nor their pages */
    struct request *free;
    struct request slots[];
};

int requests_create(struct requests **requests, uint32_t capacity)
{
    *requests = calloc(1, sizeof **requests + (size_t)capacity * sizeof(struct request));
    if (!*requests)
        return -ENOMEM;
    (*requests)->capacity = capacity;
    return 0;
}

void requests_destroy(struct requests **requests)
{
    free(*requests);
    *requests = NULL;
}

struct request *requests_take(struct requests *requests)
{
    struct request *request = requests->free;
    if (request)
        requests->free = request->next; /* the one that was used last, still in the cache */
    else if (requests->touched < requests->capacity)
        request = &requests->slots[requests->touched++];
    else
        return NULL;
    *request = (struct request){.state = REQUEST_WAITING};
    requests->taken++;
    return request;
}

void requests_give(struct requests *requests, struct request *request)
{
    request->state = REQUEST_FREE;
    request->next = requests->free;
    requests->free = request;
    requests->taken--;
}

uint32_t requests_taken(const struct requests *requests)
{
    return requests->taken;
}

uint32_t requests_capacity(const struct requests *requests)
{
    return requests->capacity;
}

void request_list_append(struct request_list *list, struct request *request)
{
    request->next = NULL;
    request->previous = list->last;
    if (list->last)
        list->last->next = request;
    else
        list->first = request;
    list->last = request;
    list->count++;
}

void request_list_remove(struct request_list *list, struct request *request)
{
    if (request->previous)
        request->previous->next = request->next;
    else
        list->first = request->next;
    if (request->next)
        request->next->previous = request->previous;
    else
        list->last = request->previous;
    request->next = request->previous = NULL;
    list->count--;
}
