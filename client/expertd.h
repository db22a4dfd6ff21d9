/* libexpertd: calls to the experts of an expertd server.
 *
 *     struct expertd_client *client;
 *     struct expertd_call *call;
 *     struct expertd_tensor input = expertd_tensor_f32(x, rows, 1024);
 *     expertd_client_new(&client, "tcp://127.0.0.1:31330", NULL);
 *     expertd_forward(client, "ffn.0.3", &input, 1, 1000, &call);
 *     expertd_call_wait(call, -1);
 *     if (expertd_call_status(call) == EXPERTD_OK)
 *         y = expertd_call_output(call, 0)->data;
 *     else
 *         puts(expertd_call_message(call));
 *     expertd_call_release(&call);
 *     expertd_client_destroy(&client);
 *
 * Calls are asynchronous: a function that makes a call puts the request on its way and returns; the answer is taken in
 * by expertd_poll() or expertd_call_wait(), for whichever calls answers have come. Any number of calls may be in flight
 * on one client, and their answers come in any order.
 *
 * Threads: a client, together with its calls, is used by ONE THREAD AT A TIME; it may move between threads if the
 * program orders the accesses (a mutex, a join). Different clients are independent: one for each thread is the way to
 * call from many threads. Nothing here installs signal handlers; a client does not survive fork().
 *
 * What is large waits for nobody: calls to another host whose tensors, either way, take 256 KiB and more have a
 * connection of their own, so that others do not stand behind them on a slow link.
 *
 * Nothing hangs: each call has a deadline that this library enforces by itself, so a server that vanished ends a call
 * with a status. ZeroMQ connects, and connects again, in the background.
 *
 * Errors: functions return 0 or -errno. What goes wrong with a call (a bad tensor, a full queue, no server, what the
 * server says) is the call's status and a message for a person. Answers are checked before they are believed.
 *
 * Memory: on glibc, large blocks go back to the kernel on each free and cost a page fault per 4 KiB when they are used
 * again, which makes 1 MiB requests several times slower. A library must not set its host program's allocator: let
 * main() call expertd_tune_allocator() (or mallopt with M_MMAP_THRESHOLD and M_TRIM_THRESHOLD itself) before it
 * starts threads. */
#ifndef EXPERTD_CLIENT_EXPERTD_H
#define EXPERTD_CLIENT_EXPERTD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EXPERTD_API __attribute__((visibility("default")))

/* ---- versions, and how this interface grows ------------------------------------------------------------------------
 *
 * A program that was built against one version runs with each later one of the same soname:
 *   - Functions and numbers are added, never changed.
 *   - Structs that the program fills or has filled (..._options, ..._counters) begin with their size as the program was
 *     compiled; their _init() function, or the function that reads counters, sets it. They only grow at their end: what
 *     an older program does not have gets its default, what a newer one has that the library does not know has to be
 *     zero (-E2BIG else). A size that cannot be is -EINVAL.
 *   - Structs that the library hands out one at a time, by pointer (pong, list, stats, info), only grow at their end.
 *     Those that lie in arrays (tensor, list_entry, counter, field, and with them schema) stay as they are. */
#define EXPERTD_VERSION_MAJOR 0
#define EXPERTD_VERSION_MINOR 1
#define EXPERTD_VERSION_PATCH 0
#define EXPERTD_VERSION_NUMBER (EXPERTD_VERSION_MAJOR << 16 | EXPERTD_VERSION_MINOR << 8 | EXPERTD_VERSION_PATCH)
/* Of the library that the program runs with: as EXPERTD_VERSION_NUMBER, and "0.1.0". Any thread. */
EXPERTD_API uint32_t expertd_version_number(void);
EXPERTD_API const char *expertd_version(void);

/* gRPC's names and numbers. */
enum expertd_status {
    EXPERTD_OK = 0,
    EXPERTD_INVALID_ARGUMENT = 3,
    EXPERTD_DEADLINE_EXCEEDED = 4, /* no answer in time; a backward may have been applied */
    EXPERTD_NOT_FOUND = 5,
    EXPERTD_ALREADY_EXISTS = 6,     /* a backward that was applied before, and whose answer is no longer kept */
    EXPERTD_PERMISSION_DENIED = 7,  /* this client's key may not do that */
    EXPERTD_RESOURCE_EXHAUSTED = 8, /* the server's task pool was full until the deadline, or this client's queue is */
    EXPERTD_ABORTED = 10,           /* a backward whose optimizer step was skipped (NaN or Inf) */
    EXPERTD_UNIMPLEMENTED = 12,
    EXPERTD_INTERNAL = 13,    /* the server failed, or answered nonsense */
    EXPERTD_UNAVAILABLE = 14, /* no server there, or it went away; a backward in flight may have been applied */
};
/* "OK", "INVALID_ARGUMENT", ...; "UNKNOWN" for another number. */
EXPERTD_API const char *expertd_status_name(enum expertd_status status);

