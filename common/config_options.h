/* Every option of the project, declared once: the structs, the YAML schema, the flags, the help text and the sample
 * configuration are all made from these tables.
 *
 *     X(kind, name, default, min, max, unit, description)
 *
 * kind: STRING (const char *), PATH (a STRING that is relative to the file it stands in), BLOCK (a STRING: a name, or a
 * PATH if it has a '/' or ends in ".so"), ENDPOINT (a STRING: ZeroMQ's), CHOICE (const char *, one of the words in the
 * unit column), UINT (uint64_t), FLOAT (double), BOOL (bool), STRINGS (list of strings; default unused). min and max
 * bound UINT and FLOAT, and are 0, 0 for the others. unit is "" where there is none. An empty default of a text means
 * "see the description", and so does YAML's null. A name's underscores are hyphens in its flag: server.run_dir is
 * --server-run-dir.
 */
#ifndef EXPERTD_COMMON_CONFIG_OPTIONS_H
#define EXPERTD_COMMON_CONFIG_OPTIONS_H

#define CONFIG_SERVER_OPTIONS(X)                                                                                       \
    X(STRING, name, "expertd", 0, 0, "", "name of this server; two servers on one box need two names")                 \
    X(PATH, run_dir, "", 0, 0, "",                                                                                     \
      "folder of lock files and doorbells, mode 0700; default /run/expertd for root, else "                            \
      "$XDG_RUNTIME_DIR/expertd, else /tmp/expertd-<user id>")                                                         \
    X(CHOICE, log_level, "info", 0, 0, "error|warning|info|debug", "least important level that is logged")             \
    X(CHOICE, log_format, "text", 0, 0, "text|logfmt|json",                                                            \
      "how its lines look: text for people, logfmt (key=value) or json for programs; one line an event in each")       \
    X(FLOAT, stats_interval, 0, 0, 86400, "s",                                                                         \
      "runtimes log so often what they did since the last time: batches, rows, how busy; 0: never")                    \
    X(CHOICE, on_device_loss, "wait", 0, 0, "wait|move",                                                               \
      "the experts of a device that is lost wait for it, or go to the other devices, as their last checkpoints have "  \
      "them (after frontend.restart_grace)")                                                                           \
    X(UINT, spin, 0, 0, 1000000, "us",                                                                                 \
      "frontend and runtimes look for work for so long before they sleep: answers come faster, and cores are busy")    \
    X(PATH, key_file, "", 0, 0, "",                                                                                    \
      "this server's CURVE certificate (expertctl keygen), with FILE_secret beside it: frontend and dht then take "    \
      "encrypted connections alone, of clients whose key is known; empty: all is plain")                               \
    X(PATH, clients, "", 0, 0, "",                                                                                     \
      "folder of clients' public certificates, with their role (reader, trainer, operator; none: reader); changes "    \
      "count at once")                                                                                                 \
    X(CHOICE, strangers, "none", 0, 0, "none|reader|trainer", "role of clients whose key is in no certificate")        \
    X(BOOL, insecure, false, 0, 0, "",                                                                                 \
      "listen on more than loopback and ipc:// without key_file: anybody who reaches the port may then use and train " \
      "the experts")

