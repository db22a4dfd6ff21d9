#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "unit/support_stderr.h"

static struct config config;

static void set_up(void)
{
    stderr_capture();
    setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
    setenv("XDG_CACHE_HOME", "/home/u/cache", 1);
}

static void tear_down(void)
{
    config_destroy(&config);
    stderr_release();
}

static int parse(const char *text)
{
    return config_parse(&config, text, strlen(text), "box.yaml");
}

static void parse_well(const char *text)
{
    const int rc = parse(text);
    ck_assert_msg(rc == 0, "%s\n%s", text, stderr_text());
}

START_TEST(an_empty_file_gives_every_default)
{
    static const char *const empty[] = {"", "# nothing\n", "server:\nexperts:\n", "{}", "~", "experts: []"};
    parse_well(empty[_i]);
    ck_assert_str_eq(config.server.name, "expertd");
    ck_assert_str_eq(config.server.run_dir, geteuid() == 0 ? "/run/expertd" : "/run/user/1/expertd");
    ck_assert_uint_eq(config.frontend.listen.count, 1);
    ck_assert_str_eq(config.frontend.listen.items[0], "tcp://127.0.0.1:31330");
    ck_assert_str_eq(config.frontend.advertise, "tcp://127.0.0.1:31330");
    ck_assert_str_eq(config.dht.frontend, "tcp://127.0.0.1:31330");
    ck_assert_double_eq(config.dht.expiration, 60);
    ck_assert_double_eq(config.checkpoint.interval, 300);
    ck_assert_uint_eq(config.devices_count, 1);
    ck_assert_str_eq(config.devices[0].name, "device0");
    ck_assert_str_eq(config.devices[0].cache_dir, "/home/u/cache/expertd");
    ck_assert(!config.dht.port_mapping);
    ck_assert_uint_eq(config.experts_count, 0);
}
END_TEST

START_TEST(what_the_file_says_is_taken_and_the_rest_completed)
{
    parse_well("server: {name: box1, run_dir: /tmp/x, log_level: debug, insecure: yes}\n"
               "frontend:\n"
               "  listen: [\"tcp://*:7000\", ipc:///tmp/f]\n"
               "  advertise: tcp://10.0.0.7:7000\n"
               "  io_threads: 4\n"
               "dht: {update_period: 1.0, port_mapping: yes, bootstrap: [\"a:1\", \"b:2\"]}\n"
               "devices: [{name: cpu0, chunk_rows: 7}, {name: gpu0, linear_kernel: mma, precision: tf32}]\n"
               "experts:\n"
               "  - {uid: \"ffn.[0:4].[0:16]\", hidden_dim: 64, seed: 18446744073709551615, learning_rate: 1e-4}\n"
               "  - {uid: nop.0, block: nop, device: gpu0, max_batch_size: 16, queue_rows: 16}\n");
    ck_assert_str_eq(config.server.name, "box1");
    ck_assert_uint_eq(config.frontend.listen.count, 2);
    ck_assert_str_eq(config.frontend.listen.items[1], "ipc:///tmp/f");
    ck_assert_uint_eq(config.frontend.io_threads, 4);
    ck_assert_str_eq(config.dht.frontend, "tcp://127.0.0.1:7000"); /* what this box can connect to */
    ck_assert_double_eq(config.dht.expiration, 3);
    ck_assert(config.dht.port_mapping);
    ck_assert_str_eq(config.dht.bootstrap.items[1], "b:2");
    ck_assert_uint_eq(config.devices[0].chunk_rows, 7);
    ck_assert_str_eq(config.devices[1].linear_kernel, "mma");
    ck_assert_str_eq(config.devices[0].precision, "fp32");
    ck_assert_str_eq(config.devices[1].precision, "tf32");
    ck_assert_uint_eq(config.experts_count, 2);
    ck_assert_str_eq(config.experts[0].device, "cpu0");
    ck_assert_uint_eq(config.experts[0].seed, UINT64_MAX);
    ck_assert_uint_eq(config.experts[0].queue_rows, 8192);
    ck_assert_double_eq(config.experts[0].learning_rate, 1e-4);
    ck_assert_str_eq(config.experts[1].device, "gpu0");
    ck_assert_ptr_eq(config_find_device(&config, "gpu0"), &config.devices[1]);
    ck_assert_ptr_eq(config_find_device(&config, ""), &config.devices[0]);
    ck_assert_ptr_null(config_find_device(&config, "gpu1"));
}
END_TEST

/* What it trains, and where its weights are from, decide which devices can have an expert that another one had. */
START_TEST(devices_of_few_bits_take_what_they_can_keep)
{
    static const char *const precisions[] = {"fp32", "bf16", "int8", "int4", "fp8", "mxfp4"};
    struct config_expert trained = {.optimizer = "adam", .weights = ""}, random = {.optimizer = "none", .weights = ""},
                         of_files = {.optimizer = "none", .weights = "/models/a"};
    for (unsigned i = 0; i < 6; i++) {
        const struct config_device device = {.precision = precisions[i]};
        ck_assert(config_device_quantizes(&device) == (i >= 2));
        for (unsigned j = 0; j < 6; j++) {
            const struct config_device before = {.precision = precisions[j]};
            ck_assert(config_device_takes(&device, &before, &trained) == (i < 2));
            ck_assert(config_device_takes(&device, &before, &random));
            ck_assert(config_device_takes(&device, &before, &of_files) == (i < 4 || i == j));
        }
        ck_assert(config_device_takes(&device, NULL, &of_files) == (i < 4));
    }
}
END_TEST

#define HEX_64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF"
#define VOUCHER HEX_64 HEX_64 HEX_64

/* A text, and what the message about it must say. */
#define TWO_DEVICES "devices: [{name: a}, {name: b}]\n"
#define FRONTENDS(name, listen, other, other_listen, other_devices)                                                    \
    "frontends:\n - {name: " name ", devices: [a], listen: [\"" listen "\"]}\n - {name: " other                        \
    ", devices: [" other_devices "], listen: [\"" other_listen "\"]}\n"

