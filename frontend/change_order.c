#include "frontend/change_order.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/config_edit.h"
#include "common/uid.h"

enum { SETTINGS_MAX = 128 };

struct change_order {
    Expertd__Method method;
    char uid[UID_SIZE];
    char **settings;
    size_t settings_count;
};

void change_order_destroy(struct change_order **order)
{
    struct change_order *old = *order;
    *order = NULL;
    if (!old)
        return;
    for (size_t i = 0; old->settings && i < old->settings_count; i++)
        free(old->settings[i]);
    free(old->settings);
    free(old);
}

struct change_order *change_order_create(const Expertd__RequestHeader *header)
{
    struct change_order *order = calloc(1, sizeof *order);
    if (!order)
        return NULL;
    order->method = header->method;
    snprintf(order->uid, sizeof order->uid, "%s", header->uid);
    order->settings = calloc(header->n_settings + 1, sizeof *order->settings);
    while (order->settings && order->settings_count < header->n_settings) {
        char *copy = strdup(header->settings[order->settings_count]);
        if (!copy)
            break;
        order->settings[order->settings_count++] = copy;
    }
    if (!order->settings || order->settings_count < header->n_settings)
        change_order_destroy(&order);
    return order;
}

const char *change_order_uid(const struct change_order *order)
{
    return order->uid;
}

const char *change_order_device(const struct change_order *order)
{
    static const char option[] = "device=";
    const char *device = NULL; /* of several the last, as in the configuration */
    for (size_t i = 0; i < order->settings_count; i++)
        if (strncmp(order->settings[i], option, strlen(option)) == 0)
            device = order->settings[i] + strlen(option);
    return device;
}

bool change_order_reloads(const struct change_order *order)
{
    return order->method == EXPERTD__METHOD__RELOAD;
}

bool change_order_of_owner(int fd)
{
    struct ucred peer = {.uid = (uid_t)-1};
    struct sockaddr_storage name = {0};
    socklen_t size = sizeof peer, name_size = sizeof name;
    return fd >= 0 && getsockname(fd, (struct sockaddr *)&name, &name_size) == 0 && name.ss_family == AF_UNIX &&
           getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == geteuid() || peer.uid == 0);
}

const char *change_order_fault(const Expertd__RequestHeader *header)
{
    const bool reload = header->method == EXPERTD__METHOD__RELOAD;
    if (header->n_settings > SETTINGS_MAX)
        return "too many settings";
    if (!reload && (strlen(header->uid) >= UID_SIZE || !uid_valid(header->uid)))
        return "that is no uid";
    return NULL;
}

int change_order_edit(const struct change_order *order, const struct config *live, const struct config *file,
                      char **text, char why[CONFIG_EDIT_WHY_SIZE])
{
    const struct config_settings settings = {(const char *const *)order->settings, order->settings_count};
    switch ((int)order->method) {
    case EXPERTD__METHOD__LOAD:
        return config_edit_load(live, file, order->uid, &settings, text, why);
    case EXPERTD__METHOD__UNLOAD:
        return config_edit_unload(live, order->uid, text, why);
    case EXPERTD__METHOD__SET:
        return config_edit_set(live, order->uid, &settings, text, why);
    default:
        snprintf(why, CONFIG_EDIT_WHY_SIZE, "that changes no expert");
        return -EINVAL;
    }
}
