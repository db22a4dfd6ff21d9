#include "bench/support_flags.h"

#include <errno.h>
#include <stdlib.h>

enum { CLIENTS = 0x100, PROCESSES, IN_FLIGHT, SECONDS, WARMUP, JSON }; /* no letters: there are no short flags */

static const struct argp_option options[] = {
    {"clients", CLIENTS, "N", 0, "sockets that ask (1)", 0},
    {"processes", PROCESSES, "N", 0, "that they are spread over (one each, up to 16)", 0},
    {"in-flight", IN_FLIGHT, "N", 0, "requests of each client at once (1)", 0},
    {"seconds", SECONDS, "S", 0, "that are measured (2)", 0},
    {"warmup", WARMUP, "S", 0, "before them", 0},
    {"json", JSON, NULL, 0, "print one JSON object", 0},
    {0},
};

uint64_t flags_number(struct argp_state *state, const char *text, uint64_t most)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || text[0] < '0' || text[0] > '9' || value > most)
        argp_error(state, "'%s' is no number up to %llu", text, (unsigned long long)most);
    return value;
}

static double parse_seconds(struct argp_state *state, const char *text)
{
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0 && value <= 4000)) /* usleep's limit is 4294 */
        argp_error(state, "'%s' is no time in seconds", text);
    return value;
}

static error_t take(int key, char *text, struct argp_state *state)
{
    struct flags *flags = state->input;
    switch (key) {
    case CLIENTS:
        flags->traffic.clients = (unsigned)flags_number(state, text, UINT32_MAX);
        return 0;
    case PROCESSES:
        flags->traffic.processes = (unsigned)flags_number(state, text, UINT32_MAX);
        return 0;
    case IN_FLIGHT:
        flags->traffic.in_flight = (unsigned)flags_number(state, text, UINT32_MAX);
        return 0;
    case SECONDS:
        flags->traffic.seconds = parse_seconds(state, text);
        return 0;
    case WARMUP:
        flags->traffic.warmup_s = parse_seconds(state, text);
        return 0;
    case JSON:
        flags->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {.options = options, .parser = take};
const struct argp_child flags_children[] = {{&argp, 0, "Clients", 1}, {0}};

void flags_parse(const struct argp *own, int argc, char **argv, void *input)
{
    argp_err_exit_status = 2;
    argp_parse(own, argc, argv, 0, NULL, input);
}
