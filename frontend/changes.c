#include "frontend/changes.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/config_diff.h"
#include "common/config_edit.h"
#include "common/config_live.h"
#include "common/log.h"
#include "common/uid.h"
#include "frontend/device_link.h"
#include "frontend/roster.h"
#include "frontend/task.h"

enum { SETTINGS_MAX = 128 };

/* What somebody has asked for, until it is its turn. */
struct change_order {
    Expertd__Method method;
    char uid[UID_SIZE];
    char **settings;
    size_t settings_count;
};

enum stage { STAGE_IDLE, STAGE_CLOSING, STAGE_PREPARING, STAGE_COMMITTING };

/* A runtime's part in the change that runs. */
struct part {
    bool asked;
    uint64_t generation; /* of its segments, when it was */
    uint64_t refused;    /* what is live and what it has instead, when it refused to be brought to it; 0 */
};

struct changes {
    struct server *server;
    struct {
        const struct config_program *program;
        int argc;
        char **argv;
    } source;
    struct config *file; /* that `live` is changes of; the program's own until a RELOAD */
    struct config *live; /* NULL: `file` */
    uint64_t live_fingerprint;
    struct request_list waiting;
    enum stage stage;
    struct request *asker; /* of the one that runs; NULL: nobody, or he has gone */
    struct config *next, *next_file;
    struct config_diff diff;
    struct part *parts;
    char **closing; /* uids that are about to go */
    size_t closing_count;
    uint32_t only; /* device of such a one; UINT32_MAX: all */
    uint64_t number;
    enum status status; /* the first refusal */
    char why[CONTROL_WHY_SIZE];
    char note[128];
};

/* --- beginning and end -----------------------------------------------------------------------------------------------
 */

static void free_config(struct config **config)
{
    if (*config)
        config_destroy(*config);
    free(*config);
    *config = NULL;
}

static const struct config *file_of(const struct changes *changes)
{
    return changes->file ? changes->file : changes->server->config;
}

int changes_create(struct changes **changes, struct server *server)
{
    struct changes *c = *changes = calloc(1, sizeof *c);
    struct config *live = calloc(1, sizeof *live);
    if (c)
        c->parts = calloc((size_t)server->config->devices_count + 1, sizeof *c->parts);
    if (!c || !live || !c->parts) {
        free(live);
        return -ENOMEM;
    }
    c->server = server;
    if (config_live_read(live, server->config) == 1) {
        c->live = live;
        c->live_fingerprint = config_diff_fingerprint(live);
        server->live = live;
    } else {
        free(live);
    }
    return 0;
}

static void free_order(struct request *request)
{
    for (size_t i = 0; i < request->change->settings_count; i++)
        free(request->change->settings[i]);
    free(request->change->settings);
    free(request->change);
    request->change = NULL;
}

static void forget_closing(struct changes *changes)
{
    for (size_t i = 0; i < changes->closing_count; i++)
        free(changes->closing[i]);
    free(changes->closing);
    changes->closing = NULL;
    changes->closing_count = 0;
}

static void forget(struct changes *changes)
{
    config_diff_free(&changes->diff);
    free_config(&changes->next);
    free_config(&changes->next_file);
    forget_closing(changes);
    changes->stage = STAGE_IDLE;
    changes->asker = NULL;
    for (unsigned d = 0; d < changes->server->config->devices_count; d++)
        changes->parts[d].asked = false;
}

void changes_destroy(struct changes **changes)
{
    struct changes *c = *changes;
    *changes = NULL;
    if (!c)
        return;
    for (struct request *request = c->waiting.first; request; request = request->next)
        free_order(request);
    if (c->parts)
        forget(c);
    free_config(&c->live);
    free_config(&c->file);
    free(c->parts);
    free(c);
}

void changes_listen(struct server *server)
{
    int rc;
    char endpoint[PATH_MAX + 16];
    const struct config_server *config = &server->config->server;
    const int length = snprintf(endpoint, sizeof endpoint, "ipc://%s/%s.socket", config->run_dir, config->name);
    const size_t most = sizeof((struct sockaddr_un *)NULL)->sun_path + strlen("ipc://");
    if (length < 0 || (size_t)length >= most)
        log_warning("the path of server.run_dir is too long for a UNIX socket: experts cannot be changed while the "
                    "server runs");
    else if ((rc = endpoint_listen(&server->endpoint, endpoint)) < 0)
        log_warning("cannot bind '%s': %s: experts cannot be changed while the server runs", endpoint,
                    zmq_strerror(-rc));
}

