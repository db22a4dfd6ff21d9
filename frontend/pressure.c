#include "frontend/pressure.h"

#include <inttypes.h>
#include <malloc.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"
#include "frontend/buffer.h"
#include "frontend/connections.h"
#include "proto/gate.h"

static const uint64_t budget_least = (uint64_t)64 << 20, budget_most = (uint64_t)4 << 30;
static const uint64_t unread_most = (uint64_t)1 << 30, keep_most = (uint64_t)256 << 20;
/* Memory is given back when less than a sixteenth of it was moved for so long. */
static const uint64_t quiet_ns = 2 * NS_PER_S;
enum { QUIET_SHARE = 16, GIVE_BACK_LEAST = 32 << 20, KEEP_QUIET = 8 << 20 };

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t pressure_budget(const struct config_frontend *config, uint64_t memory)
{
    if (config->max_memory)
        return config->max_memory > budget_least / 4 ? config->max_memory : budget_least / 4;
    const uint64_t share = memory / 4;
    return share < budget_least ? budget_least : least(share, budget_most);
}

uint64_t pressure_unread_max(uint64_t budget)
{
    return least(budget / 4, unread_most);
}

uint64_t pressure_keep_max(uint64_t budget)
{
    return least(budget / 4, keep_most);
}

uint64_t pressure_frame_max(uint64_t budget, uint64_t configured)
{
    return least(budget / 2, configured);
}

static void shed(struct server *server)
{
    uint64_t own = memory_own();
    if (own <= server->pressure.budget)
        return;
    /* It may be free, and only kept. */
    buffers_trim(server->buffers, KEEP_QUIET);
    malloc_trim(0);
    own = memory_own();
    if (own > server->pressure.budget)
        connections_shed(server->connections, own - server->pressure.budget);
}

/* What the traffic needed stays, for the traffic to come, as long as there is some. */
static void give_back(struct server *server, uint64_t now_ns)
{
    const uint64_t moved = server->counters.bytes_in + server->counters.bytes_out;
    if (now_ns < server->pressure.quiet_since_ns + quiet_ns)
        return;
    const uint64_t lately = moved - server->pressure.moved_before, own = memory_own();
    server->pressure.quiet_since_ns = now_ns;
    server->pressure.moved_before = moved;
    if (lately > own / QUIET_SHARE || own < server->pressure.own_after + GIVE_BACK_LEAST)
        return;
    buffers_trim(server->buffers, KEEP_QUIET);
    malloc_trim(0);
    server->pressure.own_after = memory_own();
}

static void say_ended(struct server *server)
{
    static struct log_burst burst;
    const uint64_t ended = gate_ended();
    if (ended != server->pressure.ended_said && log_burst_allows(&burst, NULL, NULL)) {
        log_warning("closed %" PRIu64
                    " connections that sent a message of more than %d frames, or more than the memory "
                    "for messages (frontend.max_memory), or that do not speak ZMTP 2 or 3",
                    ended - server->pressure.ended_said, GATE_FRAMES);
        server->pressure.ended_said = ended;
    }
}

void pressure_look(struct server *server, uint64_t now_ns)
{
    say_ended(server);
    shed(server);
    give_back(server, now_ns);
}
