// Winograd's minimal filtering for 3x3 convolutions of maps with channels last, compiled.
//
// winograd.py explains the method and has the plain version. Here, a group of tiles stays in the cache of a processor
// core from the first transform to the last, so that a map is read once and written once.
//
// A map (B, H, W, C) is covered by blocks of m x m pixels. A tile is a block, or a block with a border of one pixel.
// It is transformed to n x n entries, where n = m + 2. Entries are stored as (n*n, group, channels). Inside, numbers
// of channels are rounded up to a multiple of COLUMNS, and the channels that are added are zero.

#include <cstring>

namespace {

constexpr long LANES = 8;     // numbers in a register
constexpr long COLUMNS = 16;  // columns and rows of a product that are computed together
constexpr int ROWS = 6;
constexpr int MOST = 8;  // largest n

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

struct Shape {
    long batch, height, width;  // of the maps
    long channels, filters;     // of the input and of the output
    long m;
    long group;  // tiles that are processed together
    long threads;

    long per_map() const { return (height + m - 1) / m * ((width + m - 1) / m); }
    long pixels() const { return height * width; }
    // Distance between two entries of a tile: a line of the cache more than needed, so that the entries of a tile do
    // not compete for the same places in the cache.
    long stride(long row) const { return group * row + COLUMNS; }
    long longest() const { return channels > filters ? channels : filters; }
};

constexpr double POINTS[] = {0, 1, -1, 0.5, -2, -0.5, 2};  // as in winograd.py

// The matrices A (n, m) and B (n, n) for tiles of m x m outputs, and their transposes.
template <int m>
struct Matrices {
    static constexpr int n = m + 2;
    float a[n][m] = {}, b[n][n] = {}, at[m][n] = {}, bt[n][n] = {};

    constexpr Matrices() {
        for (int i = 0; i <= m; i++) {
            double power = 1;
            for (int j = 0; j < m; j++, power *= POINTS[i]) a[i][j] = float(power);
        }
        a[m + 1][m - 1] = 1;
        for (int i = 0; i <= m + 1; i++) {  // coefficients of the product of (x - point) over the other points
            double polynomial[n] = {1};
            int degree = 0;
            for (int j = 0; j <= m; j++) {
                if (j == i) continue;
                for (int k = ++degree; k >= 0; k--)
                    polynomial[k] = (k ? polynomial[k - 1] : 0) - POINTS[j] * (k < degree ? polynomial[k] : 0);
            }
            for (int k = 0; k <= degree; k++) b[i][k] = float(polynomial[k]);
        }
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) {
                if (j < m) at[j][i] = a[i][j];
                bt[j][i] = b[i][j];
            }
    }
};

template <int m>
constexpr Matrices<m> MATRICES;

INLINE long rounded(long channels) { return (channels + COLUMNS - 1) / COLUMNS * COLUMNS; }
INLINE long smaller(long a, long b) { return a < b ? a : b; }

INLINE lanes load(const float *from) { return *(const lanes *)from; }
INLINE void store(float *to, lanes value) { *(lanes *)to = value; }

// out = matrix @ in @ matrix transposed. After unrolling, the compiler leaves out the zeros.
template <int rows, int columns>
INLINE void multiply_sides(const float (&matrix)[rows][columns], const lanes *in, lanes *out) {
    lanes half[MOST * MOST];
    UNROLL for (int v = 0; v < columns; v++)
        UNROLL for (int i = 0; i < rows; i++) {
            lanes sum = {0};
            UNROLL for (int u = 0; u < columns; u++)
                if (matrix[i][u] != 0) sum += matrix[i][u] * in[u * columns + v];
            half[i * columns + v] = sum;
        }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < rows; j++) {
            lanes sum = {0};
            UNROLL for (int v = 0; v < columns; v++)
                if (matrix[j][v] != 0) sum += matrix[j][v] * half[i * columns + v];
            out[i * rows + j] = sum;
        }
}

// Where each pixel of a tile is in the maps, or `outside`. Tiles with a border have a side of n.
template <int side>
struct Pixels {
    float *at[side * side];

