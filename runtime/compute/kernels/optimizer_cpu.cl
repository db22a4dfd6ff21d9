/* The optimizer for CPU devices: everything is bound by memory, so each value is read and written once.
 *
 * A control is 4 words: {global norm of the gradients, factor that clips them, 1 if the step is to be taken, what was
 * held (see holds)}. */

/* partials[i] = sum of squares of the i-th share of g; `count` is a multiple of PANEL. Grid {shares}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void norm_partials(ulong count, __global const float *g_buffer, ulong g_offset, __global float *partials, SHARES)
{
    EACH_SHARE
    {
        const ulong panels = count / PANEL, parts = grid.x;
        const ulong first = panels * share / parts, end = panels * (share + 1) / parts;
        __global const float *g = g_buffer + g_offset;
        vec sum[NV];
        EACH_VECTOR sum[j] = 0.0f;
        for (ulong p = first; p < end; p++) {
            vec v[NV];
            EACH_VECTOR v[j] = vec_load(g + p * PANEL + j * VEC);
            EACH_VECTOR sum[j] += v[j] * v[j];
        }
        float total = 0.0f;
        for (int j = 0; j < NV; j++)
            total += vec_sum(sum[j]);
        partials[share] = total;
    }
}

/* The control at control_offset from the partials; no step if the norm is not finite, or if the control at gate_offset
 * says so. clip 0: never. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void norm_finish(int count, float clip, __global const float *partials, __global float *control, ulong control_offset,
                 ulong gate_offset, SHARES)
{
    EACH_SHARE
    {
        float sum = 0.0f;
        for (int i = 0; i < count; i++)
            sum += partials[i];
        const float norm = sqrt(sum);
        const bool take = isfinite(norm) && control[gate_offset + 2] != 0.0f;
        control[control_offset] = norm;
        control[control_offset + 1] = clip > 0.0f ? min(1.0f, clip / (norm + 1e-6f)) : 1.0f;
        control[control_offset + 2] = take ? 1.0f : 0.0f;
        control[control_offset + 3] = 0.0f;
    }
}

/* sum (+)= g, unless the control says no. Grid {shares}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void accumulate(ulong count, int overwrite, __global const float *g_buffer, ulong g_offset, __global float *sum,
                __global const float *control, ulong control_offset, SHARES)
{
    EACH_SHARE
    {
        const ulong panels = count / PANEL, parts = grid.x;
        const ulong first = panels * share / parts, end = panels * (share + 1) / parts;
        if (control[control_offset + 2] == 0.0f)
            continue;
        for (ulong p = first; p < end; p++) {
            for (int j = 0; j < NV; j++) {
                __global float *to = sum + p * PANEL + j * VEC;
                vec v = vec_load(g_buffer + g_offset + p * PANEL + j * VEC);
                if (!overwrite)
                    v += vec_load(to);
                vec_store(v, to);
            }
        }
    }
}

#ifndef QUANTIZED_BITS /* nothing trains */
/* block[k][.] of rows [k0, k0 + kn) of a panel, transposed, into the panels over k: [K / PANEL][columns][PANEL]. */
void store_transposed(const weight *block, int kn, int columns, __global weight *to)
{
    for (int n = 0; n < columns; n++) {
        for (int k = 0; k < kn; k++)
            to[n * PANEL + k] = block[k * PANEL + n];
    }
}

/* With -DHALF_WEIGHTS `weights` are masters that only the optimizer knows, and `rounded` has what products read. */
#ifdef HALF_WEIGHTS
#define STORE_ROUNDED(v, p) if (is_matrix) weight_store(v, p)
#else
#define STORE_ROUNDED(v, p)
#endif

/* A step leaves no parameter that is NaN or infinite: a value that would become so, here or rounded to what products
 * read, stays as it was, and the place of some such one is noted for the host. (Adam's 0 / 0, where eps is 0, is no step,
 * and not worth a note.) Without a branch on the way: the step is as fast as memory. */
typedef GLUE(int, VEC) vec_mask;
#ifdef HALF_WEIGHTS
#define GREATEST (is_matrix ? WEIGHT_GREATEST : MAXFLOAT)
#else
#define GREATEST MAXFLOAT
#endif
/* noted: of each lane the newest turn of the loop, counted from 1, that held a value; 0: none did. */
void note_held(vec_mask noted, __global float *control, ulong control_offset, ulong place)
{
    int turn = 0;
    for (int i = 0; i < VEC; i++)
        turn = max(turn, ((int *)&noted)[i]);
    if (turn != 0)
        ((__global uint *)control)[control_offset + 3] = 1 + (uint)((place + (turn - 1)) / 4);
}

