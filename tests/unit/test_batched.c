// timeout: 3000 (at the first run PoCL compiles for minutes, on a busy machine for many)
/* Batched strided products of each provider against their plain C reference: in both layouts, at sizes that no tile
 * divides, side by side in wider matrices, and every operand across. Around every result lies NaN that must stay, and
 * pad columns must be 0. */
#include "runtime/compute/batched.h"
#include "unit/matrices_world.h"

struct sizes {
    size_t matrices, heads, rows, columns, count;
};
static const struct sizes sizes[] = {{1, 1, 1, 1, 1},    {3, 2, 1, 16, 5},    {2, 3, 7, 9, 1},     {1, 2, 33, 24, 70},
                                     {2, 1, 64, 64, 64}, {1, 2, 65, 130, 20}, {1, 1, 130, 10, 129}};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static struct kernel_view view(size_t matrices, size_t rows, size_t columns, bool packed, const float *plain)
{
    return matrix(matrices * rows, columns, packed, plain);
}

static struct batched_operand whole(struct kernel_view at, size_t columns)
{
    return (struct batched_operand){.view = at, .columns = (cl_int)columns};
}

/* out = scale a b, and both gradients as products of the same kind. */
static void agrees(const struct sizes *size, bool b_across, bool packed)
{
    const size_t m = size->matrices, h = size->heads, rows = size->rows, columns = size->columns, count = size->count;
    const size_t a_count = m * rows * h * count, b_count = m * columns * h * count, out_count = m * rows * h * columns;
    const size_t b_rows = b_across ? columns : count, b_columns = h * (b_across ? count : columns);
    float *a = random_values(a_count, 1), *b = random_values(b_count, 2), *grad = random_values(out_count, 3);
    struct reference_matmul expected = {.matrices = m,
                                        .heads = h,
                                        .rows = rows,
                                        .columns = columns,
                                        .count = count,
                                        .b_across = b_across,
                                        .scale = -0.75,
                                        .a = a,
                                        .b = b,
                                        .out = malloc(out_count * sizeof *a),
                                        .grad = grad,
                                        .grad_a = malloc(a_count * sizeof *a),
                                        .grad_b = malloc(b_count * sizeof *a)};
    reference_matmul(&expected);

    const struct batched_operand on_a = whole(view(m, rows, h * count, packed, a), h * count);
    const struct batched_operand on_b = whole(view(m, b_rows, b_columns, !packed, b), b_columns);
    const struct batched_operand on_grad = whole(view(m, rows, h * columns, packed, grad), h * columns);
    struct batched_call call = {.matrices = (cl_int)m,
                                .heads = (cl_int)h,
                                .rows = (cl_int)rows,
                                .columns = (cl_int)columns,
                                .count = (cl_int)count,
                                .b_across = b_across,
                                .scale = -0.75f,
                                .a = on_a,
                                .b = on_b,
                                .out = whole(view(m, rows, h * columns, packed, NULL), h * columns)};
    ck_assert_msg(batched_product(device, &call) == 0, "%s", device_error(device));
    is(&call.out.view, m * rows, h * columns, expected.out, "a product");

    call.columns = (cl_int)count;
    call.count = (cl_int)columns;
    call.b_across = !b_across;
    call.a = on_grad;
    call.out = whole(view(m, rows, h * count, !packed, NULL), h * count);
    ck_assert_msg(batched_product(device, &call) == 0, "%s", device_error(device));
    is(&call.out.view, m * rows, h * count, expected.grad_a, "the first gradient");

    call.rows = (cl_int)b_rows;
    call.columns = (cl_int)(b_columns / h);
    call.count = (cl_int)rows;
    call.a_across = true;
    call.b_across = false;
    call.a = b_across ? on_grad : on_a;
    call.b = b_across ? on_a : on_grad;
    call.out = whole(view(m, b_rows, b_columns, packed, NULL), b_columns);
    ck_assert_msg(batched_product(device, &call) == 0, "%s", device_error(device));
    is(&call.out.view, m * b_rows, b_columns, expected.grad_b, "the second gradient");
    free(a);
    free(b);
    free(grad);
    free(expected.out);
    free(expected.grad_a);
    free(expected.grad_b);
}

