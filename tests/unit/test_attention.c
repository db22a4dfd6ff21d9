// timeout: 3000 (at the first run PoCL compiles for minutes)
/* Attention of each provider against its plain C reference: queries, keys and values in one matrix and in three, in
 * both layouts, with and without keys left out, at sizes that no tile divides. Around every result lies NaN that must
 * stay, and pad columns must be 0. */
#include "runtime/layers/attention.h"
#include "unit/matrices_world.h"

/* Some columns of a matrix, on their own. */
static float *columns_of(const float *from, size_t rows, size_t columns, size_t first, size_t count)
{
    float *part = malloc(rows * count * sizeof *part);
    for (size_t row = 0; row < rows; row++)
        memcpy(part + row * count, from + row * columns + first, count * sizeof *part);
    return part;
}

struct sizes {
    size_t rows, tokens, heads, width;
};
static const struct sizes sizes[] = {{1, 1, 1, 1},   {3, 1, 2, 16},  {1, 5, 3, 7},    {2, 33, 2, 24},
                                     {2, 64, 1, 64}, {1, 65, 3, 20}, {2, 130, 1, 72}, {1, 200, 2, 130}};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

enum mask { NO_MASK, SOME_MASKED, ALL_OF_A_ROW_MASKED, MASKS };

/* The last row has every key left out, and what is left out is no number. */
static unsigned char *make_mask(const struct sizes *size, enum mask kind)
{
    unsigned char *mask = calloc(size->rows * size->tokens, 1);
    for (size_t i = 0; i < size->rows * size->tokens && kind != NO_MASK; i++)
        mask[i] = i % 3 == 1 && i % size->tokens != 0 ? (unsigned char)(1 + i % 255) : 0;
    if (kind == ALL_OF_A_ROW_MASKED)
        memset(mask + (size->rows - 1) * size->tokens, 1, size->tokens);
    return mask;
}

/* Whole scores so far apart that powers of them are no floats: of a third of the queries the greatest lies among the
 * second tile's keys, of another third beside them, and the others have scores of 0. Only a head's first column counts.
 */
static void spread_scores(const struct sizes *size, float *qkv)
{
    const size_t hidden = size->heads * size->width;
    for (size_t row = 0; row < size->rows * size->tokens; row++) {
        for (size_t head = 0; head < size->heads; head++) {
            float *q = qkv + row * 3 * hidden + head * size->width, *k = q + hidden;
            const int token = (int)(row % size->tokens);
            memset(q, 0, size->width * sizeof *q);
            q[0] = sqrtf((float)size->width) * (float)(token % 3 - 1);
            k[0] = (float)(40 * (token * 37 % 11 - 5) + (token / 64 == 1 ? 300 : 0));
        }
    }
}

/* In one matrix (`together`) or in three. */
static void agrees(const struct sizes *size, enum mask kind, bool together, bool packed, bool far)
{
    const size_t rows = size->rows * size->tokens, hidden = size->heads * size->width, wide = 3 * hidden;
    unsigned char *mask = make_mask(size, kind);
    float *qkv = random_values(rows * wide, 1), *grad = random_values(rows * hidden, 2);
    float *parts[3], *grads = malloc(rows * wide * sizeof *grads), *grad_parts[3];
    if (far)
        spread_scores(size, qkv);
    for (unsigned i = 0; i < 3; i++) {
        parts[i] = columns_of(qkv, rows, wide, i * hidden, hidden);
        grad_parts[i] = malloc(rows * hidden * sizeof *grads);
    }
    struct reference_attention expected = {
        .rows = size->rows,
        .tokens = size->tokens,
        .heads = size->heads,
        .width = size->width,
        .q = parts[0],
        .k = parts[1],
        .v = parts[2],
        .mask = mask,
        .out = malloc(rows * hidden * sizeof *grads),
        .grad = grad,
        .grad_q = grad_parts[0],
        .grad_k = grad_parts[1],
        .grad_v = grad_parts[2],
    };
    reference_attention(&expected);
    for (size_t row = 0; row < rows; row++) { /* left out: whatever it is */
        for (size_t c = hidden; c < wide && mask[row]; c++)
            qkv[row * wide + c] = parts[c / hidden][row * hidden + c % hidden] = c % 2 ? NAN : INFINITY;
        for (unsigned i = 0; i < 3; i++)
            memcpy(grads + row * wide + i * hidden, grad_parts[i] + row * hidden, hidden * sizeof *grads);
    }

    struct attention_call call = {.rows = (cl_int)size->rows,
                                  .tokens = (cl_int)size->tokens,
                                  .heads = (cl_int)size->heads,
                                  .width = (cl_int)size->width};
    struct attention_gradients gradients = {.out = {matrix(rows, hidden, packed, grad), (cl_int)hidden, 0}};
    struct batched_operand *const operands[] = {&call.q, &call.k, &call.v};
    struct batched_operand *const results[] = {&gradients.q, &gradients.k, &gradients.v};
    const struct kernel_view all = matrix(rows, wide, packed, qkv), all_grads = matrix(rows, wide, packed, NULL);
    for (unsigned i = 0; i < 3; i++) {
        const cl_int columns = (cl_int)(together ? wide : hidden), first = (cl_int)(together ? i * hidden : 0);
        *operands[i] =
            (struct batched_operand){together ? all : matrix(rows, hidden, packed, parts[i]), columns, first};
        *results[i] =
            (struct batched_operand){together ? all_grads : matrix(rows, hidden, packed, NULL), columns, first};
    }
    call.out = (struct batched_operand){matrix(rows, hidden, packed, NULL), (cl_int)hidden, 0};
    unsigned char *shifted = malloc(rows + 3);
    memset(shifted, 1, rows + 3);
    memcpy(shifted + 3, mask, rows);
    call.mask = kind != NO_MASK ? put(shifted, rows + 3) : NULL;
    call.mask_offset_bytes = 3;
    ck_assert_msg(attention_forward(device, &call) == 0, "%s", device_error(device));
    is(&call.out.view, rows, hidden, expected.out, "attention");

    const size_t count = attention_stats_floats(size->rows, size->tokens, size->heads);
    const struct kernel_view stats = matrix(1, count, false, NULL);
    call.stats = stats.buffer;
    call.stats_offset = stats.offset;
    ck_assert_msg(attention_forward(device, &call) == 0, "%s", device_error(device));
    ck_assert_msg(attention_backward(device, &call, &gradients) == 0, "%s", device_error(device));
    is(&call.out.view, rows, hidden, expected.out, "attention that keeps its statistics");
    if (together)
        is(&all_grads, rows, wide, grads, "the gradients together");
    for (unsigned i = 0; i < 3 && !together; i++)
        is(&results[i]->view, rows, hidden, grad_parts[i], "a gradient");
    free(take(&stats, 1, count));
    for (unsigned i = 0; i < 3; i++) {
        free(parts[i]);
        free(grad_parts[i]);
    }
    free(shifted);
    free(mask);
    free(qkv);
    free(grad);
    free(grads);
    free(expected.out);
}

