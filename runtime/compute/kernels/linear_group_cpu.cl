/* Products of several matrices of weights of one size, each with rows of its own, in one launch: between two of them no core
 * waits for the other, nor for the driver. */
#define GROUP_MEMBERS 8 /* runtime/compute/linear.h has it, too */

/* A group's arguments by member: rows_of[], and at[] of each kind. */
#define GROUP_PLACES                                                                                                   \
    enum { A, W, OUT, BIAS, SECOND, SAVE, PLACES };                                                                    \
    ulong at[PLACES][GROUP_MEMBERS];                                                                                   \
    int rows_of[GROUP_MEMBERS];                                                                                        \
    vstore8(rows, 0, rows_of);                                                                                         \
    vstore8(a_offsets, 0, at[A]);                                                                                      \
    vstore8(w_offsets, 0, at[W]);                                                                                      \
    vstore8(out_offsets, 0, at[OUT]);                                                                                  \
    vstore8(bias_offsets, 0, at[BIAS]);                                                                                \
    vstore8(second_offsets, 0, at[SECOND]);                                                                            \
    vstore8(save_offsets, 0, at[SAVE]);

/* As `linear` for each member, of so many rows, with what it has of its own at offsets; a member of 0 rows is none. What is
 * row-major has one stride for all of them. Offsets lead from the first member's memory to that of the others, which on a CPU is
 * all one (runtime/compute/linear_group.c). Grid {members, panels}: a member's panels come one behind the other. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void linear_group(int8 rows, int N, int K, int flags, int most_k,
            __global const float *a, ulong8 a_offsets, long a_row_stride, long a_panel_stride,
            __global const weight *weights, ulong8 w_offsets,
            __global float *out, ulong8 out_offsets, long out_row_stride, long out_panel_stride,
            __global const float *bias, ulong8 bias_offsets,
            __global const float *second, ulong8 second_offsets, long second_row_stride, long second_panel_stride,
            __global float *save, ulong8 save_offsets, float4 gate, SHARES)
{
    GROUP_PLACES
    EACH_SHARE
    {
        const int member = share / grid.y;
        const int2 alone = (int2)(1, grid.y);
        linear_share(cell_together(share % grid.y, alone, 1), alone, rows_of[member], N, K, flags, most_k, a + at[A][member],
                     a_row_stride, a_panel_stride, weights + at[W][member], out + at[OUT][member], out_row_stride,
                     out_panel_stride, bias + at[BIAS][member], second + at[SECOND][member], second_row_stride,
                     second_panel_stride, save + at[SAVE][member], gate);
    }
}
