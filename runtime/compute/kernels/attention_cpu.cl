/* Attention for CPU devices: softmax(q k^T / sqrt(width)) v for each row and head, by tiles, so that scores are never written
 * beyond a tile: a tile of queries meets one tile of keys after the other, and keeps each query's greatest score and sum of
 * exponentials so far ("online softmax"); the backward computes the scores again and has the weights from the logarithm of that
 * sum. All in fp32, whatever the precision. The products, one for each row, head and tile, are those of batched_cpu.cl, as is `at` of
 * each matrix. With ATTENTION_MASK, mask[rows][tokens] has a byte that is not 0
 * for keys that are left out, of which keys and values count for nothing, whatever they are; a query whose keys are all left out
 * gets 0, and so do its gradients. stats[rows][heads][tokens] = {logarithm of the sum, for the backward: sum of out * grad_out}. */
#define ATTENTION_MASK 1
#define ATTENTION_STATS 2 /* the forward is to keep them */

#define QUERY_TILE 128  /* queries at a time, of a forward; in a backward TILE. Of keys and columns of a head it is TILE */

/* The greatest lane, and the sum of all, by halves and always in the same order: one lane after the other takes several times as
 * long, and there are both for each query and tile of keys. */
#if VEC == 16
#define TO_FOUR(v, op) const float8 eight = op(v.lo, v.hi); const float4 four = op(eight.lo, eight.hi);
#elif VEC == 8
#define TO_FOUR(v, op) const float4 four = op(v.lo, v.hi);
#else
#define TO_FOUR(v, op) const float4 four = v;
#endif
#define PLUS(a, b) ((a) + (b))

float lanes_max(vec v)
{
    TO_FOUR(v, fmax)
    const float2 two = fmax(four.lo, four.hi);
    return fmax(two.x, two.y);
}

float lanes_sum(vec v)
{
    TO_FOUR(v, PLUS)
    const float2 two = four.lo + four.hi;
    return two.x + two.y;
}

/* e^t for t <= 0, 0 below -87; NaN stays. */
vec exp_negative(vec t)
{
    const vec e = gelu_exp(t);
    return t != t ? t : t < -87.0f ? (vec)(0.0f) : e;
}

/* What is added to the scores of a tile of keys: 0, or -inf for those left out or beyond the last. */
void key_bias(float *bias, int keys, __global const uchar *skip)
{
    for (int j = 0; j < TILE; j++)
        bias[j] = j < keys && !(skip && skip[j]) ? 0.0f : -INFINITY;
}

/* scores[TILE] become weights, in relation to the greatest score so far, which is brought up to date; *behind is by how much it
 * was less before (-inf: there was none), the result the sum of the weights. */
float soften(float *scores, float scale, const float *bias, float *greatest, float *behind)
{
    vec most = -INFINITY, weights = 0.0f;
    for (int j = 0; j < TILE; j += VEC) {
        const vec s = vec_load_private(scores + j) * scale + vec_load_private(bias + j);
        vec_store_private(s, scores + j);
        most = fmax(most, s);
    }
    const float before = *greatest, now = fmax(before, lanes_max(most)), base = now == -INFINITY ? 0.0f : now;
    for (int j = 0; j < TILE; j += VEC) {
        const vec p = exp_negative(vec_load_private(scores + j) - base);
        vec_store_private(p, scores + j);
        weights += p;
    }
    *greatest = now;
    *behind = before - base;
    return lanes_sum(weights);
}