void changes_can_reload(struct server *server, const struct config_program *program, int argc, char **argv)
{
    server->changes->source.program = program;
    server->changes->source.argc = argc;
    server->changes->source.argv = argv;
}

/* --- answers ---------------------------------------------------------------------------------------------------------
 */

static void settle(struct server *server, struct request *request)
{
    server_answered(server, request);
    free_order(request);
    requests_give(server->requests, request);
}

static void refuse(struct server *server, struct request *request, enum status status, const char *why)
{
    char text[CONTROL_WHY_SIZE];
    snprintf(text, sizeof text, "%s", why);
    reply_status(&server->replier, &request->to, status, message_clean(text));
    settle(server, request);
}

static void report(struct changes *changes)
{
    struct request *request = changes->asker;
    Expertd__ReplyHeader header = EXPERTD__REPLY_HEADER__INIT;
    Expertd__Changes counts = EXPERTD__CHANGES__INIT;
    if (!request)
        return;
    for (size_t i = 0; i < changes->diff.count; i++) {
        const enum config_difference difference = changes->diff.items[i].difference;
        counts.loaded += difference == CONFIG_ADDED;
        counts.unloaded += difference == CONFIG_REMOVED;
        counts.replaced += difference == CONFIG_REPLACED;
        counts.set += difference == CONFIG_SET;
    }
    counts.note = changes->note;
    header.changes = &counts;
    reply_header(&changes->server->replier, &request->to, &header);
    settle(changes->server, request);
    changes->asker = NULL;
}

/* --- what goes -------------------------------------------------------------------------------------------------------
 */

static bool takes_part(const struct changes *changes, unsigned d)
{
    return changes->only == UINT32_MAX || changes->only == d;
}

static struct device_link *device_of(const struct server *server, const char *name)
{
    for (unsigned d = 0; d < server->devices_count; d++)
        if (strcmp(server->devices[d]->name, name) == 0)
            return server->devices[d];
    return NULL;
}

void changes_close_places(struct server *server)
{
    struct changes *changes = server->changes;
    for (size_t i = 0; changes && i < changes->closing_count; i++)
        expert_table_close(server->experts, changes->closing[i]);
}

/* Whether nothing of the expert is in its pools; then they are let go of. */
static bool close_expert(struct server *server, const char *uid)
{
    const struct expert_place *place = expert_table_find(server->experts, uid);
    if (!place || place->expert == EXPERT_ABSENT)
        return true;
    struct device_link *device = server->devices[place->device];
    for (uint32_t p = 2 * place->expert; p < 2 * place->expert + 2; p++) {
        const struct pool_link *link = device->pools[p];
        if (link && (link->requests.count > 0 || link->parked.count > 0 || pool_tasks_held(link->pool) > 0))
            return false;
    }
    device_link_close(device, place->expert);
    return true;
}

static void reopen(struct changes *changes)
{
    forget(changes);
    roster_rebuild(changes->server);
}

/* --- the change that runs --------------------------------------------------------------------------------------------
 */

static void note_refusal(struct changes *changes, enum status status, const char *why)
{
    if (changes->status != STATUS_OK)
        return;
    changes->status = status;
    if (why != changes->why)
        snprintf(changes->why, sizeof changes->why, "%.*s", (int)sizeof changes->why - 1, why);
}

static void end_refused(struct changes *changes)
{
    struct server *server = changes->server;
    for (unsigned d = 0; d < server->devices_count; d++)
        if (changes->parts[d].asked && server->devices[d]->control)
            control_change_ask(server->devices[d]->control, changes->number, CONTROL_ABORT);
    if (changes->asker)
        refuse(server, changes->asker, changes->status, changes->why);
    else
        log_warning("a runtime does not take on the experts that are live: %s", changes->why);
    reopen(changes);
}

/* The device as it was when it was asked: it is there, and its segments are the same. */
static bool still_there(const struct changes *changes, unsigned d, char *text, size_t size)
{
    const struct device_link *device = changes->server->devices[d];
    const char *refusal = device_link_refusal(device, text, size);
    if (!refusal && control_generation(device->control) == changes->parts[d].generation)
        return true;
    if (!refusal)
        snprintf(text, size, "the runtime of device '%s' began anew meanwhile", device->name);
    return false;
}

