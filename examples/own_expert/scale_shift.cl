/* A matrix is row-major or in panels: element (r, c) lies at
 *     offset + (c / PANEL) * panel_stride + r * row_stride + c % PANEL
 * and columns from `columns` on are the padding of panels (there a row's stride is PANEL), which is 0, and of vectors. One
 * work-item per column. */
#define AT(name) (name##_offset + (size_t)(column / PANEL) * name##_panels + (size_t)row * name##_rows + column % PANEL)
#define MATRIX(name) global float *name, ulong name##_offset, long name##_rows, long name##_panels
#define ARGUMENTS                                                                                                      \
    int rows, int columns, int accumulate, MATRIX(x), MATRIX(y), MATRIX(dy), global const float *vectors, ulong weight, \
        ulong bias, global float *gradients, ulong grad_weight, ulong grad_bias

kernel void scale_shift_forward(ARGUMENTS)
{
    const int column = get_global_id(0);
    for (int row = 0; row < rows && (column < columns || y_rows == PANEL); row++)
        y[AT(y)] = column < columns ? x[AT(x)] * vectors[weight + column] + vectors[bias + column] : 0;
}

/* dx, in y's place, = dy * weight. */
kernel void scale_shift_backward(ARGUMENTS)
{
    const int column = get_global_id(0);
    for (int row = 0; row < rows && (column < columns || y_rows == PANEL); row++)
        y[AT(y)] = column < columns ? dy[AT(dy)] * vectors[weight + column] : 0;
}

/* The gradients, summed over the rows: of the weight dy * x, of the bias dy. */
kernel void scale_shift_sums(ARGUMENTS)
{
    const int column = get_global_id(0);
    float of_weight = 0, of_bias = 0;
    for (int row = 0; row < rows && column < columns; row++) {
        of_weight += dy[AT(dy)] * x[AT(x)];
        of_bias += dy[AT(dy)];
    }
    gradients[grad_weight + column] = of_weight + (accumulate ? gradients[grad_weight + column] : 0);
    gradients[grad_bias + column] = of_bias + (accumulate ? gradients[grad_bias + column] : 0);
}