/* One step of Adam, as PyTorch takes it, of g + decay * w, after w -= shrink * w (AdamW's): m and v, then
 * w -= step_size * m / (sqrt(v) * inverse_sqrt_correction2 + eps); with `amsgrad` v's greatest so far in v's place.
 * The parameter has K rows of N columns in panels over N; what products read of it, the rounded ones and the other orientation,
 * is written along unless transposed_offset is ~0. Grid {ceil(K / PANEL), ceil(N / PANEL)}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void step_adam(int K, int N, float beta1, float beta2, float one_minus_beta1, float one_minus_beta2, float step_size,
               float inverse_sqrt_correction2, float eps, float decay, float shrink, int amsgrad, __global float *weights, ulong offset,
               __global weight *rounded, __global weight *transposed, ulong transposed_offset,
               __global const float *gradient, ulong gradient_offset, __global float *m_buffer, __global float *v_buffer,
               __global float *greatest_buffer, __global float *control, ulong control_offset, SHARES)
{
    EACH_SHARE
    {
        const int block_k = share % grid.x, k0 = block_k * PANEL, panel = share / grid.x, kn = min(PANEL, K - k0);
        const ulong at = ((ulong)panel * K + k0) * PANEL;
        __global float *w = weights + offset + at, *m = m_buffer + offset + at, *v = v_buffer + offset + at;
        __global float *greatest = greatest_buffer + offset + at;
        __global const float *g = gradient + gradient_offset + offset + at;
        const float factor = control[control_offset + 1];
        const bool is_matrix = transposed_offset != ~(ulong)0;
        weight block[PANEL * PANEL];
        vec_mask noted = 0;
        if (control[control_offset + 2] == 0.0f)
            continue;
        __global weight *across = transposed + transposed_offset + (ulong)block_k * N * PANEL + panel * PANEL * PANEL;
        for (int i = 0; i < kn * PANEL; i += VEC) {
            /* It is written behind this loop, in one go. */
            if (is_matrix)
                PREFETCH_TO_WRITE(across + i);
            const vec m0 = vec_load(m + i), v0 = vec_load(v + i), w0 = vec_load(w + i);
            const vec gi = vec_load(g + i) * factor + decay * w0, most0 = amsgrad ? vec_load(greatest + i) : v0;
            const vec m1 = beta1 * m0 + one_minus_beta1 * gi;
            const vec v1 = beta2 * v0 + one_minus_beta2 * (gi * gi);
            const vec most1 = amsgrad ? fmax(v1, most0) : v1;
            const vec w1 = w0 - shrink * w0 - step_size * m1 / (sqrt(most1) * inverse_sqrt_correction2 + eps);
            /* v takes part: it is infinite where its root made the quotient 0. */
            const vec_mask good = fabs(w1) <= (vec)GREATEST && v1 <= (vec)MAXFLOAT;
            const vec mi = select(m0, m1, good), vi = select(v0, v1, good), wi = select(w0, w1, good);
            noted = select((vec_mask)(i + 1), noted, good || m1 == (vec)0.0f);
            if (amsgrad)
                vec_store(select(most0, most1, good), greatest + i);
            vec_store(mi, m + i);
            vec_store(vi, v + i);
            vec_store(wi, w + i);
            STORE_ROUNDED(wi, rounded + offset + at + i);
            weight_store_private(wi, block + i);
        }
        note_held(noted, control, control_offset, offset + at);
        if (is_matrix)
            store_transposed(block, kn, min(PANEL, N - panel * PANEL), across);
    }
}

/* One step of SGD, of g + decay * w: buffer = momentum * buffer + g (none with momentum 0), w -= rate * buffer. The rest is step_adam's. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void step_sgd(int K, int N, float momentum, float rate, float decay, __global float *weights, ulong offset,
              __global weight *rounded, __global weight *transposed, ulong transposed_offset,
              __global const float *gradient, ulong gradient_offset, __global float *m_buffer,
              __global float *control, ulong control_offset, SHARES)
{
    EACH_SHARE
    {
        const int block_k = share % grid.x, k0 = block_k * PANEL, panel = share / grid.x, kn = min(PANEL, K - k0);
        const ulong at = ((ulong)panel * K + k0) * PANEL;
        __global float *w = weights + offset + at, *m = m_buffer + offset + at;
        __global const float *g = gradient + gradient_offset + offset + at;
        const float factor = control[control_offset + 1];
        const bool is_matrix = transposed_offset != ~(ulong)0;
        weight block[PANEL * PANEL];
        vec_mask noted = 0;
        if (control[control_offset + 2] == 0.0f)
            continue;
        __global weight *across = transposed + transposed_offset + (ulong)block_k * N * PANEL + panel * PANEL * PANEL;
        for (int i = 0; i < kn * PANEL; i += VEC) {
            /* It is written behind this loop, in one go. */
            if (is_matrix)
                PREFETCH_TO_WRITE(across + i);
            const vec w0 = vec_load(w + i), m0 = momentum != 0.0f ? vec_load(m + i) : (vec)0.0f;
            const vec g1 = vec_load(g + i) * factor + decay * w0 + momentum * m0;
            const vec w1 = w0 - rate * g1;
            /* The buffer takes part: with a rate of 0 its infinity would be none of the weight's. */
            const vec_mask good = fabs(w1) <= (vec)GREATEST && fabs(g1) <= (vec)MAXFLOAT;
            const vec gi = select(m0, g1, good), wi = select(w0, w1, good);
            noted = select((vec_mask)(i + 1), noted, good);
            if (momentum != 0.0f)
                vec_store(gi, m + i);
            vec_store(wi, w + i);
            STORE_ROUNDED(wi, rounded + offset + at + i);
            weight_store_private(wi, block + i);
        }
        note_held(noted, control, control_offset, offset + at);
        if (is_matrix)
            store_transposed(block, kn, min(PANEL, N - panel * PANEL), across);
    }
}
#endif
