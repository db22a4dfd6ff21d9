/* A frontend under test: the real program, in a folder of its own, with a runtime that is made of a process and the
 * pools' API alone, and does what the test tells it to. Its experts are
 *     nop.0, nop.1    x float32[16] -> the same; backward: grad_outputs -> grad_inputs, one update a batch
 *     mask.0          x float32[16], mask bool[16] -> the same two
 *     away.0          configured on the device "other", which never comes up
 * with max_batch_size 8, pools of 32 rows and 16 tasks. */
#ifndef EXPERTD_TESTS_SUPPORT_RIG_H
#define EXPERTD_TESTS_SUPPORT_RIG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { RIG_COLUMNS = 16, RIG_MAX_BATCH = 8, RIG_QUEUE_ROWS = 32, RIG_QUEUE_TASKS = 16 };

/* What the test and its runtime share. */
struct rig_knobs {
    _Atomic int hold_start;   /* a runtime that starts has its lock, but nothing else yet */
    _Atomic int hold;         /* take nothing, but sleep as a runtime does that has nothing to do */
    _Atomic int hold_running; /* take a batch, and wait with it */
    _Atomic int hang;         /* stand still, with work and without sleeping */
    _Atomic int fail;         /* batches fail */
    _Atomic int frozen;       /* before it starts: its experts have no optimizer */
    _Atomic int skip_step;    /* backward batches skip their step, as for NaN */
    _Atomic int checkpoint_errno;
    _Atomic unsigned taken, completed, applied, checkpoints; /* so far */
    _Atomic int renewal_wanted;                              /* the frontend has asked it for segments anew */
    _Atomic int garbage_done;                                /* set the position `done` of nop.0 to nonsense */
};

struct rig {
    char folder[40], name[32], config[64], log[64], endpoint[80];
    pid_t frontend, runtime;
    struct rig_knobs *knobs;
};

/* options: lines of YAML for the section frontend, such as "  max_requests: 2\n". Starts nothing. */
void rig_open(struct rig *rig, const char *options);
/* Writes the configuration anew: listen is a list in YAML without its brackets; NULL: a free port of the loopback. */
void rig_configure(const struct rig *rig, const char *listen, const char *options);
/* Starts the frontend and waits until it listens; sets the endpoint. */
void rig_start_frontend(struct rig *rig);
/* Starts the runtime and waits until it is ready (with hold_start: until it has its lock). It adopts what an earlier
 * one left, unless `fresh`. */
void rig_start_runtime(struct rig *rig, bool fresh);
/* Sends the signal and waits for the end. The exit status, or 128 + the signal that killed it. */
int rig_end(pid_t *process, int signal_number);
/* Ends what runs, and removes everything. */
void rig_close(struct rig *rig);
/* The frontend's log has a line with this text: waits for it, bounded. */
void rig_expect_log(const struct rig *rig, const char *text);
bool rig_logged(const struct rig *rig, const char *text);
/* Runs the program once more with the rig's configuration; its exit status. */
int rig_run_second(const struct rig *rig, const char *log);

/* Waits, bounded, until the condition holds. */
#define RIG_WAIT(condition)                                                                                            \
    do {                                                                                                               \
        for (int rig_i = 0; !(condition); rig_i++) {                                                                   \
            ck_assert_msg(rig_i < 300000, "waited too long for " #condition);                                          \
            usleep(1000);                                                                                              \
        }                                                                                                              \
    } while (0)

#endif
