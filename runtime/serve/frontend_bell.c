#include "runtime/serve/frontend_bell.h"

#include <stdatomic.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/doorbell.h"

static const uint64_t retry_after_ns = 100 * NS_PER_MS;

void frontend_bell_init(struct frontend_bell *bell, const char *run_dir, const char *server,
                        struct control_shared *page)
{
    *bell = (struct frontend_bell){.run_dir = run_dir, .server = server, .page = page, .fd = -1};
}

void frontend_bell_close(struct frontend_bell *bell)
{
    if (bell->fd >= 0)
        close(bell->fd);
    bell->fd = -1;
}

/* Opens the FIFO when there is one, and anew for every frontend, which may have made a new one. */
static void open_for(struct frontend_bell *bell, uint64_t epoch)
{
    frontend_bell_close(bell);
    bell->fd = doorbell_fifo_open(bell->run_dir, bell->server);
    bell->epoch = epoch;
    bell->retry_ns = clock_now_ns() + retry_after_ns;
}

void frontend_bell_ring(struct frontend_bell *bell)
{
    const uint64_t epoch = atomic_load_explicit(&bell->page->frontend.epoch, memory_order_acquire);
    if (epoch != bell->epoch || (bell->fd < 0 && clock_now_ns() >= bell->retry_ns))
        open_for(bell, epoch);
    doorbell_fifo_ring(bell->fd, &bell->page->frontend.sleeping);
}

void frontend_bell_ring_always(struct frontend_bell *bell)
{
    _Atomic uint32_t sleeping = 1;
    if (bell->fd < 0)
        open_for(bell, bell->epoch);
    doorbell_fifo_ring(bell->fd, &sleeping);
}
