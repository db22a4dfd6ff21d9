/* Work for CPU devices is cut into shares, and a launch has no more work-items than the device has cores: each of them
 * takes the next share until there is none. So a core that has other things to do for a while (clients live on the same
 * machine) delays one share and not its half of the launch, which is what the driver's own division would give it.
 *
 * `shares` counts: [0] those that were taken, [1] the work-items that found none left; the last one clears both for the
 * next launch, as the queue is in order. `grid` is what the host asked for: share s is (s % grid.x, s / grid.x). The
 * last two arguments of each kernel; runtime/compute/kernel.c sets them. */
#define SHARES __global volatile int *shares, int2 grid
#define EACH_SHARE for (int share; (share = next_share(shares, grid.x * grid.y)) >= 0;)

int next_share(__global volatile int *shares, int count)
{
    const int share = atomic_inc(shares);
    if (share < count)
        return share;
    if (atomic_inc(shares + 1) == (int)get_global_size(0) - 1) {
        shares[1] = 0;
        shares[0] = 0;
    }
    return -1;
}

/* A share's panel where each share has one, in an order in which a core goes through panels that lie one behind the other as long as
 * the others are as fast: memory is read faster so, and what is fetched beyond a panel's end is not in vain. */
int panel_in_runs(int share, int panels)
{
    const int cores = get_global_size(0), run = panels / cores;
    return share < run * cores ? share % cores * run + share / cores : share;
}

/* The panel that a core with that share takes next, while the others are as fast; `panels`: none. */
int panel_after(int share, int panels)
{
    const int next = share + (int)get_global_size(0);
    return next < panels ? panel_in_runs(next, panels) : panels;
}

/* A share's cell of {groups of rows, panels}, where the shares of `together` groups come one behind the other for the same
 * panel, so that the cores meet it at the same time: {group, panel, the panel that this core takes next as long as the others are
 * as fast, grid.y or more: none}. */
int3 cell_together(int share, int2 grid, int together)
{
    if (grid.x == 1)
        return (int3)(0, panel_in_runs(share, grid.y), panel_after(share, grid.y));
    const int first_group = share / (grid.y * together) * together, side_by_side = min(together, grid.x - first_group);
    const int rest = share - first_group * grid.y;
    const int panel = rest / side_by_side;
    return (int3)(first_group + rest % side_by_side, panel, panel + max(1, (int)get_global_size(0) / side_by_side));
}
