#include "frontend/changes.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <zmq.h>

#include "common/clock.h"
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
#include "frontend/proposal.h"
#include "frontend/roster.h"

struct changes {
    struct server *server;
    struct startup startup;
    struct config *file; /* that `live` is changes of; the program's own until a RELOAD */
    struct config *live; /* NULL: `file` */
    uint64_t live_fingerprint;
    uint64_t *refused; /* by device: what is live and what it has instead, when it refused to be brought to it; 0 */
    struct request_list waiting;
    struct moves *moves;
    struct change *change;    /* the one that runs */
    struct request *asker;    /* of it; NULL: nobody, or he has gone */
    struct proposal proposal; /* what it wants */
    uint32_t lost;            /* a device whose experts it moves; CHANGE_NONE */
    bool reloads;             /* it is a RELOAD */
};

/* --- beginning and end -----------------------------------------------------------------------------------------------
 */

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
    c->proposal = (struct proposal){.server = server, .change = c->change};
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
    proposal_free(&changes->proposal);
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
    config_free(&c->live);
    config_free(&c->file);
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
    server->changes->startup = (struct startup){program, argc, argv, frontend};
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
    for (size_t i = 0; i < changes->proposal.diff.count; i++) {
        const enum config_difference difference = changes->proposal.diff.items[i].difference;
        counts.loaded += difference == CONFIG_ADDED;
        counts.unloaded += difference == CONFIG_REMOVED;
        counts.replaced += difference == CONFIG_REPLACED;
        counts.set += difference == CONFIG_SET;
    }
    counts.note = changes->proposal.note;
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
    struct proposal *proposal = &changes->proposal;
    if (proposal->file) {
        config_free(&changes->file);
        changes->file = proposal->file;
        proposal->file = NULL;
    }
    if (proposal->elsewhere) {
        elsewhere_destroy(&server->elsewhere);
        server->elsewhere = proposal->elsewhere;
        proposal->elsewhere = NULL;
        server->list_generation++;
    }
    struct config *old = changes->live;
    changes->live = proposal->live;
    proposal->live = NULL;
    changes->live_fingerprint = config_diff_fingerprint(changes->live);
    server->live = changes->live;
    /* The diff's entries are of the old one, and only their uids, which are its own, are still looked at. */
    config_free(&old);
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

static enum status status_of(int error)
{
    return error == -ENOENT   ? STATUS_NOT_FOUND
           : error == -EEXIST ? STATUS_ALREADY_EXISTS
           : error == -ENOMEM ? STATUS_RESOURCE_EXHAUSTED
                              : STATUS_INVALID_ARGUMENT;
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

static int propose(struct changes *changes, const struct change_order *order)
{
    char *text = NULL, why[CONFIG_EDIT_WHY_SIZE] = "";
    const bool reload = change_order_reloads(order);
    int rc = reload ? proposal_read_file(&changes->proposal, &changes->startup, &text)
                    : change_order_edit(order, changes->server->live, file_of(changes), &text, why);
    if (rc == 0)
        rc = proposal_make(&changes->proposal, text, reload ? "the configuration" : "the change", file_of(changes),
                           CHANGE_NONE);
    else if (why[0])
        change_refuse(changes->change, status_of(rc), why);
    free(text);
    return rc;
}

static void begin(struct changes *changes, uint32_t only)
{
    struct proposal *proposal = &changes->proposal;
    change_begin(changes->change, proposal->closing, proposal->closing_count, only, changes->lost);
    proposal->closing = NULL;
    proposal->closing_count = 0;
    look(changes);
}

static void start(struct changes *changes, struct request *request)
{
    char said[CONTROL_WHY_SIZE];
    if (belongs_elsewhere(changes, request))
        return;
    changes->asker = request;
    changes->reloads = change_order_reloads(request->change);
    if (changes->reloads)
        notify_reloading();
    change_reset(changes->change);
    log_divert(said, sizeof said);
    const int rc = propose(changes, request->change);
    log_divert(NULL, 0);
    if (rc == 0) {
        begin(changes, CHANGE_ALL);
        return;
    }
    abort_it(changes, status_of(rc), said[0] ? said : strerror(-rc));
}

/* --- a device that is lost -------------------------------------------------------------------------------------------
 */

static bool move(struct changes *changes)
{
    char *text;
    const uint64_t now_ns = clock_now_ns();
    const int found = moves_propose(changes->moves, now_ns, &changes->lost, &text);
    if (found <= 0) {
        changes->lost = CHANGE_NONE;
        return false;
    }
    change_reset(changes->change);
    const int rc = proposal_make(&changes->proposal, text, "the move", file_of(changes), changes->lost);
    free(text);
    if (rc == 0) {
        begin(changes, CHANGE_ALL);
        return true;
    }
    abort_it(changes, STATUS_INTERNAL, strerror(-rc));
    return true;
}

/* --- a runtime that has other experts --------------------------------------------------------------------------------
 */

static void bring(struct changes *changes, uint32_t d)
{
    change_reset(changes->change);
    const int rc = proposal_repeat(&changes->proposal, changes->live, file_of(changes), d);
    if (rc == 0) {
        begin(changes, d);
        return;
    }
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
    if (header->method == EXPERTD__METHOD__RELOAD && !changes->startup.program) {
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
    struct config *whole = changes->startup.program ? calloc(1, sizeof *whole) : NULL;
    if (!whole)
        return;
    const int rc = startup_read(&changes->startup, server->config, whole);
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