static void ask(struct changes *changes, enum control_phase phase)
{
    struct server *server = changes->server;
    for (unsigned d = 0; d < server->devices_count; d++) {
        struct device_link *device = server->devices[d];
        if (phase == CONTROL_PREPARE)
            changes->parts[d].asked = takes_part(changes, d) && device->state == DEVICE_UP;
        if (!changes->parts[d].asked || !device->control)
            continue;
        if (phase == CONTROL_PREPARE)
            changes->parts[d].generation = control_generation(device->control);
        control_change_ask(device->control, changes->number, phase);
    }
}

/* All experts that go are empty: asks the runtimes. */
static void close_all(struct changes *changes)
{
    struct server *server = changes->server;
    bool empty = true;
    char text[128];
    for (unsigned d = 0; d < server->devices_count; d++)
        if (changes->parts[d].asked && !still_there(changes, d, text, sizeof text))
            note_refusal(changes, STATUS_UNAVAILABLE, text);
    if (changes->status != STATUS_OK) {
        end_refused(changes);
        return;
    }
    for (size_t i = 0; i < changes->closing_count; i++)
        empty &= close_expert(server, changes->closing[i]);
    if (!empty)
        return;
    /* By the clock, so that numbers also grow over a restart of the frontend. */
    const uint64_t now_us = clock_wall_ns() / NS_PER_US;
    changes->number = now_us > changes->number ? now_us : changes->number + 1;
    changes->stage = STAGE_PREPARING;
    ask(changes, CONTROL_PREPARE);
}

static void take_on(struct changes *changes)
{
    struct server *server = changes->server;
    if (changes->next_file) {
        free_config(&changes->file);
        changes->file = changes->next_file;
        changes->next_file = NULL;
    }
    struct config *old = changes->live;
    changes->live = changes->next;
    changes->next = NULL;
    changes->live_fingerprint = config_diff_fingerprint(changes->live);
    server->live = changes->live;
    /* The diff's entries are of the old one, and only their uids, which are its own, are still looked at. */
    free_config(&old);
}

/* As a runtime says it. */
static enum status known_status(uint32_t status)
{
    return strcmp(status_name((enum status)status), "UNKNOWN") == 0 ? STATUS_INTERNAL : (enum status)status;
}

static void prepare_all(struct changes *changes)
{
    struct server *server = changes->server;
    char why[CONTROL_WHY_SIZE];
    for (unsigned d = 0; d < server->devices_count; d++) {
        uint32_t status = STATUS_OK;
        if (!changes->parts[d].asked)
            continue;
        if (!still_there(changes, d, why, sizeof why))
            note_refusal(changes, STATUS_UNAVAILABLE, why);
        else if (!control_change_answered(server->devices[d]->control, changes->number, CONTROL_PREPARE, &status, why))
            return;
        else if (status != STATUS_OK)
            note_refusal(changes, known_status(status), why);
    }
    const int rc = changes->status == STATUS_OK ? config_live_accept(server->config) : 0;
    if (rc < 0) {
        snprintf(why, sizeof why, "cannot write to server.run_dir: %s", strerror(-rc));
        note_refusal(changes, STATUS_INTERNAL, why);
    }
    if (changes->status != STATUS_OK) {
        end_refused(changes);
        return;
    }
    take_on(changes);
    changes->stage = STAGE_COMMITTING;
    ask(changes, CONTROL_COMMIT);
}

/* One that dies now begins with what is live. */
static void commit_all(struct changes *changes)
{
    struct server *server = changes->server;
    char why[CONTROL_WHY_SIZE];
    for (unsigned d = 0; d < server->devices_count; d++) {
        uint32_t status = STATUS_OK;
        if (changes->parts[d].asked && still_there(changes, d, why, sizeof why) &&
            !control_change_answered(server->devices[d]->control, changes->number, CONTROL_COMMIT, &status, why))
            return;
    }
    for (unsigned d = 0; d < server->devices_count; d++)
        if (server->devices[d]->control)
            server->devices[d]->slots_seen = control_slots_version(server->devices[d]->control);
    forget_closing(changes);
    roster_rebuild(server);
    report(changes);
    forget(changes);
}

/* --- how it begins ---------------------------------------------------------------------------------------------------
 */

