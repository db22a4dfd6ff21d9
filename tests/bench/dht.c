/* What it costs to publish and to find experts: many DHT nodes over loopback.
 *
 *     build/bench/dht [--nodes 32] [--experts 16384] [--contiguous] [--addresses 10.9] [--json]
 *
 * With --addresses each node has one of its own, 10.9.0.1 and so on, which must be there (in a network namespace).
 * The experts are drawn from ffn.[0:rows].[0:256] with rows = experts / 256 and dealt out to all nodes at random, so
 * that every node announces nearly every prefix (--contiguous: each has a block of its own, and a few prefixes).
 * Look-ups and searches are made by nodes that joined later and know nothing ("cold"), and then again ("warm"). Each
 * node has threads of its own, but all share this machine's cores. */
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "unit/dht_swarm.h"

#include "common/log.h"
#include "dht/prefix.h"

enum {
    COLUMNS = 256,
    GRID_ROWS = 32,
    BEAM_SIZE = 4,
    COLD_RUNS = 7,
    WARM_RUNS = 1000,
    SINGLE_RUNS = 1000,
    NEWS_RUNS = 7,
    READERS = 3 + 3 * COLD_RUNS,
    HANG_MS = 600000 /* only what hangs takes so long */
};

enum { FLOCK_NODES = 64, FLOCKS_MAX = 16, NODES_MAX = FLOCK_NODES * FLOCKS_MAX };

static struct swarm swarm;
static bool as_json;
static unsigned lines;

static void print(const char *name, double value, const char *unit)
{
    if (as_json)
        printf("%s{\"name\": \"%s\", \"value\": %g, \"unit\": \"%s\"}", lines ? ",\n " : "[", name, value, unit);
    else
        printf("%-52s %10.3f %s\n", name, value, unit);
    lines++;
    fflush(stdout);
}

