/* expertctl: one command, one process. Shared by its files. */
#ifndef EXPERTD_CLIENT_EXPERTCTL_H
#define EXPERTD_CLIENT_EXPERTCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/dht_client.h"
#include "client/expertd.h"
#include "client/expertctl/json.h"

/* What scripts are told; --help lists them. */
enum exit_code {
    EXIT_OK = 0,
    EXIT_OTHER = 1, /* INTERNAL, UNIMPLEMENTED */
    EXIT_USAGE = 2,
    EXIT_UNAVAILABLE = 3,
    EXIT_NOT_FOUND = 4,
    EXIT_INVALID_ARGUMENT = 5,
    EXIT_DEADLINE_EXCEEDED = 6,
    EXIT_RESOURCE_EXHAUSTED = 7,
    EXIT_ABORTED = 8,
    EXIT_ALREADY_EXISTS = 9,
    EXIT_PERMISSION_DENIED = 11,
    EXIT_LOCAL = 10, /* what went wrong on this side: files, memory, descriptors */
};

enum { EXPERTCTL_MAX_FILES = EXPERTD_MAX_TENSORS, EXPERTCTL_MAX_SETTINGS = 64, EXPERTCTL_SOCKET_SIZE = 4096 + 128 };

struct paths {
    const char *path[EXPERTCTL_MAX_FILES];
    size_t count;
};

struct expertctl {
    const char *command;
    const char *endpoint;
    const char *dht;
    bool dht_given; /* by option or environment, so that it is meant */
    bool json;
    double timeout_s;                   /* 0: the command's default */
    const char *metadata, *traceparent; /* NULL */
    enum expertd_codec codec;           /* both ways */
    bool codec_given;
    const char *server_key, *key_file; /* NULL: the environment's */
    const char *role, *name;           /* keygen */
    struct paths inputs, grad_outputs, outputs;
    bool no_grad[EXPERTCTL_MAX_FILES]; /* backward: inputs by their number */
    bool no_grad_given;
    uint32_t count; /* draw, stats --watch */
    bool count_given;
    bool watch;              /* stats */
    double interval_s;       /* stats --watch, top; 0: a second */
    const char *concurrency; /* bench, and what follows; NULL: the default; numbers 0 likewise */
    uint64_t rows, windows;
    double window_s, stability;
    bool backward, csv;
    uint64_t experts; /* wait */
    bool experts_given;
    char *settings[EXPERTCTL_MAX_SETTINGS]; /* load and set: "option=value" */
    size_t n_settings;
    bool too_many_settings;
    const char *run_dir, *server; /* of a server of this box, for its UNIX socket; NULL: by default */
    bool endpoint_given;
    char **arguments; /* behind the command */
    size_t n_arguments;
};

typedef enum exit_code expertctl_command(struct expertctl *ctl);
expertctl_command expertctl_ping, expertctl_list, expertctl_info, expertctl_stats, expertctl_checkpoint, expertctl_wait;
expertctl_command expertctl_top, expertctl_bench;
expertctl_command expertctl_load, expertctl_unload, expertctl_set, expertctl_reload;
expertctl_command expertctl_forward, expertctl_backward;
expertctl_command expertctl_resolve, expertctl_search, expertctl_draw;
expertctl_command expertctl_keygen;

uint32_t expertctl_timeout_ms(const struct expertctl *ctl, double default_s);
/* Connects, or says why not; NULL and *code then. */
struct expertd_client *expertctl_connect(const struct expertctl *ctl, enum exit_code *code);
/* Says that a key that was given is none. */
enum exit_code expertctl_bad_key(const struct expertctl *ctl);
/* Keeps "option=value", of which a path is made absolute, for load and set; more than there is room for are left out,
 * and too_many_settings is set. */
void expertctl_add_setting(struct expertctl *ctl, const char *option, const char *value);
/* Where a frontend of that name takes changes on this box. False: the path is too long. */
bool expertctl_socket_of(const struct expertctl *ctl, const char *name, char endpoint[EXPERTCTL_SOCKET_SIZE]);
/* The same of --server: where it has several frontends, of one of them that answers. Says why there is none, and
 * returns what is not EXIT_OK; also where it is not certain that the frontend is that server's. */
enum exit_code expertctl_own_socket(const struct expertctl *ctl, char endpoint[EXPERTCTL_SOCKET_SIZE]);
/* Waits for the call that `made` (the result of making it) has put on its way, releases it if it failed, and says how.
 * EXIT_OK: *call is OK. */
enum exit_code expertctl_finish(const struct expertctl *ctl, int made, struct expertd_call **call);
/* Says how a question ended: a line on stderr, with --json an object on stdout too. The exit code for the status. */
enum exit_code expertctl_fail(const struct expertctl *ctl, enum expertd_status status, const char *message);
/* The same of what no server has a part in: there is no status, and EXIT_LOCAL. */
enum exit_code expertctl_fail_here(const struct expertctl *ctl, const char *message);
/* A line on stderr about how the command is to be used. EXIT_USAGE. */
enum exit_code expertctl_usage(const struct expertctl *ctl, const char *problem);

/* {"status": "OK", ... on stdout. */
struct json expertctl_json_start(void);
void expertctl_json_end(struct json *json);

/* The counters of expertd-dht, for `stats`: a question, and how it ended. */
enum exit_code expertctl_dht_status(struct expertctl *ctl, struct json *json);

#endif