#define CONFIG_FRONTEND_OPTIONS(X)                                                                                     \
    X(STRINGS, listen, 0, 0, 0, "", "ZeroMQ endpoints to bind; default tcp://127.0.0.1:31330")                         \
    X(ENDPOINT, advertise, "", 0, 0, "",                                                                               \
      "endpoint that is published for clients; default the first of listen, which must then not be a wildcard")        \
    X(UINT, io_threads, 1, 1, 64, "threads", "ZeroMQ threads that move bytes")                                         \
    X(UINT, max_message, 1073741824, 4096, 1099511627776, "bytes", "largest frame that a client may send")             \
    X(UINT, max_memory, 0, 0, 1099511627776, "bytes",                                                                  \
      "of messages, coming and going, in the frontend, at least 16 MiB; a quarter of it for replies that clients do "  \
      "not read, and a "                                                                                               \
      "frame has half at most; 0: a quarter of what the machine or the container has, 4 GiB at most")                  \
    X(UINT, copy_threads, 0, 0, 64, "threads",                                                                         \
      "how many copy a tensor of 1 MiB and more between messages and task pools; 0: one for four cores, divided "      \
      "among "                                                                                                         \
      "the frontends, 4 at most")                                                                                      \
    X(UINT, max_requests, 16384, 1, 1048576, "requests", "requests in the server at once, over all experts")           \
    X(UINT, default_deadline, 0, 0, 86400000, "ms", "deadline of a request that names none; 0: no deadline")           \
    X(UINT, stall_timeout, 60000, 100, 86400000, "ms",                                                                 \
      "a runtime with work that completes no batch for so long is answered for as UNAVAILABLE")                        \
    X(UINT, restart_grace, 5000, 0, 3600000, "ms",                                                                     \
      "what a dead runtime had queued waits so long for its restart before it is answered UNAVAILABLE")                \
    X(UINT, replay_cache, 67108864, 0, 1099511627776, "bytes",                                                         \
      "answers of backward requests kept for clients that repeat one")                                                 \
    X(STRING, local, "same-user", 0, 0, "",                                                                            \
      "whose programs on this host may pass tensors through shared memory: off, same-user, or \"group NAME\"")         \
    X(PATH, local_path, "", 0, 0, "", "UNIX socket where they connect; default <server.run_dir>/<server.name>.local")  \
    X(UINT, local_memory, 1073741824, 65536, 1099511627776, "bytes", "memory that one of them may share at most")      \
    X(UINT, local_clients, 256, 1, 65536, "clients", "how many of them at once")

#define CONFIG_DHT_OPTIONS(X)                                                                                          \
    X(ENDPOINT, listen, "tcp://127.0.0.1:31331", 0, 0, "", "ZeroMQ endpoint for look-ups")                             \
    X(UINT, port, 4222, 0, 65535, "", "UDP port of the DHT node; 0: any free one")                                     \
    X(UINT, tcp_port, 0, 0, 65535, "",                                                                                 \
      "at which other directories ask; 0: the one after port, or any free one if that is 0")                           \
    X(STRING, address, "", 0, 0, "",                                                                                   \
      "this machine's IP that other nodes reach it by; default: that of the route to bootstrap, or to elsewhere, "     \
      "and a later one when it is gone")                                                                               \
    X(STRINGS, bootstrap, 0, 0, 0, "", "host:port of DHT nodes to join by; none: run alone")                           \
    X(BOOL, port_mapping, false, 0, 0, "",                                                                             \
      "ask the router (UPnP, NAT-PMP) to let in port, tcp_port and the frontend's")                                    \
    X(BOOL, lan, false, 0, 0, "",                                                                                      \
      "find others of the same local network by broadcasts (UDP port 31333), without bootstrap")                       \
    X(PATH, identity_file, "", 0, 0, "", "private key (Ed25519, PEM; made if missing); default: a new identity")       \
    X(STRINGS, trusted, 0, 0, 0, "",                                                                                   \
      "keys of servers, or keys that vouch for servers: 'KEY', or 'PREFIX KEY' for a part of the names; what others "  \
      "tell of these is not believed; none: anybody may claim any uid")                                                \
    X(STRING, voucher, "", 0, 0, "",                                                                                   \
      "what a key that others trust says for this server (expertd-dht --vouch SERVER_ID, with that key as "            \
      "dht.identity_file)")                                                                                            \
    X(UINT, network_id, 0, 0, 4294967295, "", "nodes of different networks ignore each other")                         \
    X(FLOAT, update_period, 30, 0.05, 86400, "s", "time between heartbeats")                                           \
    X(FLOAT, expiration, 0, 0, 86400, "s",                                                                             \
      "a server without a heartbeat for so long is dead; 0: max(2 * update_period, 3)")                                \
    X(ENDPOINT, frontend, "", 0, 0, "",                                                                                \
      "frontend to publish: its ZeroMQ endpoint; default the first of frontend.listen; \"none\": publish nothing")     \
    X(UINT, max_cache, 8192, 16, 16777216, "prefixes", "looked-up prefixes that are remembered")                       \
    X(UINT, max_servers, 1024, 1, 16384, "servers", "connections to other servers' directories that are kept")         \
    X(UINT, max_catalogs, 67108864, 65536, 1099511627776, "bytes", "memory for what other servers tell that they host")

