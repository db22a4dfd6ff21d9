#include "frontend/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/uid.h"

static void end(struct server *server, struct request *request, enum status status, const char *message)
{
    server_answer(server, request, status, message);
    request_list_remove(&server->checkpoints, request);
    free(request->checkpoint);
    requests_give(server->requests, request);
}

/* The first error is the one that is told. */
static void note(struct request_checkpoint *checkpoint, enum status status, const char *message)
{
    if (checkpoint->status != STATUS_OK)
        return;
    checkpoint->status = status;
    snprintf(checkpoint->message, sizeof checkpoint->message, "%s", message);
}

static void note_errno(struct server *server, struct request_checkpoint *checkpoint, const char *uid, uint32_t error)
{
    char text[sizeof checkpoint->message];
    const bool no_folder = server->config->checkpoint.dir[0] == 0;
    snprintf(text, sizeof text, "%.48s: %s%s", uid, strerror((int)(error & 0xffff)),
             no_folder ? " (no checkpoint.dir is configured)" : "");
    note(checkpoint, STATUS_INTERNAL, text);
}

static uint32_t end_of(const struct request_checkpoint *checkpoint, const struct device_link *device)
{
    return checkpoint->last_expert < device->experts_count ? checkpoint->last_expert + 1 : device->experts_count;
}

/* Passes what is served; true: all of it. */
static bool advance(struct server *server, struct request_checkpoint *checkpoint)
{
    for (; checkpoint->device <= checkpoint->last_device; checkpoint->device++, checkpoint->expert = 0) {
        struct device_link *device = server->devices[checkpoint->device];
        char text[128];
        const char *refusal = device_link_refusal(device, text, sizeof text);
        if (refusal) {
            note(checkpoint, STATUS_UNAVAILABLE, refusal);
            continue;
        }
        for (; checkpoint->expert < end_of(checkpoint, device); checkpoint->expert++) {
            struct control_expert_shared *expert = control_expert(device->control, checkpoint->expert);
            if (!device_link_has(device, checkpoint->expert))
                continue;
            /* Acquire: the errno was written before the ticket was served. */
            if (atomic_load_explicit(&expert->runtime.checkpoint_served, memory_order_acquire) < checkpoint->ticket)
                return false;
            const uint32_t error = atomic_load_explicit(&expert->runtime.checkpoint_errno, memory_order_relaxed);
            char uid[UID_SIZE];
            control_expert_uid(expert, uid);
            if (error)
                note_errno(server, checkpoint, message_clean(uid), error);
        }
    }
    return true;
}

void checkpoint_look(struct server *server)
{
    for (struct request *request = server->checkpoints.first, *next; request; request = next) {
        next = request->next;
        struct request_checkpoint *checkpoint = request->checkpoint;
        if (advance(server, checkpoint))
            end(server, request, checkpoint->status, checkpoint->message);
    }
}

void checkpoint_expire(struct server *server, struct request *request)
{
    end(server, request, STATUS_DEADLINE_EXCEEDED, "the deadline came first; the checkpoint may still be written");
}

void checkpoint_fail(struct server *server, enum status status, const char *message)
{
    while (server->checkpoints.first)
        end(server, server->checkpoints.first, status, message);
}

/* Writes the ticket to the experts of the range and wakes their runtimes. */
static void hand_out(struct server *server, const struct request_checkpoint *checkpoint)
{
    for (uint32_t d = checkpoint->device; d <= checkpoint->last_device; d++) {
        struct device_link *device = server->devices[d];
        if (device->state != DEVICE_UP)
            continue;
        for (uint32_t e = d == checkpoint->device ? checkpoint->expert : 0; e < end_of(checkpoint, device); e++)
            if (device_link_has(device, e))
                atomic_store_explicit(&control_expert(device->control, e)->frontend.checkpoint_requested,
                                      checkpoint->ticket, memory_order_relaxed);
        struct control_shared *page = control_page(device->control);
        /* Release: a runtime that sees the number grow sees the tickets. */
        atomic_fetch_add_explicit(&page->frontend.checkpoint_commands, 1, memory_order_release);
        doorbell_ring(&page->runtime_bell);
    }
}

/* Which experts the request is about; OK, or why it is refused. */
static enum status choose(struct server *server, const char *uid, struct request_checkpoint *checkpoint)
{
    char *why = checkpoint->message;
    const size_t why_size = sizeof checkpoint->message;
    if (uid[0] == 0) {
        checkpoint->last_device = server->devices_count - 1;
        checkpoint->last_expert = UINT32_MAX;
        return STATUS_OK;
    }
    const struct expert_place *place = expert_table_find(server->experts, uid);
    if (!place)
        return STATUS_NOT_FOUND;
    if (device_link_refusal(server->devices[place->device], why, why_size))
        return STATUS_UNAVAILABLE;
    if (place->expert == EXPERT_ABSENT) {
        snprintf(why, why_size, "the expert's device does not have it now");
        return STATUS_UNAVAILABLE;
    }
    checkpoint->device = checkpoint->last_device = place->device;
    checkpoint->expert = checkpoint->last_expert = place->expert;
    return STATUS_OK;
}

void checkpoint_begin(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header,
                      uint64_t now_ns)
{
    struct request_checkpoint chosen = {0}, *checkpoint = NULL;
    const enum status status = choose(server, header->uid, &chosen);
    if (status == STATUS_NOT_FOUND) {
        server_refuse_unknown(server, to, header->uid);
        return;
    }
    if (status != STATUS_OK) {
        reply_status(&server->replier, to, status, chosen.message);
        return;
    }
    struct request *request = requests_take(server->requests);
    if (request)
        checkpoint = malloc(sizeof *checkpoint);
    if (!checkpoint) {
        if (request)
            requests_give(server->requests, request);
        reply_status(&server->replier, to, STATUS_RESOURCE_EXHAUSTED, "the server is full");
        return;
    }
    /* By the clock, so that tickets also grow over a restart of the frontend. */
    server->last_ticket = now_ns > server->last_ticket ? now_ns : server->last_ticket + 1;
    *checkpoint = chosen;
    checkpoint->ticket = server->last_ticket;
    request->checkpoint = checkpoint;
    request->to = *to;
    client_peer_hold(request->to.peer);
    notes_keep(&request->to.notes);
    const uint64_t deadline_ms = header->deadline_ms ? header->deadline_ms : server->config->frontend.default_deadline;
    deadline_set(server->deadlines, &request->deadline, deadline_ms ? now_ns + deadline_ms * NS_PER_MS : 0);
    request_list_append(&server->checkpoints, request);
    hand_out(server, checkpoint);
    checkpoint_look(server);
}
