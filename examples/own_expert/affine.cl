/* y = x * w + b, element by element; one work-item per element, or per column. */
kernel void affine_forward(global const float *x, ulong x_offset, global float *y, ulong y_offset,
                           global const float *weights, ulong w_offset, ulong b_offset, int hidden)
{
    const size_t column = get_global_id(0), row = get_global_id(1), at = row * hidden + column;
    y[y_offset + at] = x[x_offset + at] * weights[w_offset + column] + weights[b_offset + column];
}

/* dx = dy * w, dw = sum of dy * x over the rows, db = sum of dy. Columns from hidden on are the padding of dw and db. */
kernel void affine_backward(global const float *x, ulong x_offset, global const float *dy, ulong dy_offset,
                            global float *dx, ulong dx_offset, global const float *weights, ulong w_offset,
                            global float *gradient, ulong dw_offset, ulong db_offset, int hidden, int rows)
{
    const int column = get_global_id(0);
    float dw = 0, db = 0;
    for (int row = 0; row < rows && column < hidden; row++) {
        const size_t at = (size_t)row * hidden + column;
        const float g = dy[dy_offset + at];
        dw += g * x[x_offset + at];
        db += g;
        dx[dx_offset + at] = g * weights[w_offset + column];
    }
    gradient[dw_offset + column] = dw;
    gradient[db_offset + column] = db;
}