static int parse(struct config **config, const char *text, const char *origin)
{
    *config = calloc(1, sizeof **config);
    if (!*config)
        return -ENOMEM;
    const int rc = config_parse(*config, text, strlen(text), origin);
    if (rc < 0) {
        free(*config);
        *config = NULL;
    }
    return rc;
}

static char *print(const struct config *config)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    config_print(out, config);
    return fclose(out) == 0 ? text : NULL;
}

static void set_log_level(const struct changes *changes)
{
    enum log_level level;
    if (log_level_parse(changes->server->config->server.log_level, &level) == 0)
        log_open(changes->source.program->name, level);
}

static int read_file(struct changes *changes, char **text)
{
    struct config *file = calloc(1, sizeof *file);
    if (!file)
        return -ENOMEM;
    const int rc = config_load(file, changes->source.program, changes->source.argc, changes->source.argv);
    set_log_level(changes);
    if (rc < 0) {
        free(file);
        return rc;
    }
    changes->next_file = file;
    const char *elsewhere = config_diff_elsewhere(changes->server->config, file);
    if (elsewhere)
        snprintf(changes->note, sizeof changes->note,
                 "what is new in the section '%s' counts from the next start of the programs on", elsewhere);
    *text = print(file);
    return *text ? 0 : -ENOMEM;
}

static int edit(struct changes *changes, const struct change_order *order, char **text)
{
    char why[CONFIG_EDIT_WHY_SIZE] = "";
    const struct config *live = changes->server->live;
    const struct config_settings settings = {(const char *const *)order->settings, order->settings_count};
    int rc;
    switch ((int)order->method) {
    case EXPERTD__METHOD__LOAD:
        rc = config_edit_load(live, file_of(changes), order->uid, &settings, text, why);
        break;
    case EXPERTD__METHOD__UNLOAD:
        rc = config_edit_unload(live, order->uid, text, why);
        break;
    case EXPERTD__METHOD__SET:
        rc = config_edit_set(live, order->uid, &settings, text, why);
        break;
    default:
        return read_file(changes, text);
    }
    if (rc < 0)
        snprintf(changes->why, sizeof changes->why, "%s", why);
    return rc;
}

static enum status status_of(int error)
{
    return error == -ENOENT   ? STATUS_NOT_FOUND
           : error == -EEXIST ? STATUS_ALREADY_EXISTS
           : error == -ENOMEM ? STATUS_RESOURCE_EXHAUSTED
                              : STATUS_INVALID_ARGUMENT;
}

/* Every device that the change touches is there. */
static bool all_there(struct changes *changes)
{
    char text[160];
    for (size_t i = 0; i < changes->diff.count; i++) {
        const struct config_diff_item *item = &changes->diff.items[i];
        const struct config_expert *entry = item->new ? item->new : item->old;
        if (item->difference == CONFIG_SAME)
            continue;
        const struct device_link *device = device_of(changes->server, entry->device);
        if (!device) {
            snprintf(text, sizeof text, "'%.64s' is for device '%.32s', which needs a start of the programs", item->uid,
                     entry->device);
            note_refusal(changes, STATUS_INVALID_ARGUMENT, text);
            return false;
        }
        if (device_link_refusal(device, text, sizeof text)) {
            note_refusal(changes, STATUS_UNAVAILABLE, text);
            return false;
        }
    }
    return true;
}

static int add_closing(struct changes *changes, const char *uid)
{
    char *copy = strdup(uid);
    if (!copy)
        return -ENOMEM;
    changes->closing[changes->closing_count++] = copy;
    return 0;
}

static int list_closing(struct changes *changes)
{
    changes->closing = calloc(changes->diff.count + 1, sizeof(char *));
    int rc = changes->closing ? 0 : -ENOMEM;
    for (size_t i = 0; i < changes->diff.count && rc == 0; i++)
        if (changes->diff.items[i].difference == CONFIG_REMOVED || changes->diff.items[i].difference == CONFIG_REPLACED)
            rc = add_closing(changes, changes->diff.items[i].uid);
    return rc;
}

