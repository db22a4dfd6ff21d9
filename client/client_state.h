/* A client's inside: client_setup.c makes it, switchboard.c moves its calls on its own connection, away.c those that go
 * on at other frontends of its server, and client.c is above them. */
#ifndef EXPERTD_CLIENT_CLIENT_STATE_H
#define EXPERTD_CLIENT_CLIENT_STATE_H

#include "client/call.h"
#include "client/connection.h"
#include "client/decoder.h"
#include "client/siblings.h"

enum { CLIENT_ROOMS = 256 };

struct expertd_client {
    struct connection connection;
    struct siblings siblings;
    bool is_sibling;             /* follows nobody */
    bool is_bulk;                /* the second connection to where another one is, for what is large */
    bool kept_out;               /* of that: it was not to be had in time, and not since */
    uint64_t patient_until_ns;   /* of that: calls that it has not taken by then go by the first; UINT64_MAX */
    struct expertd_client *home; /* of a sibling: whose it is; NULL */
    bool stirred; /* something was put on its way, here or at a sibling, since the siblings were looked at last */
    char *endpoint;
    unsigned char id[MESSAGE_CLIENT_ID_SIZE];
    uint32_t deadline_ms;
    uint32_t queue_limit;
    uint64_t max_frame_bytes;
    uint32_t codec, reply_codec;
    uint64_t last_request_id;                           /* of a client that is no sibling */
    uint64_t random;                                    /* of pauses */
    struct key_table backlogs;                          /* of experts that calls are there of */
    TAILQ_HEAD(backlog_list, backlog) waiting_backlogs; /* where calls wait */
    uint64_t resume_ns;                                 /* none of these is due earlier */
    bool impatient;
    uint64_t earliest_ns; /* no deadline in flight is earlier; it may be that of a call that has ended */
    int ended;            /* calls that neither expertd_poll() has counted nor the program has fetched */
    uint64_t polls;       /* that have counted some */
    size_t count[CALL_STATES];
    size_t own_legs; /* of those in flight, that are legs of others of these */
    struct call_list calls[CALL_STATES];
    struct key_table table; /* of calls in flight, by their ids */
    struct decoder decoder;
    struct expertd_client_counters counters;
    size_t metadata_bytes;
    unsigned char metadata[MESSAGE_METADATA_MAX];
    char traceparent[56];
    uint64_t pings;          /* of its own, that no call made, and that were not answered */
    uint64_t asked_connects; /* where the server's shared memory is was asked on the connection of that number */
    uint64_t spin_ns;
    struct {
        uint64_t uid_hash, row_bytes;
    } rooms[CLIENT_ROOMS]; /* what a row of an expert's outputs takes */
};

/* A number that no other call has, nor will have, of the client, its siblings and those whose it is: what is asked
 * there under another's id may be in one table with it. */
static inline uint64_t client_next_id(struct expertd_client *client)
{
    while (client->home)
        client = client->home;
    return ++client->last_request_id;
}

#endif