static void die(const char *what)
{
    fprintf(stderr, "dht: %s\n", what);
    exit(1);
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

static double ms_since(uint64_t begin_ns)
{
    return (double)(clock_now_ns() - begin_ns) / 1e6;
}

/* ---- those that publish --------------------------------------------------------------------------------------------
 */

struct plan {
    uint32_t network_id;
    unsigned nodes, experts;
    bool contiguous;
    const char *addresses;
};

struct report {
    double ms;
    uint64_t announcements, failures;
};

static int flocks[FLOCKS_MAX]; /* sockets to their processes */
static pid_t pids[FLOCKS_MAX];
static unsigned flocks_count;

/* What the processors have worked for all nodes: other than time, it does not depend on what else the machine does. */
static double cpu_ms(void)
{
    struct timespec used;
    clockid_t clock;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    double ms = (double)used.tv_sec * 1e3 + (double)used.tv_nsec / 1e6;
    for (unsigned i = 0; i < flocks_count; i++)
        if (clock_getcpuclockid(pids[i], &clock) == 0 && clock_gettime(clock, &used) == 0)
            ms += (double)used.tv_sec * 1e3 + (double)used.tv_nsec / 1e6;
    return ms;
}

/* What the other side sends, while this side's nodes go on. False: it is gone. */
static bool receive(int fd, void *data, size_t size)
{
    for (;;) {
        const ssize_t got = recv(fd, data, size, MSG_DONTWAIT);
        if (got >= 0)
            return (size_t)got == size;
        swarm_step(&swarm, 5);
    }
}

static void configure(const struct plan *plan)
{
    swarm.network_id = plan->network_id;
    swarm.addresses = plan->addresses;
    swarm.update_period_ns = 30 * NS_PER_S;
    swarm.expiration_ns = 3600 * NS_PER_S; /* nobody confirms the frontends that there are not */
}

/* The node that an expert falls to: ask for all, in this order, after srand(1). */
static unsigned node_of(const struct plan *plan, unsigned expert)
{
    return plan->contiguous ? (unsigned)((uint64_t)expert * plan->nodes / plan->experts)
                            : (unsigned)rand() % plan->nodes;
}

/* The first expert of a node. */
static unsigned expert_of(const struct plan *plan, unsigned node)
{
    srand(1);
    for (unsigned e = 0; e < plan->experts; e++)
        if (node_of(plan, e) == node)
            return e;
    die("a node has no expert");
    return 0;
}

/* Every process deals out all experts alike, and publishes what falls to its own nodes. */
static struct report publish_own(const struct plan *plan, unsigned first)
{
    static struct catalog catalogs[NODES_MAX];
    struct report report = {0};
    char uid[UID_SIZE];
    srand(1);
    for (unsigned e = 0; e < plan->experts; e++) {
        const unsigned node = node_of(plan, e);
        snprintf(uid, sizeof uid, "ffn.%u.%u", e / COLUMNS, e % COLUMNS);
        if (node >= first && node < first + swarm.count && catalog_add(&catalogs[node], uid, true) != 0)
            die("out of memory");
    }
    const uint64_t begin_ns = clock_now_ns();
    for (unsigned i = 0; i < swarm.count; i++)
        if (catalog_finish(&catalogs[first + i]) != 0 ||
            publisher_set(swarm.agents[i]->publisher, &catalogs[first + i], clock_now_ns(), moment_now()) != 0)
            die("out of memory");
    if (!SWARM_UNTIL(&swarm, HANG_MS, swarm_published(&swarm)))
        die("not everything could be published");
    report.ms = ms_since(begin_ns);
    for (unsigned i = 0; i < swarm.count; i++) {
        report.announcements += announcer_counters(publisher_announcer(swarm.agents[i]->publisher))->made;
        report.failures += announcer_counters(publisher_announcer(swarm.agents[i]->publisher))->unheard;
    }
    return report;
}

/* What the first node of a flock does when it is told to. */
static bool publish_one(const char *uid, struct agent *agent)
{
    struct catalog catalog = {0};
    const struct catalog *old = publisher_catalog(agent->publisher);
    char hosted[UID_SIZE];
    for (size_t i = 0; i < old->count; i++)
        for (size_t r = 0; r < old->contents[i]->experts.count; r++)
            for (uint64_t c = old->contents[i]->experts.items[r].first; c < old->contents[i]->experts.items[r].end; c++)
                if (prefix_child(old->contents[i]->prefix, (uint32_t)c, false, hosted) &&
                    catalog_add(&catalog, hosted, true) != 0)
                    return false;
    return catalog_add(&catalog, uid, true) == 0 && catalog_finish(&catalog) == 0 &&
           publisher_set(agent->publisher, &catalog, clock_now_ns(), moment_now()) == 0;
}

static void obey(char order, unsigned number)
{
    static char late[2 * NEWS_RUNS][32];
    char uid[UID_SIZE];
    if (order == 'k')
        swarm_kill(&swarm, number);
    snprintf(uid, sizeof uid, "ffn.%u.%u", GRID_ROWS - 1, COLUMNS + number);
    if (order == 'e' && !publish_one(uid, swarm.agents[0]))
        die("out of memory");
    if (order == 's') {
        snprintf(late[number], sizeof late[number], "tcp://10.1.0.%u:31330", number);
        swarm.first = 1 + READERS + NODES_MAX + number - swarm.count;
        struct agent *agent = swarm_add(&swarm, late[number]);
        if (!agent || !SWARM_UNTIL(&swarm, HANG_MS, swarm_joined(&swarm)) || !publish_one(uid, agent))
            die("cannot start a node");
    }
}

/* A process with the nodes [first, first + count): joins, says so, publishes when told to, does what it is told, and
 * ends with its socket. */
static void run_flock(int fd, const struct plan *plan, unsigned first, unsigned count)
{
    static char endpoints[FLOCK_NODES][32];
    char go, order[2];
    configure(plan);
    swarm.first = 1 + READERS + first;
    if (!receive(fd, &swarm.bootstrap_port, sizeof swarm.bootstrap_port))
        return;
    for (unsigned i = 0; i < count; i++) {
        snprintf(endpoints[i], sizeof endpoints[i], "tcp://10.0.%u.%u:31330", (first + i) / 256, (first + i) % 256);
        if (!swarm_add(&swarm, endpoints[i]))
            die("cannot start a node");
        swarm_step(&swarm, 1);
    }
    if (!SWARM_UNTIL(&swarm, HANG_MS, swarm_joined(&swarm)))
        die("the nodes do not find each other");
    if (send(fd, "j", 1, 0) != 1 || !receive(fd, &go, 1))
        return;
    const struct report report = publish_own(plan, first);
    if (send(fd, &report, sizeof report, 0) == (ssize_t)sizeof report)
        while (receive(fd, order, sizeof order)) {
            obey(order[0], (unsigned char)order[1]);
            if (send(fd, "d", 1, 0) != 1)
                break;
        }
    swarm_end(&swarm);
}

/* Before there is any thread. */
static void fork_flocks(const struct plan *plan)
{
    for (unsigned first = 0; first < plan->nodes; first += FLOCK_NODES) {
        const unsigned count = plan->nodes - first < FLOCK_NODES ? plan->nodes - first : FLOCK_NODES;
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
            die("cannot make a socket");
        const pid_t pid = fork();
        if (pid < 0)
            die("cannot make a process");
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (unsigned i = 0; i < flocks_count; i++)
                close(flocks[i]);
            close(pair[0]);
            run_flock(pair[1], plan, first, count);
            exit(0);
        }
        close(pair[1]);
        pids[flocks_count] = pid;
        flocks[flocks_count++] = pair[0];
    }
}

