#include "runtime/serve/launch.h"

enum { GROUP_ROWS = 64 /* of a batch that is enqueued together with others, at most */ };

void launch_begin(struct launch *launch)
{
    launch->count = 0;
    launch->rows = 0;
    launch->group = (struct expert_group){0};
}

/* With so many rows it costs little to be by itself, and it would keep the others waiting. */
static bool goes_with_others(const struct flight *flight)
{
    return flight->batch.rows <= GROUP_ROWS;
}

bool launch_has_room(const struct launch *launch)
{
    return launch->count == 0 || (launch->count < launch->group.count && launch->rows < launch->group.rows &&
                                  goes_with_others(&launch->flights[launch->count - 1]));
}

bool launch_may_take(const struct launch *launch, uint32_t index, const struct expert *expert)
{
    if (launch->count == 0)
        return true;
    if (index % 2 != POOL_FORWARD || expert_group_of(expert).kin != launch->group.kin)
        return false;
    for (uint32_t i = 0; i < launch->count; i++) {
        if (launch->flights[i].index == index)
            return false;
    }
    return true;
}

void launch_add(struct launch *launch, const struct expert *expert)
{
    const struct flight *flight = &launch->flights[launch->count++];
    launch->rows += flight->batch.rows;
    if (launch->count == 1 && flight->index % 2 == POOL_FORWARD)
        launch->group = expert_group_of(expert);
}

uint32_t launch_fitting(const struct launch *launch)
{
    const struct flight *last = &launch->flights[launch->count - 1];
    return launch->count - (launch->rows > launch->group.rows || !goes_with_others(last));
}
