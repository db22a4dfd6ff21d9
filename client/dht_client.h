/* Questions to an expertd-dht (proto/PROTOCOL-dht.md): any number on their way at once, none of which blocks. One
 * thread at a time. */
#ifndef EXPERTD_CLIENT_DHT_CLIENT_H
#define EXPERTD_CLIENT_DHT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "client/expertd.h"
#include "client/keys.h"
#include "proto/dht.pb-c.h"

struct dht_client;

enum { DHT_CLIENT_MESSAGE = 512 };

/* context: ZeroMQ's, or NULL. keys: NULL: plain. -EINVAL: no endpoint; -errno. Connects in the background. */
int dht_client_new(struct dht_client **client, const char *endpoint, void *context, const struct keys *keys);
/* Drops the questions that are on their way; none of them is told. */
void dht_client_destroy(struct dht_client **client);

struct dht_question;
/* The question's end; it is off the client's list. status is the reply's, which was checked to be an answer to the
 * request: EXPERTD_OK; EXPERTD_DEADLINE_EXCEEDED, where the reply may still hold what was found in time; or another
 * one. reply: until this returns; NULL if there is none. message: a sentence, "" for OK. May ask anew, but not destroy
 * the client. */
typedef void dht_question_ended(struct dht_question *question, enum expertd_status status,
                                const Expertd__Dht__Reply *reply, const char *message);
struct dht_question {
    TAILQ_ENTRY(dht_question) link;
    Expertd__Dht__Request *request;
    dht_question_ended *ended;
    uint64_t end_ns;
    uint32_t timeout_ms;
    bool sent;
    bool cheated; /* sent where a message came that does not end */
};

/* Puts a question on its way, for at most timeout_ms; it is sent again over a new connection when one breaks, but
 * for one that was left for a message that does not end: then it ends. Sets
 * version, request_id and deadline_ms of *request. Question and request are the caller's, and stay where and as they
 * are until `ended` is called, from dht_client_progress(), or the question is dropped. */
void dht_client_start(struct dht_client *client, struct dht_question *question, Expertd__Dht__Request *request,
                      uint32_t timeout_ms, dht_question_ended *ended);
void dht_client_drop(struct dht_client *client, struct dht_question *question);

/* Takes in what has come, and the time that has passed. True if a question has ended. Without one that has, the last
 * thing done to the connection is an attempt to receive that found nothing, so that dht_client_fd() tells of more. */
bool dht_client_progress(struct dht_client *client);
bool dht_client_idle(const struct dht_client *client); /* no question is on its way */
int dht_client_fd(const struct dht_client *client);    /* readable when dht_client_progress() may have work */
/* By when it has some (CLOCK_MONOTONIC); UINT64_MAX: only what the descriptor tells. */
uint64_t dht_client_next_ns(const struct dht_client *client);

/* One question, waited for: for programs that do nothing else meanwhile. *reply is valid until the next call of any of
 * these functions; NULL if there is none. */
enum expertd_status dht_client_ask(struct dht_client *client, Expertd__Dht__Request *request, uint32_t timeout_ms,
                                   const Expertd__Dht__Reply **reply, char message[DHT_CLIENT_MESSAGE]);

/* Whether an answer of the request's method contradicts neither itself nor the request: NULL, or what is wrong. Public
 * for its tests. */
const char *dht_client_check(const Expertd__Dht__Request *request, const Expertd__Dht__Reply *reply);

#endif