static void order(int fd, char what, unsigned number)
{
    const char message[] = {what, (char)number};
    char done;
    if (send(fd, message, sizeof message, 0) != (ssize_t)sizeof message || !receive(fd, &done, 1))
        die("a process with nodes has ended");
}

/* ---- the swarm -----------------------------------------------------------------------------------------------------
 */

static void start(const struct plan *plan)
{
    char joined;
    fork_flocks(plan);
    configure(plan);
    for (unsigned i = 0; i < 1 + READERS; i++)
        if (!swarm_add(&swarm, NULL))
            die("cannot start a node");
    const uint16_t port = engine_port(swarm.agents[0]->engine);
    for (unsigned i = 0; i < flocks_count; i++)
        if (send(flocks[i], &port, sizeof port, 0) != (ssize_t)sizeof port || !receive(flocks[i], &joined, 1))
            die("a process with nodes has ended");
    if (!SWARM_UNTIL(&swarm, HANG_MS, swarm_joined(&swarm)))
        die("the nodes do not find each other");
    /* Routing tables fill up. */
    (void)SWARM_UNTIL(&swarm, 1000, false);
}

/* A node that has asked for nothing yet. */
static size_t next_reader(void)
{
    static unsigned used;
    if (used == READERS)
        die("no reader is left");
    return 1 + used++;
}

static void publish(const struct plan *plan)
{
    struct report all = {0};
    const double began_ms = cpu_ms();
    for (unsigned i = 0; i < flocks_count; i++)
        if (send(flocks[i], "p", 1, 0) != 1)
            die("a process with nodes has ended");
    for (unsigned i = 0; i < flocks_count; i++) {
        struct report report;
        if (!receive(flocks[i], &report, sizeof report))
            die("a process with nodes has ended");
        all.ms = report.ms > all.ms ? report.ms : all.ms;
        all.announcements += report.announcements;
        all.failures += report.failures;
    }
    print("publish, all together", all.ms, "ms");
    print("publish, processors' time per expert", (cpu_ms() - began_ms) / plan->experts, "ms");
    print("publish, per expert", all.ms / plan->experts, "ms");
    print("publish, per announcement", all.ms / (double)all.announcements, "ms");
    print("announcements", (double)all.announcements, "");
    print("announcements that no node took", (double)all.failures, "");
}

