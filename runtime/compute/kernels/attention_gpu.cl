/* Attention for GPUs; attention_cpu.cl says what it computes, batched_gpu.cl has its products. A work-group makes a tile of TILE
 * queries of a head (in a backward all of a head): work-item (y, x) has the query y of the tile and of its TILE keys, or of as many
 * columns, each eighth from x on. Sums that are carried from one tile of keys to the next wait in the output, each always its own
 * work-item's. */
#define ATTENTION_MASK 1
#define ATTENTION_STATS 2

/* Groups {rows * heads, tiles of queries}. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void attention(int tokens, int heads, int width, int flags, float scale,
               __global const float *q, long4 q_at, __global const float *k, long4 k_at, __global const float *v, long4 v_at,
               __global float *out, long4 out_at, __global const uchar *mask, ulong mask_at,
               __global float *stats, ulong stats_at)
{
    __local float left[TILE * STRIDE], right[TILE * STRIDE], weights[TILE * STRIDE];
    const int y = get_local_id(0) / BESIDE, x = get_local_id(0) % BESIDE;
    const int first = get_group_id(1) * TILE, rows = min(TILE, tokens - first), head = get_group_id(0) % heads;
    const long row = get_group_id(0) / heads, token = row * tokens;
    const int to = FIRST_COLUMN(out_at) + head * width;
    float greatest = -INFINITY, sum = 0.0f;
    for (int key = 0; key < tokens; key += TILE) {
        const int count = min(TILE, tokens - key), last = key + TILE >= tokens;
        __global const uchar *skip = flags & ATTENTION_MASK ? mask + mask_at + token + key : 0;
        float scores[SUMS];
        for (int u = 0; u < SUMS; u++)
            scores[u] = 0.0f;
        for (int c = 0; c < width; c += TILE) {
            const int columns = min(TILE, width - c);
            gather(left, q, q_at, token + first, rows, FIRST_COLUMN(q_at) + head * width + c, columns, 0);
            gather(right, k, k_at, token + key, count, FIRST_COLUMN(k_at) + head * width + c, columns, skip);
            barrier(CLK_LOCAL_MEM_FENCE);
            ADD_PRODUCT_OF_ROWS(scores, left, right)
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        for (int u = 0; u < SUMS; u++) {
            const int j = x + u * BESIDE;
            weights[y * STRIDE + j] = j < count && !(skip && skip[j]) ? scores[u] * scale : -INFINITY;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        /* The work-items of a query all do the same. */
        float most = greatest;
        for (int j = 0; j < TILE; j++)
            most = fmax(most, weights[y * STRIDE + j]);
        const float base = most == -INFINITY ? 0.0f : most, factor = greatest == -INFINITY ? 0.0f : exp(greatest - base);
        float part = 0.0f;
        for (int j = 0; j < TILE; j++)
            part += exp(weights[y * STRIDE + j] - base);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int u = 0; u < SUMS; u++)
            weights[y * STRIDE + x + u * BESIDE] = exp(weights[y * STRIDE + x + u * BESIDE] - base);
        greatest = most;
        sum = sum * factor + part;
        const float end = !last ? 1.0f : sum == 0.0f ? 0.0f : 1.0f / sum;
        for (int c = 0; c < width; c += TILE) {
            const int columns = min(TILE, width - c);
            gather(right, v, v_at, token + key, count, FIRST_COLUMN(v_at) + head * width + c, columns, skip);
            barrier(CLK_LOCAL_MEM_FENCE);
            for (int u = 0; u < SUMS; u++) {
                const int column = x + u * BESIDE;
                __global float *p = out + out_at.s0 + (token + first + y) * out_at.s1 + COLUMN_AT(to + c + column, out_at.s2);
                if (y >= rows || column >= columns)
                    continue;
                float value = key == 0 ? 0.0f : *p * factor;
                ADD_PRODUCT(value, weights, right, column)
                *p = value * end;
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
    }
    if (flags & ATTENTION_STATS && x == 0 && y < rows)
        stats[stats_at + 2 * ((row * heads + head) * tokens + first + y)] = sum == 0.0f ? INFINITY : greatest + log(sum);
    if (head == heads - 1)
        clear_pads(out, out_at, token + first, rows, to + width);
}