START_TEST(forward_and_backward_are_the_references)
{
    begin(_i);
    for (unsigned i = 0; i < SIZES; i++) {
        for (unsigned kind = 0; kind < MASKS; kind++) {
            agrees(&sizes[i], kind, (i + kind) % 2, i / 2 % 2, false);
            forget();
        }
    }
    end();
}
END_TEST

START_TEST(scores_may_be_as_far_apart_as_they_like)
{
    static const struct sizes far = {1, 200, 2, 16};
    begin(_i);
    for (unsigned kind = 0; kind < MASKS; kind++) {
        agrees(&far, kind, kind % 2, kind / 2, true);
        forget();
    }
    end();
}
END_TEST

/* The same row alone, and behind others: bit for bit. */
START_TEST(a_row_does_not_depend_on_the_others)
{
    enum { ROWS = 3, TOKENS = 70, WIDTH = 20, HEADS = 2, HIDDEN = HEADS * WIDTH };
    begin(_i);
    float *qkv = random_values((size_t)ROWS * TOKENS * 3 * HIDDEN, 5);
    float *results[2];
    for (unsigned alone = 0; alone < 2; alone++) {
        const size_t skip = alone ? (size_t)(ROWS - 1) * TOKENS : 0, rows = (size_t)ROWS * TOKENS - skip;
        const struct kernel_view all = matrix(rows, 3 * HIDDEN, false, qkv + skip * 3 * HIDDEN);
        const struct attention_call call = {.rows = alone ? 1 : ROWS,
                                            .tokens = TOKENS,
                                            .heads = HEADS,
                                            .width = WIDTH,
                                            .q = {all, 3 * HIDDEN, 0},
                                            .k = {all, 3 * HIDDEN, HIDDEN},
                                            .v = {all, 3 * HIDDEN, 2 * HIDDEN},
                                            .out = {matrix(rows, HIDDEN, false, NULL), HIDDEN, 0}};
        ck_assert_int_eq(attention_forward(device, &call), 0);
        results[alone] = take(&call.out.view, rows, HIDDEN);
    }
    ck_assert_mem_eq(results[0] + (size_t)(ROWS - 1) * TOKENS * HIDDEN, results[1], TOKENS * HIDDEN * sizeof(float));
    free(results[0]);
    free(results[1]);
    free(qkv);
    end();
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("attention");
    const int count = support_device_has_clblast() ? PROVIDERS : PROVIDERS - 1;
    tcase_set_timeout(all, 600); /* kernels are compiled at the first run */
    tcase_add_loop_test(all, forward_and_backward_are_the_references, 0, count);
    tcase_add_loop_test(all, scores_may_be_as_far_apart_as_they_like, 0, count);
    tcase_add_loop_test(all, a_row_does_not_depend_on_the_others, 0, count);
    Suite *suite = suite_create("attention");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