/* ---- look-ups ------------------------------------------------------------------------------------------------------
 */

static size_t count_found(size_t reader, char **uids, size_t count)
{
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    struct lookup lookup;
    size_t found = 0;
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.deadline_ms = LOOKUP_DEADLINE_MAX_MS;
    request.uids = uids;
    request.n_uids = count;
    if (swarm_ask(&swarm, reader, &resolve_kind, &request, &lookup) != STATUS_OK)
        die(lookup.reply.message);
    for (size_t i = 0; i < count; i++)
        found += lookup.reply.resolved[i]->n_replicas;
    lookup_destroy(&lookup);
    return found;
}

static unsigned repeated; /* look-ups that missed an expert: datagrams are lost, on a busy machine all the more */

static void resolve(size_t reader, char **uids, size_t count)
{
    const uint64_t begin_ns = clock_now_ns();
    while (count_found(reader, uids, count) != count) {
        if (ms_since(begin_ns) > HANG_MS)
            die("an expert was not found");
        repeated++;
        swarm_step(&swarm, 10);
    }
}

static bool all_proven(const struct servers *servers)
{
    const struct server *server;
    for (size_t at = 0; (server = servers_next(servers, &at));)
        if (server->resident.prove)
            return false;
    return true;
}

/* A reader checks its servers' proofs soon after its answer. On a machine of its own that is in nobody's way; here the
 * next reader's time begins when it is done. */
static void end_reader(size_t reader)
{
    if (!SWARM_UNTIL(&swarm, HANG_MS, all_proven(swarm.agents[reader]->servers)))
        die("a server's proof is not checked");
}

/* As a reader that goes on with what it has to do sees it. */
static size_t replicas_of(size_t reader, char *uid)
{
    swarm_step(&swarm, 1);
    return count_found(reader, &uid, 1);
}

static void look_up(unsigned experts)
{
    char(*text)[UID_SIZE] = calloc(experts, UID_SIZE);
    char **uids = calloc(experts, sizeof(char *));
    if (!text || !uids)
        die("out of memory");
    for (unsigned e = 0; e < experts; e++) {
        snprintf(text[e], UID_SIZE, "ffn.%u.%u", e / COLUMNS, e % COLUMNS);
        uids[e] = text[e];
    }
    const size_t reader = next_reader();
    uint64_t begin_ns = clock_now_ns();
    resolve(reader, uids, experts);
    print("look up all, cold, per expert", ms_since(begin_ns) / experts, "ms");
    begin_ns = clock_now_ns();
    resolve(reader, uids, experts);
    print("look up all, warm, per expert", ms_since(begin_ns) / experts, "ms");
    begin_ns = clock_now_ns();
    for (int i = 0; i < SINGLE_RUNS; i++)
        resolve(reader, &uids[(unsigned)rand() % experts], 1);
    print("look up one, warm", ms_since(begin_ns) / SINGLE_RUNS, "ms");
    double cold[COLD_RUNS];
    const double began_ms = cpu_ms();
    for (int run = 0; run < COLD_RUNS; run++) {
        const size_t fresh = next_reader();
        begin_ns = clock_now_ns();
        resolve(fresh, &uids[(unsigned)rand() % experts], 1);
        cold[run] = ms_since(begin_ns);
        end_reader(fresh);
    }
    print("look up one, cold, processors' time of all nodes", (cpu_ms() - began_ms) / COLD_RUNS, "ms");
    print("look up one, cold (median)", median(cold, COLD_RUNS), "ms");
    print("look-ups repeated, since an expert was not found", repeated, "");
    free(text);
    free(uids);
}