enum expertd_dtype {
    EXPERTD_FLOAT32 = 1,
    EXPERTD_FLOAT64 = 2,
    EXPERTD_FLOAT16 = 3,
    EXPERTD_BFLOAT16 = 4,
    EXPERTD_INT8 = 5,
    EXPERTD_INT16 = 6,
    EXPERTD_INT32 = 7,
    EXPERTD_INT64 = 8,
    EXPERTD_UINT8 = 9,
    EXPERTD_BOOL = 10, /* one byte, 0 or 1 */
};
EXPERTD_API size_t expertd_dtype_size(enum expertd_dtype dtype);      /* bytes; 0 for another number */
EXPERTD_API const char *expertd_dtype_name(enum expertd_dtype dtype); /* "float32", ...; "unknown" */

/* How a tensor's elements travel: fewer bytes for less precision. Of float32 only; formulas are in PROTOCOL.md. */
enum expertd_codec {
    EXPERTD_CODEC_NONE = 0,           /* as they are */
    EXPERTD_CODEC_MEANSTD_16BIT = 1,  /* halves of (x - mean) / deviation of each last axis */
    EXPERTD_CODEC_FLOAT16 = 2,        /* halves, within +-65504 */
    EXPERTD_CODEC_QUANTILE_8BIT = 3,  /* indices of 256 numbers, each for as many elements; slow to encode */
    EXPERTD_CODEC_UNIFORM_8BIT = 4,   /* the same, at equal distances within 3 deviations */
    EXPERTD_CODEC_BLOCKWISE_8BIT = 5, /* of each 4,096 elements by their largest: keeps small ones beside large ones */
    EXPERTD_CODEC_BFLOAT16 = 6,       /* the upper half of a float: 8 significant bits, the whole range */
};
EXPERTD_API const char *expertd_codec_name(enum expertd_codec codec); /* "none", "float16", ...; "unknown" */
/* 0 and the codec of a name, in small or capital letters; -EINVAL. */
EXPERTD_API int expertd_codec_of_name(const char *name, enum expertd_codec *codec);

enum {
    EXPERTD_MAX_DIMS = 7,         /* with rows */
    EXPERTD_MAX_TENSORS = 16,     /* of one call, inputs and grad_outputs together */
    EXPERTD_MAX_UID = 127,        /* bytes */
    EXPERTD_DEFAULT_PORT = 31330, /* of expertd-frontend; expertd-dht's is one more */
};

/* Called once, from any thread, when the library and ZeroMQ no longer read data. */
typedef void expertd_free_fn(void *data, void *hint);

/* Dense, row-major, little-endian. shape[0] is the number of rows (samples). */
struct expertd_tensor {
    enum expertd_dtype dtype;
    uint32_t ndim;
    uint64_t shape[EXPERTD_MAX_DIMS];
    const void *data;
    size_t bytes; /* product of the shape times the dtype's size */
    /* Of inputs only. NULL: data is copied before the call returns. Else data is sent without a copy and belongs to
     * the library until it calls free_fn(data, hint): in every case, also when there is no call, for a forward that may
     * be sent again not before its end, and for a backward not before its release. Pays for tensors of some 64 KiB and
     * more. */
    expertd_free_fn *free_fn;
    void *hint;
    /* Of an input or grad_output of float32: how it is to travel, unless that would be more bytes, or it has NaN or
     * Inf, which the codec cannot say; then as it is. Encoded data is not borrowed: free_fn is called before the call
     * returns. NONE: the client's. Of an output: how it has travelled. */
    enum expertd_codec codec;
};

/* Rows of `width` floats, to be copied. */
static inline struct expertd_tensor expertd_tensor_f32(const float *data, uint64_t rows, uint64_t width)
{
    struct expertd_tensor tensor = {EXPERTD_FLOAT32,   2, {rows, width}, data, (size_t)(rows * width) * 4, NULL, NULL,
                                    EXPERTD_CODEC_NONE};
    return tensor;
}