#define CONFIG_CHECKPOINT_OPTIONS(X)                                                                                   \
    X(PATH, dir, "", 0, 0, "", "folder of checkpoints, <dir>/<uid>/; empty: none are written or loaded")               \
    X(FLOAT, interval, 300, 0, 31536000, "s",                                                                          \
      "time between two checkpoints of an expert that changed; 0: only on "                                            \
      "request and at shutdown")                                                                                       \
    X(UINT, keep, 3, 1, 1000, "files", "newest checkpoints of an expert that are kept")                                \
    X(BOOL, start_anew, false, 0, 0, "",                                                                               \
      "experts whose checkpoints are all damaged begin anew, and the files are set aside; false: the start is "        \
      "refused")

#define CONFIG_HTTP_OPTIONS(X)                                                                                         \
    X(BOOL, start, false, 0, 0, "", "expertd serve, and supervisord's file, start expertd-http too")                   \
    X(STRING, listen, "127.0.0.1:31332", 0, 0, "", "address:port for metrics, health and the Open Inference Protocol") \
    X(ENDPOINT, frontend, "", 0, 0, "", "ZeroMQ endpoint of the frontend; default where frontend.listen is reached")   \
    X(ENDPOINT, dht, "", 0, 0, "",                                                                                     \
      "ZeroMQ endpoint of the expertd-dht that the page and the metrics tell of; default where dht.listen is "         \
      "reached; "                                                                                                      \
      "\"none\": none is asked")                                                                                       \
    X(PATH, token_file, "", 0, 0, "",                                                                                  \
      "file with the bearer token that requests must carry (health does without); empty: none is asked for")           \
    X(BOOL, changes, false, 0, 0, "",                                                                                  \
      "models may be loaded and unloaded (POST /v2/repository/models/UID/load); needs token_file")                     \
    X(UINT, threads, 4, 1, 64, "threads", "requests that are worked on at once")                                       \
    X(UINT, max_body, 67108864, 1024, 4294967296, "bytes",                                                             \
      "largest request; all together are at most so many times threads")                                               \
    X(UINT, timeout, 30000, 10, 3600000, "ms", "longest wait for the frontend's answer")

#define CONFIG_METRICS_OPTIONS(X)                                                                                      \
    X(STRING, experts, "top 20", 0, 0, "",                                                                             \
      "experts with metrics of their own: \"top N\" (the N that did most rows), all (4096 at most), none")

/* One entry of the list `frontends`. What they have in common stands under `frontend`. */
#define CONFIG_FRONTEND_ENTRY_OPTIONS(X)                                                                               \
    X(STRING, name, "", 0, 0, "",                                                                                      \
      "name of the frontend: its process, and its expertd-dht, are started with --frontend NAME")                      \
    X(STRINGS, devices, 0, 0, 0, "",                                                                                   \
      "names of the devices whose experts it answers for; each device has one frontend")                               \
    X(STRINGS, listen, 0, 0, 0, "", "ZeroMQ endpoints to bind, with ports of its own")                                 \
    X(ENDPOINT, advertise, "", 0, 0, "",                                                                               \
      "endpoint that is published for clients, and that the other frontends name; default the first of listen, which " \
      "must then not be a wildcard")                                                                                   \
    X(PATH, local_path, "", 0, 0, "",                                                                                  \
      "UNIX socket of clients on this host; default <server.run_dir>/<server.name>-<name>.local")                      \
    X(STRING, voucher, "", 0, 0, "",                                                                                   \
      "as dht.voucher, for the key of this frontend's expertd-dht: dht.identity_file of the first, "                   \
      "<dht.identity_file>-<name> of the others")