/* Grid {tiles of queries, rows * heads}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void attention(int tokens, int heads, int width, int flags, float scale,
               __global const float *q, long4 q_at, __global const float *k, long4 k_at, __global const float *v, long4 v_at,
               __global float *out, long4 out_at, __global const uchar *mask, ulong mask_at,
               __global float *stats, ulong stats_at, SHARES)
{
    float queries[QUERY_TILE * TILE] __attribute__((aligned(64))), scores[QUERY_TILE * TILE] __attribute__((aligned(64)));
    float sums[QUERY_TILE * TILE] __attribute__((aligned(64))), keys[TILE * TILE] __attribute__((aligned(64)));
    float values[TILE * TILE] __attribute__((aligned(64))), bias[TILE] __attribute__((aligned(64)));
    float greatest[QUERY_TILE], sum[QUERY_TILE], factors[QUERY_TILE], parts_sum[QUERY_TILE];
    EACH_SHARE
    {
        const int first = share % grid.x * QUERY_TILE, rows = min(QUERY_TILE, tokens - first);
        const int head = share / grid.x % heads, parts = (width + TILE - 1) / TILE;
        const long row = share / grid.x / heads, token = row * tokens;
        const int pads = head == heads - 1 ? PAD_COLUMNS(out_at) : 0, to = FIRST_COLUMN(out_at) + head * width;
        for (int i = 0; i < QUERY_TILE; i++) {
            greatest[i] = -INFINITY;
            sum[i] = factors[i] = parts_sum[i] = 0.0f;
        }
        for (int key = 0; key < tokens; key += TILE) {
            const int count = min(TILE, tokens - key);
            __global const uchar *skip = flags & ATTENTION_MASK ? mask + mask_at + token + key : 0;
            key_bias(bias, count, skip);
            for (int part = 0; part < parts; part++) {
                const int c = part * TILE, columns = min(TILE, width - c);
                if (key == 0 || parts > 1)
                    gather(queries, q, q_at, token + first, rows, FIRST_COLUMN(q_at) + head * width + c, columns, 0);
                gather_transposed(keys, k, k_at, token + key, count, FIRST_COLUMN(k_at) + head * width + c, columns, skip);
                tile_product(scores, part == 0, queries, keys, rows, count, columns);
                for (int i = 0; i < rows; i++)
                    for (int j = (count + PANEL - 1) / PANEL * PANEL; j < TILE; j++)
                        scores[i * TILE + j] = 0.0f; /* not computed; their bias is -inf */
            }
            for (int i = 0; i < rows; i++)
                parts_sum[i] = soften(scores + i * TILE, scale, bias, &greatest[i], &factors[i]);
            for (int i = 0; i < rows; i += VEC) {
                const vec factor = exp_negative(vec_load_private(factors + i));
                vec_store_private(factor, factors + i);
                vec_store_private(vec_load_private(sum + i) * factor + vec_load_private(parts_sum + i), sum + i);
            }
            /* A head of several parts has its sums in `out` meanwhile. */
            for (int part = 0; part < parts; part++) {
                const int c = part * TILE, columns = min(TILE, width - c);
                gather(values, v, v_at, token + key, count, FIRST_COLUMN(v_at) + head * width + c, columns, skip);
                if (key > 0) {
                    if (parts > 1)
                        gather(sums, out, out_at, token + first, rows, to + c, columns, 0);
                    for (int i = 0; i < rows; i++)
                        for (int j = 0; j < TILE; j += VEC)
                            vec_store_private(vec_load_private(sums + i * TILE + j) * factors[i], sums + i * TILE + j);
                }
                tile_product(sums, key == 0, scores, values, rows, columns, count);
                if (parts > 1)
                    scatter(sums, 0, 0, out, out_at, token + first, rows, to + c, columns, 0);
            }
        }
        for (int i = 0; i < rows; i++) {
            factors[i] = sum[i] == 0.0f ? 0.0f : 1.0f / sum[i];
            if (flags & ATTENTION_STATS)
                stats[stats_at + 2 * ((row * heads + head) * tokens + first + i)] =
                    sum[i] == 0.0f ? INFINITY : greatest[i] + log(sum[i]);
        }
        for (int part = 0; part < parts; part++) {
            const int c = part * TILE, columns = min(TILE, width - c);
            if (parts > 1)
                gather(sums, out, out_at, token + first, rows, to + c, columns, 0);
            scatter(sums, factors, 0, out, out_at, token + first, rows, to + c, columns, part == parts - 1 ? pads : 0);
        }
    }
}

/* stats' second: for each query the sum of out * grad_out over the head. */
void grad_dots(__global float *stats, int tokens, int column_o, __global const float *out, long4 out_at, int column_g,
               __global const float *grad, long4 grad_at, long token, int width)
{
    float o[TILE] __attribute__((aligned(64))), g[TILE] __attribute__((aligned(64)));
    for (int i = 0; i < tokens; i++) {
        vec dot = 0.0f;
        for (int c = 0; c < width; c += TILE) {
            const int columns = min(TILE, width - c);
            gather_row(o, out + out_at.s0 + (token + i) * out_at.s1, out_at.s2, column_o + c, columns);
            gather_row(g, grad + grad_at.s0 + (token + i) * grad_at.s1, grad_at.s2, column_g + c, columns);
            for (int j = 0; j < TILE; j += VEC)
                dot += vec_load_private(o + j) * vec_load_private(g + j);
        }
        stats[2 * i + 1] = vec_sum(dot);
    }
}

