/* Questions to an expertd-dht (proto/PROTOCOL-dht.md), one at a time, each waited for. One thread at a time. */
#ifndef EXPERTD_CLIENT_DHT_CLIENT_H
#define EXPERTD_CLIENT_DHT_CLIENT_H

#include "client/expertd.h"
#include "proto/dht.pb-c.h"

struct dht_client;

enum { DHT_CLIENT_MESSAGE = 512 };

/* context: ZeroMQ's, or NULL. -EINVAL: no endpoint; -errno. Connects in the background. */
int dht_client_new(struct dht_client **client, const char *endpoint, void *context);
void dht_client_destroy(struct dht_client **client);
const char *dht_client_endpoint(const struct dht_client *client);

/* Asks, and waits for the answer at most timeout_ms. Sets version, request_id and deadline_ms of *request, and asks
 * again over a new connection when one breaks. The status of the reply, which is checked to be an answer to the
 * request: EXPERTD_OK; EXPERTD_DEADLINE_EXCEEDED, where *reply may still hold what was found in time; or another one.
 * *reply is valid until the next question; NULL if there is none. message gets a sentence, "" for OK. */
enum expertd_status dht_client_ask(struct dht_client *client, Expertd__Dht__Request *request, uint32_t timeout_ms,
                                   const Expertd__Dht__Reply **reply, char message[DHT_CLIENT_MESSAGE]);

/* Whether an answer of the request's method contradicts neither itself nor the request: NULL, or what is wrong. Public
 * for its tests. */
const char *dht_client_check(const Expertd__Dht__Request *request, const Expertd__Dht__Reply *reply);

#endif