static const struct {
    const char *text;
    const char *message;
} errors[] = {
    /* structure: unknown keys, wrong types, no YAML */
    {"server:\n  name: x\n  foo: 1\n", "box.yaml:3: server: there is no option 'foo' here"},
    {"\nbogus: 1\n", "box.yaml:2: there is no option 'bogus' here"},
    {"experts:\n  - uid: a.1\n  - uid: a.2\n    uuid: 3\n", "box.yaml:4: experts[1]: there is no option 'uuid' here"},
    {"server:\n  name: x\n\n  run_dir: {a: b}\n", "box.yaml:4: server.run_dir: must be one value, and is options"},
    {"frontend:\n  listen: tcp://a:1\n", "box.yaml:2: frontend.listen: must be a list, and is "},
    {"experts: 3\n", "box.yaml:1: experts: must be a list, and is "},
    {"experts:\n  - uid: a.1\n  - 5\n", "box.yaml:3: experts[1]: must be options, as NAME: VALUE, and is "},
    {"[1, 2]\n", "box.yaml:1: must be options, as NAME: VALUE, and is "},
    {"server:\n  name: a\n bad: x\n", "box.yaml:3: "},
    {"server: {name: a", "box.yaml:2: did not find expected"},
    {"blocks:\n  - name: mine\n", "box.yaml:2: blocks[0]: block mine has no layers"},
    {"dht: {update_period: 0x10}\n", "box.yaml:1: dht.update_period: '0x10' is not a number"},
    {"server: {name: a, name: b}\n", "box.yaml:1: server.name: stands twice; the first is in line 1"},
    {"server: {name: &a x, run_dir: *a}\n", "box.yaml:1: "},
    {"server: {name: \xff}\n", "box.yaml:1: "},
    {"server:\n  name: a\n# Gr\xfc\xdf"
     "e\n",
     "box.yaml:3: invalid"},
    {"server:\n  name: a\n\n\n# \x01\n", "box.yaml:5: control characters are not allowed"},
    {"server:\r\n  name: a\r\n# \x7f\r\n", "box.yaml:3: control characters are not allowed"},
    {"experts:\n  - uid: a.1\nserver:\n  name: a\nexperts: [{uid: a.2}]\n",
     "box.yaml:5: experts: stands twice; the first is in line 1"},
    {"experts:\n  - uid: a.1\n  - uid: a.2\n    seed: 1\n    seed: 2\n",
     "box.yaml:5: experts[1].seed: stands twice; the first is in line 4"},
    {"server: {name: a}\n---\nexperts: []\n", "box.yaml:2: a second document begins here"},
    {"---\nserver: {name: a}\n...\n---\n", "box.yaml:4: a second document begins here"},
    {"~\n---\nserver: {name: a}\n", "box.yaml:2: a second document begins here"},
    {"server: {name: a}\n---\n}\n", "box.yaml:2: a second document begins here"},
    {"server: {name: a}\n...\n%YAML 9\n", "box.yaml:3: "},
    {"server:\n  name: \"a\\0b\"\n", "box.yaml:2: a text with a zero byte"},
    {"experts:\n  - {uid: \"ffn.0\\x00x\"}\n", "box.yaml:2: a text with a zero byte"},
    {"frontend:\n  listen:\n    - \"ipc://a\\u0000\"\n", "box.yaml:3: a text with a zero byte"},
    {"\"server\\0x\": {name: a}\n", "box.yaml:1: a text with a zero byte"},
    {"server: {\"name\\0x\": a}\n", "box.yaml:1: a text with a zero byte"},
    {"server:\n  name: !ENV NAME\n", "box.yaml:2: a tag (!...) means nothing here"},
    {"server:\n  name: !!binary Ym94\n", "box.yaml:2: a tag (!...) means nothing here"},
    {"experts:\n  - !include expert.yaml\n", "box.yaml:2: a tag (!...) means nothing here"},
    {"experts:\n  - uid: ffn.0\n    arguments: !x {inner: 4}\n", "box.yaml:3: a tag (!...) means nothing here"},
    {"--- !document\nserver: {name: a}\n", "box.yaml:1: a tag (!...) means nothing here"},
    {"frontend: {local: group people}\n", "box.yaml:1: frontend.local: with 'group'"},
    {"server:\n  nmae: x\n", "there is no option 'nmae' here: is 'name' meant?"},
    {"expert: []\n", "box.yaml:1: there is no option 'expert' here: is 'experts' meant?"},
    {"http:\n  metrics_experts: all\n",
     "box.yaml:2: http: there is no option 'metrics_experts' here: is 'metrics.experts' meant?"},
    {"checkpoint_dir: ck\n", "box.yaml:1: there is no option 'checkpoint_dir' here: is 'checkpoint.dir' meant?"},
    {"frontend: {on_device_loss: move}\n", "frontend: there is no option 'on_device_loss' here: is "
                                           "'server.on_device_loss' meant?"},
    {"server: {interval: 1}\n", "there is no option 'interval' here: is 'checkpoint.interval' meant?"},
    {"server: {port: 1}\n", "there is no option 'port' here: is 'dht.port' meant?"},
    {"server: {listen: x}\n", "server: there is no option 'listen' here (--print-config"},
    {"devices:\n  - {name: a, slab: staged}\n", "box.yaml:2: devices[0]: there is no option 'slab' here: is 'slabs'"},
    {"frontend:\n  listen:\n    - ~\n", "box.yaml:3: frontend.listen: null is no entry of this list"},
    {"experts: [~]\n", "box.yaml:1: experts[0]: must be options, as NAME: VALUE, and is "},
    {"experts: {uid: a.1}\n", "box.yaml:1: experts: must be a list, and is "},
    {"server: [{name: a}]\n", "box.yaml:1: server: must be options, as NAME: VALUE, and is "},
    /* values */
    {"frontend:\n  io_threads: 65\n", "box.yaml:2: frontend.io_threads: 65 is out of range: 1 to 64 threads"},
    {"frontend:\n  io_threads: 0\n", "box.yaml:2: frontend.io_threads: 0 is out of range"},
    {"frontend: {io_threads: -1}", "frontend.io_threads: '-1' is not a whole number"},
    {"frontend: {io_threads: 4x}", "'4x' is not a whole number"},
    {"frontend: {io_threads: 1.5}", "'1.5' is not a whole number"},
    {"frontend:\n  io_threads: 010\n", "box.yaml:2: frontend.io_threads: '010' is not a whole number (a 0 in front"},
    {"frontend: {io_threads: 0o10}", "'0o10' is not a whole number (it is written in decimal digits)"},
    {"frontend: {io_threads: 1e1}", "'1e1' is not a whole number (it is written"},
    {"experts: [{uid: a.1, seed: 1_000}]", "experts[0].seed: '1_000' is not a whole number (it is written"},
    {"dht:\n  update_period: 010\n", "box.yaml:2: dht.update_period: '010' is not a number (a 0 in front"},
    {"dht: {update_period: 1.5.5}", "dht.update_period: '1.5.5' is not a number"},
    {"dht: {update_period: 30-1}", "dht.update_period: '30-1' is not a number"},
    {"frontend: {io_threads: \"\"}", "'' is not a whole number"},
    {"frontend: {io_threads: !!str null}", "'null' is not a whole number"},
    {"frontend: {io_threads: \"null\"}", "'null' is not a whole number"},
    {"experts: [{uid: a.1, seed: 18446744073709551616}]", "18446744073709551616 is out of range"},
    {"dht: {update_period: soon}", "'soon' is not a number"},
    {"dht: {update_period: nan}", "'nan' is not a number"},
    {"dht: {update_period: .inf}", "'.inf' is not a number"},
    {"dht: {update_period: 1e999}", "'1e999' is not a number"},
    {"dht: {update_period: 0.01}", "0.01 is out of range: 0.05 to 86400 s"},
    {"dht: {port_mapping: maybe}", "'maybe' is neither true nor false"},
    {"devices: [{name: a, linear_kernel: fpga}]", "'fpga' is not one of auto|cpu|amx|gpu"},
    {"devices: [{name: a, linear_kernel: aut}]", "'aut' is not one of"},
    {"devices: [{name: a, linear_kernel: auto|cpu}]", "'auto|cpu' is not one of"},
    {"devices: [{name: a, linear_kernel: \"\"}]", "'' is not one of"},
    {"devices: [{name: a, precision: fp6}]", "'fp6' is not one of fp32|tf32|fp16|bf16|int8|int4|fp8|mxfp4"},
    {"experts: [{uid: a.1, optimizer: lamb}]", "experts[0].optimizer"},
    {"experts: [{uid: a.1, schedule: sine}]", "experts[0].schedule"},
    {"server: {log_level: loud}", "server.log_level"},
    /* names and references */
    {"server: {name: \"a b\"}", "server.name: 'a b' has a character other than"},
    {"server: {name: a/b}", "server.name"},
    {"server: {name: a.b}", "server.name"},
    {"server: {name: \"\"}", "server.name: '' is not a name of 1 to 32 characters"},
    {"server: {name: a23456789012345678901234567890123}", "is not a name of 1 to 32 characters"},
    {"devices:\n - {name: a}\n - {platform: x}\n", "box.yaml:3: devices[1].name: '' is not a name"},
    {"devices:\n - name: a\n - name: b\n - name: a\n", "box.yaml:4: devices[2].name: 'a' is the name of devices[0]"},
    {"experts:\n - uid: a.1\n   device: gpu7\n", "box.yaml:3: experts[0].device: there is no device called 'gpu7'"},
    {"frontend: {listen: [localhost]}", "frontend.listen: 'localhost' is no ZeroMQ endpoint"},
    {"frontend: {listen: [\"tcp://0.0.0.0:1\"]}", "frontend.advertise: 'tcp://0.0.0.0:1' is no address"},
    {"frontend: {listen: [\"tcp://*:1\"]}", "frontend.advertise: 'tcp://*:1' is no address"},
    {"frontend:\n  listen: [\"ipc:///tmp/x\", \"tcp://a.b:1\"]\n",
     "box.yaml:2: frontend.listen: 'tcp://a.b:1' is reached from other"},
    {"dht: {listen: \"tcp://*:1\"}", "dht.listen: 'tcp://*:1' is reached from other machines"},
    {"server: {clients: here}", "server.clients: says who may connect, which nobody can prove without server.key_file"},
    {"server: {strangers: reader}", "server.strangers: says who may connect"},
    {"server: {strangers: king}", "server.strangers: 'king' is not one of"},
    {"dht: {listen: nowhere}", "dht.listen: 'nowhere' is no ZeroMQ endpoint"},
    {"frontend:\n  listen: [\"inproc://experts\"]",
     "box.yaml:2: frontend.listen: 'inproc://experts' is only reached from"},
    {"dht: {listen: \"inproc://a\"}", "dht.listen: 'inproc://a' is only reached"},
    {"frontend: {advertise: \"inproc://a\"}", "frontend.advertise: 'inproc://a' is only reached"},
    {"dht: {frontend: \"inproc://a\"}", "dht.frontend: 'inproc://a' is only reached"},
    {"dht: {frontend: \"tcp://*:1\"}", "dht.frontend: 'tcp://*:1' is no address to connect to"},
    {"frontend: {listen: [\"tcp://127.0.0.1\"]}", "frontend.listen: 'tcp://127.0.0.1' names no port"},
    {"dht:\n  port: 0\n  bootstrap: [\"::1\"]\n", "box.yaml:3: dht.bootstrap: '::1' is no address: write host:port"},
    {"dht: {bootstrap: [\"a:1\", \"b:0\"]}\n", "dht.bootstrap: 'b:0' is no address"},
    /* options that must fit each other */
    {"experts: [{uid: a.1, min_batch_size: 5, max_batch_size: 4}]", "experts[0].min_batch_size: 5 is above"},
    {"experts: [{uid: a.1, max_batch_size: 64, queue_rows: 63}]", "experts[0].queue_rows: 63 is below"},
    {"experts: [{uid: a.1, backward: false}]", "experts[0].backward: false needs optimizer: none"},
    {"experts: [{uid: a.1, schedule: linear, warmup_steps: 9, total_steps: 9}]", "experts[0].total_steps: 9 must"},
    {"dht:\n  update_period: 300\n  expiration: 30\n", "box.yaml:3: dht.expiration: 30 s must be above update_period"},
    {"dht: {expiration: 30}\n", "dht.expiration: 30 s must be above update_period, which is 30 s"},
    {"frontend: {listen: [\"tcp://a:1\"]}\ndht: {listen: \"tcp://a:1\"}",
     "box.yaml:2: dht.listen: 'tcp://a:1' cannot be bound beside 'tcp://a:1' of frontend.listen"},
    {"dht:\n  listen: \"tcp://*:31330\"\n", "box.yaml:2: dht.listen: 'tcp://*:31330' cannot be bound beside"},
    {"frontend: {listen: [\"tcp://127.0.0.1:5\", \"tcp://0.0.0.0:5\"]}\nserver: {insecure: true}\n",
     "box.yaml:1: frontend.listen: 'tcp://0.0.0.0:5' cannot be bound beside 'tcp://127.0.0.1:5'"},
    {"http:\n  listen: \"127.0.0.1:31330\"\n",
     "box.yaml:2: http.listen: 'tcp://127.0.0.1:31330' cannot be bound beside"},
    {"http:\n  listen: \"localhost:31331\"\n", "box.yaml:2: http.listen: 'localhost:31331' cannot be bound beside dht"},
    {"http: {start: true}\ndht:\n  listen: \"tcp://127.0.0.1:31332\"\n", "http.listen: '127.0.0.1:31332' cannot be"},
    {"dht:\n  tcp_port: 31331\n", "box.yaml:2: dht.tcp_port: 31331 is that of dht.listen"},
    {"dht:\n  tcp_port: 31330\n", "box.yaml:2: dht.tcp_port: 'tcp://[::]:31330' cannot be bound beside"},
    {"frontend:\n  listen: [\"ipc:///x\"]\n  local_path: /x\n", "box.yaml:3: frontend.local_path: '/x' is the path of"},
    {"dht: {listen: \"ipc:///x\"}\nfrontend: {local_path: /x}\n", "box.yaml:2: frontend.local_path: '/x' is the path"},
    {"frontend: {listen: [\"tcp://a:1\", \"tcp://a:1\"]}",
     "frontend.listen: 'tcp://a:1' cannot be bound beside 'tcp://a:1'"},
    {"devices: [{name: a, linear_kernel: clblast, precision: fp16}]", "devices[0].linear_kernel: clblast takes fp32"},
    {"devices: [{name: a, linear_kernel: mma}]",
     "devices[0].linear_kernel: mma multiplies in tf32 or fp16 (bf16: weights)"},
    {"devices: [{name: a, linear_kernel: mma, precision: int8}]",
     "devices[0].linear_kernel: mma does not read weights of precision int8: choose auto, cpu or gpu"},
    {"devices: [{name: a, linear_kernel: amx, precision: int4}]",
     "devices[0].linear_kernel: amx does not read weights of precision int4"},
    {"devices: [{name: a, precision: mxfp4}]\nexperts: [{uid: a.1}]",
     "experts[0].optimizer: must be none on device 'a': nothing trains in precision mxfp4"},
    {"devices: [{name: a, linear_kernel: cpu, precision: tf32}]", "devices[0].linear_kernel: cpu does not multiply in"},
    /* options that would have no effect */
    {"experts: [{uid: a.1, warmup_steps: 5}]",
     "box.yaml:1: experts[0].warmup_steps: has no effect with schedule: none"},
    {"experts:\n- uid: a.1\n  total_steps: 5\n", "box.yaml:3: experts[0].total_steps: has no effect with schedule"},
    {"experts:\n- uid: a.1\n  momentum: 0.9\n", "box.yaml:3: experts[0].momentum: has no effect with optimizer: adam:"},
    {"experts: [{uid: a.1, optimizer: adamw, momentum: 0.9}]",
     "experts[0].momentum: has no effect with optimizer: adamw"},
    {"experts: [{uid: a.1, optimizer: sgd, beta1: 0.5}]", "experts[0].beta1: has no effect with optimizer: sgd"},
    {"experts: [{uid: a.1, optimizer: sgd, beta2: 0.5}]", "experts[0].beta2: has no effect with optimizer: sgd"},
    {"experts: [{uid: a.1, optimizer: sgd, epsilon: 1e-6}]", "experts[0].epsilon: has no effect with optimizer: sgd"},
    {"experts: [{uid: a.1, optimizer: sgd, amsgrad: true}]", "experts[0].amsgrad: has no effect with optimizer: sgd"},
    {"experts: [{uid: a.1, optimizer: none, learning_rate: 0.1}]", "learning_rate: has no effect with optimizer: none"},
    {"experts: [{uid: a.1, optimizer: none, clip_norm: 1}]", "clip_norm: has no effect with optimizer: none"},
    {"experts: [{uid: a.1, optimizer: none, grad_accumulation: 2}]",
     "grad_accumulation: has no effect with optimizer: n"},
    {"experts: [{uid: a.1, optimizer: none, weight_decay: 0.1}]", "weight_decay: has no effect with optimizer: none"},
    {"experts: [{uid: a.1, optimizer: none, schedule: linear, total_steps: 9}]",
     "schedule: has no effect with optimizer"},
    {"devices: [{name: a, tune: off, tune_time: 3}]", "devices[0].tune_time: has no effect with tune: off"},
    {"devices: [{name: a, slabs: in_place, copy_threads: 3}]", "devices[0].copy_threads: has no effect with slabs"},
    {"checkpoint:\n  interval: 60\n", "box.yaml:2: checkpoint.interval: has no effect without checkpoint.dir"},
    {"checkpoint: {start_anew: true}", "checkpoint.start_anew: has no effect without checkpoint.dir"},
    {"dht: {voucher: " VOUCHER "}", "dht.voucher: is for the key of dht.identity_file, and without one"},
    {"dht: {voucher: abc, identity_file: /k}", "dht.voucher: is none: it has 192 hexadecimal digits"},
    {"dht: {trusted: [ffn.]}", "dht.trusted: 'ffn.' is neither a key"},
    /* endpoints that are connected to */
    {"frontend:\n  advertise: \"tcp://10.0.0.7:*\"\n",
     "box.yaml:2: frontend.advertise: 'tcp://10.0.0.7:*' has no port"},
    {"frontend:\n  advertise: ipc:///run/x\n",
     "box.yaml:2: frontend.advertise: 'ipc:///run/x' is on this machine alone"},
    {"dht:\n  frontend: \"tcp://127.0.0.1:*\"\n", "box.yaml:2: dht.frontend: 'tcp://127.0.0.1:*' has no port"},
    {"http:\n  frontend: \"tcp://h:*\"\n", "box.yaml:2: http.frontend: 'tcp://h:*' has no port"},
    {"metrics:\n  experts: top\n", "box.yaml:2: metrics.experts: 'top' is none of: top N (of 1 to 4096), all, none"},
    {"metrics: {experts: top 0}", "metrics.experts: 'top 0' is none of"},
    {"metrics: {experts: top 4097}", "metrics.experts: 'top 4097' is none of"},
    {"metrics: {experts: top 42949672970}", "metrics.experts: 'top 42949672970' is none of"},
    {"metrics: {experts: top -1}", "metrics.experts: 'top -1' is none of"},
    {"metrics: {experts: top5}", "metrics.experts: 'top5' is none of"},
    {"metrics: {experts: \"top 5 \"}", "metrics.experts: 'top 5 ' is none of"},
    {"metrics: {experts: top 010}", "metrics.experts: 'top 010' is none of"},
    {"metrics: {experts: 5}", "metrics.experts: '5' is none of"},
    {"metrics: {experts: All}", "metrics.experts: 'All' is none of"},
    {"metrics: {experts: \"\"}", "metrics.experts: '' is none of"},
    {"http:\n  dht: \"tcp://h:*\"\n", "box.yaml:2: http.dht: 'tcp://h:*' has no port"},
    {"frontend: {default_deadline: 100}\nexperts: [{uid: a.1, min_batch_size: 2, batch_timeout: 100}]",
     "experts[0].batch_timeout: 100 ms must be below frontend.default_deadline"},
    /* several frontends */
    {"frontends:\n - {name: f, listen: [\"tcp://127.0.0.1:1\"]}\n", "box.yaml:2: frontends[0].devices: is needed"},
    {"devices: [{name: a}]\nfrontends:\n - name: f\n   devices: [a]\n", "box.yaml:3: frontends[0].listen: is needed"},
    {"devices: [{name: a}]\nfrontends:\n - name: \"f.1\"\n", "box.yaml:3: frontends[0].name: 'f.1' has a character"},
    {"devices: [{name: a}]\nfrontends:\n - {devices: [a], listen: [\"tcp://127.0.0.1:1\"]}\n",
     "box.yaml:3: frontends[0].name: '' is not a name"},
    {TWO_DEVICES "frontends:\n - {name: f, devices: [a], listen: [\"tcp://127.0.0.1:1\"]}\n",
     "box.yaml:1: devices[1].name: 'b' is in the devices of no entry of frontends"},
    {TWO_DEVICES "frontends:\n - {name: f, devices: [a, c, b], listen: [\"tcp://127.0.0.1:1\"]}\n",
     "box.yaml:3: frontends[0].devices: there is no device called 'c'"},
    {TWO_DEVICES "frontends:\n - {name: f, devices: [a, \"\", b], listen: [\"tcp://127.0.0.1:1\"]}\n",
     "box.yaml:3: frontends[0].devices: there is no device called ''"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "f", "tcp://127.0.0.1:2", "b"),
     "box.yaml:4: frontends[1].name: 'f' is the name of frontends[0] already"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://127.0.0.1:2", "b, a"),
     "box.yaml:4: frontends[1].devices: 'a' belongs to frontends[0] already"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://127.0.0.1:1", "b"),
     "box.yaml:4: frontends[1].listen: 'tcp://127.0.0.1:1' cannot be bound beside 'tcp://127.0.0.1:1' of frontends[0]"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://127.0.0.1:31331", "b"),
     "box.yaml:4: frontends[1].listen: 'tcp://127.0.0.1:31331' cannot be bound beside dht.listen, "
     "'tcp://127.0.0.1:31331'"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://127.0.0.1:*", "b"),
     "box.yaml:4: frontends[1].advertise: 'tcp://127.0.0.1:*' has no port"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://*:2", "b") "server: {insecure: yes}",
     "box.yaml:4: frontends[1].advertise: 'tcp://*:2' is no address"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://a.b:2", "b"),
     "box.yaml:4: frontends[1].listen: 'tcp://a.b:2' is reached from other machines"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://127.0.0.1:2",
                           "b") "frontend: {listen: [\"tcp://127.0.0.1:3\"]}",
     "box.yaml:5: frontend.listen: stands in each entry of frontends"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://127.0.0.1:2",
                           "b") "frontend: {advertise: \"tcp://h:3\"}",
     "box.yaml:5: frontend.advertise: stands in each entry of frontends"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://127.0.0.1:2", "b") "frontend: {local_path: /x}",
     "box.yaml:5: frontend.local_path: stands in each entry of frontends"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://127.0.0.1:2", "b") "frontend: {local: group users}",
     "frontends[0].local_path: with frontend.local 'group' it has to be named"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://127.0.0.1:2",
                           "b") "dht: {identity_file: /k, voucher: " VOUCHER "}",
     "box.yaml:5: dht.voucher: is for one key, and each of several frontends has one of its own"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g, voucher: abc", "tcp://127.0.0.1:2", "b"),
     "frontends[1].voucher: is none: it has 192 hexadecimal digits"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g, voucher: " VOUCHER, "tcp://127.0.0.1:2", "b"),
     "frontends[1].voucher: is for the key of dht.identity_file, and without one"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "g", "tcp://127.0.0.1:2", "b") "dht: {frontend: \"tcp://h:9\"}",
     "box.yaml:5: dht.frontend: has no place beside frontends"},
    {TWO_DEVICES FRONTENDS("f", "tcp://127.0.0.1:1", "a234567890123456789012345", "tcp://127.0.0.1:2", "b"),
     "frontends[1].name: 'expertd-a234567890123456789012345', which its files are called, has more than 32"},
    /* uids */
    {"experts:\n - block: nop\n", "box.yaml:2: experts[0]: an expert needs a uid"},
    {"experts: [{uid: ffn}]", "experts[0].uid: 'ffn' is no uid or pattern of uids"},
    {"experts: [{uid: \"ffn.[4:0]\"}]", "experts[0].uid: 'ffn.[4:0]' is no uid"},
    {"experts: [{uid: \"f.[0:2]\", count: 3}]", "experts[0].count: 3 is more than the 2 uids of 'f.[0:2]'"},
    {"experts: [{uid: \"f.[0:2000000]\"}]", "names 2000000 experts, more than 1048576: set count"},
    {"experts: [{uid: \"f.[0:1000000]\"}, {uid: \"g.[0:1000000]\"}]", "experts[1].uid: with it there are 2000000"},
    {"experts:\n - uid: f.1\n - uid: f.[0:4]\n", "box.yaml:3: experts[1].uid: 'f.1' is in experts[0] (line 2) already"},
    {"experts: [{uid: f.1}, {uid: f.1}]", "'f.1' is in experts[0]"},
    {"experts: [{uid: a.1, block: \"\"}]", "experts[0].block: must not be empty"},
    {"experts:\n - uid: a.1\n   block: fnn\n",
     "box.yaml:3: experts[0].block: there is no block 'fnn': is 'ffn' meant?"},
    {"experts: [{uid: a.1, block: \"~/affine.so\"}]", "box.yaml:1: experts[0].block: '~' stands for no folder here"},
    {"checkpoint: {dir: \"~\"}", "checkpoint.dir: '~' stands for no folder here"},
};