static int propose(struct changes *changes, const struct change_order *order)
{
    char *text = NULL;
    int rc = edit(changes, order, &text);
    if (rc == 0)
        rc = parse(&changes->next, text, order->method == EXPERTD__METHOD__RELOAD ? "the configuration" : "the change");
    if (rc == 0)
        rc = config_diff_make(&changes->diff, changes->server->live, changes->next, NULL);
    if (rc == 0 && !all_there(changes))
        rc = -ENODEV;
    if (rc == 0) {
        const int written = config_live_propose(changes->server->config,
                                                changes->next_file ? changes->next_file : file_of(changes), text);
        if (written < 0) {
            snprintf(changes->why, sizeof changes->why, "cannot write to server.run_dir: %s", strerror(-written));
            note_refusal(changes, STATUS_INTERNAL, changes->why);
            rc = -EIO;
        }
    }
    if (rc == 0)
        rc = list_closing(changes);
    free(text);
    return rc;
}

static void begin_closing(struct changes *changes)
{
    struct server *server = changes->server;
    for (unsigned d = 0; d < server->devices_count; d++) {
        changes->parts[d].asked = takes_part(changes, d) && server->devices[d]->state == DEVICE_UP;
        if (changes->parts[d].asked)
            changes->parts[d].generation = control_generation(server->devices[d]->control);
    }
    changes_close_places(server);
    server->list_generation++;
    changes->stage = STAGE_CLOSING;
    close_all(changes);
}

static void start(struct changes *changes, struct request *request)
{
    changes->asker = request;
    changes->only = UINT32_MAX;
    changes->status = STATUS_OK;
    changes->why[0] = changes->note[0] = 0;
    char said[CONTROL_WHY_SIZE];
    log_divert(said, sizeof said);
    const int rc = propose(changes, request->change);
    log_divert(NULL, 0);
    if (rc == 0) {
        begin_closing(changes);
        return;
    }
    note_refusal(changes, status_of(rc), changes->why[0] ? changes->why : said[0] ? said : strerror(-rc));
    end_refused(changes);
}

/* --- a runtime that has other experts --------------------------------------------------------------------------------
 */

static bool is_live(const struct server *server, const char *uid)
{
    const struct expert_place *place = expert_table_find(server->experts, uid);
    return place && place->configured;
}

static int list_strangers(struct changes *changes, struct device_link *device)
{
    const struct server *server = changes->server;
    changes->closing = calloc((size_t)device->experts_count + 1, sizeof(char *));
    int rc = changes->closing ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < expert_table_count(server->experts) && rc == 0; i++) {
        const struct expert_place *place = expert_table_at(server->experts, i);
        const char *uid = expert_table_uid(server->experts, place);
        if (server->devices[place->device] == device && place->expert != EXPERT_ABSENT && !is_live(server, uid) &&
            changes->closing_count < device->experts_count)
            rc = add_closing(changes, uid);
    }
    return rc;
}

/* One that began before the last change was what is live, and came up after it. */
void changes_bring(struct server *server)
{
    struct changes *changes = server->changes;
    if (!changes->live || changes->stage != STAGE_IDLE)
        return;
    for (unsigned d = 0; d < server->devices_count; d++) {
        struct device_link *device = server->devices[d];
        if (device->state != DEVICE_UP)
            continue;
        const uint64_t has = atomic_load_explicit(&control_page(device->control)->runtime.config, memory_order_acquire);
        const uint64_t both = uid_hash((const uint64_t[]){has, changes->live_fingerprint}, 2 * sizeof has);
        if (has == changes->live_fingerprint || changes->parts[d].refused == both)
            continue;
        changes->parts[d].refused = both;
        char *text = print(changes->live);
        int rc = text ? parse(&changes->next, text, "what is live") : -ENOMEM;
        if (rc == 0)
            rc = config_live_propose(server->config, file_of(changes), text);
        free(text);
        changes->only = d;
        changes->status = STATUS_OK;
        if (rc == 0)
            rc = list_strangers(changes, device);
        if (rc == 0) {
            begin_closing(changes);
            return;
        }
        note_refusal(changes, STATUS_INTERNAL, strerror(-rc));
        end_refused(changes);
    }
}

/* --- requests --------------------------------------------------------------------------------------------------------
 */

static bool is_owner(int fd)
{
    struct ucred peer = {.uid = (uid_t)-1};
    struct sockaddr_storage name = {0};
    socklen_t size = sizeof peer, name_size = sizeof name;
    return fd >= 0 && getsockname(fd, (struct sockaddr *)&name, &name_size) == 0 && name.ss_family == AF_UNIX &&
           getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == geteuid() || peer.uid == 0);
}

