// Tiles of maps with channels last, and the transforms of Winograd's minimal filtering.
//
// A map (B, H, W, C) is covered by blocks of m x m pixels. A tile is a block, or a block with a border of one pixel.
// It is transformed to n x n entries, where n = m + 2. Entries are stored as (n*n, stride): the tiles of a group one
// after the other, with their channels. Room for channels is rounded up to a multiple of COLUMNS; what is in the added
// room never reaches a result.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

constexpr long LANES = 8;  // numbers in a register
constexpr long COLUMNS = 16;  // two registers

#define INLINED __attribute__((always_inline))
#define INLINE inline INLINED
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

constexpr double POINTS[] = {0, 1, -1, 0.5, -2, -0.5, 2};  // as in winograd_torch.py

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
    lanes half[rows * columns];
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

// Write the entries of a tile: matrix @ tile @ matrix transposed, LANES channels at a time. `load_pixels(c, in)` loads
// the pixels of channels c to c + LANES - 1. The last of them may overlap those before.
template <int n, int side, class Load>
INLINE void write_entries(const float (&matrix)[n][side], float *entries, long stride, long channels,
                          const Load &load_pixels) {
    for (long start = 0; start < channels; start += LANES) {
        const long c = smaller(start, channels - LANES);
        lanes in[side * side], out[n * n];
        load_pixels(c, in);
        multiply_sides(matrix, in, out);
        UNROLL for (int i = 0; i < n * n; i++) store(entries + i * stride + c, out[i]);
    }
}

// Compute matrix @ entries @ matrix transposed for a tile. `store_pixels(c, start, out)` stores the pixels of channels c to
// c + LANES - 1, of which those before `start` are stored already.
template <int side, int n, class Store>
INLINE void read_entries(const float (&matrix)[side][n], const float *entries, long stride, long channels,
                         const Store &store_pixels) {
    for (long start = 0; start < channels; start += LANES) {
        const long c = smaller(start, channels - LANES);
        lanes in[n * n], out[side * side];
        UNROLL for (int i = 0; i < n * n; i++) in[i] = load(entries + i * stride + c);
        multiply_sides(matrix, in, out);
        store_pixels(c, start, out);
    }
}

// Write the entries of `count` tiles of the maps, from tile `first` on.
template <int n, int side>
INLINE void read_tiles(const float *maps, const float (&matrix)[n][side], float *entries, float *zeros, const Shape &s,
                       long channels, long first, long count) {
    const long row = rounded(channels);
    for (long t = 0; t < count; t++, entries += row) {
        const Pixels<side> pixels(maps, zeros, s, channels, first + t);
        const Pixels<side> next(maps, zeros, s, channels, first + smaller(t + 1, count - 1));
        write_entries(matrix, entries, s.stride(row), channels, [&](long c, lanes *in) INLINED {
            UNROLL for (int i = 0; i < side * side; i++) {
                in[i] = load(pixels.at[i] + c);
                __builtin_prefetch(next.at[i] + c);
            }
        });
    }
}

// Write tiles to the maps; tiles with a border overlap, and are added to the maps.
template <int side, int n>
INLINE void write_tiles(const float *entries, const float (&matrix)[side][n], float *maps, float *dropped,
                        const Shape &s, long channels, long first, long count) {
    const long row = rounded(channels);
    for (long t = 0; t < count; t++, entries += row) {
        const Pixels<side> pixels(maps, dropped, s, channels, first + t);
        read_entries(matrix, entries, s.stride(row), channels, [&](long c, long start, const lanes *out) INLINED {
            lanes added = {0};
            for (int i = 0; i < LANES; i++) added[i] = c + i >= start;
            UNROLL for (int i = 0; i < side * side; i++) {
                float *to = pixels.at[i] + c;
                store(to, side == n ? load(to) + added * out[i] : out[i]);
            }
        });
    }
}

// As write_tiles without a border, but write only the maximum of each 2 x 2 pixels, and its place: 0 to 3 in the order of
// rows. Of equal maxima, the first counts.
template <int m, int n>
INLINE void write_maxima(const float *entries, const float (&matrix)[m][n], float *maps, uint8_t *chosen, float *dropped,
                         const Shape &s, long channels, long first, long count) {
    constexpr int half = m / 2;
    const long row = rounded(channels);
    for (long t = 0; t < count; t++, entries += row) {
        const Pixels<half, true> pixels(maps, dropped, s, channels, first + t);
        const Pixels<half, true, uint8_t> at(chosen, reinterpret_cast<uint8_t *>(dropped), s, channels, first + t);
        read_entries(matrix, entries, s.stride(row), channels, [&](long c, long, const lanes *out) INLINED {
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
        });
    }
}

// As read_tiles without a border, for gradients of the maxima that write_maxima wrote.
template <int n, int m>
INLINE void read_maxima(const float *maps, const uint8_t *chosen, const float (&matrix)[n][m], float *entries,
                        float *zeros, const Shape &s, long channels, long first, long count) {
    constexpr int half = m / 2;
    const long row = rounded(channels);
    for (long t = 0; t < count; t++, entries += row) {
        const Pixels<half, true> pixels(maps, zeros, s, channels, first + t);
        const Pixels<half, true, uint8_t> at(chosen, reinterpret_cast<uint8_t *>(zeros), s, channels, first + t);
        write_entries(matrix, entries, s.stride(row), channels, [&](long c, lanes *in) INLINED {
            UNROLL for (int i = 0; i < half * half; i++) {
                const int corner = i / half * 2 * m + i % half * 2;
                const lanes gradient = load(pixels.at[i] + c);
                const masks place = __builtin_convertvector(*reinterpret_cast<places *>(at.at[i] + c), masks);
                UNROLL for (int j = 0; j < 4; j++)
                    in[corner + j / 2 * m + j % 2] = place == j ? gradient : lanes{0};
            }
        });
    }
}

}  // namespace
