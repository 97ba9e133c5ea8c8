// Products of a few rows with a matrix of weights that was packed once, in float32 or bfloat16.
//
// A packed matrix is panels of `width` output columns; a panel lies in the order in which it is
// read: for each input the weights of its columns. A tile is some rows times one panel: each vector
// of weights is loaded once, from L2 where the model does not fit L1, and used for all rows.
//
// With bfloat16 a "float" of rows and weights is a pair of bfloat16 of neighbouring inputs, which
// one instruction multiplies and adds to a float32 sum.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>
#include <utility>
#include <vector>

#include "cpu_simd.hpp"

namespace fused {

// A model's memory: zeros at the start of a cache line, which nothing frees before the model is
// gone. (Pages of 2 MB were tried for it, and made no difference.)
class Arena {
 public:
    Arena() = default;
    Arena(const Arena &) = delete;
    ~Arena() {
        for (void *part : parts_) std::free(part);
    }

    float *zeros(size_t count) {
        const size_t bytes = (count * sizeof(float) / 64 + 1) * 64;
        parts_.reserve(parts_.size() + 1);  // so that what is allocated next cannot be lost
        void *part = std::aligned_alloc(64, bytes);
        if (!part) throw std::bad_alloc();
        parts_.push_back(part);
        std::memset(part, 0, bytes);
        return static_cast<float *>(part);
    }

    float *copy(const float *from, size_t count) {
        float *to = zeros(count);
        std::memcpy(to, from, count * sizeof(float));
        return to;
    }

 private:
    std::vector<void *> parts_;
};

// Where a tile's rows lie. Row m is `segments` runs of `length` floats, the first at `at + m * row`
// and each `segment` after the one before: one run for a token, one for each line of a
// convolution's window.
struct Rows {
    const float *at;
    long row;
    int length;
    int segments = 1;
    long segment = 0;
};

struct Float32 {
    static V add_product(V sum, V weights, float input) { return sum + weights * input; }
};

#if defined(__AVX512BF16__)
struct BFloat16 {
    static V add_product(V sum, V weights, float pair) {
        return (V)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights, (__m512bh)_mm512_set1_ps(pair));
    }
};
#endif

template <class Math, int ROWS, int VECTORS>
void tile(const Rows &rows, const float *panel, float *out) {
    V sums[ROWS][VECTORS] = {};
    if (rows.segments < 1 || rows.length < 1) __builtin_unreachable();
    for (int s = 0; s < rows.segments; s++) {
        const float *input = rows.at + s * rows.segment;
#pragma GCC unroll 2
        for (int k = 0; k < rows.length; k++, panel += VECTORS * VEC) {
            V weights[VECTORS];
            for (int v = 0; v < VECTORS; v++) weights[v] = in_register(load(panel + v * VEC));
            for (int m = 0; m < ROWS; m++)
                for (int v = 0; v < VECTORS; v++)
                    sums[m][v] = Math::add_product(sums[m][v], weights[v], input[m * rows.row + k]);
        }
    }
    for (int m = 0; m < ROWS; m++)
        for (int v = 0; v < VECTORS; v++) store(out + (m * VECTORS + v) * VEC, sums[m][v]);
}

using Tile = void (*)(const Rows &, const float *, float *);
using Tiles = std::array<Tile, MAX_ROWS + 1>;  // by the number of rows; none for 0

template <class Math, int VECTORS, int... ROWS>
constexpr Tiles tiles_of(std::integer_sequence<int, ROWS...>) {
    return {nullptr, tile<Math, ROWS + 1, VECTORS>...};
}

template <class Math, int WIDTH>
constexpr Tiles TILES = tiles_of<Math, WIDTH / VEC>(std::make_integer_sequence<int, MAX_ROWS>{});

// put(row, values): some rows in tiles of nearly equal height (9 is 4 + 5 and not 8 + 1).
template <class Put>
inline void by_tiles(const Tiles &tiles, const Rows &rows, int count, const float *panel, int width,
                     Put &&put) {
    alignas(64) float out[MAX_ROWS * TILE];
    const int parts = (count + MAX_ROWS - 1) / MAX_ROWS;
    for (int part = 0; part < parts; part++) {
        const int first = count * part / parts, height = count * (part + 1) / parts - first;
        Rows these = rows;
        these.at += first * rows.row;
        tiles[height](these, panel, out);
        for (int m = 0; m < height; m++) put(first + m, out + m * width);
    }
}

// To the nearest, ties to even; not for what is not a number.
inline uint16_t to_bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

class Matrix {
 public:
    // `weights` (outputs, inputs) in the order of torch's Linear.
    Matrix(Arena &arena, const float *weights, int outputs, int inputs, bool bfloat16 = false)
        : outputs(outputs),
          inputs(inputs),
          width(outputs <= 16 ? 16 : TILE),
          length(bfloat16 ? (inputs + 1) / 2 : inputs),
          panels(padded(outputs, width) / width),
          data_(arena.zeros(size_t(panels) * width * length)) {
        if (bfloat16)
            pack_pairs(weights);
        else
            for (int n = 0; n < outputs; n++)
                for (int k = 0; k < inputs; k++)
                    data_[index(n, k)] = weights[size_t(n) * inputs + k];
        tiles_ = width == 16 ? &TILES<Float32, 16> : &TILES<Float32, TILE>;
#if defined(__AVX512BF16__)
        if (bfloat16) tiles_ = width == 16 ? &TILES<BFloat16, 16> : &TILES<BFloat16, TILE>;
#endif
    }

    // put(row, column, values): `width` outputs of a row from `column` on; from panel `first` on.
    template <class Put>
    void multiply(const Rows &rows, int count, Put &&put, int first = 0) const {
        for (int p = first; p < panels; p++) {
            const float *panel = data_ + size_t(p) * width * length;
            by_tiles(*tiles_, rows, count, panel, width,
                     [&](int row, const float *values) { put(row, p * width, values); });
        }
    }

    // `length`: floats of a row that are read, half of `inputs` in pairs of bfloat16.
    int outputs, inputs, width, length, panels;

 private:
    size_t index(int n, int k) const {
        return (size_t(n / width) * length + k) * width + n % width;
    }

    void pack_pairs(const float *weights) {
        for (int n = 0; n < outputs; n++)
            for (int k = 0; k < inputs; k++) {
                uint16_t *pair = reinterpret_cast<uint16_t *>(&data_[index(n, k / 2)]);
                pair[k % 2] = to_bfloat16(weights[size_t(n) * inputs + k]);
            }
    }

    float *data_;
    const Tiles *tiles_;
};

// VEC floats as pairs of bfloat16, in half their place.
inline void store_pairs(float *to, V v) {
#if defined(__AVX512BF16__)
    const __m256bh pairs = _mm512_cvtneps_pbh((__m512)v);
    std::memcpy(to, &pairs, sizeof pairs);
#else
    (void)to, (void)v;
    std::abort();  // no model in bfloat16 is made on such a CPU
#endif
}

}  // namespace fused
