/* The command, run as scripts run it, against a server in this process. */
#include <check.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/expertctl/npy.h"
#include "client/expertd.h"
#include "proto/dht.pb-c.h"
#include "tests/unit/support_router.h"

static struct router *router;
static char folder[256], output[65536], dead[256];

static void setup(void)
{
    const char *parent = getenv("TMPDIR");
    struct router *gone = router_start(NULL, router_nop, NULL);
    strcpy(dead, router_endpoint(gone));
    router_stop(&gone);
    snprintf(folder, sizeof folder, "%s/ctl.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
    router = router_start(NULL, router_nop, NULL);
}

static void teardown(void)
{
    router_stop(&router);
    unlink("a.npy");
    unlink("b.npy");
    unlink("c.npy");
    ck_assert_int_eq(chdir("/"), 0);
    rmdir(folder);
}

static char program[4096];

/* The exit code; stdout and stderr go to `output`. */
static __attribute__((format(printf, 1, 2))) int ctl(const char *format, ...)
{
    char arguments[1024], command[8192];
    va_list list;
    va_start(list, format);
    vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    snprintf(command, sizeof command, "EXPERTD_ENDPOINT=%s EXPERTD_DHT= %s %s 2>&1", router_endpoint(router), program,
             arguments);
    FILE *pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    output[fread(output, 1, sizeof output - 1, pipe)] = 0;
    const int status = pclose(pipe);
    ck_assert_msg(WIFEXITED(status), "%s", output);
    return WEXITSTATUS(status);
}

static void says(const char *text)
{
    ck_assert_msg(strstr(output, text), "'%s' is not in: %s", text, output);
}

static void write_array(const char *path)
{
    float data[8] = {1, 2, 3, 4, 5, 6, 7, -8};
    char error[256];
    struct npy array = {.dtype = DTYPE_FLOAT32, .ndim = 2, .shape = {2, 4}, .data = data, .bytes = sizeof data};
    ck_assert_int_eq(npy_write(path, &array, error, sizeof error), 0);
}

START_TEST(each_question_is_answered_in_words_and_json)
{
    ck_assert_int_eq(ctl("ping"), 0);
    says("1 experts, 1 alive");
    ck_assert_int_eq(ctl("ping --json"), 0);
    says("\"status\": \"OK\"");
    says("\"experts_alive\": 1");
    ck_assert_int_eq(ctl("list"), 0);
    ck_assert_str_eq(output, "nop.0\talive\tcpu0\n");
    ck_assert_int_eq(ctl("list --json nop"), 0);
    says("\"experts\": [{\"uid\": \"nop.0\", \"alive\": true, \"device\": \"cpu0\"}], \"total\": 1}");
    ck_assert_int_eq(ctl("list ffn"), 0);
    ck_assert_str_eq(output, "");
    ck_assert_int_eq(ctl("info nop.0"), 0);
    says("forward_schema: x float32[rows, 4]");
    ck_assert_int_eq(ctl("info nop.0 --json"), 0);
    says("\"outputs_schema\": [{\"name\": \"x\", \"dtype\": \"float32\", \"row_shape\": [4]}]");
    says("\"backward_schema\": [{\"name\": \"x\", \"dtype\": \"float32\", \"row_shape\": [4]}, {\"name\": \"grad_x\",");
    says("\"update_count\": 3");
    ck_assert_int_eq(ctl("stats"), 0);
    ck_assert_str_eq(output, "frontend.requests.ping 5\n");
    ck_assert_int_eq(ctl("stats --json"), 0);
    says("\"counters\": {\"frontend.requests.ping\": 5}, \"histograms\": [");
    ck_assert_int_eq(ctl("stats --watch --count 2 --interval 0.001"), 0);
    says("  frontend.requests.ping 5\n");
    ck_assert_int_eq(ctl("stats --watch --count 2 --interval 0.001 --json | wc -l"), 0);
    ck_assert_str_eq(output, "2\n");
    ck_assert_int_eq(ctl("checkpoint nop.0"), 0);
    ck_assert_int_eq(ctl("wait"), 0);
    ck_assert_int_eq(ctl("wait nop.0 --json"), 0);
}
END_TEST

START_TEST(forward_and_backward_go_from_file_to_file)
{
    write_array("a.npy");
    ck_assert_int_eq(ctl("forward nop.0 --input a.npy --output b.npy"), 0);
    says("float32[2, 4] min -8 max 7 mean 2.5 -> b.npy");
    ck_assert_int_eq(system("cmp -s a.npy b.npy"), 0);
    ck_assert_int_eq(ctl("backward nop.0 -i a.npy -g a.npy -o c.npy --json"), 0);
    says("\"shape\": [2, 4]");
    says("\"file\": \"c.npy\"");
    ck_assert_int_eq(system("cmp -s a.npy c.npy"), 0);
    ck_assert_int_eq(ctl("forward nop.0 -i - -o - < a.npy 2>/dev/null | cmp - a.npy"), 0);
    ck_assert_int_eq(ctl("forward nop.0 -i a.npy -o b.npy -o c.npy"), 10);
    says("2 --output");
    ck_assert_int_eq(system("cmp -s a.npy b.npy"), 0);
}
END_TEST

/* Neither in words nor in JSON nor by its exit status is it one of the protocol's. */
static void fails_here(const char *arguments, const char *text)
{
    ck_assert_int_eq(ctl("%s", arguments), 10);
    says(text);
    for (int status = 0; status < 17; status++) {
        const char *name = expertd_status_name((enum expertd_status)status);
        ck_assert_msg(strcmp(name, "UNKNOWN") == 0 || !strstr(output, name), "%s: %s", name, output);
    }
    ck_assert_int_eq(ctl("%s --json", arguments), 10);
    says("{\"status\": \"LOCAL_ERROR\", \"message\": \"");
    says(text);
}

START_TEST(what_fails_on_this_side_is_no_status_of_the_protocol)
{
    fails_here("forward nop.0 -i missing.npy", "missing.npy: No such file");
    ck_assert_int_eq(system("echo nonsense > a.npy"), 0);
    fails_here("forward nop.0 -i a.npy", "a.npy");
    write_array("a.npy");
    fails_here("forward nop.0 -i a.npy -o missing/b.npy", "missing/b.npy: No such file");
    fails_here("forward nop.0 -i a.npy -o /dev/full", "/dev/full: No space left");
    fails_here("backward nop.0 -i a.npy -g a.npy -o /dev/full", "the backward was applied");
    ck_assert_int_eq(ctl("ping > /dev/full"), 10);
}
END_TEST

/* A run needs no time of its own: as soon as each call's place had its turn, a window is full. */
START_TEST(a_benchmark_measures_each_number_of_calls_in_flight)
{
    ck_assert_int_eq(ctl("bench nop.0 --concurrency 1,3 --window 0.001 --windows 2 --csv"), 0);
    says("concurrency,calls_per_second,");
    says("\n1,");
    says("\n3,");
    ck_assert_int_eq(ctl("bench nop.0 --concurrency 2 --window 0.001 --windows 3 --rows 2 --backward --json"), 0);
    says("{\"status\": \"OK\", \"uid\": \"nop.0\", \"method\": \"backward\"");
    says("\"rows\": 2, \"levels\": [{\"concurrency\": 2, \"calls_per_second\": ");
    says("\"failed\": 0, \"windows\": 3, ");
    ck_assert_int_eq(ctl("bench nop.0 --concurrency 0"), 2);
    ck_assert_int_eq(ctl("bench nop.0 --rows 1000000"), 2);
    ck_assert_int_eq(ctl("bench nop.0 --json --csv"), 2);
    ck_assert_int_eq(ctl("bench"), 2);
    ck_assert_int_eq(ctl("ping --csv"), 2);
    ck_assert_int_eq(ctl("stats --count 2"), 2);
}
END_TEST

static bool reply_as(struct router_request *request, Expertd__Method method, Expertd__Status status)
{
    const Expertd__RequestHeader *header = router_header(request);
    if (header->method != method)
        return false;
    router_reply_status(request, header, status, "as the test says");
    return true;
}

static void full(void *context, struct router_request *request)
{
    if (!reply_as(request, EXPERTD__METHOD__FORWARD, EXPERTD__STATUS__RESOURCE_EXHAUSTED))
        router_nop(context, request);
}

static void refusing(void *context, struct router_request *request)
{
    if (!reply_as(request, EXPERTD__METHOD__FORWARD, EXPERTD__STATUS__PERMISSION_DENIED))
        router_nop(context, request);
}

START_TEST(a_benchmark_of_what_only_fails_ends)
{
    router_stop(&router);
    router = router_start(NULL, full, NULL);
    ck_assert_int_eq(ctl("bench nop.0 --concurrency 4"), 7);
    says("RESOURCE_EXHAUSTED: as the test says");
    router_stop(&router);
    router = router_start(NULL, refusing, NULL);
    ck_assert_int_eq(ctl("bench nop.0 --concurrency 4 --json"), 11);
    says("{\"status\": \"PERMISSION_DENIED\", \"message\": \"as the test says\"}");
}
END_TEST

/* An expert whose only input is a mask; counts what is masked in it. */
static void masking(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ExpertInfo info = EXPERTD__EXPERT_INFO__INIT;
    Expertd__Schema schema = EXPERTD__SCHEMA__INIT;
    Expertd__Schema__Field field = EXPERTD__SCHEMA__FIELD__INIT, *fields[] = {&field};
    char name[] = "mask";
    zmq_msg_t *last = &request->frames[request->count - 1];
    if (header->method == EXPERTD__METHOD__FORWARD)
        for (size_t i = 0; i < zmq_msg_size(last); i++)
            atomic_fetch_add((atomic_int *)context, ((const char *)zmq_msg_data(last))[i]);
    if (header->method != EXPERTD__METHOD__INFO) {
        router_nop(NULL, request);
        return;
    }
    field.name = name;
    field.dtype = EXPERTD__DTYPE__BOOL;
    schema.n_tensors = 1;
    schema.tensors = fields;
    info.uid = header->uid;
    info.forward_schema = info.outputs_schema = &schema;
    info.max_batch_size = 64;
    info.alive = 1;
    reply.info = &info;
    router_reply(request, header, &reply, NULL, 0);
}

START_TEST(a_benchmark_masks_nothing)
{
    atomic_int masked = 0;
    router_stop(&router);
    router = router_start(NULL, masking, &masked);
    ck_assert_int_eq(ctl("bench nop.0 --concurrency 1 --window 0.001 --windows 1 --rows 8 --json"), 0);
    says("\"rows\": 8");
    router_stop(&router);
    ck_assert_int_eq(masked, 0);
    router = router_start(NULL, router_nop, NULL);
}
END_TEST

START_TEST(top_asks_for_a_terminal)
{
    ck_assert_int_eq(ctl("top < /dev/null"), 10);
    says("a terminal");
    ck_assert_int_eq(ctl("top --json"), 2);
}
END_TEST

static atomic_int trained;

static void count_backwards(void *context, struct router_request *request)
{
    trained += router_header(request)->method == EXPERTD__METHOD__BACKWARD;
    router_nop(context, request);
}

START_TEST(an_expert_does_not_learn_for_an_answer_that_has_no_place)
{
    router_stop(&router);
    router = router_start(NULL, count_backwards, NULL);
    write_array("a.npy");
    ck_assert_int_eq(ctl("backward nop.0 -i a.npy -g a.npy -o missing/c.npy"), 10);
    ck_assert_int_eq(ctl("backward nop.0 -i a.npy -g a.npy -o b.npy -o c.npy"), 2);
    ck_assert_int_eq(trained, 0);
    ck_assert_int_eq(access("b.npy", F_OK), -1);
    ck_assert_int_eq(ctl("backward nop.0 -i a.npy -g a.npy -o c.npy"), 0);
    ck_assert_int_eq(trained, 1);
}
END_TEST

START_TEST(a_failed_question_leaves_files_as_they_were)
{
    write_array("a.npy");
    ck_assert_int_eq(system("echo old > b.npy"), 0);
    ck_assert_int_eq(ctl("forward nop.0 -e %s -t 0.1 -i a.npy -o b.npy", dead), 3);
    ck_assert_int_eq(ctl("forward nop.0 -e %s -t 0.1 -i a.npy -o c.npy", dead), 3);
    ck_assert_int_eq(system("test \"$(cat b.npy)\" = old && test ! -e c.npy"), 0);
    ck_assert_int_eq(ctl("forward nop.0 -i a.npy -o b.npy"), 0);
    ck_assert_int_eq(system("cmp -s a.npy b.npy"), 0);
}
END_TEST

START_TEST(help_comes_for_its_short_name_too)
{
    ck_assert_int_eq(ctl("-h"), 0);
    says("Exit status");
    ck_assert_int_eq(ctl("ping -h"), 0);
    says("Exit status");
}
END_TEST

START_TEST(wrong_usage_is_told_apart)
{
    ck_assert_int_eq(ctl("forwrad nop.0"), 2);
    says("no such command; is 'forward' meant?");
    ck_assert_int_eq(ctl("stats --wacth"), 2);
    says("there is no --wacth; is --watch meant?");
    ck_assert_int_eq(ctl("stats --xyzzy"), 2);
    ck_assert_ptr_null(strstr(output, "meant"));
    static const char *const wrong[] = {"",
                                        "dance",
                                        "info",
                                        "ping pong",
                                        "info a.0 b.0",
                                        "ping -i a.npy",
                                        "ping --timeout never",
                                        "ping --wat",
                                        "-e nonsense ping",
                                        "--dht nonsense resolve a.0",
                                        "wait --experts -1",
                                        "draw",
                                        "list --count 3",
                                        "ping --timeout -1",
                                        "forward -g a.npy nop.0"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        ck_assert_msg(ctl("%s", wrong[i]) == 2, "%s: %s", wrong[i], output);
    ck_assert_int_eq(ctl("--help"), 0);
    says("Exit status");
    ck_assert_int_eq(ctl("--version"), 0);
}
END_TEST

static Expertd__Status status_to_send;
static void refuse(void *context, struct router_request *request)
{
    (void)context;
    router_reply_status(request, router_header(request), status_to_send, "not now");
}

START_TEST(statuses_become_exit_codes)
{
    static const struct {
        int status, code;
    } cases[] = {{3, 5}, {4, 6}, {5, 4}, {6, 9}, {8, 7}, {10, 8}, {12, 1}, {13, 1}, {14, 3}, {77, 1}};
    router_stop(&router);
    router = router_start(NULL, refuse, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        status_to_send = (Expertd__Status)cases[i].status;
        ck_assert_int_eq(ctl("info nop.0 --json"), cases[i].code);
        says("not now");
        says("{\"status\": \"");
    }
}
END_TEST

START_TEST(a_server_that_is_not_there_is_unavailable)
{
    ck_assert_int_eq(ctl("-e %s --timeout 0.05 ping", dead), 3);
    says("UNAVAILABLE");
    ck_assert_int_eq(ctl("-e %s --timeout 0.05 wait", dead), 3);
    ck_assert_int_eq(ctl("--dht %s --timeout 0.05 resolve nop.0", dead), 3);
    ck_assert_int_eq(ctl("--dht %s --timeout 0.05 search nop.", dead), 3);
    ck_assert_int_eq(ctl("--dht %s --timeout 0.05 draw 'nop.[0:4]' --count 2 --json", dead), 3);
    says("{\"status\": \"UNAVAILABLE\"");
    /* The server that is there has its time, too; where that is too short, it is connected to, but has not answered. */
    double seconds = 0.05;
    int code;
    do
        code = ctl("--dht %s --timeout %g stats --json", dead, seconds);
    while (!strstr(output, "\"counters\"") && (code == 3 || code == 6) && (seconds *= 4) < 1000);
    says("\"counters\"");
    ck_assert_int_eq(code, 3);
}
END_TEST

START_TEST(waiting_for_more_than_there_is_ends)
{
    double seconds = 2;
    int code;
    do /* a machine on which no answer comes in that time has more */
        code = ctl("wait --experts 2 --timeout %g", seconds);
    while (!strstr(output, "1 of 2 experts") && (seconds *= 4) < 200);
    ck_assert_int_eq(code, 6);
    says("1 of 2 experts");
    ck_assert_int_eq(ctl("wait --experts 0"), 0);
}
END_TEST

/* Experts come to life with the third PING. There is no other frontend, so nothing is listed behind the own ones. */
static void wake_slowly(void *context, struct router_request *request)
{
    atomic_int *count = context;
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__Pong pong = EXPERTD__PONG__INIT;
    Expertd__ExpertList list = EXPERTD__EXPERT_LIST__INIT;
    if (router_header(request)->method == EXPERTD__METHOD__LIST) {
        list.total = 3;
        reply.list = &list;
    } else {
        pong.experts = 3;
        pong.experts_alive = ++*count < 3 ? 1 : 3;
        reply.pong = &pong;
    }
    router_reply(request, router_header(request), &reply, NULL, 0);
}

START_TEST(wait_asks_until_all_experts_are_alive)
{
    atomic_int count = 0;
    router_stop(&router);
    router = router_start(NULL, wake_slowly, &count);
    ck_assert_int_eq(ctl("wait"), 0);
    ck_assert_int_eq(count, 3);
}
END_TEST

/* One of three experts is alive, and then nothing is answered any more. */
static void answer_once(void *context, struct router_request *request)
{
    atomic_int *count = context;
    if (*count == 0)
        wake_slowly(context, request);
}

START_TEST(a_wait_that_ends_tells_what_was_missing)
{
    atomic_int count = 0;
    router_stop(&router);
    router = router_start(NULL, answer_once, &count);
    double seconds = 0.9;
    int code;
    do { /* a machine on which the first answer does not come in that time has more */
        count = 0;
        code = ctl("wait --timeout %g", seconds);
    } while (!strstr(output, "1 of 3") && (seconds *= 4) < 300);
    ck_assert_int_eq(code, 6);
    says("1 of 3 experts are alive");
}
END_TEST

/* Five experts in pages of two; the list changes once while it is read. */
static void list_in_pages(void *context, struct router_request *request)
{
    atomic_int *count = context;
    const Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ExpertList list = EXPERTD__EXPERT_LIST__INIT;
    Expertd__ExpertList__Entry entry[2], *entries[2] = {&entry[0], &entry[1]};
    char uids[2][16];
    for (uint32_t i = 0; i < 2 && header->list->offset + i < 5; i++) {
        expertd__expert_list__entry__init(&entry[i]);
        snprintf(uids[i], sizeof uids[i], "ffn.%u", header->list->offset + i);
        entry[i].uid = uids[i];
        list.n_experts++;
    }
    list.experts = entries;
    list.total = 5;
    list.generation = ++*count < 3 ? (uint64_t)*count : 3;
    reply.list = &list;
    router_reply(request, header, &reply, NULL, 0);
}

START_TEST(a_list_that_changes_while_it_is_read_is_read_again)
{
    atomic_int count = 0;
    router_stop(&router);
    router = router_start(NULL, list_in_pages, &count);
    ck_assert_int_eq(ctl("list"), 0);
    ck_assert_str_eq(output, "ffn.0\tdown\t\nffn.1\tdown\t\nffn.2\tdown\t\nffn.3\tdown\t\nffn.4\tdown\t\n");
}
END_TEST

/* An expertd-dht: ffn.0 lives at two endpoints, nothing else does. */
static void dht(void *context, struct router_request *request)
{
    Expertd__Dht__Request *asked =
        expertd__dht__request__unpack(NULL, zmq_msg_size(&request->frames[0]), zmq_msg_data(&request->frames[0]));
    Expertd__Dht__Reply reply = EXPERTD__DHT__REPLY__INIT;
    Expertd__Dht__Replica replica = EXPERTD__DHT__REPLICA__INIT, *replicas[] = {&replica, &replica};
    Expertd__Dht__Resolved resolved[4], *pointers[4];
    Expertd__Dht__Range range[2] = {EXPERTD__DHT__RANGE__INIT, EXPERTD__DHT__RANGE__INIT},
                        *ranges[] = {&range[0], &range[1]};
    Expertd__Dht__PrefixContent content = EXPERTD__DHT__PREFIX_CONTENT__INIT, *contents[] = {&content};
    Expertd__Dht__DrawResult draw = EXPERTD__DHT__DRAW_RESULT__INIT;
    Expertd__Dht__NodeStatus node = EXPERTD__DHT__NODE_STATUS__INIT;
    Expertd__Dht__NodeStatus__Counter counter = EXPERTD__DHT__NODE_STATUS__COUNTER__INIT, *counters[] = {&counter};
    char endpoint[] = "tcp://10.0.0.1:31330", name[] = "dht.servers_alive", uid[] = "ffn.3", *uids[] = {uid};
    unsigned char buffer[4096];
    (void)context;
    replica.endpoint = endpoint;
    for (size_t i = 0; i < asked->n_uids; i++) {
        pointers[i] = &resolved[i];
        expertd__dht__resolved__init(&resolved[i]);
        resolved[i].uid = asked->uids[i];
        resolved[i].replicas = replicas;
        resolved[i].n_replicas = strcmp(asked->uids[i], "ffn.0") == 0 ? 2 : 0;
    }
    reply.n_resolved = asked->n_uids;
    reply.resolved = pointers;
    if (asked->n_prefixes) {
        content.prefix = asked->prefixes[0];
        range[0].first = 1;
        range[0].count = 1;
        range[1].first = 4;
        range[1].count = 4;
        content.experts = content.branches = ranges;
        content.n_experts = 2;
        content.n_branches = 1;
        reply.n_prefixes = 1;
        reply.prefixes = contents;
    }
    draw.uids = uids;
    draw.n_uids = draw.free = 1;
    reply.draw = &draw;
    counter.name = name;
    counter.value = 2;
    node.counters = counters;
    node.n_counters = 1;
    reply.node = &node;
    reply.version = 1;
    reply.request_id = asked->request_id;
    router_send(request, &(struct router_frame){buffer, expertd__dht__reply__pack(&reply, buffer)}, 1);
    expertd__dht__request__free_unpacked(asked, NULL);
}

START_TEST(the_dht_is_asked)
{
    struct router *node = router_start(NULL, dht, NULL);
    const char *at = router_endpoint(node);
    ck_assert_int_eq(ctl("--dht %s resolve ffn.0", at), 0);
    ck_assert_str_eq(output, "ffn.0\ttcp://10.0.0.1:31330\ttcp://10.0.0.1:31330\n");
    ck_assert_int_eq(ctl("--dht %s resolve ffn.0 ffn.9", at), 4);
    says("ffn.9\t-\n");
    ck_assert_int_eq(ctl("--dht %s resolve ffn.9 --json", at), 4);
    says("\"status\": \"NOT_FOUND\"");
    ck_assert_int_eq(ctl("--dht %s search ffn.", at), 0);
    ck_assert_str_eq(output, "ffn.1\nffn.[4:8]\nffn.1.\n");
    ck_assert_int_eq(ctl("--dht %s search ffn. --json", at), 0);
    says("\"experts\": [[1, 2], [4, 8]], \"branches\": [[1, 2]]");
    ck_assert_int_eq(ctl("--dht %s draw 'ffn.[0:4]' --count 2", at), 0);
    ck_assert_str_eq(output, "expertctl: draw: 1 of 2 uids: no more of the pattern are free\nffn.3\n");
    ck_assert_int_eq(ctl("--dht %s draw 'ffn.[0:4]' --json", at), 0);
    says("\"uids\": [\"ffn.3\"]");
    ck_assert_int_eq(ctl("--dht %s stats", at), 0);
    ck_assert_str_eq(output, "frontend.requests.ping 5\ndht.servers_alive 2\n");
    ck_assert_int_eq(ctl("--dht %s stats --json", at), 0);
    says("\"dht\": {\"dht.servers_alive\": 2}");
    router_stop(&node);
}
END_TEST

int main(void)
{
    const char *build = getenv("BUILD");
    char here[2048];
    if (!getcwd(here, sizeof here))
        return 1;
    if (build && build[0] == '/')
        snprintf(program, sizeof program, "%s/bin/expertctl", build);
    else
        snprintf(program, sizeof program, "%s/%s/bin/expertctl", here, build ? build : "build");
    Suite *suite = suite_create("expertctl");
    TCase *tests = tcase_create("expertctl");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, each_question_is_answered_in_words_and_json);
    tcase_add_test(tests, forward_and_backward_go_from_file_to_file);
    tcase_add_test(tests, what_fails_on_this_side_is_no_status_of_the_protocol);
    tcase_add_test(tests, a_benchmark_measures_each_number_of_calls_in_flight);
    tcase_add_test(tests, a_benchmark_of_what_only_fails_ends);
    tcase_add_test(tests, a_benchmark_masks_nothing);
    tcase_add_test(tests, top_asks_for_a_terminal);
    tcase_add_test(tests, an_expert_does_not_learn_for_an_answer_that_has_no_place);
    tcase_add_test(tests, a_failed_question_leaves_files_as_they_were);
    tcase_add_test(tests, help_comes_for_its_short_name_too);
    tcase_add_test(tests, wrong_usage_is_told_apart);
    tcase_add_test(tests, statuses_become_exit_codes);
    tcase_add_test(tests, a_server_that_is_not_there_is_unavailable);
    tcase_add_test(tests, waiting_for_more_than_there_is_ends);
    tcase_add_test(tests, wait_asks_until_all_experts_are_alive);
    tcase_add_test(tests, a_wait_that_ends_tells_what_was_missing);
    tcase_add_test(tests, a_list_that_changes_while_it_is_read_is_read_again);
    tcase_add_test(tests, the_dht_is_asked);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
