#include "frontend/changes.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/config_cut.h"
#include "common/config_diff.h"
#include "common/config_live.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/uid.h"
#include "frontend/change.h"
#include "frontend/change_order.h"
#include "frontend/device_link.h"
#include "frontend/elsewhere.h"
#include "frontend/moves.h"
#include "frontend/roster.h"

struct changes {
    struct server *server;
    struct {
        const struct config_program *program;
        int argc;
        char **argv;
        const char *frontend;
    } source;
    struct config *file; /* that `live` is changes of; the program's own until a RELOAD */
    struct config *live; /* NULL: `file` */
    uint64_t live_fingerprint;
    uint64_t *refused; /* by device: what is live and what it has instead, when it refused to be brought to it; 0 */
    struct request_list waiting;
    struct moves *moves;
    struct change *change;            /* the one that runs */
    struct request *asker;            /* of it; NULL: nobody, or he has gone */
    struct config *next, *next_file;  /* what it wants */
    struct elsewhere *next_elsewhere; /* what the others have, as the file says then; NULL: as before */
    struct config_diff diff;
    uint32_t lost; /* a device whose experts it moves; CHANGE_NONE */
    bool reloads;  /* it is a RELOAD */
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
    int rc = c && live ? change_create(&c->change, server) : -ENOMEM;
    if (rc == 0)
        rc = moves_create(&c->moves, server);
    if (rc == 0 && !(c->refused = calloc((size_t)server->config->devices_count + 1, sizeof *c->refused)))
        rc = -ENOMEM;
    if (rc < 0) {
        free(live);
        return rc;
    }
    c->server = server;
    c->lost = CHANGE_NONE;
    if (config_live_read(live, server->config) == 1) {
        c->live = live;
        c->live_fingerprint = config_diff_fingerprint(live);
        server->live = live;
    } else {
        free(live);
    }
    return 0;
}

static void forget(struct changes *changes)
{
    config_diff_free(&changes->diff);
    free_config(&changes->next);
    free_config(&changes->next_file);
    elsewhere_destroy(&changes->next_elsewhere);
    changes->asker = NULL;
    changes->lost = CHANGE_NONE;
    if (changes->reloads)
        notify_reloaded();
    changes->reloads = false;
}