/* ---- client ---------------------------------------------------------------------------------------------------- */

struct expertd_client;
struct expertd_call;

/* Begin with expertd_client_options_init(). Zero in a field means its default. */
struct expertd_client_options {
    size_t size;              /* of this struct */
    uint32_t deadline_ms;     /* of calls that give none; 30000 */
    uint32_t queue_limit;     /* requests that wait to be sent; one more ends with RESOURCE_EXHAUSTED; 1000 */
    uint64_t max_frame_bytes; /* a larger frame from the server breaks the connection; 2^31 */
    uint32_t heartbeat_ms;    /* between pings; a peer from which not a byte came for five of them is gone; 2000 */
    void *zmq_context;        /* of the program, to share its I/O threads; NULL: one of the client's own */
    enum expertd_codec codec; /* of tensors of float32 that name none; NONE */
    enum expertd_codec reply_codec; /* that servers are asked to use for their answers; NONE */
    /* A call that a full server refuses with a hint when to come back (retry_after_ms) is sent once more then, or when
     * another one of the same expert is answered, as often as its deadline allows, and those that are made meanwhile
     * stand behind it: false. Or it ends with RESOURCE_EXHAUSTED at once, for programs that have another server
     * to ask: true. */
    bool impatient;
    /* CURVE: the server's public key, 40 characters of Z85, or the path of its certificate: it proves to be that
     * server, and what travels is encrypted. NULL: what the environment's EXPERTD_SERVER_KEY says; unset: plain. */
    const char *server_key;
    /* Path of the own certificate (expertctl keygen), with FILE_secret beside it: by it the server knows what this
     * client may do. NULL: EXPERTD_KEY_FILE; unset: a key that nobody knows. */
    const char *key_file;
    /* A server on the same host (ipc, or tcp to the loopback) that allows it gets tensors through shared memory, once
     * its first answer has come; nothing else changes. */
    uint32_t local_off;    /* 1: never */
    uint32_t spin_us;      /* look for answers for so long before sleeping: they come faster, and a core is busy; 0 */
    uint64_t local_memory; /* bytes that are shared at most, used as they are needed; 268435456 */
    /* A server that sends more before its message ends is left, and calls there end with UNAVAILABLE: looked at ten
     * times a second while the program waits or polls, over TCP. All tensors of an answer count together. A quarter of
     * the memory, which is taken for 64 MiB at least and 2 GiB at most; or max_frame_bytes, where that is set, and 1
     * MiB for the header, if that is more. The next calls wait for a pause to end, which grows from 0.5 s to 60 s. */
    uint64_t max_message_bytes;
};

static inline void expertd_client_options_init(struct expertd_client_options *options)
{
    const struct expertd_client_options defaults = {sizeof(struct expertd_client_options),
                                                    0,
                                                    0,
                                                    0,
                                                    0,
                                                    NULL,
                                                    EXPERTD_CODEC_NONE,
                                                    EXPERTD_CODEC_NONE,
                                                    false,
                                                    NULL,
                                                    NULL,
                                                    0,
                                                    0,
                                                    0,
                                                    0};
    *options = defaults;
}

/* Connects in the background: succeeds whether or not a server is there. options may be NULL. -EINVAL: no endpoint that
 * ZeroMQ knows ("tcp://host:port", "ipc://path"), or options without a size; -E2BIG: options that this library does not
 * know; -EKEYREJECTED: a key, or a file of one, that is none; -EMFILE, -ENOMEM. */
EXPERTD_API int expertd_client_new(struct expertd_client **client, const char *endpoint,
                                   const struct expertd_client_options *options);
/* Gives up what is in flight and releases all calls, which must not be used any more. Nulls *client; NULL is fine. */
EXPERTD_API void expertd_client_destroy(struct expertd_client **client);
EXPERTD_API const char *expertd_client_endpoint(const struct expertd_client *client);
/* Of the calls that are made from now on. Metadata is anything of at most 1,024 bytes (copied; 0: none): the server
 * returns it with the answer (expertd_call_metadata()) and has it in its log at debug. A traceparent is W3C Trace
 * Context's, "00-<32 hexadecimal digits>-<16>-01" (NULL or "": none), and stands in that log, too. -EINVAL. */