/* One entry of the list `devices`; a runtime serves one of them. */
#define CONFIG_DEVICE_OPTIONS(X)                                                                                       \
    X(STRING, name, "", 0, 0, "", "name of the device in this configuration (letters, digits, '-', '_')")              \
    X(STRING, platform, "", 0, 0, "", "OpenCL platform: its number, or a part of its name; default any")               \
    X(STRING, device, "", 0, 0, "",                                                                                    \
      "OpenCL device: its number in the platform, or a part of its name; default the "                                 \
      "first")                                                                                                         \
    X(CHOICE, linear_kernel, "auto", 0, 0, "auto|cpu|amx|gpu|mma|clblast",                                             \
      "kernel of the linear layer; auto: by the device's class and the precision, and on a CPU with matrix units "     \
      "(AMX) by a measurement; clblast: that library's, where the program was built with it (libclblast-dev)")         \
    X(CHOICE, precision, "fp32", 0, 0, "fp32|tf32|fp16|bf16|int8|int4|fp8|mxfp4",                                      \
      "fp16, bf16: matrices of weights are kept in it, on any device; NVIDIA's matrix units, where they are, "         \
      "multiply "                                                                                                      \
      "in fp16 (gradients in tf32), and bf16 in tf32; tf32: those multiply in it, and are needed (compute capability " \
      "8.0 or more); int8, int4: matrices of weights are rounded to so many bits with a scale for each 32, for "       \
      "experts with optimizer: none; fp8 (E4M3 with a scale for each 128 x 128), mxfp4: the same, kept as a model's "  \
      "files have them, which must be in it; what is summed, vectors and the optimizer's state are always fp32")       \
    X(CHOICE, tune, "auto", 0, 0, "auto|off|force",                                                                    \
      "measure at the start which tiles of the GPU's products are the fastest, once for each size; auto: not on a "    \
      "CPU; force: anew, and also there")                                                                              \
    X(FLOAT, tune_time, 30, 0.01, 3600, "s", "longest time that this takes; the next start goes on")                   \
    X(CHOICE, slabs, "auto", 0, 0, "auto|in_place|staged",                                                             \
      "whether kernels work on the task pools' memory or rows are copied to the device and back; auto: in place "      \
      "where the device shares the host's memory")                                                                     \
    X(UINT, copy_threads, 0, 0, 64, "threads",                                                                         \
      "how many copy the rows of large batches to a device with memory of its own, and back; 0: one for four cores, "  \
      "4 "                                                                                                             \
      "at most")                                                                                                       \
    X(UINT, memory, 0, 0, 1099511627776, "MiB", "device memory to use at most; 0: 95 % of what the device has")        \
    X(PATH, cache_dir, "", 0, 0, "",                                                                                   \
      "folder of compiled programs; default "                                                                          \
      "$XDG_CACHE_HOME/expertd or ~/.cache/expertd; each device has its own in it")                                    \
    X(UINT, chunk_rows, 0, 0, 1048576, "rows",                                                                         \
      "rows of matrices (a block's tokens) that a kernel launch works on at most; bounds the workspace; 0: by the "    \
      "device's cache and memory")                                                                                     \
    X(UINT, spare_experts, 64, 0, 65536, "experts",                                                                    \
      "room for so many experts more than there are at the start, to be loaded while it runs (expertctl load, "        \
      "reload)")

