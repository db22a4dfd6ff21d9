/* The clients of a benchmark: processes with DEALER sockets that keep so many requests in flight and time each reply.
 * The same clients measure the bare echo (echo.c) and a server (load.c), so that the two can be compared. */
#ifndef EXPERTD_BENCH_SUPPORT_TRAFFIC_H
#define EXPERTD_BENCH_SUPPORT_TRAFFIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRAFFIC_MAX_IN_FLIGHT = 4096, TRAFFIC_MAX_FRAMES = 16, TRAFFIC_HISTOGRAM = 16 * 44 };

#define TRAFFIC_FAILED (UINT64_C(1) << 63)
enum { TRAFFIC_HINT_SHIFT = 32 };

struct traffic_options {
    const char *endpoint;
    unsigned clients, processes; /* sockets; processes that they are spread over (0: one each, up to 16) */
    unsigned in_flight;          /* of each client */
    double warmup_s, seconds;
    /* Through the server's shared memory (PROTOCOL.md, On the same host): the path of its socket, and its instance.
     * NULL: over ZeroMQ. */
    const char *local_path;
    const unsigned char *local_instance;
    unsigned spin_us; /* before a client sleeps */
};

/* What is sent: a header of at most header_size bytes for each request, and frames that are all the same. */
struct traffic_content {
    /* Writes the header of request `id` (0 ... in_flight - 1: the free one of a client); returns its bytes. *frames is
     * how many of the frames follow: all, unless it is lowered. */
    size_t (*header)(void *context, unsigned client, uint64_t id, unsigned char *header, size_t header_size,
                     unsigned *frames);
    /* The id of a reply's header; UINT64_MAX: an error. With TRAFFIC_FAILED it counts as an error and not as a request;
     * a hint in milliseconds may stand above TRAFFIC_HINT_SHIFT: then the next one with that id is sent no earlier,
     * with libexpertd's pauses. */
    uint64_t (*reply)(void *context, const void *header, size_t header_size);
    void *context;
    unsigned frames;
    const void *frame[TRAFFIC_MAX_FRAMES];
    size_t frame_bytes[TRAFFIC_MAX_FRAMES];
};

struct traffic_result {
    uint64_t requests, errors;
    double seconds, rate;
    double median_us, p99_us, p999_us, mean_us, max_us;
    /* Requests of single clients: starvation shows as a slowest one far below the median. */
    double slowest_client, median_client;
    /* The latencies as a histogram: buckets of a 16th of their power of two, from the first that is not empty. */
    unsigned histogram_count;
    struct {
        double us; /* middle of the bucket */
        uint64_t requests;
    } histogram[TRAFFIC_HISTOGRAM];
};

/* Runs the clients and waits for them. 0; -1 after a message on stderr. */
int traffic_run(const struct traffic_options *options, const struct traffic_content *content,
                struct traffic_result *result);
/* One line for people, or one JSON object. */
void traffic_print(const char *name, const struct traffic_options *options, const struct traffic_result *result,
                   double extra_value, const char *extra_name, bool json);

#endif