void changes_destroy(struct changes **changes)
{
    struct changes *c = *changes;
    *changes = NULL;
    if (!c)
        return;
    for (struct request *request = c->waiting.first; request; request = request->next)
        change_order_destroy(&request->change);
    change_destroy(&c->change);
    moves_destroy(&c->moves);
    forget(c);
    free_config(&c->live);
    free_config(&c->file);
    free(c->refused);
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

void changes_can_reload(struct server *server, const struct config_program *program, int argc, char **argv,
                        const char *frontend)
{
    server->changes->source.frontend = frontend;
    server->changes->source.program = program;
    server->changes->source.argc = argc;
    server->changes->source.argv = argv;
}

void changes_close_places(struct server *server)
{
    if (server->changes)
        change_close_places(server->changes->change);
}

/* --- answers ---------------------------------------------------------------------------------------------------------
 */

static void settle(struct server *server, struct request *request)
{
    server_answered(server, request);
    change_order_destroy(&request->change);
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
}

/* --- the change that runs --------------------------------------------------------------------------------------------
 */

/* Whose it was is told; nothing was changed. */
static void end_refused(struct changes *changes)
{
    const char *why = change_why(changes->change);
    if (changes->asker)
        refuse(changes->server, changes->asker, change_status(changes->change), why);
    else if (changes->lost != CHANGE_NONE)
        moves_refused(changes->moves, changes->lost, change_status(changes->change), why, clock_now_ns());
    else
        log_warning("a runtime does not take on the experts that are live: %s", why);
    forget(changes);
}

static void abort_it(struct changes *changes, enum status status, const char *why)
{
    change_refuse(changes->change, status, why);
    change_abort(changes->change);
    end_refused(changes);
}

static void take_on(struct changes *changes)
{
    struct server *server = changes->server;
    if (changes->next_file) {
        free_config(&changes->file);
        changes->file = changes->next_file;
        changes->next_file = NULL;
    }
    if (changes->next_elsewhere) {
        elsewhere_destroy(&server->elsewhere);
        server->elsewhere = changes->next_elsewhere;
        changes->next_elsewhere = NULL;
        server->list_generation++;
    }
    struct config *old = changes->live;
    changes->live = changes->next;
    changes->next = NULL;
    changes->live_fingerprint = config_diff_fingerprint(changes->live);
    server->live = changes->live;
    /* The diff's entries are of the old one, and only their uids, which are its own, are still looked at. */
    free_config(&old);
}

static void end_done(struct changes *changes)
{
    report(changes);
    if (changes->lost != CHANGE_NONE)
        moves_done(changes->moves, changes->lost);
    forget(changes);
}

static void look(struct changes *changes)
{
    enum change_event event;
    while ((event = change_look(changes->change)) != CHANGE_WAITS) {
        if (event == CHANGE_ACCEPTED) {
            take_on(changes);
            continue;
        }
        if (event == CHANGE_REFUSED)
            end_refused(changes);
        else
            end_done(changes);
        return;
    }
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

/* As it was: what the file says of it counts from the next start. */
static void set_log(const struct changes *changes)
{
    const struct config_server *server = &changes->server->config->server;
    enum log_level level;
    enum log_format format;
    if (log_level_parse(server->log_level, &level) == 0)
        log_open(changes->source.program->name, level);
    if (log_format_parse(server->log_format, &format) == 0)
        log_set_format(format);
}

/* The part of a whole configuration that is this frontend's; the whole is gone then. */
static int cut(struct changes *changes, struct config *whole)
{
    struct config part;
    const struct config *chosen;
    int rc = config_cut_frontend(&chosen, &part, whole, changes->source.frontend);
    if (rc == 0)
        rc = elsewhere_create(&changes->next_elsewhere, whole, chosen->server.name);
    if (rc == 0 && chosen == whole)
        return 0;
    config_destroy(whole);
    if (rc == 0)
        *whole = part;
    else
        config_destroy(&part);
    return rc;
}

static int read_file(struct changes *changes, char **text)
{
    struct config *file = calloc(1, sizeof *file);
    if (!file)
        return -ENOMEM;
    int rc = config_load(file, changes->source.program, changes->source.argc, changes->source.argv);
    set_log(changes);
    if (rc == 0)
        rc = cut(changes, file);
    if (rc < 0) {
        free(file);
        return rc;
    }
    changes->next_file = file;
    const char *elsewhere = config_diff_elsewhere(changes->server->config, file);
    const char *other = elsewhere_changed(changes->server->elsewhere, changes->next_elsewhere);
    if (elsewhere)
        snprintf(changes->note, sizeof changes->note,
                 "what is new in the section '%s' counts from the next start of the programs on", elsewhere);
    else if (other)
        snprintf(changes->note, sizeof changes->note, "another frontend has other experts, too: reload --server %.32s",
                 other);
    *text = print(file);
    return *text ? 0 : -ENOMEM;
}

static enum status status_of(int error)
{
    return error == -ENOENT   ? STATUS_NOT_FOUND
           : error == -EEXIST ? STATUS_ALREADY_EXISTS
           : error == -ENOMEM ? STATUS_RESOURCE_EXHAUSTED
                              : STATUS_INVALID_ARGUMENT;
}

/* That of the name, or NULL. */
static struct device_link *device_of(const struct server *server, const char *name)
{
    for (unsigned d = 0; d < server->devices_count; d++)
        if (strcmp(server->devices[d]->name, name) == 0)
            return server->devices[d];
    return NULL;
}

/* Every device that the change touches is there; one that is lost, and whose experts go elsewhere, need not be. */
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
            change_refuse(changes->change, STATUS_INVALID_ARGUMENT, text);
            return false;
        }
        if (changes->lost != CHANGE_NONE && device == changes->server->devices[changes->lost])
            continue;
        if (device_link_refusal(device, text, sizeof text)) {
            change_refuse(changes->change, STATUS_UNAVAILABLE, text);
            return false;
        }
    }
    return true;
}

static int by_uid(const void *a, const void *b)
{
    const struct config_diff_item *const *left = a, *const *right = b;
    return strcmp((*left)->uid, (*right)->uid);
}

/* Experts that would go from a device to another, whose checkpoints the one still has when the other wants them. */
struct torn {
    const struct config_diff_item *from, *to; /* of the first */
    size_t count;
};

static bool learns(const struct config_expert *expert)
{
    return strcmp(expert->optimizer, "none") != 0;
}

