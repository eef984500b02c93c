// Winograd's minimal filtering for 3x3 convolutions of maps with channels last, compiled.
//
// models/winograd.py explains the method, and models/winograd_torch.py has the plain version. Here, a group of tiles
// stays in the cache of a processor core from the first transform to the last, so that a map is read once and written
// once.

#include "tiles.h"

namespace {

// The instructions that compute a product: the type of their registers, and the rows that are computed together.
struct Avx2 {
    typedef lanes Register;
    static constexpr int rows = 6;
};
struct Avx512 {
    typedef float Register __attribute__((vector_size(8 * LANES), aligned(4), may_alias));
    static constexpr int rows = 8;
};

// out (rows, columns) = a (rows, depth) @ b (depth, columns), or += if `add`, for columns that fill `registers` registers.
// Number (i, d) of a is a[i * row + d * step]; rows of b and out are `width` apart.
template <class Set, int rows, int registers, bool add>
INLINE void product_block(const float *a, long row, long step, const float *b, float *out, long depth, long width) {
    typedef typename Set::Register Register;
    constexpr long numbers = sizeof(Register) / sizeof(float);
    Register sum[rows][registers];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int h = 0; h < registers; h++)
            sum[i][h] = add ? *(const Register *)(out + i * width + h * numbers) : Register{0};
    for (long d = 0; d < depth; d++) {
        Register line[registers];
        UNROLL for (int h = 0; h < registers; h++) line[h] = *(const Register *)(b + d * width + h * numbers);
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int h = 0; h < registers; h++) sum[i][h] += a[i * row + d * step] * line[h];
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int h = 0; h < registers; h++) *(Register *)(out + i * width + h * numbers) = sum[i][h];
}

// As product_block, for a width that is a multiple of COLUMNS: two registers of AVX2, or one of AVX-512.
template <class Set, int rows, bool add>
INLINE void product_rows(const float *a, long row, long step, const float *b, float *out, long depth, long width) {
    constexpr long two = 2 * sizeof(typename Set::Register) / sizeof(float);
    long c = 0;
    for (; c + two <= width; c += two)
        product_block<Set, rows, 2, add>(a, row, step, b + c, out + c, depth, width);
    if (c < width) product_block<Set, rows, 1, add>(a, row, step, b + c, out + c, depth, width);
}

// As product_rows, for any number of rows.
template <class Set, bool add>
INLINE void product_with(const float *a, long row, long step, const float *b, float *out, long rows, long depth,
                         long width) {
    for (; rows >= Set::rows; rows -= Set::rows, a += Set::rows * row, out += Set::rows * width)
        product_rows<Set, Set::rows, add>(a, row, step, b, out, depth, width);
    for (; rows >= 2; rows -= 2, a += 2 * row, out += 2 * width)
        product_rows<Set, 2, add>(a, row, step, b, out, depth, width);
    if (rows) product_rows<Set, 1, add>(a, row, step, b, out, depth, width);
}

#define FOR_AVX2 __attribute__((target("avx2,fma")))
#define FOR_AVX512 __attribute__((target("avx512f")))

template <bool add>
FOR_AVX512 void wide_product(const float *a, long row, long step, const float *b, float *out, long rows, long depth,
                             long width) {
    product_with<Avx512, add>(a, row, step, b, out, rows, depth, width);
}

// The product with the widest registers of this processor. All widths add in the same order, so they give the same bits.
template <bool add>
FOR_AVX2 void product(const float *a, long row, long step, const float *b, float *out, long rows, long depth,
                      long width) {
    if (__builtin_cpu_supports("avx512f"))
        wide_product<add>(a, row, step, b, out, rows, depth, width);
    else
        product_with<Avx2, add>(a, row, step, b, out, rows, depth, width);
}

// The parts of a thread's scratch.
template <int m>
struct Scratch {
    static constexpr long n2 = (m + 2) * (m + 2);
    float *inputs, *outputs;  // entries of tiles: (n*n, stride)
    float *zeros, *dropped;   // pixels outside of the maps, to read and to write

    INLINE Scratch(float *start, const Shape &s)
        : inputs(start),
          outputs(inputs + n2 * s.stride(rounded(s.channels))),
          zeros(outputs + n2 * s.stride(rounded(s.filters))),
          dropped(zeros + s.longest()) {
        memset(zeros, 0, s.longest() * sizeof(float));
    }
};

// Convolve tiles `begin` to `end` - 1, and take the maxima of 2 x 2 pixels if `chosen` is not null.
// factors: (n*n, C, rounded K).
template <int m>
INLINE void convolve_tiles(const float *x, const float *factors, float *y, uint8_t *chosen, float *start,
                           const Shape &s, long begin, long end) {
    const Scratch<m> scratch(start, s);
    const long row = rounded(s.channels), width = rounded(s.filters);
    for (long first = begin; first < end; first += s.group) {
        const long count = smaller(s.group, end - first);
        read_tiles(x, MATRICES<m>.b, scratch.inputs, scratch.zeros, s, s.channels, first, count);
        for (long i = 0; i < scratch.n2; i++)
            product<false>(scratch.inputs + i * s.stride(row), row, 1, factors + i * s.channels * width,
                           scratch.outputs + i * s.stride(width), count, s.channels, width);
        if (m % 2 || !chosen)
            write_tiles(scratch.outputs, MATRICES<m>.at, y, scratch.dropped, s, s.filters, first, count);
        else
            write_maxima(scratch.outputs, MATRICES<m>.at, y, chosen, scratch.dropped, s, s.filters, first, count);
    }
}

