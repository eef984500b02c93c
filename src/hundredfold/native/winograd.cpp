// Winograd's minimal filtering for 3x3 convolutions of maps with channels last, compiled.
//
// winograd.py explains the method and has the plain version. Here, a group of tiles stays in the cache of a processor
// core from the first transform to the last, so that a map is read once and written once.
//
// A map (B, H, W, C) is covered by blocks of m x m pixels. A tile is a block, or a block with a border of one pixel.
// It is transformed to n x n entries, where n = m + 2. Entries are stored as (n*n, group, channels). Inside, numbers
// of channels are rounded up to a multiple of COLUMNS, and the channels that are added are zero.

#include <cstdint>
#include <cstring>

namespace {

constexpr long LANES = 8;     // numbers in a register
constexpr long COLUMNS = 16;  // columns and rows of a product that are computed together
constexpr int ROWS = 6;
constexpr int MOST = 8;  // largest n

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 64")
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t masks __attribute__((vector_size(4 * LANES)));
typedef uint8_t places __attribute__((vector_size(LANES), aligned(1), may_alias));

struct Shape {
    long batch, height, width;  // of the maps
    long channels, filters;     // of the input and of the output
    long m;
    long group;  // tiles that are processed together
    long threads;

    long columns() const { return (width + m - 1) / m; }  // of tiles
    long per_map() const { return (height + m - 1) / m * columns(); }
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

// Where each pixel of a tile is in the maps, or `outside`. Tiles with a border have a side of n. In maps that are pooled
// (halved), tiles have a side of m / 2.
template <int side, bool pooled = false, class Number = float>
struct Pixels {
    Number *at[side * side];

