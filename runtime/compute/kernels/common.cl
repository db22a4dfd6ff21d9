/* What all kernels share. Built with -DVEC=n (floats of a vector), -DPANEL=n (floats of a panel's row), -DTILE_ROWS=n; with
 * -DHALF_WEIGHTS the matrices of weights that products read are of halves, in the same places, or with -DBFLOAT_WEIGHTS too of
 * bfloat16; with -DQUANTIZED_BITS=8 or 4 they are blocks of scales and codes, as runtime/compute/quantized.h says: whole numbers with
 * halves as scales, or with -DQUANTIZED_FP8 (8) or -DQUANTIZED_MXFP4 (4) small floats.
 *
 * A matrix of R rows and C columns "in panels" is [ceil(C / PANEL)][R][PANEL]; its pad columns are 0. A view is a buffer,
 * an offset and two strides, all in floats: element (r, c) lies at
 *     offset + (c / PANEL) * panel_stride + r * row_stride + c % PANEL
 * so a row-major matrix is the view with row_stride = C and panel_stride = PANEL, and has no pad columns.
 * Offsets and strides are long: one matrix may have more than 2^31 elements. */
#if VEC == 1
typedef float vec;
#else
#define GLUE_(a, b) a##b
#define GLUE(a, b) GLUE_(a, b)
typedef GLUE(float, VEC) vec;
/* One unaligned instruction each. PoCL's own vstore16 is three stores and two extractions. */
typedef vec vec_unaligned __attribute__((aligned(4)));
#define vec_load_private(p) (*(const vec_unaligned *)(p))
#define vec_store_private(v, p) (*(vec_unaligned *)(p) = (v))
#define vec_load(p) (*(__global const vec_unaligned *)(p))
#define vec_store(v, p) (*(__global vec_unaligned *)(p) = (v))
#endif

/* Halves in memory: kept as what holds their bits, as a device without cl_khr_fp16 has no type for them. Reading one is exact, and
 * what is stored is rounded to nearest, ties to even. */
#if VEC > 1 && __has_builtin(__builtin_convertvector) && (defined __F16C__ || defined __aarch64__)
/* One instruction each: PoCL's own take the halves of a vector of 16 one after the other. */
typedef __fp16 halves __attribute__((ext_vector_type(VEC)));
typedef halves halves_unaligned __attribute__((aligned(2)));
#define half_load(p) __builtin_convertvector(*(__global const halves_unaligned *)(p), vec)
#define half_store(v, p) (*(__global halves_unaligned *)(p) = __builtin_convertvector(v, halves))
#define half_store_private(v, p) (*(halves_unaligned *)(p) = __builtin_convertvector(v, halves))
#elif VEC > 1
#define half_load(p) GLUE(vload_half, VEC)(0, (__global const half *)(p))
#define half_store(v, p) GLUE(GLUE(vstore_half, VEC), _rte)(v, 0, (__global half *)(p))
#define half_store_private(v, p) GLUE(GLUE(vstore_half, VEC), _rte)(v, 0, (half *)(p))
#endif

/* An element of a matrix of weights, and the greatest value that it can be rounded of. */
#ifdef QUANTIZED_BITS
typedef uchar weight;
#define QUANTIZED_GROUP 32
/* Scales beside each other in a row of a transposed matrix's panel; and the bytes of a block's, and of a block. */
#define SCALES_BESIDE (PANEL > QUANTIZED_GROUP ? PANEL / QUANTIZED_GROUP : 1)
#define SCALES(flags) ((flags) & LINEAR_TRANSPOSED ? QUANTIZED_GROUP * SCALES_BESIDE : PANEL)
#ifdef QUANTIZED_FP8
#define SCALE_BYTES(flags) 16
#elif defined QUANTIZED_MXFP4
#define SCALE_BYTES(flags) SCALES(flags)
#else
#define SCALE_BYTES(flags) (2 * SCALES(flags))
#endif
#define BLOCK_BYTES(flags) (SCALE_BYTES(flags) + QUANTIZED_GROUP * PANEL * QUANTIZED_BITS / 8)
/* Magnitudes of small floats, of ints with their bits: below 1 in the exponent they are multiples of `unit`. */
#define SMALL_MAGNITUDE(code, mantissa_bits, exponent, unit, TO_FLOATS, AS_FLOATS)                                     \
    ((code) < (1 << mantissa_bits) ? TO_FLOATS(code) * unit                                                            \
                                   : AS_FLOATS(((code) << (23 - mantissa_bits)) + (exponent << 23)))
