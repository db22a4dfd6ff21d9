/* A device's control segment: this process's view (pools/control_shared.h has the layout). One thread a process. */
#ifndef EXPERTD_POOLS_CONTROL_H
#define EXPERTD_POOLS_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "pools/control_shared.h"

struct control;
struct pool_layout;

/* Runtime. Makes the device's control segment of the next generation, in state CREATING. First removes this device's
 * leftovers of earlier generations (an old READY one is RETIRED before); other devices and servers are never touched.
 * Generations grow, and no two are the same even when nothing of the last one is left. -EINVAL: a name that is too
 * long, or has white space or a '/' in it, or (a device's) a '.'; -EBUSY (another runtime lives that has it: logged),
 * -EEXIST (something lies there that is not ours to remove: logged), -ENOSPC, -ENOMEM. */
int control_create(struct control **control, const char *server, const char *device, uint64_t fingerprint,
                   uint32_t experts_count);
/* Whether a living runtime has the device's control segment. A runtime has its role first (common/owner.h); so one that
 * has the segment and not the role is that of another server, of the same name, whose run_dir is another one. */
bool control_held(const char *server, const char *device);
/* Runtime: 0, or -EBUSY where it is held, logged. */
int control_check_free(const char *server, const char *device);
/* Runtime, after a restart. -ENOENT: there is none; -EBUSY: another runtime lives that has it; -ESTALE: not READY,
 * another fingerprint or count, or not sane. All pools are ready then, and after control_attach by a frontend all are
 * done: what took the bits may have died. */
int control_adopt(struct control **control, const char *server, const char *device, uint64_t fingerprint,
                  uint32_t experts_count);
/* Runtime that ends cleanly before it adopted or created: retires and removes what a killed one of this device left, so
 * that a clean end leaves nothing behind. 0 or -errno. */
int control_remove(const char *server, const char *device);
/* Runtime: everything is in place; lets the frontend in. */
void control_publish(struct control *control);
/* Runtime, now and then: NULL; or why this generation cannot be used any more, for the log: its name does not lead to
 * it, it is damaged, or the frontend asks for another one. */
const char *control_fault(struct control *control);
/* Runtime: whether the name leads to this one, and holds off others: then no other runtime can serve the device. */
bool control_holds_name(const struct control *control);
/* Whether the frontend asks for another generation: the last of these alone, which costs no system call. */
bool control_renewal_wanted(const struct control *control);
/* Frontend: begins an epoch, so that the runtime opens its doorbell by name once more. */
void control_begin_epoch(struct control *control);
/* Frontend: asks for another generation. */
void control_want_renewal(struct control *control);
/* Runtime whose segment's name is another one's, or may be at any moment: RETIRED for whoever holds it, and its pools
 * are removed; but what lies under that name stays. Nulls. */
void control_abandon(struct control **control);
/* Runtime, at a clean end: RETIRED, and all segments of the device are removed. Nulls. */
void control_retire(struct control **control);
/* Frontend, and tools that only look. -ENOENT: none; -EAGAIN: not READY; -EPROTO: not sane. The frontend starts an
 * epoch; or refuses what is not sane, so that its runtime makes another one. */
int control_attach(struct control **control, const char *server, const char *device, bool frontend);
/* Unmaps; the segment stays. Nulls. */
void control_detach(struct control **control);

/* The shared page, for its atomic fields. Its constants are to be read through the functions below: validated copies.
 */
struct control_shared *control_page(struct control *control);
uint64_t control_generation(const struct control *control);
uint32_t control_experts_count(const struct control *control);
/* Expert e's record; control_attach has checked its strings, numbers and schemas, so copy what you keep. */
struct control_expert_shared *control_expert(struct control *control, uint32_t e);
/* A copy of its uid as it is now, which ends whatever has been written over it. */
void control_expert_uid(const struct control_expert_shared *expert, char uid[UID_SIZE]);
bool control_retired(struct control *control);

/* --- slots (the table's places for experts) --------------------------------------------------------------------------
 */

/* All are used after control_create, until they are said to be free. */
bool control_slot_used(const struct control *control, uint32_t e);
/* Runtime. */
void control_slot_set(struct control *control, uint32_t e, enum control_slot slot);
/* Frontend: whether slots have changed since it looked. Before it looks. */
uint64_t control_slots_version(const struct control *control);
/* Frontend: checks the record of a slot that has come to be used. */
bool control_expert_sane(const struct control *control, uint32_t e);
/* Runtime: around a change of what a record of a used slot says. */
void control_expert_change_begin(struct control_expert_shared *record);
void control_expert_change_end(struct control_expert_shared *record);
/* Frontend: the record's constants, of one moment; 0, or -EAGAIN if the runtime changes them all the time. */
int control_expert_copy(const struct control_expert_shared *record, struct control_expert_shared *copy);

/* Frontend: asks for a phase of a change; control_change_answered: whether it was done or refused, and how. */
void control_change_ask(struct control *control, uint64_t number, enum control_phase phase);
bool control_change_answered(struct control *control, uint64_t number, enum control_phase phase, uint32_t *status,
                             char why[CONTROL_WHY_SIZE]);
/* Runtime: whether something is asked for that was not answered; and the answer. */
bool control_change_wanted(const struct control *control, uint64_t *number, enum control_phase *phase);
void control_change_answer(struct control *control, uint64_t number, enum control_phase phase, uint32_t status,
                           const char *why);

/* Starts fetching what control_mark_ready will write. */
void control_prefetch_ready(const struct control *control, uint32_t pool);
/* Frontend: pool has a new task. Runtime: pool has results. */
void control_mark_ready(struct control *control, uint32_t pool);
void control_mark_done(struct control *control, uint32_t pool);
/* Takes all set bits and visits each pool, ascending; returns how many. Bits of no pool are ignored. Of
 * CONTROL_TOGETHER pools at a time all are first given to each of the stages before the last, which is the visit: to
 * start fetching what it will read. Among thousands of pools nothing of one is in a cache, and so many misses take
 * hardly longer than one. */
enum { CONTROL_TOGETHER = 32 };
typedef void control_visit(uint32_t pool, void *context);
uint32_t control_take_ready(struct control *control, control_visit *const *stages, unsigned count, void *context);
uint32_t control_take_done(struct control *control, control_visit *const *stages, unsigned count, void *context);
/* Whether any bit is set: for the look between preparing to sleep and sleeping. */
bool control_any_ready(struct control *control);
bool control_any_done(struct control *control);

const char *control_counter_name(enum control_counter counter);
void control_count(struct control *control, enum control_counter counter, uint64_t amount); /* runtime */
void control_set(struct control *control, enum control_counter counter, uint64_t value);    /* runtime */
/* Runtime: adds a value (ns, or rows) to one of the histograms. */
void control_measure(struct control *control, enum pool_kind kind, enum control_histogram histogram, uint64_t value);
const char *control_histogram_name(enum control_histogram histogram);
/* A 64-bit fingerprint of pool layouts, chained: start with 0. The generation and the index do not count. */
uint64_t control_fingerprint(uint64_t chain, const struct pool_layout *layout);

#endif