START_TEST(errors_name_file_line_and_option)
{
    ck_assert_int_eq(parse(errors[_i].text), -EINVAL);
    ck_assert_msg(strstr(stderr_text(), errors[_i].message), "%s\nexpected: %s\nlogged: %s", errors[_i].text,
                  errors[_i].message, stderr_text());
    ck_assert_ptr_null(config.memory);
}
END_TEST

/* Every option of every section, with each way to write null, is what it is when it is left out. */
START_TEST(null_is_the_default_of_every_option)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    struct config defaults;
    char text[256];
    static const char least[] = "devices: [{name: a}]\nexperts: [{uid: x.1}]";
    ck_assert_int_eq(config_parse(&defaults, least, strlen(least), "defaults"), 0);
#define SAME_STRING(a, b) strcmp(a, b) == 0
#define SAME_PATH(a, b) SAME_STRING(a, b)
#define SAME_BLOCK(a, b) SAME_STRING(a, b)
#define SAME_ENDPOINT(a, b) SAME_STRING(a, b)
#define SAME_CHOICE(a, b) SAME_STRING(a, b)
#define SAME_UINT(a, b) (a) == (b)
#define SAME_BOOL(a, b) (a) == (b)
#define SAME_FLOAT(a, b) (a) == (b)
#define SAME_STRINGS(a, b) (a).count == (b).count
#define SAME_TREE(a, b) (a) == (b)
#define IS_DEFAULT(kind, record, name)                                                                                 \
    parse_well(text);                                                                                                  \
    ck_assert_msg(SAME_##kind(config.record.name, defaults.record.name), "%s", text);                                  \
    config_destroy(&config);
#define IN_SECTION(section, kind, name)                                                                                \
    snprintf(text, sizeof text, "devices: [{name: a}]\nexperts: [{uid: x.1}]\n" #section ":\n  " #name ": %s\n",       \
             nulls[_i]);                                                                                               \
    IS_DEFAULT(kind, section, name)
#define IN_SERVER(kind, name, ...) IN_SECTION(server, kind, name)
#define IN_FRONTEND(kind, name, ...) IN_SECTION(frontend, kind, name)
#define IN_DHT(kind, name, ...) IN_SECTION(dht, kind, name)
#define IN_CHECKPOINT(kind, name, ...) IN_SECTION(checkpoint, kind, name)
#define IN_DEVICE(kind, name, ...)                                                                                     \
    snprintf(text, sizeof text, "experts: [{uid: x.1}]\ndevices:\n- name: a\n  %s: %s\n", #name, nulls[_i]);           \
    if (strcmp(#name, "name") != 0) {                                                                                  \
        IS_DEFAULT(kind, devices[0], name)                                                                             \
    }
#define IN_EXPERT(kind, name, ...)                                                                                     \
    snprintf(text, sizeof text, "devices: [{name: a}]\nexperts:\n- uid: x.1\n  %s: %s\n", #name, nulls[_i]);           \
    if (strcmp(#name, "uid") != 0) {                                                                                   \
        IS_DEFAULT(kind, experts[0], name)                                                                             \
    }
    CONFIG_SERVER_OPTIONS(IN_SERVER)
    CONFIG_FRONTEND_OPTIONS(IN_FRONTEND)
    CONFIG_DHT_OPTIONS(IN_DHT)
    CONFIG_CHECKPOINT_OPTIONS(IN_CHECKPOINT)
    CONFIG_DEVICE_OPTIONS(IN_DEVICE)
    CONFIG_EXPERT_OPTIONS(IN_EXPERT)
    snprintf(text, sizeof text, "devices: [{name: a}]\nexperts: [{uid: x.1}]\ncheckpoint: {dir: %s, interval: 0}\n",
             nulls[_i]); /* no folder, and never: that is not said in vain */
    IS_DEFAULT(PATH, checkpoint, dir)
    config_destroy(&defaults);
}
END_TEST

START_TEST(a_word_in_quotes_is_no_null)
{
    parse_well("server: {name: \"null\"}\ncheckpoint: {dir: 'null'}\nexperts: [{uid: x.1, weights: !!str Null}]");
    ck_assert_str_eq(config.server.name, "null");
    ck_assert_str_eq(config.checkpoint.dir, "null");
    ck_assert_str_eq(config.experts[0].weights, "Null");
    config_destroy(&config);
    parse_well("server: {name: !!null null}\ncheckpoint: {dir: !!null }\n");
    ck_assert_str_eq(config.server.name, "expertd");
    ck_assert_str_eq(config.checkpoint.dir, "");
}
END_TEST

/* A directory at the default endpoint may never run, and one may be another host's frontend's. */
START_TEST(endpoints_of_who_may_never_run_are_free)
{
    parse_well(
        "server: {insecure: true}\nfrontend: {listen: [\"tcp://*:31331\"], advertise: \"tcp://10.0.0.7:31331\"}\n");
    config_destroy(&config);
    parse_well("server: {insecure: true}\nfrontends:\n"
               "- {name: a, listen: [\"tcp://*:31330\"], advertise: \"tcp://10.0.0.7:31330\", devices: [device0]}\n"
               "- {name: b, listen: [\"tcp://*:31331\"], advertise: \"tcp://10.0.0.7:31331\", devices: [device1]}\n"
               "devices: [{name: device0}, {name: device1}]\n");
    config_destroy(&config);
    parse_well("server: {insecure: true}\n"
               "dht: {frontend: \"tcp://10.0.0.7:31330\", listen: \"tcp://0.0.0.0:31330\"}\n");
}
END_TEST

START_TEST(the_sample_is_a_configuration_of_the_defaults)
{
    char *text = NULL;
    size_t length = 0;
    struct config defaults;
    FILE *out = open_memstream(&text, &length);
    config_print_sample(out);
    fclose(out);
    ck_assert_int_eq(config_parse(&defaults, "", 0, "empty"), 0);
    parse_well(text);
    ck_assert_str_eq(config.server.name, defaults.server.name);
    ck_assert_str_eq(config.server.run_dir, defaults.server.run_dir);
    ck_assert_uint_eq(config.frontend.max_message, defaults.frontend.max_message);
    ck_assert_double_eq(config.dht.update_period, defaults.dht.update_period);
    ck_assert_double_eq(config.checkpoint.interval, defaults.checkpoint.interval);
    ck_assert_str_eq(config.devices[0].name, defaults.devices[0].name);
    ck_assert_uint_eq(config.devices[0].chunk_rows, defaults.devices[0].chunk_rows);
    ck_assert_uint_eq(config.experts_count, 1);
    ck_assert_str_eq(config.experts[0].uid, "ffn.[0:4].[0:16]");
    ck_assert_double_eq(config.experts[0].epsilon, 1e-8);
#define NAMED(kind, name, ...) ck_assert_msg(strstr(text, #name ": "), "%s is not in the sample", #name);
    CONFIG_SERVER_OPTIONS(NAMED)
    CONFIG_FRONTEND_OPTIONS(NAMED)
    CONFIG_DHT_OPTIONS(NAMED)
    CONFIG_CHECKPOINT_OPTIONS(NAMED)
    CONFIG_DEVICE_OPTIONS(NAMED)
    CONFIG_EXPERT_OPTIONS(NAMED)
    config_destroy(&defaults);
    free(text);
}
END_TEST

/* What is printed is read as the same: printed again, it is the same text. */
START_TEST(a_printed_configuration_gives_itself)
{
    char *text[2] = {NULL, NULL};
    size_t length[2];
    parse_well("server: {insecure: true, run_dir: \"/tmp/a \\\"b\\\" \\\\ \\x01 # {c}: \u00fc\\N\\L\\ufeff\"}\n"
               "frontend: {listen: [\"tcp://*:1\", \"ipc:///tmp/'x'\"], advertise: \"tcp://a:1\"}\n"
               "dht: {update_period: 0.1, expiration: 0.30000000000000004, port_mapping: yes, bootstrap: [\"a:1\"]}\n"
               "devices: [{name: a}, {name: b, platform: \"null\", device: \"0x1: # \"}]\n"
               "experts: [{uid: \"f.[0:2]\", seed: 18446744073709551615, learning_rate: 1e-4}, {uid: g.1, device: b}]");
    for (int i = 0; i < 2; i++) {
        FILE *out = open_memstream(&text[i], &length[i]);
        config_print(out, &config);
        fclose(out);
        config_destroy(&config);
        parse_well(text[i]);
    }
    ck_assert_str_eq(text[0], text[1]);
    ck_assert_str_eq(config.server.run_dir, "/tmp/a \"b\" \\ \x01 # {c}: \u00fc\xc2\x85\u2028\ufeff");
    ck_assert_str_eq(config.devices[1].platform, "null");
    ck_assert_double_eq(config.dht.expiration, 0.30000000000000004);
    ck_assert_uint_eq(config.experts[0].seed, UINT64_MAX);
    ck_assert_str_eq(config_frontend_endpoint(&config), "tcp://127.0.0.1:1");
    free(text[0]);
    free(text[1]);
}
END_TEST

START_TEST(sixteen_thousand_entries_are_read_and_a_uid_that_stands_twice_is_found)
{
    enum { ENTRIES = 16384 };
    char *text = malloc((ENTRIES + 2) * 64);
    ck_assert_ptr_nonnull(text);
    size_t used = (size_t)sprintf(text, "experts:\n");
    for (int i = 0; i < ENTRIES; i++)
        used += (size_t)sprintf(text + used, "  - {uid: ffn.%d.%d, hidden_dim: 64}\n", i / 256, i % 256);
    parse_well(text);
    ck_assert_uint_eq(config.experts_count, ENTRIES);
    ck_assert_str_eq(config.experts[ENTRIES - 1].uid, "ffn.63.255");
    config_destroy(&config);
    strcpy(text + used, "  - {uid: ffn.3.3}\n");
    ck_assert_int_eq(parse(text), -EINVAL);
    ck_assert_msg(
        strstr(stderr_text(), "box.yaml:16386: experts[16384].uid: 'ffn.3.3' is in experts[771] (line 773) already"),
        "%s", stderr_text());
    free(text);
}
END_TEST

START_TEST(an_entry_s_uids_are_its_pattern_or_the_same_draw_of_it_each_time)
{
    char **uids;
    char **again;
    uint64_t count;
    parse_well("experts: [{uid: \"f.[0:4].[2:4]\"}, {uid: \"g.[0:100].[0:100]\", count: 50, seed: 5}]");
    ck_assert_int_eq(config_expert_uids(&config.experts[0], &uids, &count), 0);
    ck_assert_uint_eq(count, 8);
    ck_assert_str_eq(uids[0], "f.0.2");
    ck_assert_str_eq(uids[7], "f.3.3");
    free(uids);
    ck_assert_int_eq(config_expert_uids(&config.experts[1], &uids, &count), 0);
    ck_assert_uint_eq(count, 50);
    ck_assert_int_eq(config_expert_uids(&config.experts[1], &again, &count), 0);
    for (uint64_t i = 0; i < count; i++) {
        ck_assert_str_eq(uids[i], again[i]);
        for (uint64_t j = 0; j < i; j++)
            ck_assert_str_ne(uids[i], uids[j]);
    }
    free(uids);
    free(again);
    ck_assert_uint_eq(config_experts_on(&config, NULL), 58);
    ck_assert_uint_eq(config_experts_on(&config, config.devices[0].name), 58);
    ck_assert_uint_eq(config_experts_on(&config, "elsewhere"), 0);
    const struct config_expert bad = {.uid = "nothing"};
    ck_assert_int_eq(config_expert_uids(&bad, &uids, &count), -EINVAL);
}
END_TEST

START_TEST(what_is_excepted_is_not_counted)
{
    parse_well("devices: [{name: a}, {name: b}]\n"
               "experts: [{uid: \"f.[0:4]\", except: [f.1, f.2], device: a}, {uid: \"g.[0:5]\", device: b}]");
    ck_assert_uint_eq(config_experts_on(&config, "a"), 2);
    ck_assert_uint_eq(config_experts_on(&config, "b"), 5);
    ck_assert_uint_eq(config_experts_on(&config, NULL), 7);
}
END_TEST

/* --- the command line
 * -------------------------------------------------------------------------------------------------- */

static const char *device;
static const char *list_devices;
static const struct config_flag flags[] = {
    {"device", "NAME", "device to serve", &device},
    {"list-devices", NULL, "print the devices and exit", &list_devices},
    {0},
};
static const char *const sections[] = {"server", "frontend", "devices", NULL};
static struct config_program program = {
    .name = "expertd-test", .purpose = "a test.", .sections = sections, .flags = flags};

/* Loads with the arguments given, NULL the last. */
static int load(const char *first, ...)
{
    const char *argv[16] = {"expertd-test"};
    int argc = 1;
    va_list args;
    va_start(args, first);
    for (const char *argument = first; argument && argc < 15; argument = va_arg(args, const char *))
        argv[argc++] = argument;
    va_end(args);
    return config_load(&config, &program, argc, (char **)(uintptr_t)argv);
}

/* What an address that nobody has written is refused for, and by whom. */
static const struct {
    unsigned needs;
    const char *text, *message;
} needs_errors[] = {
    {CONFIG_PUBLISHES, "frontend:\n  listen: [ipc:///run/x]\n",
     ":2: frontend.listen: 'ipc:///run/x' cannot be published"},
    {CONFIG_PUBLISHES, "frontend:\n  listen: [\"tcp://127.0.0.1:*\"]\n",
     ":2: frontend.listen: 'tcp://127.0.0.1:*' has no"},
    {CONFIG_PUBLISHES, "frontend:\n  listen: [\"tcp://127.0.0.1:*\"]\n  advertise: tcp://10.0.0.7:1\n",
     "dht.frontend: 'tcp://127.0.0.1:*' has no port"},
    {CONFIG_ASKS_FRONTEND, "frontend:\n  listen: [\"tcp://127.0.0.1:*\"]\n",
     "http.frontend: 'tcp://127.0.0.1:*' has no"},
    {CONFIG_ASKS_DHT, "dht:\n  listen: \"tcp://127.0.0.1:*\"\n", "http.dht: 'tcp://127.0.0.1:*' has no port"},
    {CONFIG_STARTS_HTTP, "http:\n  start: true\nfrontend:\n  listen: [\"tcp://127.0.0.1:*\"]\n",
     "http.frontend: 'tcp://127.0.0.1:*' has no"},
    {CONFIG_STARTS_HTTP, "http:\n  start: true\ndht:\n  listen: \"tcp://127.0.0.1:*\"\n",
     "http.dht: 'tcp://127.0.0.1:*' has no port"},
};

static void write_file(char path[64], const char *text)
{
    strcpy(path, "/tmp/test-config.XXXXXX");
    const int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

START_TEST(flags_override_the_file_and_the_file_the_defaults)
{
    char path[64];
    write_file(path, "server: {name: from-file, log_level: warning, insecure: true}\nfrontend: {listen: "
                     "[\"tcp://f:1\"], io_threads: 2}\n");
    const int rc = load("--config", path, "--frontend-io-threads", "7", "--server-name=from-flag", "--device", "gpu0",
                        "--list-devices", NULL);
    unlink(path);
    ck_assert_msg(rc == 0, "%s", stderr_text());
    ck_assert_str_eq(config.server.name, "from-flag");
    ck_assert_str_eq(config.server.log_level, "warning");
    ck_assert_uint_eq(config.frontend.io_threads, 7);
    ck_assert_str_eq(config.frontend.listen.items[0], "tcp://f:1");
    ck_assert_str_eq(device, "gpu0");
    ck_assert_str_eq(list_devices, "");
    log_info("left out"); /* config_load set the level */
    ck_assert_ptr_null(strstr(stderr_text(), "left out"));
    log_warning("written");
    ck_assert_ptr_nonnull(strstr(stderr_text(), " expertd-test["));
}
END_TEST

static const struct {
    const char *text;
    uint32_t count;
} metrics[] = {{"top 1", 1}, {"top 20", 20}, {"top 4096", 4096}, {"all", 4096}, {"none", 0}};

START_TEST(experts_with_metrics_are_top_n_all_or_none)
{
    char text[64];
    uint32_t count = 77;
    snprintf(text, sizeof text, "metrics: {experts: %s}", metrics[_i].text);
    ck_assert_int_eq(config_parse(&config, text, strlen(text), "box.yaml"), 0);
    ck_assert_str_eq(config.metrics.experts, metrics[_i].text);
    ck_assert_int_eq(config_metrics_experts(config.metrics.experts, &count), 0);
    ck_assert_uint_eq(count, metrics[_i].count);
}
END_TEST

START_TEST(a_relative_path_is_relative_to_its_file)
{
    char folder[] = "/tmp/test-config.XXXXXX", file[64], expected[128];
    static const char text[] =
        "server: {run_dir: run}\nfrontend: {listen: [\"ipc://socket\", \"ipc://@abstract\", \"ipc:///tmp/s\"]}\n"
        "dht: {identity_file: keys/id.pem, frontend: \"ipc://socket\"}\ncheckpoint: {dir: ./checkpoints}\n"
        "devices: [{name: a, cache_dir: /tmp/cache}, {name: b, cache_dir: cache}]\n"
        "experts:\n  - {uid: a.1, weights: \"w/{uid}.safetensors\", block: affine.so}\n"
        "  - {uid: a.2, block: own/affine}\n  - {uid: a.3, block: ffn}\n";
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/box.yaml", folder);
    FILE *out = fopen(file, "w");
    ck_assert_ptr_nonnull(out);
    ck_assert_int_ge(fputs(text, out), 0);
    fclose(out);
    ck_assert_int_eq(chdir(_i ? folder : "/"), 0);
    const int rc = load("--config", _i ? "box.yaml" : file, NULL);
    unlink(file);
    rmdir(folder);
    ck_assert_msg(rc == 0, "%s", stderr_text());
#define IS_BELOW(value, tail)                                                                                          \
    snprintf(expected, sizeof expected, "%s/%s", folder, tail);                                                        \
    ck_assert_str_eq(value, expected)
    IS_BELOW(config.server.run_dir, "run");
    IS_BELOW(config.frontend.listen.items[0] + strlen("ipc://"), "socket");
    ck_assert_str_eq(config.frontend.advertise, config.frontend.listen.items[0]);
    ck_assert_str_eq(config.dht.frontend, config.frontend.listen.items[0]);
    ck_assert_str_eq(config.frontend.listen.items[1], "ipc://@abstract");
    ck_assert_str_eq(config.frontend.listen.items[2], "ipc:///tmp/s");
    IS_BELOW(config.dht.identity_file, "keys/id.pem");
    IS_BELOW(config.checkpoint.dir, "./checkpoints");
    ck_assert_str_eq(config.devices[0].cache_dir, "/tmp/cache");
    IS_BELOW(config.devices[1].cache_dir, "cache");
    IS_BELOW(config.experts[0].weights, "w/{uid}.safetensors");
    IS_BELOW(config.experts[0].block, "affine.so");
    IS_BELOW(config.experts[1].block, "own/affine");
    ck_assert_str_eq(config.experts[2].block, "ffn");
}
END_TEST

START_TEST(a_path_of_a_flag_is_relative_to_where_one_stands)
{
    ck_assert_int_eq(chdir("/tmp"), 0);
    ck_assert_msg(
        load("--checkpoint-dir", "checkpoints", "--dht-listen", "ipc://dht", "--server-run-dir", "/run/x", NULL) == 0,
        "%s", stderr_text());
    ck_assert_str_eq(config.checkpoint.dir, "/tmp/checkpoints");
    ck_assert_str_eq(config.dht.listen, "ipc:///tmp/dht");
    ck_assert_str_eq(config.server.run_dir, "/run/x");
    ck_assert_str_eq(config.dht.identity_file, "");
}
END_TEST

START_TEST(a_list_s_flags_replace_the_file_s_list)
{
    char path[64];
    write_file(path, "server: {insecure: true}\nfrontend: {listen: [\"tcp://f:1\", \"tcp://f:2\"]}\n");
    const int rc = load("--frontend-listen", "tcp://a:1", "--config", path, "--frontend-listen", "tcp://b:2", NULL);
    unlink(path);
    ck_assert_int_eq(rc, 0);
    ck_assert_uint_eq(config.frontend.listen.count, 2);
    ck_assert_str_eq(config.frontend.listen.items[0], "tcp://a:1");
    ck_assert_str_eq(config.frontend.listen.items[1], "tcp://b:2");
    ck_assert_str_eq(config.frontend.advertise, "tcp://a:1");
}
END_TEST

START_TEST(no_flags_at_all_give_the_defaults)
{
    device = list_devices = NULL;
    ck_assert_int_eq(load(NULL), 0);
    ck_assert_str_eq(config.server.name, "expertd");
    ck_assert_ptr_null(device);
    ck_assert_ptr_null(list_devices);
}
END_TEST

static const struct {
    const char *flag, *value;
    const char *message;
} flag_errors[] = {
    {"--bogus", NULL, "--help shows every flag"},
    {"--server-name", NULL, "--help shows every flag"},
    {"word", NULL, "'word' is no flag"},
    {"--frontend-io-thread_s=3", NULL, "is --frontend-io-threads meant?"},
    {"--devcie", NULL, "is --device meant?"},
    {"--http-metrics-experts=all", NULL, "is --metrics-experts meant?"},
    {"--frontend-io-threads", "0", "--frontend-io-threads: 0 is out of range: 1 to 64 threads"},
    {"--server-log-level", "loud", "--server-log-level: 'loud' is not one of"},
    {"--server-name", "a b", "server.name: 'a b' has a character other than"},
    {"--config", "/nonexistent/x.yaml", "cannot read the configuration '/nonexistent/x.yaml': No such file"},
    {"--config", "/tmp", "cannot read the configuration '/tmp': Is a directory"},
    {"--config", "/dev/zero", "/dev/zero: larger than"},
    {"--list-devices=x", NULL, "--list-devices takes no value"},
    {"--server-name", NULL, "--server-name needs a value"},
    {"--frontend-l", "x", "--frontend-l is the beginning of several flags"},
    {"--qqqqqqqqqqqqqqqqqqq", NULL, "there is no flag '--qqqqqqqqqqqqqqqqqqq'"},
    {"-q", NULL, "there is no flag '-q'"},
    {"--devcie", NULL, "--help shows every flag"},
};

START_TEST(wrong_flags_are_refused_with_a_message)
{
    ck_assert_int_eq(load(flag_errors[_i].flag, flag_errors[_i].value, NULL), -EINVAL);
    ck_assert_msg(strstr(stderr_text(), flag_errors[_i].message), "expected: %s\nlogged: %s", flag_errors[_i].message,
                  stderr_text());
}
END_TEST

START_TEST(addresses_that_nobody_knows_are_refused_to_those_who_need_them)
{
    char path[64];
    write_file(path, needs_errors[_i].text);
    ck_assert_int_eq(load("--config", path, NULL), 0);
    config_destroy(&config);
    program.needs = needs_errors[_i].needs;
    ck_assert_int_eq(load("--config", path, NULL), -EINVAL);
    ck_assert_msg(strstr(stderr_text(), needs_errors[_i].message), "expected: %s\nlogged: %s", needs_errors[_i].message,
                  stderr_text());
    if (program.needs & CONFIG_PUBLISHES) {
        ck_assert_int_eq(load("--config", path, "--dht-frontend", "none", NULL), 0);
        config_destroy(&config);
        program.publishes_not = &list_devices;
        ck_assert_int_eq(load("--config", path, NULL), -EINVAL);
        ck_assert_int_eq(load("--config", path, "--list-devices", NULL), 0);
    }
    if (program.needs & CONFIG_STARTS_HTTP)
        ck_assert_int_eq(load("--config", path, "--http-start", "false", NULL), 0);
    unlink(path);
}
END_TEST

static char *help_text(const char *flag)
{
    char *text = NULL;
    char buffer[4096];
    size_t used = 0;
    size_t n;
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        load(flag, NULL);
        _exit(1);
    }
    close(ends[1]);
    FILE *in = fdopen(ends[0], "r");
    while ((n = fread(buffer, 1, sizeof buffer, in)) > 0) {
        text = realloc(text, used + n + 1);
        memcpy(text + used, buffer, n);
        used += n;
        text[used] = 0;
    }
    fclose(in);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    return text;
}

START_TEST(help_shows_defaults_ranges_units_and_the_program_s_own_flags)
{
    char *text = help_text("-h");
    char *same = help_text("--help");
    ck_assert_str_eq(text, same);
    free(same);
    ck_assert_ptr_nonnull(strstr(text, "--frontend-io-threads N"));
    ck_assert_ptr_nonnull(strstr(text, "(default 1; 1 to 64 threads)"));
    ck_assert_ptr_nonnull(strstr(text, "--list-devices\n"));
    ck_assert_ptr_nonnull(strstr(text, "--device NAME"));
    ck_assert_ptr_nonnull(strstr(text, "linear_kernel: WORD"));
    ck_assert_ptr_null(strstr(text, "--dht-port")); /* not one of its sections */
    free(text);
    text = help_text("--version");
    ck_assert_str_eq(text, "expertd-test " EXPERTD_VERSION "\n");
    free(text);
}
END_TEST

#define COUNT_OF(array) (int)(sizeof(array) / sizeof(array)[0])

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *tcase = tcase_create("config");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_loop_test(tcase, an_empty_file_gives_every_default, 0, 6);
    tcase_add_test(tcase, what_the_file_says_is_taken_and_the_rest_completed);
    tcase_add_loop_test(tcase, errors_name_file_line_and_option, 0, COUNT_OF(errors));
    tcase_add_loop_test(tcase, null_is_the_default_of_every_option, 0, 5);
    tcase_add_test(tcase, a_word_in_quotes_is_no_null);
    tcase_add_test(tcase, endpoints_of_who_may_never_run_are_free);
    tcase_add_loop_test(tcase, experts_with_metrics_are_top_n_all_or_none, 0, sizeof metrics / sizeof metrics[0]);
    tcase_add_loop_test(tcase, a_relative_path_is_relative_to_its_file, 0, 2);
    tcase_add_test(tcase, a_path_of_a_flag_is_relative_to_where_one_stands);
    tcase_add_test(tcase, the_sample_is_a_configuration_of_the_defaults);
    tcase_add_test(tcase, a_printed_configuration_gives_itself);
    tcase_add_test(tcase, sixteen_thousand_entries_are_read_and_a_uid_that_stands_twice_is_found);
    tcase_add_test(tcase, what_is_excepted_is_not_counted);
    tcase_add_test(tcase, an_entry_s_uids_are_its_pattern_or_the_same_draw_of_it_each_time);
    tcase_add_test(tcase, flags_override_the_file_and_the_file_the_defaults);
    tcase_add_test(tcase, devices_of_few_bits_take_what_they_can_keep);
    tcase_add_test(tcase, a_list_s_flags_replace_the_file_s_list);
    tcase_add_test(tcase, no_flags_at_all_give_the_defaults);
    tcase_add_loop_test(tcase, wrong_flags_are_refused_with_a_message, 0, COUNT_OF(flag_errors));
    tcase_add_loop_test(tcase, addresses_that_nobody_knows_are_refused_to_those_who_need_them, 0,
                        COUNT_OF(needs_errors));
    tcase_add_test(tcase, help_shows_defaults_ranges_units_and_the_program_s_own_flags);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
