/* The floor of clients on the same host: packets over a UNIX socket that say where bytes lie in a client's memory, a
 * server that copies them into memory of its own and back, and nothing else. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/support_flags.h"
#include "common/clock.h"

enum { PACKET = 64, CLIENTS = 64, RING = 64, PAYLOAD = 0x200, LATENCIES = 1 << 20 };

struct floor {
    struct flags flags;
    size_t payload_bytes;
};
struct result {
    double rate, median_us;
};

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static struct result client(int fd, const struct traffic_options *options)
{
    static uint64_t took_ns[LATENCIES], sent_ns[TRAFFIC_MAX_IN_FLIGHT];
    unsigned char packet[PACKET] = {0};
    uint64_t count = 0;
    const uint64_t begin_ns = clock_now_ns(), warm_ns = begin_ns + (uint64_t)(options->warmup_s * 1e9),
                   end_ns = warm_ns + (uint64_t)(options->seconds * 1e9);
    for (uint32_t i = 0; i < options->in_flight; i++) {
        memcpy(packet, &i, sizeof i);
        sent_ns[i] = clock_now_ns();
        (void)!send(fd, packet, sizeof packet, 0);
    }
    for (;;) {
        uint32_t i;
        if (recv(fd, packet, sizeof packet, 0) <= 0)
            break;
        memcpy(&i, packet, sizeof i);
        const uint64_t now_ns = clock_now_ns();
        if (now_ns > warm_ns)
            took_ns[count++ % LATENCIES] = now_ns - sent_ns[i];
        if (now_ns > end_ns)
            break;
        sent_ns[i] = now_ns;
        (void)!send(fd, packet, sizeof packet, 0);
    }
    const uint64_t kept = count < LATENCIES ? count : LATENCIES;
    qsort(took_ns, kept, sizeof took_ns[0], compare);
    return (struct result){(double)count / options->seconds, kept ? (double)took_ns[kept / 2] / 1e3 : 0};
}

static void serve(struct pollfd *fds, unsigned char **memory, unsigned clients, size_t bytes)
{
    unsigned open = clients, at = 0;
    unsigned char *slab =
        mmap(NULL, 2 * bytes * RING, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    while (open && slab != MAP_FAILED) {
        poll(fds, clients, -1);
        for (unsigned c = 0; c < clients; c++) {
            unsigned char packet[PACKET];
            ssize_t n = -1;
            while (fds[c].revents && (n = recv(fds[c].fd, packet, sizeof packet, MSG_DONTWAIT)) > 0) {
                uint32_t i;
                memcpy(&i, packet, sizeof i);
                unsigned char *rows = slab + 2 * bytes * (at++ % RING), *theirs = memory[c] + 2 * bytes * i;
                memcpy(rows, theirs, bytes);
                memcpy(theirs + bytes, rows, bytes);
                (void)!send(fds[c].fd, packet, sizeof packet, MSG_NOSIGNAL);
            }
            if (n == 0) {
                close(fds[c].fd);
                fds[c].fd = -1;
                open--;
            }
        }
    }
}

static error_t take(int key, char *text, struct argp_state *state)
{
    struct floor *floor = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &floor->flags;
        return 0;
    case PAYLOAD:
        floor->payload_bytes = flags_number(state, text, 1U << 30);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp_option own[] = {{"payload", PAYLOAD, "BYTES", 0, "of each request (4096)", 0}, {0}};
    static const struct argp argp = {.options = own, .parser = take, .children = flags_children};
    struct floor floor = {.flags.traffic = {.clients = 1, .in_flight = 1, .seconds = 2, .warmup_s = 0.3},
                          .payload_bytes = 4096};
    flags_parse(&argp, argc, argv, &floor);
    const struct traffic_options *options = &floor.flags.traffic;
    struct pollfd fds[CLIENTS];
    unsigned char *memory[CLIENTS];
    int theirs[CLIENTS], results[2];
    if (options->clients > CLIENTS || options->in_flight > TRAFFIC_MAX_IN_FLIGHT || pipe(results) != 0)
        return 1;
    for (unsigned c = 0; c < options->clients; c++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0)
            return 1;
        fds[c] = (struct pollfd){.fd = pair[0], .events = POLLIN};
        theirs[c] = pair[1];
        memory[c] = mmap(NULL, 2 * floor.payload_bytes * options->in_flight, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (memory[c] == MAP_FAILED)
            return 1;
    }
    for (unsigned c = 0; c < options->clients; c++) {
        if (fork() != 0)
            continue;
        for (unsigned other = 0; other < options->clients; other++)
            close(fds[other].fd);
        const struct result own_result = client(theirs[c], options);
        _exit(write(results[1], &own_result, sizeof own_result) == sizeof own_result ? 0 : 1);
    }
    for (unsigned c = 0; c < options->clients; c++)
        close(theirs[c]);
    serve(fds, memory, options->clients, floor.payload_bytes);
    struct result sum = {0}, one;
    for (unsigned c = 0; c < options->clients && read(results[0], &one, sizeof one) == sizeof one; c++) {
        sum.rate += one.rate;
        sum.median_us += one.median_us / options->clients;
    }
    while (wait(NULL) > 0)
        ;
    printf(floor.flags.json ? "{\"name\": \"local floor\", \"rate\": %.1f, \"median_us\": %.2f}\n"
                            : "local floor %.0f /s, median %.2f us\n",
           sum.rate, sum.median_us);
    return 0;
}