EXPERTD_API int expertd_client_set_metadata(struct expertd_client *client, const void *data, size_t bytes);
EXPERTD_API int expertd_client_set_traceparent(struct expertd_client *client, const char *traceparent);
/* Whether tensors go through memory that is shared with the server. */
EXPERTD_API bool expertd_client_local(const struct expertd_client *client);
/* Memory for an input, aligned to 64 bytes: shared with the server where there is such a way (then it is not copied on
 * the client's side), the process's own else. To be given back by expertd_memory_free(data, hint), once, in any thread,
 * also after the client's end; or as a tensor's data with free_fn = expertd_memory_free and this hint. -ENOMEM. */
EXPERTD_API int expertd_memory_new(struct expertd_client *client, size_t bytes, void **data, void **hint);
EXPERTD_API void expertd_memory_free(void *data, void *hint);
/* A client of another frontend of the same server, at an endpoint that expertd_pong or expertd_list names, with the
 * same options: for what each frontend knows of its own experts alone. It belongs to `client`, whose thread's it is,
 * and goes with it. NULL: that is no endpoint which this server may name, or there is no memory. */
EXPERTD_API struct expertd_client *expertd_client_frontend(struct expertd_client *client, const char *endpoint);
/* Whether a connection stood when answers were last taken in. */
EXPERTD_API bool expertd_client_connected(const struct expertd_client *client);

/* Takes in answers, connection losses and passed deadlines; waits for the first of them up to timeout_ms (0: not at
 * all; -1: until the earliest deadline of a call in flight; returns at once when none is). How many calls have ended
 * that it has not counted before and that the program has not waited for; or -EINTR when a signal came first. */
EXPERTD_API int expertd_poll(struct expertd_client *client, int timeout_ms);
/* The next call that has ended and that neither this function has returned nor expertd_call_wait() has reported; NULL
 * if there is none. In the order in which they ended. */
EXPERTD_API struct expertd_call *expertd_next_done(struct expertd_client *client);

/* For a program with an event loop of its own: readable when expertd_poll(client, 0) may have work. ZeroMQ's edge
 * applies: call expertd_poll(client, 0) before each sleep, and sleep no longer than expertd_client_timeout_ms(). */
EXPERTD_API int expertd_client_fd(const struct expertd_client *client);
/* Milliseconds until expertd_poll() has something to do by the clock (the earliest deadline in flight, a look at
 * whether the server still lives), rounded up; -1 when nothing is in flight. */
EXPERTD_API int expertd_client_timeout_ms(const struct expertd_client *client);

struct expertd_client_counters {
    size_t size; /* of this struct */
    uint64_t calls;
    uint64_t in_flight;
    uint64_t late_replies;      /* to calls that had been given up, or that never were; dropped */
    uint64_t malformed_replies; /* garbage, or in contradiction with themselves */
    uint64_t connects;          /* of the connection to the endpoint, and of the second one there, for what is large */
    uint64_t disconnects;
    uint64_t resent;   /* requests that a full server refused and that were, or will be, sent once more */
    uint64_t followed; /* that the server has said to be another frontend's of its, and that were sent there */
};
/* Fills the counters up to counters->size, which has to be set. */
EXPERTD_API void expertd_client_read_counters(const struct expertd_client *client,
                                              struct expertd_client_counters *counters);
static inline void expertd_client_counters(const struct expertd_client *client,
                                           struct expertd_client_counters *counters)
{
    counters->size = sizeof *counters;
    expertd_client_read_counters(client, counters);
}

/* Raises glibc's thresholds so that freed blocks up to 32 MiB stay in the process. For main(), before threads start;
 * it acts on the whole process. Elsewhere than on glibc it does nothing. */
EXPERTD_API void expertd_tune_allocator(void);

/* ---- calls ----------------------------------------------------------------------------------------------------- */

/* Each returns 0 and a call, or -ENOMEM and no call. deadline_ms counts from now; 0 is the client's default. The uid
 * and the arrays are copied; the tensors' data is copied or borrowed as free_fn says. */

EXPERTD_API int expertd_ping(struct expertd_client *client, uint32_t deadline_ms, struct expertd_call **call);
/* uids that begin with prefix (NULL: all), without the first `offset`, at most `limit` (0: 4096). */
EXPERTD_API int expertd_list(struct expertd_client *client, const char *prefix, uint32_t offset, uint32_t limit,
                             uint32_t deadline_ms, struct expertd_call **call);