/* One entry of the list `experts`. */
#define CONFIG_EXPERT_OPTIONS(X)                                                                                       \
    X(STRING, uid, "", 0, 0, "", "uid (ffn.4.17) or pattern of uids (ffn.[0:4].[0:16])")                               \
    X(UINT, count, 0, 0, 16777216, "experts", "host so many distinct ones of the pattern, drawn at random; 0: all")    \
    X(STRINGS, except, 0, 0, 0, "", "uids of the pattern, or of its draw, that are not hosted")                        \
    X(UINT, seed, 0, 0, 18446744073709551615U, "", "seed of the draw and of the initial weights")                      \
    X(BLOCK, block, "ffn", 0, 0, "",                                                                                   \
      "ffn, swiglu, transformer, ... (docs/blocks.md), one of `blocks`, or the path of an own one's shared object")    \
    X(TREE, arguments, 0, 0, 0, "", "values for the block's own arguments: {sequence: 64} (docs/blocks.md)")           \
    X(STRING, device, "", 0, 0, "", "name of the device; default the first of devices")                                \
    X(UINT, hidden_dim, 1024, 1, 1048576, "", "hidden size h: a row is h floats (nop: any row of h floats)")           \
    X(CHOICE, dtype, "float32", 0, 0, "float32|float16|bfloat16",                                                      \
      "of inputs, outputs and their gradients that the block has in float32: what clients send and get; it computes "  \
      "in "                                                                                                            \
      "float32")                                                                                                       \
    X(UINT, max_batch_size, 4096, 1, 1048576, "rows", "largest task, and largest batch")                               \
    X(UINT, min_batch_size, 1, 1, 1048576, "rows", "rows that a batch waits for, no longer than batch_timeout")        \
    X(FLOAT, batch_timeout, 0, 0, 3600000, "ms", "longest wait for min_batch_size rows")                               \
    X(UINT, queue_rows, 0, 0, 16777216, "rows", "rows of a pool, queued and running; 0: twice max_batch_size")         \
    X(UINT, queue_tasks, 1024, 1, 65536, "tasks", "tasks of a pool, queued and running (rounded up to a power of 2)")  \
    X(CHOICE, compression, "none", 0, 0,                                                                               \
      "none|float16|bfloat16|meanstd_16bit|uniform_8bit|quantile_8bit|blockwise_8bit",                                 \
      "how clients are advised to send float32 tensors and to ask for replies (INFO); they decide")                    \
    X(PATH, weights, "", 0, 0, "",                                                                                     \
      "what to start from: the safetensors file of an expert ({uid} in it is replaced), or the folder, index or file " \
      "of a public model (docs/models.md); default: from seed")                                                        \
    X(TREE, tensors, 0, 0, 0, "",                                                                                      \
      "tensors: {up_proj.weight: \"layers.{layer}.up[{expert}]\"} says where a model of weights has a parameter, if "  \
      "its layout is not known (docs/models.md)")                                                                      \
    X(CHOICE, optimizer, "adam", 0, 0, "adam|adamw|sgd|none", "what makes a step of the gradients")                    \
    X(BOOL, backward, true, 0, 0, "",                                                                                  \
      "false, with optimizer: none: forward alone is answered, and the weights take half the memory, as they are not " \
      "kept in the orientation that a backward reads")                                                                 \
    X(FLOAT, learning_rate, 0.001, 0, 1e6, "", "learning rate")                                                        \
    X(FLOAT, beta1, 0.9, 0, 0.999999999, "", "adam, adamw: decay of the first moment")                                 \
    X(FLOAT, beta2, 0.999, 0, 0.999999999, "", "adam, adamw: decay of the second moment")                              \
    X(FLOAT, epsilon, 1e-8, 0, 1, "", "adam, adamw: added to the denominator")                                         \
    X(BOOL, amsgrad, false, 0, 0, "", "adam, adamw: divide by the greatest second moment so far, not the last")        \
    X(FLOAT, momentum, 0, 0, 1, "", "sgd: momentum")                                                                   \
    X(FLOAT, weight_decay, 0, 0, 1, "",                                                                                \
      "adam, sgd: so much of each parameter is added to its gradient; adamw: rate times so much is taken off it")      \
    X(FLOAT, clip_norm, 0, 0, 1e30, "", "gradients are scaled to this global L2 norm when above it; 0: never")         \
    X(CHOICE, schedule, "none", 0, 0, "none|linear|cosine",                                                            \
      "how the learning rate changes; after a warm-up, linear or half a cosine wave down to 0")                        \
    X(UINT, warmup_steps, 0, 0, 1000000000000, "steps", "schedule linear, cosine: steps of warm-up")                   \
    X(UINT, total_steps, 0, 0, 1000000000000, "steps", "schedule linear, cosine: step at which the rate is 0")         \
    X(UINT, grad_accumulation, 1, 1, 1000000, "batches", "batches whose gradients one optimizer step sums")

/* One entry of the list `blocks`. */
#define CONFIG_BLOCK_OPTIONS(X)                                                                                        \
    X(STRING, name, "", 0, 0, "", "what experts call it: block: <name>")                                               \
    X(TREE, arguments, 0, 0, 0, "",                                                                                    \
      "numbers that experts may set, with their defaults: {inner: 256}; hidden_dim is always there")                   \
    X(TREE, inputs, 0, 0, 0, "",                                                                                       \
      "[{name: x, shape: [hidden_dim], dtype: float32}, ...]; shapes are of one row, dtypes float32, "                 \
      "float16, bfloat16, int64 and bool")                                                                             \
    X(TREE, layers, 0, 0, 0, "",                                                                                       \
      "[{name: inner, layer: linear, input: x, size: 4 * hidden_dim, activation: gelu}, ...]")                         \
    X(TREE, outputs, 0, 0, 0, "", "[{name: output, value: <layer>, dtype: float32}, ...]")

#endif