START_TEST(products_are_the_references)
{
    begin(_i);
    for (unsigned i = 0; i < SIZES; i++) {
        for (unsigned kind = 0; kind < 4; kind++) {
            agrees(&sizes[i], kind % 2, kind / 2);
            forget();
        }
    }
    end();
}
END_TEST

/* Columns of one wider matrix, as queries and keys lie in it; what is beside them in the result stays. */
START_TEST(operands_lie_anywhere_in_a_matrix)
{
    enum { ROWS = 70, WIDTH = 20, HEADS = 2, HIDDEN = WIDTH * HEADS, ALL = 3 * HIDDEN, OUT = HEADS * ROWS + 9 };
    begin(_i);
    float *all = random_values((size_t)ROWS * ALL, 1), *before = random_values((size_t)ROWS * OUT, 2);
    float *after = malloc((size_t)ROWS * OUT * sizeof *after);
    for (unsigned packed = 0; packed < 2; packed++) {
        const struct kernel_view in = matrix(ROWS, ALL, packed, all), out = matrix(ROWS, OUT, packed, before);
        const struct batched_call call = {.matrices = 1,
                                          .heads = HEADS,
                                          .rows = ROWS,
                                          .columns = ROWS,
                                          .count = WIDTH,
                                          .b_across = true,
                                          .scale = 1,
                                          .a = {in, ALL, 0},
                                          .b = {in, ALL, HIDDEN},
                                          .out = {out, OUT, 4}};
        ck_assert_int_eq(batched_product(device, &call), 0);
        memcpy(after, before, (size_t)ROWS * OUT * sizeof *after);
        for (size_t i = 0; i < (size_t)ROWS * HEADS * ROWS; i++) {
            const size_t row = i / (HEADS * ROWS), head = i / ROWS % HEADS, column = i % ROWS;
            double sum = 0;
            for (size_t k = 0; k < WIDTH; k++)
                sum +=
                    (double)all[row * ALL + head * WIDTH + k] * (double)all[column * ALL + HIDDEN + head * WIDTH + k];
            after[row * OUT + 4 + head * ROWS + column] = (float)sum;
        }
        is(&out, ROWS, OUT, after, "a part of a matrix");
        forget();
    }
    free(all);
    free(before);
    free(after);
    end();
}
END_TEST

/* The last matrix alone, and behind others: bit for bit. */
START_TEST(a_matrix_does_not_depend_on_the_others)
{
    enum { MATRICES = 3, ROWS = 70, COUNT = 33, COLUMNS = 20 };
    begin(_i);
    float *a = random_values((size_t)MATRICES * ROWS * COUNT, 5),
          *b = random_values((size_t)MATRICES * COUNT * COLUMNS, 6);
    float *results[2];
    for (unsigned alone = 0; alone < 2; alone++) {
        const size_t first = alone ? MATRICES - 1 : 0, matrices = MATRICES - first;
        const struct batched_call call = {
            .matrices = (cl_int)matrices,
            .heads = 1,
            .rows = ROWS,
            .columns = COLUMNS,
            .count = COUNT,
            .scale = 1,
            .a = whole(view(matrices, ROWS, COUNT, false, a + first * ROWS * COUNT), COUNT),
            .b = whole(view(matrices, COUNT, COLUMNS, false, b + first * COUNT * COLUMNS), COLUMNS),
            .out = whole(view(matrices, ROWS, COLUMNS, false, NULL), COLUMNS)};
        ck_assert_int_eq(batched_product(device, &call), 0);
        results[alone] = take(&call.out.view, matrices * ROWS, COLUMNS);
    }
    ck_assert_mem_eq(results[0] + (size_t)(MATRICES - 1) * ROWS * COLUMNS, results[1], ROWS * COLUMNS * sizeof(float));
    free(results[0]);
    free(results[1]);
    free(a);
    free(b);
    end();
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("batched");
    const int count = support_device_has_clblast() ? PROVIDERS : PROVIDERS - 1;
    tcase_set_timeout(all, 600); /* kernels are compiled at the first run */
    tcase_add_loop_test(all, products_are_the_references, 0, count);
    tcase_add_loop_test(all, operands_lie_anywhere_in_a_matrix, 0, count);
    tcase_add_loop_test(all, a_matrix_does_not_depend_on_the_others, 0, count);
    Suite *suite = suite_create("batched");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
