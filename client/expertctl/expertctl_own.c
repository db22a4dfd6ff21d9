/* The socket by which a server of this box takes changes. Its file says its name; whose it is says who answers there:
 * where box1 has several frontends, box1-a.socket may be one of them, or of a server called box1-a. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/expertctl/expertctl.h"
#include "common/run_dir.h"

enum { GLANCE_MS = 100, LOOK_S = 10 };

static const char scheme[] = "ipc://", ending[] = ".socket";

/* Those of a folder that may be a server's. */
struct search {
    const struct expertctl *ctl;
    const char *server;
    struct expertd_client *client; /* of the frontend that was found; NULL: none yet */
    struct expertd_call *pong;     /* what it says */
    char endpoint[EXPERTCTL_SOCKET_SIZE];
    char others[512]; /* names of those that answer, and are not known to be this server's */
    bool several;     /* servers that it may be */
};

bool expertctl_socket_of(const struct expertctl *ctl, const char *name, char endpoint[EXPERTCTL_SOCKET_SIZE])
{
    char folder[PATH_MAX];
    endpoint[0] = 0;
    if (!ctl->run_dir && run_dir_default(folder, sizeof folder) < 0)
        return false;
    const int length = snprintf(endpoint, EXPERTCTL_SOCKET_SIZE, "%s%s/%s%s", scheme,
                                ctl->run_dir ? ctl->run_dir : folder, name, ending);
    if (length < 0 || length >= EXPERTCTL_SOCKET_SIZE)
        endpoint[0] = 0;
    return endpoint[0];
}

static bool is_there(const char *endpoint)
{
    return access(endpoint + strlen(scheme), F_OK) == 0;
}

/* Whether some process listens there, be it stopped; else the file is what one that was killed has left. */
static bool listens(const char *endpoint)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = endpoint + strlen(scheme);
    const size_t length = strlen(path);
    if (length >= sizeof address.sun_path)
        return false;
    memcpy(address.sun_path, path, length);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return true;
    const bool taken = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    const bool busy = errno == EAGAIN;
    close(fd);
    return taken || busy;
}

static void let_go(struct expertd_client **client, struct expertd_call **ping)
{
    expertd_call_release(ping);
    expertd_client_destroy(client);
}

/* Asks the frontend at that socket what it is; *client and *ping are let go. False: nobody is there; *code says more
 * where it cannot even be asked. */
static bool ask(const struct expertctl *ctl, const char *endpoint, struct expertd_client **client,
                struct expertd_call **ping, enum exit_code *code)
{
    struct expertctl at = *ctl;
    const uint32_t most_ms = expertctl_timeout_ms(ctl, LOOK_S), look_ms = LOOK_S * 1000;
    at.endpoint = endpoint;
    *client = expertctl_connect(&at, code);
    if (!*client)
        return false;
    const int made = expertd_ping(*client, most_ms < look_ms ? most_ms : look_ms, ping);
    if (made < 0) {
        *code = expertctl_fail_here(ctl, strerror(-made));
        return false;
    }
    int waited;
    while ((waited = expertd_call_wait(*ping, GLANCE_MS)) == -EINTR)
        ;
    return waited == 0 || listens(endpoint); /* to look at the socket itself is counted there as a broken connection */
}

static const struct expertd_pong *answer(struct expertd_call *ping)
{
    while (expertd_call_wait(ping, -1) == -EINTR)
        ;
    return expertd_call_pong(ping);
}

static bool begins_with(const char *name, const char *server)
{
    const size_t length = strlen(server);
    return strncmp(name, server, length) == 0 && name[length] == '-';
}

/* Whether who says this is a frontend of that server, and not of another one whose name begins like it: the names of
 * all frontends of box1-a go on alike behind box1. */
static bool is_of(const struct expertd_pong *pong, const char *server)
{
    if (pong->frontends_count == 0 || !begins_with(pong->server, server))
        return false;
    const char *own = pong->server + strlen(server) + 1;
    size_t alike = strlen(own);
    for (size_t i = 0; i < pong->frontends_count; i++) {
        if (!begins_with(pong->frontends[i].server, server))
            return false;
        const char *other = pong->frontends[i].server + strlen(server) + 1;
        size_t same = 0;
        while (same < alike && own[same] == other[same])
            same++;
        alike = same;
    }
    return !memchr(own, '-', alike);
}

