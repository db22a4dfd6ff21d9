/* The server's figures as Prometheus reads them (text format 0.0.4): names begin with expertd_ (process_ as Prometheus'
 * clients have it), base units, one HELP and TYPE for each name. Pure: a snapshot in, text out; what a server says is
 * escaped. */
#ifndef EXPERTD_HTTP_METRICS_H
#define EXPERTD_HTTP_METRICS_H

#include "http/history.h"
#include "http/snapshot.h"
#include "http/text.h"

void metrics_write(struct text *text, const struct snapshot *snapshot);
/* What each process of the server takes, as far as it is this host's and this user's. */
void metrics_write_processes(struct text *text, const struct snapshot *snapshot, struct history *history);
/* What expertd-dht said last. */
void metrics_write_dht(struct text *text, struct history *history);

#endif