/* ---- beam searches -------------------------------------------------------------------------------------------------
 */

static size_t search_once(size_t reader, size_t rows)
{
    static float scores[256 * (GRID_ROWS + COLUMNS)];
    uint32_t grid[] = {GRID_ROWS, COLUMNS};
    Expertd__Dht__BeamQuery beam = EXPERTD__DHT__BEAM_QUERY__INIT;
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    struct lookup lookup;
    const size_t count = rows * (GRID_ROWS + COLUMNS);
    for (size_t i = 0; i < count; i++)
        scores[i] = (float)rand() / (float)RAND_MAX;
    beam.prefix = (char *)"ffn.";
    beam.grid_size = grid;
    beam.n_grid_size = 2;
    beam.scores = scores;
    beam.n_scores = count;
    beam.beam_size = BEAM_SIZE;
    request.method = EXPERTD__DHT__METHOD__BEAM_SEARCH;
    request.deadline_ms = LOOKUP_DEADLINE_MAX_MS;
    request.beam = &beam;
    if (swarm_ask(&swarm, reader, &search_kind, &request, &lookup) != STATUS_OK)
        die(lookup.reply.message);
    const size_t found = lookup.reply.beam->rows[0]->n_experts;
    lookup_destroy(&lookup);
    return found;
}

static void search(size_t reader, size_t rows)
{
    const uint64_t begin_ns = clock_now_ns();
    while (search_once(reader, rows) != BEAM_SIZE) {
        if (ms_since(begin_ns) > HANG_MS)
            die("a search found too few experts");
        swarm_step(&swarm, 10);
    }
}

/* Until a reader that knows the prefix sees it so. */
static double until_replicas(size_t reader, char *uid, size_t replicas)
{
    const uint64_t begin_ns = clock_now_ns();
    while (replicas_of(reader, uid) != replicas)
        if (ms_since(begin_ns) > HANG_MS)
            die("what changed is not seen");
    return ms_since(begin_ns);
}

static void follow_news(void)
{
    static const struct {
        char order;
        const char *what;
    } kinds[] = {{'e', "a new expert of a known server (median)"}, {'s', "a new server under a known prefix (median)"}};
    double took[NEWS_RUNS];
    const size_t reader = next_reader();
    char uid[UID_SIZE];
    unsigned number = 0;
    search(reader, 1);
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (int run = 0; run < NEWS_RUNS; run++, number++) {
            snprintf(uid, sizeof uid, "ffn.%u.%u", GRID_ROWS - 1, COLUMNS + number);
            const uint64_t end_ns = clock_now_ns() + (1300 + (unsigned)rand() % 700) * NS_PER_MS;
            while (clock_now_ns() < end_ns)
                if (replicas_of(reader, uid) != 0)
                    die("an expert is there before it is published");
            order(flocks[0], kinds[k].order, number);
            took[run] = until_replicas(reader, uid, 1);
        }
        print(kinds[k].what, median(took, NEWS_RUNS), "ms");
    }
}

/* A flock's nodes end one after the other, and then a tenth of all, without a word. */
static void follow_deaths(const struct plan *plan)
{
    double took[NEWS_RUNS], cold[COLD_RUNS];
    const size_t reader = next_reader();
    search(reader, 1);
    for (unsigned run = 0; run < NEWS_RUNS; run++) {
        char uid[UID_SIZE];
        const unsigned expert = expert_of(plan, run + 1);
        snprintf(uid, sizeof uid, "ffn.%u.%u", expert / COLUMNS, expert % COLUMNS);
        (void)until_replicas(reader, uid, 1);
        order(flocks[(run + 1) / FLOCK_NODES], 'k', (run + 1) % FLOCK_NODES);
        took[run] = until_replicas(reader, uid, 0);
    }
    print("a killed server is known as gone (median)", median(took, NEWS_RUNS), "ms");
    for (unsigned node = NEWS_RUNS + 2; node < plan->nodes; node += 10)
        order(flocks[node / FLOCK_NODES], 'k', node % FLOCK_NODES);
    for (int run = 0; run < COLD_RUNS; run++) {
        const size_t fresh = next_reader();
        const uint64_t begin_ns = clock_now_ns();
        search(fresh, 1);
        cold[run] = ms_since(begin_ns);
        end_reader(fresh);
    }
    print("beam search, cold, a tenth just killed (median)", median(cold, COLD_RUNS), "ms");
    print("beam search, cold, a tenth just killed (worst)", cold[COLD_RUNS - 1], "ms");
}