static bool names(const struct expertd_pong *pong, const char *frontend)
{
    bool named = pong && strcmp(pong->server, frontend) == 0;
    for (size_t i = 0; pong && !named && i < pong->frontends_count; i++)
        named = strcmp(pong->frontends[i].server, frontend) == 0;
    return named;
}

static void look_at(struct search *search, const char *name, enum exit_code *code)
{
    char endpoint[EXPERTCTL_SOCKET_SIZE];
    struct expertd_client *client = NULL;
    struct expertd_call *ping = NULL;
    if ((search->pong && names(expertd_call_pong(search->pong), name)) ||
        !expertctl_socket_of(search->ctl, name, endpoint))
        return;
    const struct expertd_pong *pong = ask(search->ctl, endpoint, &client, &ping, code) ? answer(ping) : NULL;
    const bool is_own = pong && is_of(pong, search->server);
    const size_t used = strlen(search->others);
    if (is_own && !search->client) {
        search->client = client;
        search->pong = ping;
        snprintf(search->endpoint, sizeof search->endpoint, "%s", endpoint);
        return;
    }
    search->several |= is_own;
    if (pong && used < sizeof search->others)
        snprintf(search->others + used, sizeof search->others - used, "%s%s", used ? ", " : "", name);
    let_go(&client, &ping);
}

/* Looks at all NAME-*.socket in the folder. False: there is none. */
static bool look_around(struct search *search, const char *folder, enum exit_code *code)
{
    struct dirent **entries;
    bool any = false;
    const int count = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char *name = entries[i]->d_name;
        const size_t length = strlen(name), end = strlen(ending);
        if (*code == EXIT_OK && length > end && strcmp(name + length - end, ending) == 0 &&
            begins_with(name, search->server)) {
            name[length - end] = 0;
            look_at(search, name, code);
            any = true;
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return any;
}

static enum exit_code refuse(const struct search *search, const char *folder)
{
    char message[2048];
    if (search->several)
        snprintf(message, sizeof message,
                 "'%.64s' may be more than one server in %.512s: --server %s, or %s, or another of those whose names "
                 "begin like it",
                 search->server, folder, expertd_call_pong(search->pong)->server, search->others);
    else if (search->others[0])
        snprintf(message, sizeof message,
                 "no server '%.64s' answers in %.512s, but %s: --server says which one is meant", search->server,
                 folder, search->others);
    else
        snprintf(message, sizeof message, "no frontend of a server '%.64s' answers in %.512s", search->server, folder);
    return expertctl_fail(search->ctl, search->several ? EXPERTD_INVALID_ARGUMENT : EXPERTD_UNAVAILABLE, message);
}

/* endpoint: NAME.socket, which is not there, or at which nobody is. */
static enum exit_code search_frontends(const struct expertctl *ctl, const char *server,
                                       char endpoint[EXPERTCTL_SOCKET_SIZE])
{
    struct search search = {.ctl = ctl, .server = server};
    enum exit_code code = EXIT_OK;
    char folder[EXPERTCTL_SOCKET_SIZE];
    snprintf(folder, sizeof folder, "%s", endpoint + strlen(scheme));
    *strrchr(folder, '/') = 0;
    const bool left = is_there(endpoint), any = look_around(&search, folder, &code);
    const bool found = search.client && !search.several;
    if (found)
        snprintf(endpoint, EXPERTCTL_SOCKET_SIZE, "%s", search.endpoint);
    else if (code == EXIT_OK && any && (search.several || !left)) /* else it may come yet */
        code = refuse(&search, folder);
    let_go(&search.client, &search.pong);
    return code;
}

enum exit_code expertctl_own_socket(const struct expertctl *ctl, char endpoint[EXPERTCTL_SOCKET_SIZE])
{
    const char *server = ctl->server ? ctl->server : "expertd";
    if (!expertctl_socket_of(ctl, server, endpoint))
        return expertctl_usage(ctl, "the path of the server's socket is too long: see --run-dir and --server");
    if (is_there(endpoint)) {
        struct expertd_client *client = NULL;
        struct expertd_call *ping = NULL;
        enum exit_code code = EXIT_OK;
        const bool listening = ask(ctl, endpoint, &client, &ping, &code);
        let_go(&client, &ping);
        if (listening || code != EXIT_OK)
            return code;
    }
    return search_frontends(ctl, server, endpoint);
}