EXPERTD_API int expertd_info(struct expertd_client *client, const char *uid, uint32_t deadline_ms,
                             struct expertd_call **call);
EXPERTD_API int expertd_stats(struct expertd_client *client, uint32_t deadline_ms, struct expertd_call **call);
/* The same, with the experts whose uid begins with prefix (NULL: all), at most `limit` (0: 4096). */
EXPERTD_API int expertd_stats_experts(struct expertd_client *client, const char *prefix, uint32_t limit,
                                      uint32_t deadline_ms, struct expertd_call **call);
/* One expert's checkpoint, or all experts' (uid NULL). */
EXPERTD_API int expertd_checkpoint(struct expertd_client *client, const char *uid, uint32_t deadline_ms,
                                   struct expertd_call **call);
/* Changes of the server's experts while it runs. Only its own user and root may, over its UNIX socket
 * ("ipc:///run/expertd/NAME.socket"). Each is done whole, and then the call is OK; or not at all, and the message says
 * why. A setting is "option=value", of an entry of `experts` in the configuration; paths in it have to be absolute. */
/* One more expert. No settings: as the server's configuration has it. */
EXPERTD_API int expertd_load(struct expertd_client *client, const char *uid, const char *const *settings,
                             size_t n_settings, uint32_t deadline_ms, struct expertd_call **call);
/* One less: what it has learned is saved, and what it was asked before is answered. */
EXPERTD_API int expertd_unload(struct expertd_client *client, const char *uid, uint32_t deadline_ms,
                               struct expertd_call **call);
/* Other settings of a living expert: how it learns, and what its batches wait for. */
EXPERTD_API int expertd_set(struct expertd_client *client, const char *uid, const char *const *settings,
                            size_t n_settings, uint32_t deadline_ms, struct expertd_call **call);
/* The experts as the server's configuration file says now. */
EXPERTD_API int expertd_reload(struct expertd_client *client, uint32_t deadline_ms, struct expertd_call **call);
EXPERTD_API int expertd_forward(struct expertd_client *client, const char *uid, const struct expertd_tensor *inputs,
                                size_t n_inputs, uint32_t deadline_ms, struct expertd_call **call);
/* The outputs are the gradients of the inputs. The server applies a backward at most once: see expertd_call_retry(). */
EXPERTD_API int expertd_backward(struct expertd_client *client, const char *uid, const struct expertd_tensor *inputs,
                                 size_t n_inputs, const struct expertd_tensor *grad_outputs, size_t n_grad_outputs,
                                 uint32_t deadline_ms, struct expertd_call **call);
/* The same for those inputs alone of which requires_grad says so (n_inputs values, copied; NULL: all): other gradients
 * are neither computed, where that spares work, nor sent, and the outputs are the wanted ones in the inputs' order.
 * When none is wanted the expert learns, and there are no outputs. */
EXPERTD_API int expertd_backward_for(struct expertd_client *client, const char *uid,
                                     const struct expertd_tensor *inputs, size_t n_inputs, const bool *requires_grad,
                                     const struct expertd_tensor *grad_outputs, size_t n_grad_outputs,
                                     uint32_t deadline_ms, struct expertd_call **call);

/* One expert of a call for many. */
struct expertd_part {
    const char *uid; /* of no other part */
    uint32_t rows;   /* its share of the tensors' rows, which are those of the first part, then of the second, ... */
    /* A backward that is to be repeated in another call: the id under which its first was sent (of a part of that call
     * that had 0 here: expertd_call_request_id()). 0: a new one. */
    uint64_t request_id;
};
enum { EXPERTD_MAX_PARTS = 512 };
/* A forward, or backward, of several experts of one server in one message, whose tensors have the same dtypes and row
 * shapes. The call is OK when one part is; its outputs have as many rows as the inputs, and zeros for the parts that
 * are not OK: look at each part's status. Else it has a part's status, or that of the request as a whole. Where the
 * server has several frontends, each gets its own experts' parts, once it is known which they are; of tensors with a
 * codec other than FLOAT16 and BFLOAT16 these travel as they were decoded. */
EXPERTD_API int expertd_forward_parts(struct expertd_client *client, const struct expertd_part *parts, size_t n_parts,
                                      const struct expertd_tensor *inputs, size_t n_inputs, uint32_t deadline_ms,
                                      struct expertd_call **call);
