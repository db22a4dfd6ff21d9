/* The optimizer for GPUs. Controls are those of optimizer_cpu.cl; every kernel has groups of 256. */

/* partials[group] = sum of squares of the group's share of g. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void norm_partials(ulong count, __global const float *g_buffer, ulong g_offset, __global float *partials)
{
    __local float shared[GROUP];
    float sum = 0.0f;
    for (ulong i = get_global_id(0); i < count; i += get_global_size(0)) {
        const float g = g_buffer[g_offset + i];
        sum += g * g;
    }
    sum = group_sum(sum, shared);
    if (get_local_id(0) == 0)
        partials[get_group_id(0)] = sum;
}

/* See optimizer_cpu.cl. One group. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void norm_finish(int count, float clip, __global const float *partials, __global float *control, ulong control_offset,
                 ulong gate_offset)
{
    __local float shared[GROUP];
    float sum = 0.0f;
    for (int i = get_local_id(0); i < count; i += GROUP)
        sum += partials[i];
    sum = group_sum(sum, shared);
    if (get_local_id(0) == 0) {
        const float norm = sqrt(sum);
        const bool take = isfinite(norm) && control[gate_offset + 2] != 0.0f;
        control[control_offset] = norm;
        control[control_offset + 1] = clip > 0.0f ? min(1.0f, clip / (norm + 1e-6f)) : 1.0f;
        control[control_offset + 2] = take ? 1.0f : 0.0f;
        control[control_offset + 3] = 0.0f;
    }
}

/* sum (+)= g, unless the control says no. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void accumulate(ulong count, int overwrite, __global const float *g_buffer, ulong g_offset, __global float *sum,
                __global const float *control, ulong control_offset)
{
    if (control[control_offset + 2] == 0.0f)
        return;
    for (ulong i = get_global_id(0); i < count; i += get_global_size(0))
        sum[i] = g_buffer[g_offset + i] + (overwrite ? 0.0f : sum[i]);
}

#ifndef QUANTIZED_BITS /* nothing trains */
/* block[k][n] of K x N at (k0, n0), WIDTH x WIDTH in local memory with one column more against bank conflicts, to its place in the
 * transposed matrix. */
void store_transposed(__local const float *block, int k0, int n0, int K, int N, __global weight *transposed)
{
    barrier(CLK_LOCAL_MEM_FENCE);
    const int k = get_local_id(0) % WIDTH;
    /* As many turns for every work-item: where a barrier is conditional, PoCL takes a loop's first condition for all of the
     * group from its first work-item, and rows beyond N would be written. */
    for (int first = 0; first < WIDTH; first += GROUP / WIDTH) {
        const int n = first + get_local_id(0) / WIDTH;
        if (n0 + n < N && k0 + k < K)
            weight_store_one(block[k * (WIDTH + 1) + n], transposed + MATRIX_AT(n0 + n, k0 + k, N, K));
    }
}

/* See optimizer_cpu.cl. */
#ifdef HALF_WEIGHTS
#define STORE_ROUNDED(v, p) if (is_matrix) weight_store_one(v, p)
#define GREATEST (is_matrix ? WEIGHT_GREATEST : MAXFLOAT)
#else
#define STORE_ROUNDED(v, p)
#define GREATEST MAXFLOAT
#endif
/* Of a value that stays as it was, see optimizer_cpu.cl. */
void note_held(__global float *control, ulong control_offset, ulong place)
{
    ((__global uint *)control)[control_offset + 3] = 1 + (uint)(place / 4);
}

/* See optimizer_cpu.cl. A group for each block of WIDTH x WIDTH: global size {GROUP * ceil(K / WIDTH), ceil(N / WIDTH)}. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void step_adam(int K, int N, float beta1, float beta2, float one_minus_beta1, float one_minus_beta2, float step_size,
               float inverse_sqrt_correction2, float eps, float decay, float shrink, int amsgrad, __global float *weights, ulong offset,
               __global weight *rounded, __global weight *transposed, ulong transposed_offset,
               __global const float *gradient, ulong gradient_offset, __global float *m_buffer, __global float *v_buffer,
               __global float *greatest, __global float *control, ulong control_offset)
{
    __local float block[WIDTH * (WIDTH + 1)];
    const int k0 = get_group_id(0) * WIDTH, n0 = get_group_id(1) * WIDTH, kn = min(WIDTH, K - k0);
    const float factor = control[control_offset + 1];
    const bool is_matrix = transposed_offset != ~(ulong)0;
    if (control[control_offset + 2] == 0.0f)
        return;
    for (int i = get_local_id(0); i < kn * WIDTH; i += GROUP) {
        const int k = i / WIDTH, n = i % WIDTH;
        const ulong here = offset + MATRIX_AT(k0 + k, n0 + n, K, N);
        if (n0 + n >= PADDED(N))
            continue;
        const float w0 = weights[here], g = gradient[gradient_offset + here] * factor + decay * w0;
        const float m = beta1 * m_buffer[here] + one_minus_beta1 * g;
        const float v = beta2 * v_buffer[here] + one_minus_beta2 * (g * g);
        const float most = amsgrad ? fmax(v, greatest[here]) : v;
        float w = w0 - shrink * w0 - step_size * m / (sqrt(most) * inverse_sqrt_correction2 + eps);
        if (fabs(w) <= GREATEST && v <= MAXFLOAT) {
            m_buffer[here] = m;
            v_buffer[here] = v;
            if (amsgrad)
                greatest[here] = most;
            weights[here] = w;
        } else {
            w = w0;
            if (m != 0.0f)
                note_held(control, control_offset, here);
        }
        STORE_ROUNDED(w, rounded + here);
        block[k * (WIDTH + 1) + n] = w;
    }
    if (is_matrix)
        store_transposed(block, k0, n0, K, N, transposed + transposed_offset);
}

/* See optimizer_cpu.cl; the rest is step_adam's. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void step_sgd(int K, int N, float momentum, float rate, float decay, __global float *weights, ulong offset,
              __global weight *rounded, __global weight *transposed, ulong transposed_offset,
              __global const float *gradient, ulong gradient_offset, __global float *m_buffer,
              __global float *control, ulong control_offset)
{
    __local float block[WIDTH * (WIDTH + 1)];
    const int k0 = get_group_id(0) * WIDTH, n0 = get_group_id(1) * WIDTH, kn = min(WIDTH, K - k0);
    const float factor = control[control_offset + 1];
    const bool is_matrix = transposed_offset != ~(ulong)0;
    if (control[control_offset + 2] == 0.0f)
        return;
    for (int i = get_local_id(0); i < kn * WIDTH; i += GROUP) {
        const int k = i / WIDTH, n = i % WIDTH;
        const ulong here = offset + MATRIX_AT(k0 + k, n0 + n, K, N);
        if (n0 + n >= PADDED(N))
            continue;
        const float w0 = weights[here];
        float g = gradient[gradient_offset + here] * factor + decay * w0;
        if (momentum != 0.0f)
            g += momentum * m_buffer[here];
        float w = w0 - rate * g;
        if (fabs(w) <= GREATEST && fabs(g) <= MAXFLOAT) {
            if (momentum != 0.0f)
                m_buffer[here] = g;
            weights[here] = w;
        } else {
            w = w0;
            note_held(control, control_offset, here);
        }
        STORE_ROUNDED(w, rounded + here);
        block[k * (WIDTH + 1) + n] = w;
    }
    if (is_matrix)
        store_transposed(block, k0, n0, K, N, transposed + transposed_offset);
}
#endif