/* 0 or -ENOMEM. */
static int find_torn(const struct config_diff *diff, struct torn *torn)
{
    const struct config_diff_item **gone = calloc(diff->count + 1, sizeof(struct config_diff_item *));
    size_t count = 0;
    *torn = (struct torn){0};
    if (!gone)
        return -ENOMEM;
    for (size_t i = 0; i < diff->count; i++)
        if (diff->items[i].difference == CONFIG_REMOVED && learns(diff->items[i].old))
            gone[count++] = &diff->items[i];
    qsort(gone, count, sizeof *gone, by_uid);
    for (size_t i = 0; i < diff->count; i++) {
        const struct config_diff_item *to = &diff->items[i];
        const bool comes = to->difference == CONFIG_ADDED && learns(to->new);
        const struct config_diff_item *const *from = comes ? bsearch(&to, gone, count, sizeof *gone, by_uid) : NULL;
        if (from && torn->count++ == 0) {
            torn->from = *from;
            torn->to = to;
        }
    }
    free(gone);
    return 0;
}

/* What has learned moves in two steps. */
static int refuse_torn(struct changes *changes)
{
    char text[CONTROL_WHY_SIZE], others[48] = "";
    struct torn torn;
    if (!changes->reloads || !changes->server->config->checkpoint.dir[0])
        return 0;
    const int rc = find_torn(&changes->diff, &torn);
    if (rc < 0 || torn.count == 0)
        return rc;
    if (torn.count > 1)
        snprintf(others, sizeof others, " (and %zu more, likewise)", torn.count - 1);
    snprintf(text, sizeof text,
             "'%.64s' trains, and does not go from device '%.32s' to '%.32s' in one step, as its checkpoints have one "
             "owner at a time: expertctl unload %.64s%s, then reload again",
             torn.to->uid, torn.from->old->device, torn.to->new->device, torn.to->uid, others);
    change_refuse(changes->change, STATUS_INVALID_ARGUMENT, text);
    return -EBUSY;
}

/* Uids that are about to go. */
struct closing {
    char **uids;
    size_t count;
};

static int add_closing(struct closing *closing, const char *uid)
{
    char *copy = strdup(uid);
    if (!copy)
        return -ENOMEM;
    closing->uids[closing->count++] = copy;
    return 0;
}

static void free_closing(struct closing *closing)
{
    for (size_t i = 0; i < closing->count; i++)
        free(closing->uids[i]);
    free(closing->uids);
    *closing = (struct closing){0};
}

/* A lost device's have none that could go on: they are ended when they are elsewhere. */
static int list_closing(const struct changes *changes, struct closing *closing)
{
    closing->uids = calloc(changes->diff.count + 1, sizeof(char *));
    int rc = closing->uids ? 0 : -ENOMEM;
    for (size_t i = 0; i < changes->diff.count && rc == 0 && changes->lost == CHANGE_NONE; i++)
        if (changes->diff.items[i].difference == CONFIG_REMOVED || changes->diff.items[i].difference == CONFIG_REPLACED)
            rc = add_closing(closing, changes->diff.items[i].uid);
    return rc;
}

/* What the text says is to be live. */
static int propose(struct changes *changes, const char *text, const char *origin, struct closing *closing)
{
    char why[96];
    int rc = parse(&changes->next, text, origin);
    if (rc == 0)
        rc = config_diff_make(&changes->diff, changes->server->live, changes->next, NULL);
    if (rc == 0 && !all_there(changes))
        rc = -ENODEV;
    if (rc == 0)
        rc = refuse_torn(changes);
    if (rc == 0) {
        const int written = config_live_propose(changes->server->config,
                                                changes->next_file ? changes->next_file : file_of(changes), text);
        if (written < 0) {
            snprintf(why, sizeof why, "cannot write to server.run_dir: %s", strerror(-written));
            change_refuse(changes->change, STATUS_INTERNAL, why);
            rc = -EIO;
        }
    }
    if (rc == 0)
        rc = list_closing(changes, closing);
    return rc;
}

/* The server.name of the frontend that the change belongs to, where that is another one: an expert is changed where it
 * is, and loaded where its device is, or where the configuration has it. NULL: it belongs here. */
static const char *owner_of(const struct changes *changes, const struct change_order *order)
{
    const struct elsewhere *elsewhere = changes->server->elsewhere;
    const char *uid = change_order_uid(order), *device = change_order_device(order);
    struct elsewhere_expert expert;
    if (!elsewhere || change_order_reloads(order))
        return NULL;
    if (elsewhere_find(elsewhere, uid, &expert))
        return expert.server;
    if (device)
        return elsewhere_server_of(elsewhere, device);
    return expert_table_find(changes->server->experts, uid) ? NULL : elsewhere_server_of_entry(elsewhere, uid);
}

/* Where changes of the frontend of that name are taken: its UNIX socket; where clients prove who they are, its endpoint
 * for them. */