EXPERTD_API int expertd_backward_parts(struct expertd_client *client, const struct expertd_part *parts, size_t n_parts,
                                       const struct expertd_tensor *inputs, size_t n_inputs,
                                       const struct expertd_tensor *grad_outputs, size_t n_grad_outputs,
                                       uint32_t deadline_ms, struct expertd_call **call);

/* Waits until the call has ended, at most timeout_ms (-1: until its deadline; 0: takes in what is there). Other calls'
 * answers are taken in, too. 0: it has ended; -ETIMEDOUT: it goes on; -EINTR: a signal came. */
EXPERTD_API int expertd_call_wait(struct expertd_call *call, int timeout_ms);
EXPERTD_API bool expertd_call_done(const struct expertd_call *call);
/* Sends an ended backward once more under its old request id, so that a server that has applied it does not apply it
 * twice, but gives the first answer (or ALREADY_EXISTS when that is no longer kept). The call is in flight again; its
 * outputs are gone. An earlier attempt's DEADLINE_EXCEEDED that was still under way may end it: as that says, the step
 * may have been applied or not, and it can be retried once more. -EINVAL: it is not an ended backward. */
EXPERTD_API int expertd_call_retry(struct expertd_call *call, uint32_t deadline_ms);
/* Releases what belongs to the call, and nulls *call. A call that is in flight is given up: its answer is dropped. */
EXPERTD_API void expertd_call_release(struct expertd_call **call);

/* A pointer of the program's own, to know the call by. */
EXPERTD_API void expertd_call_set_user(struct expertd_call *call, void *user);
EXPERTD_API void *expertd_call_user(const struct expertd_call *call);

/* Of a call that has ended; all that they point to is valid until the call is released or retried. */
EXPERTD_API enum expertd_status expertd_call_status(const struct expertd_call *call);
EXPERTD_API const char *expertd_call_message(const struct expertd_call *call); /* "" when OK; never NULL */
/* The request's metadata, as the server returned it. */
EXPERTD_API const void *expertd_call_metadata(const struct expertd_call *call, size_t *bytes);
/* The expert has not changed by it: it was never sent, the server refused it or says that it did nothing, or it is no
 * backward. False for a backward that was, or may have been, applied, be it by an earlier attempt
 * (expertd_call_retry(), or a part's request_id) of which a refusal of the last one says nothing; after an attempt that
 * has ended at its deadline only OK tells, as any other answer may be that one's. */
EXPERTD_API bool expertd_call_not_applied(const struct expertd_call *call);
/* Of one that ended with RESOURCE_EXHAUSTED: after how many milliseconds the server expects to have room; 0: it does
 * not say. */
EXPERTD_API uint32_t expertd_call_retry_after_ms(const struct expertd_call *call);
EXPERTD_API size_t expertd_call_output_count(const struct expertd_call *call); /* 0 unless OK */
/* NULL when there are not so many. Data is aligned for its dtype. */
EXPERTD_API const struct expertd_tensor *expertd_call_output(const struct expertd_call *call, size_t index);

/* Under which the server knows the call. */
EXPERTD_API uint64_t expertd_call_request_id(const struct expertd_call *call);
/* Of a call for many experts that has ended: as expertd_call_status(), _message() and _retry_after_ms(), of one part. 0
 * parts: it is none. A part beyond them is INVALID_ARGUMENT. */
EXPERTD_API size_t expertd_call_part_count(const struct expertd_call *call);
EXPERTD_API enum expertd_status expertd_call_part_status(const struct expertd_call *call, size_t part);
EXPERTD_API const char *expertd_call_part_message(const struct expertd_call *call, size_t part);
EXPERTD_API uint32_t expertd_call_part_retry_after_ms(const struct expertd_call *call, size_t part);
/* The part's expert has not changed by it. */
EXPERTD_API bool expertd_call_part_not_applied(const struct expertd_call *call, size_t part);

/* ---- what the other methods answer (NULL unless the call is OK and of that method) ----------------------------- */

struct expertd_frontend {
    const char *server, *endpoint;
};
struct expertd_pong {
    const char *server;   /* its name */
    const char *software; /* "expertd 0.1.0" */
    uint32_t experts;     /* of the frontend that answers, as all here */
    uint32_t experts_alive;
    const struct expertd_frontend *frontends; /* the server's others, if it has several */
    size_t frontends_count;
};
EXPERTD_API const struct expertd_pong *expertd_call_pong(const struct expertd_call *call);

