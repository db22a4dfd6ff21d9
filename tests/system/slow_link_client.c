/* One client of a server behind a slow link: a large backward, and small calls for as long as that is under way.
 *
 *     slow_link_client ENDPOINT ROWS
 *
 * The link's own seconds are those of the large call's bytes, whatever else the machine does: of the small calls, which
 * are made one after another, there have to be as many answers meanwhile, so that each takes less than one of them.
 *
 * learn.0 takes ROWS rows of 64 floats and learns; nop.0 gives back a row of 4. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/expertd.h"

enum { WIDTH = 64, DEADLINE_MS = 1500000, SMALL_MAX = 1 << 16, LINK_BYTES_A_SECOND = 1000000 };

static double latencies[SMALL_MAX];

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void must(int good, const char *what, const struct expertd_call *call)
{
    if (good)
        return;
    printf("%s: %s\n", what, call ? expertd_call_message(call) : "");
    exit(1);
}

static void small(struct expertd_client *client)
{
    static const float row[4] = {1, 2, 3, 4};
    struct expertd_call *call;
    const struct expertd_tensor input = expertd_tensor_f32(row, 1, 4);
    must(expertd_forward(client, "nop.0", &input, 1, DEADLINE_MS, &call) == 0, "no memory", NULL);
    must(expertd_call_wait(call, -1) == 0 && expertd_call_status(call) == EXPERTD_OK, "a small call", call);
    must(memcmp(expertd_call_output(call, 0)->data, row, sizeof row) == 0, "a small call's answer", call);
    expertd_call_release(&call);
}

static int compare(const void *a, const void *b)
{
    const double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

int main(int argc, char **argv)
{
    struct expertd_client *client = NULL;
    struct expertd_call *large, *info;
    struct expertd_client_counters counters;
    const uint64_t rows = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    float *x = calloc(rows, WIDTH * sizeof *x);
    must(rows > 0 && x && expertd_client_new(&client, argv[1], NULL) == 0, "no client", NULL);
    for (uint64_t i = 0; i < rows * WIDTH; i++)
        x[i] = (float)(i % 7) - 3;
    small(client);
    const struct expertd_tensor input = expertd_tensor_f32(x, rows, WIDTH);
    const double begun_s = now_s();
    must(expertd_backward(client, "learn.0", &input, 1, &input, 1, DEADLINE_MS, &large) == 0, "no memory", NULL);
    int count = 0;
    while (!expertd_call_done(large) && count < SMALL_MAX) {
        const double before_s = now_s();
        small(client);
        if (!expertd_call_done(large))
            latencies[count++] = now_s() - before_s;
    }
    must(expertd_call_wait(large, -1) == 0 && expertd_call_status(large) == EXPERTD_OK, "the large call", large);
    must(expertd_call_output(large, 0)->shape[0] == rows, "the large call's answer", large);
    const double took_s = now_s() - begun_s;
    must(expertd_info(client, "learn.0", DEADLINE_MS, &info) == 0 && expertd_call_wait(info, -1) == 0 &&
             expertd_call_status(info) == EXPERTD_OK,
         "INFO", info);
    qsort(latencies, (size_t)count, sizeof latencies[0], compare);
    printf("a backward of %.1f MiB took %.1f s; %d small calls were answered meanwhile",
           (double)(rows * WIDTH) / (1 << 17), took_s, count);
    if (count > 0)
        printf(", half of them within %.0f ms, all within %.0f ms", latencies[count / 2] * 1e3,
               latencies[count - 1] * 1e3);
    printf("; updates %llu\n", (unsigned long long)expertd_call_info(info)->update_count);
    expertd_client_counters(client, &counters);
    const uint64_t link_s = 3 * rows * WIDTH * sizeof *x / LINK_BYTES_A_SECOND; /* two such tensors there, one back */
    must((uint64_t)count >= link_s, "small calls waited for the large one", NULL);
    must(counters.disconnects == 0, "the connection was given up", NULL);
    must(expertd_call_info(info)->update_count == 1, "the backward was not applied once", NULL);
    expertd_call_release(&info);
    expertd_call_release(&large);
    expertd_client_destroy(&client);
    free(x);
    return 0;
}