    INLINE Pixels(const float *maps, float *outside, const Shape &s, long channels, long tile) {
        const long columns = (s.width + s.m - 1) / s.m, number = tile % s.per_map(), border = side - s.m > 0;
        const long top = number / columns * s.m - border, left = number % columns * s.m - border;
        float *map = const_cast<float *>(maps) + tile / s.per_map() * s.pixels() * channels;
        for (int i = 0; i < side * side; i++) {
            const long y = top + i / side, x = left + i % side;
            const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
            at[i] = inside ? map + (y * s.width + x) * channels : outside;
        }
    }
};

// Write the entries of `count` tiles of the maps, from tile `first` on: matrix @ tile @ matrix transposed.
template <int n, int side>
INLINE void read_tiles(const float *maps, const float (&matrix)[n][side], float *entries, float *zeros, const Shape &s,
                       long channels, long first, long count) {
    const long row = rounded(channels), stride = s.stride(row);
    for (long t = 0; t < count; t++, entries += row) {
        const Pixels<side> pixels(maps, zeros, s, channels, first + t);
        const Pixels<side> next(maps, zeros, s, channels, first + smaller(t + 1, count - 1));
        for (long start = 0; start < channels; start += LANES) {
            const long c = smaller(start, channels - LANES);  // the last LANES may overlap those before
            lanes in[side * side], out[n * n];
            UNROLL for (int i = 0; i < side * side; i++) {
                in[i] = load(pixels.at[i] + c);
                __builtin_prefetch(next.at[i] + c);
            }
            multiply_sides(matrix, in, out);
            UNROLL for (int i = 0; i < n * n; i++) store(entries + i * stride + c, out[i]);
        }
    }
}

// Write matrix @ entries @ matrix transposed to the maps; tiles with a border overlap, and are added to the maps.
template <int side, int n>
INLINE void write_tiles(const float *entries, const float (&matrix)[side][n], float *maps, float *dropped,
                        const Shape &s, long channels, long first, long count) {
    const long row = rounded(channels), stride = s.stride(row);
    for (long t = 0; t < count; t++, entries += row) {
        const Pixels<side> pixels(maps, dropped, s, channels, first + t);
        for (long start = 0; start < channels; start += LANES) {
            const long c = smaller(start, channels - LANES);
            lanes in[n * n], out[side * side], added = {0};
            for (int i = 0; i < LANES; i++) added[i] = c + i >= start;  // not the channels of before
            UNROLL for (int i = 0; i < n * n; i++) in[i] = load(entries + i * stride + c);
            multiply_sides(matrix, in, out);
            UNROLL for (int i = 0; i < side * side; i++) {
                float *to = pixels.at[i] + c;
                store(to, side == n ? load(to) + added * out[i] : out[i]);
            }
        }
    }
}

// out (rows, width) = a (rows, depth) @ b (depth, width), or += if `add`. Number (i, d) of a is a[i * row + d * step].
template <int rows, bool add>
INLINE void product_rows(const float *a, long row, long step, const float *b, float *out, long depth, long width) {
    for (long c = 0; c < width; c += COLUMNS) {
        lanes sum[rows][2];
        for (int i = 0; i < rows; i++)
            for (int h = 0; h < 2; h++) sum[i][h] = add ? load(out + i * width + c + h * LANES) : lanes{0};
        for (long d = 0; d < depth; d++) {
            const lanes b0 = load(b + d * width + c), b1 = load(b + d * width + c + LANES);
            for (int i = 0; i < rows; i++) {
                sum[i][0] += a[i * row + d * step] * b0;
                sum[i][1] += a[i * row + d * step] * b1;
            }
        }
        for (int i = 0; i < rows; i++)
            for (int h = 0; h < 2; h++) store(out + i * width + c + h * LANES, sum[i][h]);
    }
}