struct expertd_list_entry {
    const char *uid;
    const char *device;
    bool alive;
};
struct expertd_list {
    const struct expertd_list_entry *entries;
    size_t count;
    uint32_t total;      /* that match, before offset and limit */
    uint64_t generation; /* changes whenever the server's list may have changed */
    /* Of each entry: of the server's frontend that has the expert, and that alone knows whether it is alive; "": of
     * this one. Calls find their way by themselves. */
    const char *const *endpoints;
};
EXPERTD_API const struct expertd_list *expertd_call_list(const struct expertd_call *call);

struct expertd_counter {
    const char *name; /* "frontend.requests", ... */
    double value;
};
struct expertd_histogram {
    const char *name;       /* "frontend.forward.request_seconds", "device.cpu0.backward.batch_rows", ... */
    const double *bounds;   /* inclusive upper bounds, ascending; seconds, or rows */
    const uint64_t *counts; /* one more: of the values above the bound before; the last of all above */
    size_t bounds_count;
    double sum; /* of the values */
};
/* How long tasks took: sums, in ns. */
struct expertd_times {
    uint64_t request_ns; /* from arrival to reply, of the tasks that are counted as done */
    uint64_t tasks;      /* that were in a batch, however they ended, since the frontend attached to the pool */
    uint64_t batches;
    uint64_t queue_ns;   /* of these tasks, until their batch was taken */
    uint64_t compute_ns; /* of these tasks: the time of the batch that each was in */
};
struct expertd_expert_stats {
    const char *uid;
    const char *device;
    uint64_t forward_tasks, forward_rows, backward_tasks, backward_rows; /* done since the server's frontend has it */
    uint32_t pending;                                                    /* requests queued or running */
    double oldest_seconds;                                               /* how long the oldest of them has waited */
    uint64_t update_count, skipped_steps;                                /* as in expertd_info */
    struct expertd_times forward, backward;
};
struct expertd_stats {
    const struct expertd_counter *counters;
    size_t count;
    const struct expertd_histogram *histograms;
    size_t histograms_count;
    const struct expertd_expert_stats *experts; /* of expertd_stats_experts(); the one with most rows first */
    size_t experts_count;
};
EXPERTD_API const struct expertd_stats *expertd_call_stats(const struct expertd_call *call);

struct expertd_changes {
    uint32_t loaded, unloaded;
    uint32_t replaced; /* ended, and begun anew with other options */
    uint32_t set;      /* have other settings, and went on */
    const char *note;  /* for a person: what else is new in the configuration, and counts from the next start on; "" */
};
EXPERTD_API const struct expertd_changes *expertd_call_changes(const struct expertd_call *call);

struct expertd_field {
    const char *name; /* the keyword name; may be empty */
    enum expertd_dtype dtype;
    uint32_t ndim; /* of one row: without dimension 0 */
    uint64_t row_shape[EXPERTD_MAX_DIMS];
};
struct expertd_schema {
    struct expertd_field fields[EXPERTD_MAX_TENSORS];
    size_t count;
};
/* A value of one of the block's own arguments: "sequence" 128; "activation" 0, "silu". */
struct expertd_argument {
    const char *name;
    double value;
    const char *text; /* of one that is a word; "" */
};
struct expertd_info {
    const char *uid;
    const char *block; /* "ffn", ... */
    const char *device;
    const char *optimizer;
    const char *schedule;
    bool alive;
    struct expertd_schema forward_schema;
    struct expertd_schema outputs_schema;
    struct expertd_schema backward_schema; /* forward_schema's, then outputs_schema's as grad_outputs */
    uint64_t max_batch_size, hidden_dim;
    double learning_rate, beta1, beta2, epsilon, momentum, clip_norm;
    uint64_t warmup_steps, total_steps, grad_accumulation;
    uint64_t update_count;
    uint64_t examples_processed;              /* rows of applied backward batches */
    uint64_t skipped_steps;                   /* for NaN or Inf */
    enum expertd_codec compression;           /* that the server's configuration advises, both ways */
    const struct expertd_argument *arguments; /* beside hidden_dim */
    size_t arguments_count;
    bool forward_only; /* it takes no backward */
};
EXPERTD_API const struct expertd_info *expertd_call_info(const struct expertd_call *call);

#ifdef __cplusplus
}
#endif

#endif