static struct change_order *copy_order(const Expertd__RequestHeader *header)
{
    struct change_order *order = calloc(1, sizeof *order);
    if (!order)
        return NULL;
    order->method = header->method;
    snprintf(order->uid, sizeof order->uid, "%s", header->uid);
    order->settings = calloc(header->n_settings + 1, sizeof *order->settings);
    for (size_t i = 0; order->settings && i < header->n_settings; i++) {
        order->settings[i] = strdup(header->settings[i]);
        order->settings_count += order->settings[i] != NULL;
    }
    if (order->settings && order->settings_count == header->n_settings)
        return order;
    for (size_t i = 0; order->settings && i < header->n_settings; i++)
        free(order->settings[i]);
    free(order->settings);
    free(order);
    return NULL;
}

static const char *what_is_wrong(const struct changes *changes, const Expertd__RequestHeader *header, int fd,
                                 enum status *status)
{
    const bool reload = header->method == EXPERTD__METHOD__RELOAD;
    *status = STATUS_INVALID_ARGUMENT;
    if (reload && !changes->source.program) {
        *status = STATUS_UNIMPLEMENTED;
        return "there is no configuration that could be read again";
    }
    /* Where clients prove who they are, this one is an operator (frontend/access.h). */
    if (!guard_is_on(&changes->server->endpoint.guard) && !is_owner(fd))
        return "experts are changed by the server's own user alone, over its UNIX socket "
               "(<server.run_dir>/NAME.socket)";
    if (header->n_settings > SETTINGS_MAX)
        return "too many settings";
    if (!reload && (strlen(header->uid) >= UID_SIZE || !uid_valid(header->uid)))
        return "that is no uid";
    return NULL;
}

void changes_begin(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header, int fd,
                   uint64_t now_ns)
{
    struct changes *changes = server->changes;
    enum status status;
    const char *wrong = what_is_wrong(changes, header, fd, &status);
    if (wrong) {
        reply_status(&server->replier, to, status, wrong);
        return;
    }
    struct request *request = requests_take(server->requests);
    if (request)
        request->change = copy_order(header);
    if (!request || !request->change) {
        if (request)
            requests_give(server->requests, request);
        reply_status(&server->replier, to, STATUS_RESOURCE_EXHAUSTED, "the server is full");
        return;
    }
    request->to = *to;
    client_peer_hold(request->to.peer);
    const uint64_t deadline_ms = header->deadline_ms ? header->deadline_ms : server->config->frontend.default_deadline;
    deadline_set(server->deadlines, &request->deadline, deadline_ms ? now_ns + deadline_ms * NS_PER_MS : 0);
    request_list_append(&changes->waiting, request);
    changes_look(server);
}

void changes_look(struct server *server)
{
    struct changes *changes = server->changes;
    if (changes->stage == STAGE_CLOSING)
        close_all(changes);
    if (changes->stage == STAGE_PREPARING)
        prepare_all(changes);
    if (changes->stage == STAGE_COMMITTING)
        commit_all(changes);
    while (changes->stage == STAGE_IDLE && changes->waiting.first) {
        struct request *request = changes->waiting.first;
        request_list_remove(&changes->waiting, request);
        start(changes, request);
    }
}

uint32_t changes_running(const struct server *server)
{
    return server->changes->waiting.count + (server->changes->stage != STAGE_IDLE);
}

void changes_expire(struct server *server, struct request *request)
{
    struct changes *changes = server->changes;
    if (request != changes->asker) {
        request_list_remove(&changes->waiting, request);
        refuse(server, request, STATUS_DEADLINE_EXCEEDED, "the deadline came first; nothing was changed");
    } else if (changes->stage == STAGE_COMMITTING) {
        refuse(server, request, STATUS_DEADLINE_EXCEEDED, "the deadline came first; the change will still be done");
        changes->asker = NULL;
    } else {
        note_refusal(changes, STATUS_DEADLINE_EXCEEDED, "the deadline came first; nothing was changed");
        end_refused(changes);
    }
}

void changes_fail(struct server *server, enum status status, const char *message)
{
    struct changes *changes = server->changes;
    if (changes->stage == STAGE_COMMITTING) {
        if (changes->asker)
            refuse(server, changes->asker, status, message);
        forget(changes);
    } else if (changes->stage != STAGE_IDLE) {
        note_refusal(changes, status, message);
        end_refused(changes);
    }
    while (changes->waiting.first) {
        struct request *request = changes->waiting.first;
        request_list_remove(&changes->waiting, request);
        refuse(server, request, status, message);
    }
}