/* With p the weights, from the forward's `stats`, and dp = grad_out v^T, ds = p (dp - sum of out * grad_out) scale:
 *     grad_v = p^T grad_out, grad_q = ds k, grad_k = ds^T q.
 * Tiles of keys keep their sums; grad_q is where its own are. Grid {1, rows * heads}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void attention_backward(int tokens, int heads, int width, int flags, float scale,
                        __global const float *q, long4 q_at, __global const float *k, long4 k_at,
                        __global const float *v, long4 v_at, __global const float *out, long4 out_at,
                        __global const float *grad, long4 grad_at, __global float *grad_q, long4 grad_q_at,
                        __global float *grad_k, long4 grad_k_at, __global float *grad_v, long4 grad_v_at,
                        __global const uchar *mask, ulong mask_at, __global float *stats, ulong stats_at, SHARES)
{
    float queries[TILE * TILE] __attribute__((aligned(64))), grads[TILE * TILE] __attribute__((aligned(64)));
    float keys[TILE * TILE] __attribute__((aligned(64))), keys_across[TILE * TILE] __attribute__((aligned(64)));
    float values_across[TILE * TILE] __attribute__((aligned(64))), weights[TILE * TILE] __attribute__((aligned(64)));
    float grad_scores[TILE * TILE] __attribute__((aligned(64))), sums[TILE * TILE] __attribute__((aligned(64)));
    float sums_k[TILE * TILE] __attribute__((aligned(64))), sums_v[TILE * TILE] __attribute__((aligned(64)));
    float bias[TILE] __attribute__((aligned(64)));
    EACH_SHARE
    {
        const int head = share % heads, parts = (width + TILE - 1) / TILE, last = head == heads - 1;
        const long row = share / heads, token = row * tokens;
        const int at_q = FIRST_COLUMN(q_at) + head * width, at_k = FIRST_COLUMN(k_at) + head * width;
        const int at_v = FIRST_COLUMN(v_at) + head * width, at_g = FIRST_COLUMN(grad_at) + head * width;
        const int to_q = FIRST_COLUMN(grad_q_at) + head * width, to_k = FIRST_COLUMN(grad_k_at) + head * width;
        const int to_v = FIRST_COLUMN(grad_v_at) + head * width;
        __global float *stat = stats + stats_at + 2 * (row * heads + head) * tokens;
        grad_dots(stat, tokens, FIRST_COLUMN(out_at) + head * width, out, out_at, at_g, grad, grad_at, token, width);
        for (int key = 0; key < tokens; key += TILE) {
            const int count = min(TILE, tokens - key);
            __global const uchar *skip = flags & ATTENTION_MASK ? mask + mask_at + token + key : 0;
            key_bias(bias, count, skip);
            for (int first = 0; first < tokens; first += TILE) {
                const int rows = min(TILE, tokens - first), again = parts > 1 || first == 0;
                for (int part = 0; part < parts; part++) {
                    const int c = part * TILE, columns = min(TILE, width - c);
                    gather(queries, q, q_at, token + first, rows, at_q + c, columns, 0);
                    gather(grads, grad, grad_at, token + first, rows, at_g + c, columns, 0);
                    if (again) {
                        gather_transposed(keys_across, k, k_at, token + key, count, at_k + c, columns, skip);
                        gather_transposed(values_across, v, v_at, token + key, count, at_v + c, columns, skip);
                    }
                    tile_product(weights, part == 0, queries, keys_across, rows, TILE, columns);
                    tile_product(grad_scores, part == 0, grads, values_across, rows, TILE, columns);
                }
                for (int i = 0; i < rows; i++) {
                    const float lse = stat[2 * (first + i)], dot = stat[2 * (first + i) + 1];
                    for (int j = 0; j < TILE; j += VEC) {
                        const vec s = vec_load_private(weights + i * TILE + j) * scale + vec_load_private(bias + j);
                        const vec p = exp_negative(s - lse);
                        vec_store_private(p, weights + i * TILE + j);
                        vec_store_private(p * (vec_load_private(grad_scores + i * TILE + j) - dot) * scale,
                                          grad_scores + i * TILE + j);
                    }
                }
                for (int part = 0; part < parts; part++) {
                    const int c = part * TILE, columns = min(TILE, width - c);
                    const int pads = last && part == parts - 1, ends = parts > 1 || first + rows == tokens;
                    if (again)
                        gather(keys, k, k_at, token + key, count, at_k + c, columns, skip);
                    if (parts > 1) {
                        gather(queries, q, q_at, token + first, rows, at_q + c, columns, 0);
                        gather(grads, grad, grad_at, token + first, rows, at_g + c, columns, 0);
                        if (first > 0) {
                            gather(sums_k, grad_k, grad_k_at, token + key, count, to_k + c, columns, 0);
                            gather(sums_v, grad_v, grad_v_at, token + key, count, to_v + c, columns, 0);
                        }
                    }
                    tile_product_across(sums_v, first == 0, weights, grads, count, columns, rows);
                    tile_product_across(sums_k, first == 0, grad_scores, queries, count, columns, rows);
                    tile_product(sums, 1, grad_scores, keys, rows, columns, count);
                    scatter(sums, 0, key > 0, grad_q, grad_q_at, token + first, rows, to_q + c, columns,
                            pads ? PAD_COLUMNS(grad_q_at) : 0);
                    if (ends) {
                        scatter(sums_k, 0, 0, grad_k, grad_k_at, token + key, count, to_k + c, columns,
                                pads ? PAD_COLUMNS(grad_k_at) : 0);
                        scatter(sums_v, 0, 0, grad_v, grad_v_at, token + key, count, to_v + c, columns,
                                pads ? PAD_COLUMNS(grad_v_at) : 0);
                    }
                }
            }
        }
    }
}
