#include "proto/gate.h"

#include <stdatomic.h>

#include "proto/framing.h"

/* Descriptors beyond these are not looked at: so many are open only where somebody has raised the limit far. */
enum { CONNECTIONS = 65536, FRAME_OVERHEAD = 64 /* sizeof(zmq_msg_t) */ };

static struct framing_limits limits; /* frames 0: none */
static bool encrypted;
static uint64_t unheard_most; /* 0: no bound */
static struct connection {
    struct framing framing; /* the reading thread's */
    _Atomic bool opened;
    _Atomic uint64_t unfinished;
} connections[CONNECTIONS];
static _Atomic uint64_t ended;

static struct connection *find(int fd)
{
    return fd >= 0 && fd < CONNECTIONS && limits.frames > 0 ? &connections[fd] : NULL;
}

void gate_set(uint32_t frames, uint64_t bytes, bool sealed, uint64_t unheard)
{
    encrypted = sealed;
    unheard_most = unheard;
    limits = (struct framing_limits){.frames = frames, .bytes = bytes};
}

/* ZeroMQ hands the descriptor on to the thread that reads it, by way of a lock of its own. */
void gate_opened(int fd)
{
    struct connection *connection = find(fd);
    if (!connection)
        return;
    connection->framing = (struct framing){0};
    atomic_store_explicit(&connection->unfinished, 0, memory_order_relaxed);
    atomic_store_explicit(&connection->opened, true, memory_order_relaxed);
}

void gate_heard(int fd)
{
    struct connection *connection = find(fd);
    if (connection && encrypted)
        atomic_store_explicit(&connection->unfinished, 0, memory_order_relaxed);
}

bool gate_read(int fd, const void *bytes, size_t size)
{
    struct connection *connection = find(fd);
    if (!connection || !atomic_load_explicit(&connection->opened, memory_order_relaxed))
        return true;
    struct framing *framing = &connection->framing;
    const uint64_t begun = framing->begun;
    bool passes = framing_take(framing, &limits, bytes, size);
    const uint64_t more = size + (framing->begun - begun) * FRAME_OVERHEAD;
    const uint64_t unfinished = framing_bytes(framing) + (uint64_t)framing->frames * FRAME_OVERHEAD;
    if (encrypted) {
        const uint64_t before = atomic_fetch_add_explicit(&connection->unfinished, more, memory_order_relaxed);
        passes &= unheard_most == 0 || before + more <= unheard_most;
    } else {
        atomic_store_explicit(&connection->unfinished, unfinished, memory_order_relaxed);
    }
    if (!passes) {
        atomic_store_explicit(&connection->unfinished, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&ended, 1, memory_order_relaxed);
    }
    return passes;
}

bool gate_unfinished(int fd, uint64_t *bytes)
{
    struct connection *connection = find(fd);
    *bytes = connection ? atomic_load_explicit(&connection->unfinished, memory_order_relaxed) : 0;
    return connection && atomic_load_explicit(&connection->opened, memory_order_relaxed);
}

uint64_t gate_ended(void)
{
    return atomic_load_explicit(&ended, memory_order_relaxed);
}