static void say_where(const struct server *server, const char *name, char endpoint[PATH_MAX + 16])
{
    const char *other, *advertise;
    snprintf(endpoint, PATH_MAX + 16, "ipc://%s/%s.socket", server->config->server.run_dir, name);
    for (unsigned i = 0;
         guard_is_on(&server->endpoint.guard) && elsewhere_frontend(server->elsewhere, i, &other, &advertise); i++)
        if (strcmp(other, name) == 0)
            snprintf(endpoint, PATH_MAX + 16, "%s", advertise);
}

/* Whether the change belongs to another frontend, as its asker is told then. */
static bool belongs_elsewhere(struct changes *changes, struct request *request)
{
    char text[CONFIG_EDIT_WHY_SIZE], endpoint[PATH_MAX + 16];
    struct server *server = changes->server;
    const char *owner = owner_of(changes, request->change);
    if (!owner)
        return false;
    snprintf(text, sizeof text, "'%.64s' belongs to another frontend of this server: --server %.32s",
             change_order_uid(request->change), owner);
    say_where(server, owner, endpoint);
    reply_elsewhere(&server->replier, &request->to, message_clean(text), endpoint);
    settle(server, request);
    return true;
}

static int propose_order(struct changes *changes, const struct change_order *order, struct closing *closing)
{
    char *text = NULL, why[CONFIG_EDIT_WHY_SIZE] = "";
    const bool reload = change_order_reloads(order);
    int rc = reload ? read_file(changes, &text)
                    : change_order_edit(order, changes->server->live, file_of(changes), &text, why);
    if (rc == 0)
        rc = propose(changes, text, reload ? "the configuration" : "the change", closing);
    else if (why[0])
        change_refuse(changes->change, status_of(rc), why);
    free(text);
    return rc;
}

static void begin(struct changes *changes, struct closing *closing, uint32_t only)
{
    change_begin(changes->change, closing->uids, closing->count, only, changes->lost);
    look(changes);
}

static void start(struct changes *changes, struct request *request)
{
    struct closing closing = {0};
    char said[CONTROL_WHY_SIZE];
    if (belongs_elsewhere(changes, request))
        return;
    changes->asker = request;
    changes->note[0] = 0;
    changes->reloads = change_order_reloads(request->change);
    if (changes->reloads)
        notify_reloading();
    change_reset(changes->change);
    log_divert(said, sizeof said);
    const int rc = propose_order(changes, request->change, &closing);
    log_divert(NULL, 0);
    if (rc == 0) {
        begin(changes, &closing, CHANGE_ALL);
        return;
    }
    free_closing(&closing);
    abort_it(changes, status_of(rc), said[0] ? said : strerror(-rc));
}

/* --- a device that is lost -------------------------------------------------------------------------------------------
 */

static bool move(struct changes *changes)
{
    struct closing closing = {0};
    char *text;
    const uint64_t now_ns = clock_now_ns();
    const int found = moves_propose(changes->moves, now_ns, &changes->lost, &text);
    if (found <= 0) {
        changes->lost = CHANGE_NONE;
        return false;
    }
    change_reset(changes->change);
    const int rc = propose(changes, text, "the move", &closing);
    free(text);
    if (rc == 0) {
        begin(changes, &closing, CHANGE_ALL);
        return true;
    }
    free_closing(&closing);
    abort_it(changes, STATUS_INTERNAL, strerror(-rc));
    return true;
}

/* --- a runtime that has other experts --------------------------------------------------------------------------------
 */

static bool is_live(const struct server *server, const char *uid)
{
    const struct expert_place *place = expert_table_find(server->experts, uid);
    return place && place->configured;
}

static int list_strangers(const struct server *server, const struct device_link *device, struct closing *closing)
{
    closing->uids = calloc((size_t)device->experts_count + 1, sizeof(char *));
    int rc = closing->uids ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < expert_table_count(server->experts) && rc == 0; i++) {
        const struct expert_place *place = expert_table_at(server->experts, i);
        const char *uid = expert_table_uid(server->experts, place);
        if (server->devices[place->device] == device && place->expert != EXPERT_ABSENT && !is_live(server, uid) &&
            closing->count < device->experts_count)
            rc = add_closing(closing, uid);
    }
    return rc;
}

