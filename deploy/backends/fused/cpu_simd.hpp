// Vectors of float32 of the width this CPU has, by the compiler's own vector types: AVX-512, AVX2
// and NEON from one source. Knows nothing of matrices or models.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fused {

// VEC floats are one register. A tile of a matrix product is up to MAX_ROWS rows of TILE floats,
// all of which stay in registers: 16 of 32 (AVX-512), 12 of 16 (AVX2), 24 of 32 (NEON).
#if defined(__AVX512F__)
constexpr int VEC = 16, TILE = 32, MAX_ROWS = 8;
#elif defined(__AVX__)
constexpr int VEC = 8, TILE = 16, MAX_ROWS = 6;
#else
constexpr int VEC = 4, TILE = 16, MAX_ROWS = 6;
#endif

typedef float V __attribute__((vector_size(VEC * 4)));
typedef int32_t Vi __attribute__((vector_size(VEC * 4)));

inline V load(const float *from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline void store(float *to, V v) { std::memcpy(to, &v, sizeof v); }

inline V all(float x) { return V{} + x; }

// Of what is not a number `a` is kept, so that it is seen in the end.
inline V larger(V a, V b) { return a < b ? b : a; }

inline V smaller(V a, V b) { return a > b ? b : a; }

// A value that the compiler must not read from memory again at each use: GCC makes a vector that is
// used in four multiplications four loads, which took 1.4 times as long.
inline V in_register(V v) {
#if defined(__AVX512F__)
    asm("" : "+v"(v));
#elif defined(__x86_64__)
    asm("" : "+x"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#endif
    return v;
}

constexpr int padded(int count, int unit) { return (count + unit - 1) / unit * unit; }

inline float sum(V v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float lanes[VEC];
    store(lanes, v);
    for (int width = VEC / 2; width; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
#endif
}

inline float largest(V v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float lanes[VEC];
    store(lanes, v);
    for (int width = VEC / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            if (lanes[i + width] > lanes[i]) lanes[i] = lanes[i + width];
    return lanes[0];
#endif
}

// e^x to a unit in the last place. Below -80 it is e^-80 (1.8e-35), so that what a mask forbids
// weighs nothing and never becomes a denormal, which some CPUs are slow with. Cephes' polynomial.
inline V exponential(V x) {
    x = smaller(larger(x, all(-80.0f)), all(88.0f));
    const V magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    V n = (x * 1.44269504088896341f + magic) - magic;
    V r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    V p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Vi power = (__builtin_convertvector(n, Vi) + 127) << 23;
    V scale;
    std::memcpy(&scale, &power, sizeof scale);
    return p * scale;
}

// By a division: an approximate reciprocal and a step of Newton's took 1.1 times as long.
inline V silu(V x) { return x / (1.0f + exponential(-x)); }

}  // namespace fused
