// Vectors of float32 as wide as the processor's, by the extensions that GCC and Clang share.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Before a short loop over an array of vectors: unrolled early, so that the array stays in registers. Without it GCC 12 writes the
// whole array to memory at every turn of the loop around it.
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16, VECTORS = 4;
#elif defined(__AVX__)
constexpr int LANES = 8, VECTORS = 2;
#else
constexpr int LANES = 4, VECTORS = 4;
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

namespace {

inline vec load(const float *from) { vec v; std::memcpy(&v, from, sizeof v); return v; }
inline ivec load_whole(const void *from) { ivec v; std::memcpy(&v, from, sizeof v); return v; }
inline void store(float *to, vec v) { std::memcpy(to, &v, sizeof v); }
#if defined(__AVX512F__)
inline float sum(vec v) { return _mm512_reduce_add_ps((__m512)v); }
inline float largest(vec v) { return _mm512_reduce_max_ps((__m512)v); }
#else
// By halves: one number after another would wait for each sum.
typedef float quad __attribute__((vector_size(16)));
template <typename Join>
inline float fold(vec v, Join join) {
    quad parts[LANES / 4];
    std::memcpy(parts, &v, sizeof v);
    for (int i = 1; i < LANES / 4; i++) parts[0] = join(parts[0], parts[i]);
    const quad two = join(parts[0], quad{parts[0][2], parts[0][3], parts[0][2], parts[0][3]});
    return join(two, quad{two[1], two[1], two[1], two[1]})[0];
}
inline float sum(vec v) { return fold(v, [](quad a, quad b) { return a + b; }); }
inline float largest(vec v) { return fold(v, [](quad a, quad b) { return a > b ? a : b; }); }
#endif
inline vec maximum(vec a, vec b) { return a > b ? a : b; }

// e^x for -86 <= x <= 88, below that e^-86: a polynomial in what is left of x (Cephes' coefficients), times 2^n.
inline vec exponential(vec x) {
    constexpr float WHOLE = 12582912.0f;  // 1.5 * 2^23: added, it rounds to a whole number, which then stands in the last bits
    x = x < -86.0f ? vec{} - 86.0f : x;  // written so that what is not a number stays so, as processors make it (low bits zero)
    const vec shifted = x * 1.44269504f + WHOLE, n = shifted - WHOLE;
    const vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = vec{} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec power, bits;
    std::memcpy(&power, &shifted, sizeof power);
    std::memcpy(&bits, &p, sizeof bits);
    bits += power << 23;  // onto the exponent
    std::memcpy(&p, &bits, sizeof p);
    return p;
}

}  // namespace