static void search_all(void)
{
    double cold[COLD_RUNS];
    static double warm[WARM_RUNS];
    size_t reader = 0;
    const double began_ms = cpu_ms();
    for (int run = 0; run < COLD_RUNS; run++) {
        reader = next_reader();
        const uint64_t begin_ns = clock_now_ns();
        search(reader, 1);
        cold[run] = ms_since(begin_ns);
        end_reader(reader);
    }
    print("beam search 32x256, cold, processors' time of all", (cpu_ms() - began_ms) / COLD_RUNS, "ms");
    print("beam search 32x256, beam 4, cold (median)", median(cold, COLD_RUNS), "ms");
    print("beam search 32x256, beam 4, cold (worst)", cold[COLD_RUNS - 1], "ms");
    for (int run = 0; run < 100; run++)
        search(reader, 1);
    for (int run = 0; run < WARM_RUNS; run++) {
        const uint64_t begin_ns = clock_now_ns();
        search(reader, 1);
        warm[run] = ms_since(begin_ns);
    }
    print("beam search 32x256, beam 4, warm (median)", median(warm, WARM_RUNS), "ms");
    print("beam search 32x256, beam 4, warm (p99)", warm[WARM_RUNS * 99 / 100], "ms");
    const uint64_t begin_ns = clock_now_ns();
    for (int run = 0; run < 20; run++)
        search(reader, 256);
    print("beam search of 256 rows at once, warm, per row", ms_since(begin_ns) / 20 / 256, "ms");
}

int main(int argc, char **argv)
{
    static const struct option flags[] = {
        {"nodes", 1, NULL, 'n'},     {"experts", 1, NULL, 'e'}, {"contiguous", 0, NULL, 'c'},
        {"addresses", 1, NULL, 'a'}, {"json", 0, NULL, 'j'},    {"help", 0, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    struct plan plan = {.network_id = (uint32_t)getpid(), .nodes = 32, .experts = 16384};
    for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
        if (flag == 'n')
            plan.nodes = (unsigned)strtoul(optarg, NULL, 10);
        else if (flag == 'e')
            plan.experts = (unsigned)strtoul(optarg, NULL, 10);
        else if (flag == 'a')
            plan.addresses = optarg;
        else if (flag == 'c')
            plan.contiguous = true;
        else if (flag == 'j')
            as_json = true;
        else {
            puts("dht [--nodes N] [--experts N] [--contiguous] [--addresses 10.9] [--json]");
            return flag == 'h' ? 0 : 2;
        }
    }
    if (plan.nodes < 2 || plan.nodes > NODES_MAX || plan.experts < GRID_ROWS * COLUMNS ||
        plan.experts > LOOKUP_MAX_UIDS)
        die("2 to 1024 nodes, 8192 to 65536 experts");
    log_open("dht", LOG_LEVEL_WARNING);
    const uint64_t begin_ns = clock_now_ns();
    start(&plan);
    srand(1);
    print("nodes that publish", plan.nodes, "");
    print("experts", plan.experts, "");
    print("start and join", ms_since(begin_ns), "ms");
    publish(&plan);
    look_up(plan.experts);
    search_all();
    follow_news();
    follow_deaths(&plan);
    if (as_json)
        puts("]");
    swarm_end(&swarm);
    return 0;
}