/* Groups {rows * heads}. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void attention_backward(int tokens, int heads, int width, int flags, float scale,
                        __global const float *q, long4 q_at, __global const float *k, long4 k_at,
                        __global const float *v, long4 v_at, __global const float *out, long4 out_at,
                        __global const float *grad, long4 grad_at, __global float *grad_q, long4 grad_q_at,
                        __global float *grad_k, long4 grad_k_at, __global float *grad_v, long4 grad_v_at,
                        __global const uchar *mask, ulong mask_at, __global float *stats, ulong stats_at)
{
    __local float queries[TILE * STRIDE], grads[TILE * STRIDE], keys[TILE * STRIDE], values[TILE * STRIDE];
    __local float weights[TILE * STRIDE], grad_scores[TILE * STRIDE];
    const int y = get_local_id(0) / BESIDE, x = get_local_id(0) % BESIDE;
    const int head = get_group_id(0) % heads, at_g = FIRST_COLUMN(grad_at) + head * width;
    const long row = get_group_id(0) / heads, token = row * tokens;
    const int at_q = FIRST_COLUMN(q_at) + head * width, at_k = FIRST_COLUMN(k_at) + head * width;
    const int at_v = FIRST_COLUMN(v_at) + head * width, at_o = FIRST_COLUMN(out_at) + head * width;
    const int to_q = FIRST_COLUMN(grad_q_at) + head * width, to_k = FIRST_COLUMN(grad_k_at) + head * width;
    const int to_v = FIRST_COLUMN(grad_v_at) + head * width;
    __global float *stat = stats + stats_at + 2 * (row * heads + head) * tokens;
    for (int first = 0; first < tokens; first += TILE) {
        float dot = 0.0f;
        for (int c = x; c < width && first + y < tokens; c += BESIDE)
            dot += out[out_at.s0 + (token + first + y) * out_at.s1 + COLUMN_AT(at_o + c, out_at.s2)] *
                   grad[grad_at.s0 + (token + first + y) * grad_at.s1 + COLUMN_AT(at_g + c, grad_at.s2)];
        weights[y * STRIDE + x] = dot;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (x == 0 && first + y < tokens) {
            for (int i = 1; i < BESIDE; i++)
                dot += weights[y * STRIDE + i];
            stat[2 * (first + y) + 1] = dot;
        }
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    }
    for (int key = 0; key < tokens; key += TILE) {
        const int count = min(TILE, tokens - key);
        __global const uchar *skip = flags & ATTENTION_MASK ? mask + mask_at + token + key : 0;
        for (int first = 0; first < tokens; first += TILE) {
            const int rows = min(TILE, tokens - first);
            float scores[SUMS], dots[SUMS];
            for (int u = 0; u < SUMS; u++)
                scores[u] = dots[u] = 0.0f;
            for (int c = 0; c < width; c += TILE) {
                const int columns = min(TILE, width - c);
                gather(queries, q, q_at, token + first, rows, at_q + c, columns, 0);
                gather(grads, grad, grad_at, token + first, rows, at_g + c, columns, 0);
                gather(keys, k, k_at, token + key, count, at_k + c, columns, skip);
                gather(values, v, v_at, token + key, count, at_v + c, columns, skip);
                barrier(CLK_LOCAL_MEM_FENCE);
                ADD_PRODUCT_OF_ROWS(scores, queries, keys)
                ADD_PRODUCT_OF_ROWS(dots, grads, values)
                barrier(CLK_LOCAL_MEM_FENCE);
            }
            for (int u = 0; u < SUMS; u++) {
                const int j = x + u * BESIDE;
                const bool counts = y < rows && j < count && !(skip && skip[j]);
                const float p = counts ? exp(scores[u] * scale - stat[2 * (first + y)]) : 0.0f;
                weights[y * STRIDE + j] = p;
                grad_scores[y * STRIDE + j] = counts ? p * (dots[u] - stat[2 * (first + y) + 1]) * scale : 0.0f;
            }
            for (int c = 0; c < width; c += TILE) {
                const int columns = min(TILE, width - c);
                if (width > TILE) { /* else they are there still */
                    gather(queries, q, q_at, token + first, rows, at_q + c, columns, 0);
                    gather(grads, grad, grad_at, token + first, rows, at_g + c, columns, 0);
                    gather(keys, k, k_at, token + key, count, at_k + c, columns, skip);
                }
                barrier(CLK_LOCAL_MEM_FENCE);
                for (int u = 0; u < SUMS; u++) {
                    const int column = x + u * BESIDE;
                    float sum_q = 0.0f, sum_k = 0.0f, sum_v = 0.0f;
                    ADD_PRODUCT(sum_q, grad_scores, keys, column)
                    ADD_PRODUCT_ACROSS(sum_k, grad_scores, queries, column)
                    ADD_PRODUCT_ACROSS(sum_v, weights, grads, column)
                    if (column >= columns)
                        continue;
                    if (y < rows) {
                        __global float *p = grad_q + grad_q_at.s0 + (token + first + y) * grad_q_at.s1 +
                                            COLUMN_AT(to_q + c + column, grad_q_at.s2);
                        *p = sum_q + (key > 0 ? *p : 0.0f);
                    }
                    if (y < count) {
                        __global float *p = grad_k + grad_k_at.s0 + (token + key + y) * grad_k_at.s1 +
                                            COLUMN_AT(to_k + c + column, grad_k_at.s2);
                        *p = sum_k + (first > 0 ? *p : 0.0f);
                        p = grad_v + grad_v_at.s0 + (token + key + y) * grad_v_at.s1 +
                            COLUMN_AT(to_v + c + column, grad_v_at.s2);
                        *p = sum_v + (first > 0 ? *p : 0.0f);
                    }
                }
                barrier(CLK_LOCAL_MEM_FENCE);
            }
        }
    }
    if (head == heads - 1) {
        clear_pads(grad_q, grad_q_at, token, tokens, to_q + width);
        clear_pads(grad_k, grad_k_at, token, tokens, to_k + width);
        clear_pads(grad_v, grad_v_at, token, tokens, to_v + width);
    }
}