// Write the gradient of maps `begin` to `end` - 1 of the input, unless of_x is null, and add their part to the gradient
// of the factors. factors: (n*n, K, rounded C); of_factors: (n*n, C, rounded K).
template <int m>
INLINE void differentiate_maps(const float *x, const float *of_y, const uint8_t *chosen, const float *factors,
                               float *of_x, float *of_factors, float *start, const Shape &s, long begin, long end) {
    const Scratch<m> scratch(start, s);
    const long row = rounded(s.channels), width = rounded(s.filters), per_map = s.per_map();
    if (of_x) {
        const long size = s.pixels() * s.channels;
        memset(of_x + begin * size, 0, (end - begin) * size * sizeof(float));
    }
    for (long first = begin * per_map; first < end * per_map; first += s.group) {
        const long count = smaller(s.group, end * per_map - first);
        read_tiles(x, MATRICES<m>.b, scratch.inputs, scratch.zeros, s, s.channels, first, count);
        if (m % 2 || !chosen)
            read_tiles(of_y, MATRICES<m>.a, scratch.outputs, scratch.zeros, s, s.filters, first, count);
        else
            read_maxima(of_y, chosen, MATRICES<m>.a, scratch.outputs, scratch.zeros, s, s.filters, first, count);
        for (long i = 0; i < scratch.n2; i++) {
            float *inputs = scratch.inputs + i * s.stride(row), *outputs = scratch.outputs + i * s.stride(width);
            product<true>(inputs, 1, row, outputs, of_factors + i * s.channels * width, s.channels, count, width);
            if (of_x)  // the entries of x are not needed any more
                product<false>(outputs, width, 1, factors + i * s.filters * row, inputs, count, s.filters, row);
        }
        if (of_x)
            write_tiles(scratch.inputs, MATRICES<m>.bt, of_x, scratch.dropped, s, s.channels, first, count);
    }
}

#define FOR_EACH_SIZE(FUNCTION, ...)              \
    switch (s.m) {                                \
        case 2: return FUNCTION<2>(__VA_ARGS__);  \
        case 3: return FUNCTION<3>(__VA_ARGS__);  \
        case 4: return FUNCTION<4>(__VA_ARGS__);  \
        case 5: return FUNCTION<5>(__VA_ARGS__);  \
        case 6: return FUNCTION<6>(__VA_ARGS__);  \
    }

FOR_AVX2 void convolve(const float *x, const float *factors, float *y, uint8_t *chosen, float *start, const Shape &s,
                       long begin, long end) {
    FOR_EACH_SIZE(convolve_tiles, x, factors, y, chosen, start, s, begin, end)
}

FOR_AVX2 void differentiate(const float *x, const float *of_y, const uint8_t *chosen, const float *factors, float *of_x,
                            float *of_factors, float *start, const Shape &s, long begin, long end) {
    FOR_EACH_SIZE(differentiate_maps, x, of_y, chosen, factors, of_x, of_factors, start, s, begin, end)
}

}  // namespace

extern "C" {

// Whether this processor has the instructions.
int winograd_fits() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// Numbers of scratch that each thread needs.
long winograd_scratch(const Shape *s) {
    const long entries = s->stride(rounded(s->channels)) + s->stride(rounded(s->filters));
    return (s->m + 2) * (s->m + 2) * entries + 2 * s->longest();
}

// y (B, H, W, K) = convolution of x (B, H, W, C). factors: (n*n, C, rounded K); scratch: for all threads. If `chosen` is
// not null, y and `chosen` are (B, H/2, W/2, K): the maxima of 2 x 2 pixels and their places. This needs an even m.
void winograd_convolve(const float *x, const float *factors, float *y, uint8_t *chosen, float *scratch,
                       const Shape *s) {
    const long tiles = s->batch * s->per_map();
#pragma omp parallel for num_threads(s->threads) schedule(static, 1)
    for (long t = 0; t < s->threads; t++)
        convolve(x, factors, y, chosen, scratch + t * winograd_scratch(s), *s, tiles * t / s->threads,
                 tiles * (t + 1) / s->threads);
}

// of_x (B, H, W, C) = gradient of the input, not computed if null. Its tiles overlap, so each thread has maps of its own.
// of_factors (threads, n*n, C, rounded K) += the part of each thread in the gradient of the factors. factors:
// (n*n, K, rounded C); of_y and `chosen` as above.
void winograd_differentiate(const float *x, const float *of_y, const uint8_t *chosen, const float *factors, float *of_x,
                            float *of_factors, float *scratch, const Shape *s) {
    const long size = (s->m + 2) * (s->m + 2) * s->channels * rounded(s->filters);
#pragma omp parallel for num_threads(s->threads) schedule(static, 1)
    for (long t = 0; t < s->threads; t++)
        differentiate(x, of_y, chosen, factors, of_x, of_factors + t * size, scratch + t * winograd_scratch(s), *s,
                      s->batch * t / s->threads, s->batch * (t + 1) / s->threads);
}
}
