/* Any bytes in a control segment are one that can be attached and used, or are refused. The segment is a real one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/shm.h"
#include "pools/control.h"

enum { EXPERTS = 3 };
static char server[32], name[SHM_NAME_SIZE];
static uint8_t *mapping, *pristine;
static size_t bytes;

static void end(void)
{
    shm_remove(name);
}

static void begin(void)
{
    struct control *control;
    snprintf(server, sizeof server, "fuzz%ld", (long)getpid());
    if (control_create(&control, server, "d", 1, EXPERTS) != 0 || shm_name(name, server, "d.control") != 0)
        abort();
    atexit(end);
    for (uint32_t e = 0; e < EXPERTS; e++) {
        struct control_expert_shared *expert = control_expert(control, e);
        snprintf(expert->uid, sizeof expert->uid, "ffn.%u", e);
        expert->max_batch_size = 4;
        expert->inputs.count = expert->outputs.count = 1;
        expert->inputs.tensors[0] = (struct tensor_desc){.dtype = DTYPE_FLOAT32, .ndim = 1, .dims = {4}, .name = "x"};
        expert->outputs.tensors[0] = expert->inputs.tensors[0];
    }
    control_publish(control);
    control_detach(&control);
    void *map;
    if (shm_attach_segment(name, POOL_PAGE, &map, &bytes) != 0)
        abort();
    mapping = map;
    pristine = malloc(bytes);
    memcpy(pristine, mapping, bytes);
}

static void visit(uint32_t pool, void *context)
{
    if (pool >= 2 * control_experts_count(context))
        abort();
}

static void use(struct control *control)
{
    const uint32_t experts = control_experts_count(control);
    for (uint32_t e = 0; e < experts; e++) {
        const struct control_expert_shared *expert = control_expert(control, e);
        if (!control_slot_used(control, e))
            continue; /* nothing is promised of a place without an expert */
        if (!uid_valid(expert->uid) || !schema_valid(&expert->inputs) || strlen(expert->block) >= sizeof expert->block)
            abort();
    }
    (void)control_take_ready(control, (control_visit *const[]){visit}, 1, control);
    (void)control_take_done(control, (control_visit *const[]){visit}, 1, control);
    if (control_any_ready(control) || control_any_done(control))
        abort();
    if (experts > 0)
        control_mark_done(control, 2 * experts - 1);
    control_count(control, CONTROL_TASKS, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct control *control;
    if (!mapping)
        begin();
    memcpy(mapping, pristine, bytes);
    /* Three bytes of place, one of content. The header is hit as often as all the rest. */
    for (; size >= 4; data += 4, size -= 4) {
        const size_t range = data[0] & 1 ? sizeof(struct control_shared) : bytes;
        mapping[((size_t)data[1] << 16 | (size_t)data[2] << 8 | data[0]) % range] = data[3];
    }
    if (control_attach(&control, server, "d", true) == 0) {
        use(control);
        control_detach(&control);
    }
    if (control_adopt(&control, server, "d", 1, EXPERTS) == 0)
        control_detach(&control);
    return 0;
}