template <bool add>
INLINE void product(const float *a, long row, long step, const float *b, float *out, long rows, long depth,
                    long width) {
    for (; rows >= ROWS; rows -= ROWS, a += ROWS * row, out += ROWS * width)
        product_rows<ROWS, add>(a, row, step, b, out, depth, width);
    for (; rows >= 2; rows -= 2, a += 2 * row, out += 2 * width)
        product_rows<2, add>(a, row, step, b, out, depth, width);
    if (rows) product_rows<1, add>(a, row, step, b, out, depth, width);
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

// Convolve maps `begin` to `end` - 1. factors: (n*n, C, rounded K).
template <int m>
INLINE void convolve_maps(const float *x, const float *factors, float *y, float *start, const Shape &s, long begin,
                          long end) {
    const Scratch<m> scratch(start, s);
    const long row = rounded(s.channels), width = rounded(s.filters), per_map = s.per_map();
    for (long first = begin * per_map; first < end * per_map; first += s.group) {
        const long count = smaller(s.group, end * per_map - first);
        read_tiles(x, MATRICES<m>.b, scratch.inputs, scratch.zeros, s, s.channels, first, count);
        for (long i = 0; i < scratch.n2; i++)
            product<false>(scratch.inputs + i * s.stride(row), row, 1, factors + i * s.channels * width,
                           scratch.outputs + i * s.stride(width), count, s.channels, width);
        write_tiles(scratch.outputs, MATRICES<m>.at, y, scratch.dropped, s, s.filters, first, count);
    }
}

// Write the gradient of maps `begin` to `end` - 1 of the input, unless of_x is null, and add their part to the gradient
// of the factors. factors: (n*n, K, rounded C); of_factors: (n*n, C, rounded K).
template <int m>
INLINE void differentiate_maps(const float *x, const float *of_y, const float *factors, float *of_x, float *of_factors,
                               float *start, const Shape &s, long begin, long end) {
    const Scratch<m> scratch(start, s);
    const long row = rounded(s.channels), width = rounded(s.filters), per_map = s.per_map();
    if (of_x) {
        const long size = s.pixels() * s.channels;
        memset(of_x + begin * size, 0, (end - begin) * size * sizeof(float));
    }
    for (long first = begin * per_map; first < end * per_map; first += s.group) {
        const long count = smaller(s.group, end * per_map - first);
        read_tiles(x, MATRICES<m>.b, scratch.inputs, scratch.zeros, s, s.channels, first, count);
        read_tiles(of_y, MATRICES<m>.a, scratch.outputs, scratch.zeros, s, s.filters, first, count);
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

#ifdef __x86_64__
#define FOR_PROCESSOR __attribute__((target("avx2,fma")))
#else
#define FOR_PROCESSOR
#endif

FOR_PROCESSOR void convolve(const float *x, const float *factors, float *y, float *start, const Shape &s, long begin,
                            long end) {
    FOR_EACH_SIZE(convolve_maps, x, factors, y, start, s, begin, end)
}

FOR_PROCESSOR void differentiate(const float *x, const float *of_y, const float *factors, float *of_x,
                                 float *of_factors, float *start, const Shape &s, long begin, long end) {
    FOR_EACH_SIZE(differentiate_maps, x, of_y, factors, of_x, of_factors, start, s, begin, end)
}

}  // namespace

extern "C" {

// Whether this processor has the instructions.
int winograd_fits() {
#ifdef __x86_64__
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}

// Numbers of scratch that each thread needs.
long winograd_scratch(const Shape *s) {
    const long entries = s->stride(rounded(s->channels)) + s->stride(rounded(s->filters));
    return (s->m + 2) * (s->m + 2) * entries + 2 * s->longest();
}

// y (B, H, W, K) = convolution of x (B, H, W, C). factors: (n*n, C, rounded K); scratch: for all threads.
void winograd_convolve(const float *x, const float *factors, float *y, float *scratch, const Shape *s) {
#pragma omp parallel for num_threads(s->threads) schedule(static, 1)
    for (long t = 0; t < s->threads; t++)
        convolve(x, factors, y, scratch + t * winograd_scratch(s), *s, s->batch * t / s->threads,
                 s->batch * (t + 1) / s->threads);
}

// of_x (B, H, W, C) = gradient of the input, not computed if null; of_factors (threads, n*n, C, rounded K) += the part
// of each thread in the gradient of the factors. factors: (n*n, K, rounded C).
void winograd_differentiate(const float *x, const float *of_y, const float *factors, float *of_x, float *of_factors,
                            float *scratch, const Shape *s) {
    const long size = (s->m + 2) * (s->m + 2) * s->channels * rounded(s->filters);
#pragma omp parallel for num_threads(s->threads) schedule(static, 1)
    for (long t = 0; t < s->threads; t++)
        differentiate(x, of_y, factors, of_x, of_factors + t * size, scratch + t * winograd_scratch(s), *s,
                      s->batch * t / s->threads, s->batch * (t + 1) / s->threads);
}
}