#define E4M3_MAGNITUDE(code, TO_FLOATS, AS_FLOATS) SMALL_MAGNITUDE(code, 3, 120, 0x1p-9f, TO_FLOATS, AS_FLOATS)
#define E2M1_MAGNITUDE(code, TO_FLOATS, AS_FLOATS) SMALL_MAGNITUDE(code, 1, 126, 0.5f, TO_FLOATS, AS_FLOATS)
/* The bits of a scale of E8M0, of which 0 is 2^-127, a subnormal. */
#define POWER_BITS(code) max((code) << 23, 0x400000)
#elif !defined HALF_WEIGHTS
typedef float weight;
#define weight_load vec_load
#define weight_store vec_store
#define weight_store_private vec_store_private
#define weight_load_four(p) (*(__global const float4 *)(p))
#define weight_store_one(v, p) (*(p) = (v))
#define WEIGHT_GREATEST MAXFLOAT
#elif defined BFLOAT_WEIGHTS
/* The upper half of a float. What is stored is no NaN. */
typedef ushort weight;
#define WEIGHT_GREATEST 0x1.fefffep127f
#define weight_load_four(p) as_float4(convert_uint4(*(__global const ushort4 *)(p)) << 16)
ushort weight_of(float v)
{
    const uint bits = as_uint(v);
    return (ushort)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#define weight_store_one(v, p) (*(p) = weight_of(v))
#if VEC > 1
typedef GLUE(uint, VEC) vec_bits;
typedef GLUE(ushort, VEC) vec_weights;
typedef vec_weights vec_weights_unaligned __attribute__((aligned(2)));
#if __has_builtin(__builtin_convertvector)
#define WIDEN(v) __builtin_convertvector(v, vec_bits)
#define NARROW(v) __builtin_convertvector(v, vec_weights)
#else
#define WIDEN(v) GLUE(convert_uint, VEC)(v)
#define NARROW(v) GLUE(convert_ushort, VEC)(v)
#endif
vec_weights weights_of(vec v)
{
    const vec_bits bits = GLUE(as_uint, VEC)(v);
    return NARROW((bits + (vec_bits)0x7fff + (bits >> 16 & (vec_bits)1)) >> 16);
}
#define weight_load(p) GLUE(as_float, VEC)(WIDEN(*(__global const vec_weights_unaligned *)(p)) << 16)
#define weight_store(v, p) (*(__global vec_weights_unaligned *)(p) = weights_of(v))
#define weight_store_private(v, p) (*(vec_weights_unaligned *)(p) = weights_of(v))
#endif
#else
typedef ushort weight;
#define WEIGHT_GREATEST 65519.996f
#define weight_load_four(p) vload_half4(0, (__global const half *)(p))
#define weight_store_one(v, p) vstore_half_rte(v, 0, (__global half *)(p))
#define weight_load half_load
#define weight_store half_store
#define weight_store_private half_store_private
#endif

/* Elements of a panel's first rows; of quantized weights, whole blocks of them. */
#ifdef QUANTIZED_BITS
#define WEIGHTS_OF_ROWS(rows, flags) (((rows) + QUANTIZED_GROUP - 1) / QUANTIZED_GROUP * (long)BLOCK_BYTES(flags))
#else
#define WEIGHTS_OF_ROWS(rows, flags) ((long)(rows) * PANEL)
#endif

/* A number of 16 bits: a half, or (brain) the upper half of a float, to which a float is rounded to nearest, ties to even. A NaN
 * stays one. */
float short_load_one(__global const ushort *p, int brain)
{
    return brain ? as_float((uint)*p << 16) : vload_half(0, (__global const half *)p);
}
void short_store_one(float v, __global ushort *p, int brain)
{
    const uint bits = as_uint(v);
    if (brain)
        *p = isnan(v) ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    else
        vstore_half_rte(v, 0, (__global half *)p);
}

/* What `linear` does with a sum before it stores it, in this order. runtime/compute/linear.h has the same numbers. */
#define LINEAR_BIAS 1      /* + bias[n] */
#define LINEAR_SAVE 2      /* keep the value so far in `save`, which has the strides of the output */
#define LINEAR_GELU 4      /* gelu(value) */
#define LINEAR_GELU_GRAD 8 /* value * gelu'(second), second being the pre-activation */
#define LINEAR_ADD 16      /* value + second, last of all */
/* The output, the second operand is row-major: it has no pad columns. */
#define LINEAR_OUT_ROWS 32
#define LINEAR_SECOND_ROWS 64
/* Other activations in gelu's place, and back through them; one of each at most. */
#define LINEAR_RELU 128
#define LINEAR_RELU_GRAD 256
#define LINEAR_GELU_ERF 512
#define LINEAR_GELU_ERF_GRAD 1024
#define LINEAR_SILU 2048
#define LINEAR_SILU_GRAD 4096
#define LINEAR_MULTIPLY 8192 /* value * second, before LINEAR_ADD's place */
/* Columns are pairs, a gate beside what it lets through, of which the output has one column each: see `gated`. Neither ADD, MULTIPLY
 * nor a derivative goes with it; `save` is in panels, and there is always one. */
#define LINEAR_GATED 16384
#define LINEAR_TRANSPOSED 32768 /* the weights are a transposed matrix's */
#define LINEAR_ACTIVATION (LINEAR_GELU | LINEAR_RELU | LINEAR_GELU_ERF | LINEAR_SILU)
#define LINEAR_ACTIVATION_GRAD (LINEAR_GELU_GRAD | LINEAR_RELU_GRAD | LINEAR_GELU_ERF_GRAD | LINEAR_SILU_GRAD)
#define LINEAR_TAKES_SECOND (LINEAR_ADD | LINEAR_MULTIPLY | LINEAR_ACTIVATION_GRAD)
#define LINEAR_EPILOGUE (LINEAR_BIAS | LINEAR_SAVE | LINEAR_ACTIVATION | LINEAR_TAKES_SECOND | LINEAR_GATED)

/* exp(x) within 2 units in the last place; inf above 88, 2^-126 below -87. The drivers' vector exp for CPUs costs several
 * times as much, and gelu is where a batch spends its time outside the products. n = round(x / ln 2) by adding 1.5 * 2^23,
 * which leaves n in the low bits; e^(x - n ln 2) by the polynomial of Cephes' expf. */
#if VEC > 1
vec gelu_exp(vec x)
{
    const vec bounded = clamp(x, (vec)-87.0f, (vec)88.0f);
    const vec shifted = bounded * 1.44269504f + 12582912.0f;
    const vec n = shifted - 12582912.0f;
    const vec r = fma(n, (vec)2.12194440e-4f, fma(n, (vec)-0.693359375f, bounded));
    vec p = fma(r, (vec)1.9875691500e-4f, (vec)1.3981999507e-3f);
    p = fma(p, r, (vec)8.3334519073e-3f);
    p = fma(p, r, (vec)4.1665795894e-2f);
    p = fma(p, r, (vec)1.6666665459e-1f);
    p = fma(p, r, (vec)5.0000001201e-1f);
    p = fma(p, r * r, r) + 1.0f;
    const vec power = GLUE(as_float, VEC)((GLUE(as_int, VEC)(shifted) << 23) + (127 << 23));
    return select(p * power, (vec)INFINITY, x > 88.0f);
}
#else
#define gelu_exp exp
#endif

/* gelu(x) = x/2 (1 + tanh(u)) = x sigmoid(2u), u = 0.7978845608 x (1 + 0.044715 x^2): one exp, and no cancellation. */
#define GELU_OF(type, gelu, gelu_grad, exp)                                                                            \
    type gelu(type x)                                                                                                  \
    {                                                                                                                  \
        const type two_u = 1.5957691216f * x * (1.0f + 0.044715f * x * x);                                             \
        return x / (1.0f + exp(-two_u));                                                                               \
    }                                                                                                                  \
    type gelu_grad(type x)                                                                                             \
    {                                                                                                                  \
        const type two_u = 1.5957691216f * x * (1.0f + 0.044715f * x * x);                                             \
        const type s = 1.0f / (1.0f + exp(-two_u));                                                                    \
        return s + x * s * (1.0f - s) * (1.5957691216f * (1.0f + 0.134145f * x * x));                                  \
    }
GELU_OF(vec, gelu, gelu_grad, gelu_exp)

/* gelu with erf: x P(x), P the normal distribution, and its derivative P(x) + x p(x). P(-|x|) = erfc(z) / 2 at z = |x| / sqrt 2,
 * which by Chebyshev fitting is t e^(-z^2 + a polynomial of t), t = 1 / (1 + z / 2), within 1.2e-7 of itself. silu(x) = x / (1 + e^-x).
 * A NaN stays one in each. */
#define ACTIVATIONS_OF(type, activation, activation_grad, gelu, gelu_grad, exp, fabs)                                  \
    type activation##_tail(type x)                                                                                     \
    {                                                                                                                  \
        const type z = fabs(x) * 0.70710678f, t = 1.0f / (1.0f + 0.5f * z);                                            \
        type p = 0.17087277f * t - 0.82215223f;                                                                        \
        p = p * t + 1.48851587f;                                                                                       \
        p = p * t - 1.13520398f;                                                                                       \
        p = p * t + 0.27886807f;                                                                                       \
        p = p * t - 0.18628806f;                                                                                       \
        p = p * t + 0.09678418f;                                                                                       \
        p = p * t + 0.37409196f;                                                                                       \
        p = p * t + 1.00002368f;                                                                                       \
        return 0.5f * t * exp(p * t - 1.26551223f - z * z);                                                            \
    }                                                                                                                  \
    type activation(int flags, type x)                                                                                 \
    {                                                                                                                  \
        if (flags & LINEAR_GELU)                                                                                       \
            return gelu(x);                                                                                            \
        if (flags & LINEAR_RELU)                                                                                       \
            return x < 0.0f ? (type)(0.0f) : x;                                                                        \
        if (flags & LINEAR_SILU)                                                                                       \
            return x / (1.0f + exp(-x));                                                                               \
        const type tail = activation##_tail(x);                                                                        \
        return x * (x < 0.0f ? tail : 1.0f - tail);                                                                    \
    }                                                                                                                  \
    type activation_grad(int flags, type x)                                                                            \
    {                                                                                                                  \
        if (flags & LINEAR_GELU_GRAD)                                                                                  \
            return gelu_grad(x);                                                                                       \
        if (flags & LINEAR_RELU_GRAD)                                                                                  \
            return x > 0.0f ? (type)(1.0f) : (type)(0.0f);                                                             \
        if (flags & LINEAR_SILU_GRAD) {                                                                                \
            const type s = 1.0f / (1.0f + exp(-x));                                                                    \
            return s * (1.0f + x * (1.0f - s));                                                                        \
        }                                                                                                              \
        const type tail = activation##_tail(x);                                                                        \
        return (x < 0.0f ? tail : 1.0f - tail) + x * 0.39894228f * exp(-0.5f * x * x);                                 \
    }
ACTIVATIONS_OF(vec, activation, activation_grad, gelu, gelu_grad, gelu_exp, fabs)

/* A gate g and what it lets through, u: activation(alpha g) / alpha (u + shift), where first g is cut at limit, and u at limit and
 * -limit. how = {limit, alpha, shift, 0}; no limit is INFINITY. A NaN stays one. Back: what dy is for g and for u. */
vec cut_above(vec x, float limit)
{
    return x > limit ? (vec)(limit) : x;
}
vec cut(vec x, float limit)
{
    return x < -limit ? (vec)(-limit) : cut_above(x, limit);
}
vec gated(int flags, float4 how, vec g, vec u)
{
    return activation(flags, cut_above(g, how.x) * how.y) / how.y * (cut(u, how.x) + how.z);
}
vec gate_grad(int flags, float4 how, vec g, vec u, vec dy)
{
    const vec slope = dy * activation_grad(flags, cut_above(g, how.x) * how.y) * (cut(u, how.x) + how.z);
    return g > how.x ? (vec)(0.0f) : slope;
}
vec let_through_grad(int flags, float4 how, vec g, vec u, vec dy)
{
    const vec slope = dy * activation(flags, cut_above(g, how.x) * how.y) / how.y;
    return ((u > how.x) | (u < -how.x)) ? (vec)(0.0f) : slope;
}
