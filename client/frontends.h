/* All frontends of the server that a client is connected to, for those who show it as one: what each says of itself is
 * asked of all at once, and added up. The client's thread. */
#ifndef EXPERTD_CLIENT_FRONTENDS_H
#define EXPERTD_CLIENT_FRONTENDS_H

#include "client/expertd.h"
#include "client/siblings.h"

enum { FRONTENDS_MAX = SIBLINGS_MAX + 1 };

/* The first is that which the client was made for. */
struct frontends {
    struct expertd_client *clients[FRONTENDS_MAX];
    size_t count;
};
/* The one that is known at first. */
void frontends_begin(struct frontends *frontends, struct expertd_client *client);
/* And the others that it names. */
void frontends_learn(struct frontends *frontends, const struct expertd_pong *pong);

#define FRONTENDS_NO_EXPERTS UINT32_MAX
#define FRONTENDS_PING_ALONE (UINT32_MAX - 1)

/* What they were asked, and have answered: PING of each, and STATS if that was asked for. Zeroed is empty. */
struct frontends_look {
    size_t count;
    struct expertd_call *pings[FRONTENDS_MAX], *stats[FRONTENDS_MAX];
    struct expertd_stats sum; /* of those that have answered */
    bool summed;
    void *memory[3]; /* that it lies in, beside the calls */
};
/* Puts the questions on their way. experts: at most so many of each (0: 4096; FRONTENDS_NO_EXPERTS) whose uid begins
 * with prefix (NULL: all) are asked for, too; or FRONTENDS_PING_ALONE. -ENOMEM, and then there is no look. */
int frontends_ask(const struct frontends *frontends, struct frontends_look *look, const char *prefix, uint32_t experts,
                  uint32_t deadline_ms);
/* The same, of all that there are now, and waits: first the one that knows the others is asked for them. `frontends`
 * are these then. */
int frontends_look(struct frontends *frontends, struct frontends_look *look, const char *prefix, uint32_t experts,
                   uint32_t deadline_ms);
bool frontends_answered(const struct frontends_look *look);
void frontends_release(struct frontends_look *look);

/* Of one of them; NULL: it has not answered. */
const struct expertd_pong *frontends_pong(const struct frontends_look *look, size_t frontend);
const struct expertd_stats *frontends_stats(const struct frontends_look *look, size_t frontend);
/* What all that have answered say together: counters and histograms of one name added up (of frontend.uptime_s the
 * least, of frontend.pid the first), experts in the order of their rows. Valid as long as the look. NULL: no memory, or
 * none has answered. */
const struct expertd_stats *frontends_sum(struct frontends_look *look);

#endif