    INLINE Pixels(const Number *maps, Number *outside, const Shape &s, long channels, long tile) {
        const long block = pooled ? s.m / 2 : s.m, border = side > block, number = tile % s.per_map();
        const long height = pooled ? s.height / 2 : s.height, width = pooled ? s.width / 2 : s.width;
        const long top = number / s.columns() * block - border, left = number % s.columns() * block - border;
        Number *map = const_cast<Number *>(maps) + tile / s.per_map() * height * width * channels;
        for (int i = 0; i < side * side; i++) {
            const long y = top + i / side, x = left + i % side;
            const bool inside = y >= 0 && y < height && x >= 0 && x < width;
            at[i] = inside ? map + (y * width + x) * channels : outside;
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

// As write_tiles without a border, but write only the maximum of each 2 x 2 pixels, and its place: 0 to 3 in the order of
// rows. Of equal maxima, the first counts.
template <int m, int n>
INLINE void write_maxima(const float *entries, const float (&matrix)[m][n], float *maps, uint8_t *chosen, float *dropped,
                         const Shape &s, long channels, long first, long count) {
    constexpr int half = m / 2;
    const long row = rounded(channels), stride = s.stride(row);
    for (long t = 0; t < count; t++, entries += row) {
        const Pixels<half, true> pixels(maps, dropped, s, channels, first + t);
        const Pixels<half, true, uint8_t> at(chosen, reinterpret_cast<uint8_t *>(dropped), s, channels, first + t);
        for (long start = 0; start < channels; start += LANES) {
            const long c = smaller(start, channels - LANES);
            lanes in[n * n], out[m * m];
            UNROLL for (int i = 0; i < n * n; i++) in[i] = load(entries + i * stride + c);
            multiply_sides(matrix, in, out);
            UNROLL for (int i = 0; i < half * half; i++) {
                const int corner = i / half * 2 * m + i % half * 2;
                lanes most = out[corner];
                masks place = {0};
                UNROLL for (int j = 1; j < 4; j++) {
                    const lanes other = out[corner + j / 2 * m + j % 2];
                    const masks larger = ~(other <= most);  // true if it is not a number
                    most = larger ? other : most;
                    place = larger ? masks{0} + j : place;
                }
                store(pixels.at[i] + c, most);
                *reinterpret_cast<places *>(at.at[i] + c) = __builtin_convertvector(place, places);
            }
        }
    }
}

// As read_tiles without a border, for gradients of the maxima that write_maxima wrote.
template <int n, int m>
INLINE void read_maxima(const float *maps, const uint8_t *chosen, const float (&matrix)[n][m], float *entries,
                        float *zeros, const Shape &s, long channels, long first, long count) {
    constexpr int half = m / 2;
    const long row = rounded(channels), stride = s.stride(row);
    for (long t = 0; t < count; t++, entries += row) {
        const Pixels<half, true> pixels(maps, zeros, s, channels, first + t);
        const Pixels<half, true, uint8_t> at(chosen, reinterpret_cast<uint8_t *>(zeros), s, channels, first + t);
        for (long start = 0; start < channels; start += LANES) {
            const long c = smaller(start, channels - LANES);
            lanes in[m * m], out[n * n];
            UNROLL for (int i = 0; i < half * half; i++) {
                const int corner = i / half * 2 * m + i % half * 2;
                const lanes gradient = load(pixels.at[i] + c);
                const masks place = __builtin_convertvector(*reinterpret_cast<places *>(at.at[i] + c), masks);
                UNROLL for (int j = 0; j < 4; j++)
                    in[corner + j / 2 * m + j % 2] = place == j ? gradient : lanes{0};
            }
            multiply_sides(matrix, in, out);
            UNROLL for (int i = 0; i < n * n; i++) store(entries + i * stride + c, out[i]);
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

// Convolve maps `begin` to `end` - 1, and take the maxima of 2 x 2 pixels if `chosen` is not null.
// factors: (n*n, C, rounded K).
template <int m>
INLINE void convolve_maps(const float *x, const float *factors, float *y, uint8_t *chosen, float *start, const Shape &s,
                          long begin, long end) {
    const Scratch<m> scratch(start, s);
    const long row = rounded(s.channels), width = rounded(s.filters), per_map = s.per_map();
    for (long first = begin * per_map; first < end * per_map; first += s.group) {
        const long count = smaller(s.group, end * per_map - first);
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

#ifdef __x86_64__
#define FOR_PROCESSOR __attribute__((target("avx2,fma")))
#else
#define FOR_PROCESSOR
#endif

FOR_PROCESSOR void convolve(const float *x, const float *factors, float *y, uint8_t *chosen, float *start,
                            const Shape &s, long begin, long end) {
    FOR_EACH_SIZE(convolve_maps, x, factors, y, chosen, start, s, begin, end)
}

FOR_PROCESSOR void differentiate(const float *x, const float *of_y, const uint8_t *chosen, const float *factors,
                                 float *of_x, float *of_factors, float *start, const Shape &s, long begin, long end) {
    FOR_EACH_SIZE(differentiate_maps, x, of_y, chosen, factors, of_x, of_factors, start, s, begin, end)
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

// y (B, H, W, K) = convolution of x (B, H, W, C). factors: (n*n, C, rounded K); scratch: for all threads. If `chosen` is
// not null, y and `chosen` are (B, H/2, W/2, K): the maxima of 2 x 2 pixels and their places. This needs an even m.
void winograd_convolve(const float *x, const float *factors, float *y, uint8_t *chosen, float *scratch,
                       const Shape *s) {
#pragma omp parallel for num_threads(s->threads) schedule(static, 1)
    for (long t = 0; t < s->threads; t++)
        convolve(x, factors, y, chosen, scratch + t * winograd_scratch(s), *s, s->batch * t / s->threads,
                 s->batch * (t + 1) / s->threads);
}

// of_x (B, H, W, C) = gradient of the input, not computed if null; of_factors (threads, n*n, C, rounded K) += the part
// of each thread in the gradient of the factors. factors: (n*n, K, rounded C); of_y and `chosen` as above.
void winograd_differentiate(const float *x, const float *of_y, const uint8_t *chosen, const float *factors, float *of_x,
                            float *of_factors, float *scratch, const Shape *s) {
    const long size = (s->m + 2) * (s->m + 2) * s->channels * rounded(s->filters);
#pragma omp parallel for num_threads(s->threads) schedule(static, 1)
    for (long t = 0; t < s->threads; t++)
        differentiate(x, of_y, chosen, factors, of_x, of_factors + t * size, scratch + t * winograd_scratch(s), *s,
                      s->batch * t / s->threads, s->batch * (t + 1) / s->threads);
}
}