static void bring(struct changes *changes, uint32_t d)
{
    struct closing closing = {0};
    struct server *server = changes->server;
    change_reset(changes->change);
    char *text = print(changes->live);
    int rc = text ? parse(&changes->next, text, "what is live") : -ENOMEM;
    if (rc == 0)
        rc = config_live_propose(server->config, file_of(changes), text);
    free(text);
    if (rc == 0)
        rc = list_strangers(server, server->devices[d], &closing);
    if (rc == 0) {
        begin(changes, &closing, d);
        return;
    }
    free_closing(&closing);
    abort_it(changes, STATUS_INTERNAL, strerror(-rc));
}

/* One that began before the last change was what is live, and came up after it. */
static bool differs(struct changes *changes, uint32_t d)
{
    const struct device_link *device = changes->server->devices[d];
    if (device->state != DEVICE_UP)
        return false;
    const uint64_t has = atomic_load_explicit(&control_page(device->control)->runtime.config, memory_order_acquire);
    const uint64_t both = uid_hash((const uint64_t[]){has, changes->live_fingerprint}, 2 * sizeof has);
    if (has == changes->live_fingerprint || changes->refused[d] == both)
        return false;
    changes->refused[d] = both;
    return true;
}

void changes_bring(struct server *server)
{
    struct changes *changes = server->changes;
    for (unsigned d = 0; d < server->devices_count && changes->live; d++)
        if (change_stage(changes->change) == CHANGE_IDLE && differs(changes, d))
            bring(changes, d);
    if (change_stage(changes->change) == CHANGE_IDLE)
        move(changes);
}

/* --- requests --------------------------------------------------------------------------------------------------------
 */

static const char *what_is_wrong(const struct changes *changes, const Expertd__RequestHeader *header, int fd,
                                 enum status *status)
{
    *status = STATUS_INVALID_ARGUMENT;
    if (header->method == EXPERTD__METHOD__RELOAD && !changes->source.program) {
        *status = STATUS_UNIMPLEMENTED;
        return "there is no configuration that could be read again";
    }
    /* Where clients prove who they are, this one is an operator (frontend/access.h). */
    if (!guard_is_on(&changes->server->endpoint.guard) && !change_order_of_owner(fd))
        return "experts are changed by the server's own user alone, over its UNIX socket "
               "(<server.run_dir>/NAME.socket)";
    return change_order_fault(header);
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
        request->change = change_order_create(header);
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
    if (change_stage(changes->change) != CHANGE_IDLE)
        look(changes);
    while (change_stage(changes->change) == CHANGE_IDLE && changes->waiting.first) {
        struct request *request = changes->waiting.first;
        request_list_remove(&changes->waiting, request);
        start(changes, request);
    }
}

void changes_refresh_elsewhere(struct server *server)
{
    struct changes *changes = server->changes;
    struct elsewhere *newer = NULL;
    struct config *whole = changes->source.program ? calloc(1, sizeof *whole) : NULL;
    if (!whole)
        return;
    const int rc = config_load(whole, changes->source.program, changes->source.argc, changes->source.argv);
    set_log(changes);
    if (rc == 0 && elsewhere_create(&newer, whole, server->config->server.name) == 0 && newer) {
        elsewhere_destroy(&server->elsewhere);
        server->elsewhere = newer;
        server->list_generation++;
    }
    if (rc == 0)
        config_destroy(whole);
    free(whole);
}

uint32_t changes_running(const struct server *server)
{
    return server->changes->waiting.count + (change_stage(server->changes->change) != CHANGE_IDLE);
}

void changes_expire(struct server *server, struct request *request)
{
    struct changes *changes = server->changes;
    if (request != changes->asker) {
        request_list_remove(&changes->waiting, request);
        refuse(server, request, STATUS_DEADLINE_EXCEEDED, "the deadline came first; nothing was changed");
    } else if (change_stage(changes->change) == CHANGE_COMMITTING) {
        refuse(server, request, STATUS_DEADLINE_EXCEEDED, "the deadline came first; the change will still be done");
        changes->asker = NULL;
    } else {
        abort_it(changes, STATUS_DEADLINE_EXCEEDED, "the deadline came first; nothing was changed");
    }
}

void changes_fail(struct server *server, enum status status, const char *message)
{
    struct changes *changes = server->changes;
    if (change_stage(changes->change) == CHANGE_COMMITTING) {
        if (changes->asker)
            refuse(server, changes->asker, status, message);
        change_leave(changes->change);
        forget(changes);
    } else if (change_stage(changes->change) != CHANGE_IDLE) {
        abort_it(changes, status, message);
    }
    while (changes->waiting.first) {
        struct request *request = changes->waiting.first;
        request_list_remove(&changes->waiting, request);
        refuse(server, request, status, message);
    }
}
