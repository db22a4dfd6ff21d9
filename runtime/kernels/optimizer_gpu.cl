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

/* block[k][n], PANEL x PANEL in local memory with one column more against bank conflicts, transposed into the panels over k. */
void store_transposed(__local const float *block, int kn, int columns, __global float *to)
{
    barrier(CLK_LOCAL_MEM_FENCE);
    const int k = get_local_id(0) % PANEL;
    /* As many turns for every work-item: where a barrier is conditional, PoCL takes a loop's first condition for all of the
     * group from its first work-item, and rows beyond `columns` would be written. */
    for (int first = 0; first < PANEL; first += GROUP / PANEL) {
        const int n = first + get_local_id(0) / PANEL;
        if (n < columns && k < kn)
            to[n * PANEL + k] = block[k * (PANEL + 1) + n];
    }
}

/* See optimizer_cpu.cl. A group for each block of PANEL x PANEL: global size {GROUP * ceil(K / PANEL), ceil(N / PANEL)}. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void step_adam(int K, int N, float beta1, float beta2, float one_minus_beta1, float one_minus_beta2, float step_size,
               float inverse_sqrt_correction2, float eps, __global float *weights, ulong offset, ulong transposed_offset,
               __global const float *gradient, ulong gradient_offset, __global float *m_buffer, __global float *v_buffer,
               __global const float *control, ulong control_offset)
{
    __local float block[PANEL * (PANEL + 1)];
    const int k0 = get_group_id(0) * PANEL, panel = get_group_id(1), kn = min(PANEL, K - k0);
    const ulong at = ((ulong)panel * K + k0) * PANEL;
    const float factor = control[control_offset + 1];
    if (control[control_offset + 2] == 0.0f)
        return;
    for (int i = get_local_id(0); i < kn * PANEL; i += GROUP) {
        const ulong here = offset + at + i;
        const float g = gradient[gradient_offset + here] * factor;
        const float m = beta1 * m_buffer[here] + one_minus_beta1 * g;
        const float v = beta2 * v_buffer[here] + one_minus_beta2 * (g * g);
        const float w = weights[here] - step_size * m / (sqrt(v) * inverse_sqrt_correction2 + eps);
        m_buffer[here] = m;
        v_buffer[here] = v;
        weights[here] = w;
        block[i / PANEL * (PANEL + 1) + i % PANEL] = w;
    }
    if (transposed_offset != ~(ulong)0)
        store_transposed(block, kn, min(PANEL, N - panel * PANEL),
                         weights + transposed_offset + (ulong)get_group_id(0) * N * PANEL + panel * PANEL * PANEL);
}

/* See optimizer_cpu.cl; the rest is step_adam's. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void step_sgd(int K, int N, float momentum, float rate, __global float *weights, ulong offset, ulong transposed_offset,
              __global const float *gradient, ulong gradient_offset, __global float *m_buffer,
              __global const float *control, ulong control_offset)
{
    __local float block[PANEL * (PANEL + 1)];
    const int k0 = get_group_id(0) * PANEL, panel = get_group_id(1), kn = min(PANEL, K - k0);
    const ulong at = ((ulong)panel * K + k0) * PANEL;
    const float factor = control[control_offset + 1];
    if (control[control_offset + 2] == 0.0f)
        return;
    for (int i = get_local_id(0); i < kn * PANEL; i += GROUP) {
        const ulong here = offset + at + i;
        float g = gradient[gradient_offset + here] * factor;
        if (momentum != 0.0f) {
            g += momentum * m_buffer[here];
            m_buffer[here] = g;
        }
        const float w = weights[here] - rate * g;
        weights[here] = w;
        block[i / PANEL * (PANEL + 1) + i % PANEL] = w;
    }
    if (transposed_offset != ~(ulong)0)
        store_transposed(block, kn, min(PANEL, N - panel * PANEL),
                         weights + transposed_offset + (ulong)get_group_id(0) * N * PANEL + panel * PANEL * PANEL);
}
