// Sixteen floats and sixteen truths: the pixels of one block, or the blocks of one tile.
//
// One file, three instruction sets. Every kernel that includes it is compiled once for each, inside
// the namespace SPLAT_ISA, so that no function of one set can stand in for that of another.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#else
#include <algorithm>
#include <cmath>
#endif

#if defined(_MSC_VER)
#include <intrin.h>
#define SPLAT_INLINE static __forceinline
#else
#define SPLAT_INLINE static inline __attribute__((always_inline))
#endif

namespace splat {
namespace SPLAT_ISA {

// 2^f on [-1/2, 1/2]: relative error below 1e-7, exact at 0.
constexpr float kExp2[5] = {0.693146978f, 0.240222421f, 0.0555073374f, 0.00967151264f,
                            0.00132647269f};

#if defined(__AVX512F__)

struct Lanes {
  __m512 v;
};
struct Mask {
  __mmask16 v;
};

SPLAT_INLINE Lanes splat(float x) { return {_mm512_set1_ps(x)}; }
SPLAT_INLINE Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
SPLAT_INLINE void store(float* p, Lanes a) { _mm512_storeu_ps(p, a.v); }
SPLAT_INLINE Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
SPLAT_INLINE Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
SPLAT_INLINE Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
SPLAT_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
SPLAT_INLINE Lanes fnma(Lanes a, Lanes b, Lanes c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
SPLAT_INLINE Lanes min(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
SPLAT_INLINE Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
SPLAT_INLINE Lanes abs(Lanes a) { return {_mm512_abs_ps(a.v)}; }
SPLAT_INLINE Mask operator>=(Lanes a, Lanes b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)};
}
SPLAT_INLINE Mask operator>(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
SPLAT_INLINE Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.v & b.v)}; }
SPLAT_INLINE Mask without(Mask a, Mask b) { return {static_cast<__mmask16>(a.v & ~b.v)}; }
SPLAT_INLINE bool any(Mask a) { return a.v != 0; }
SPLAT_INLINE uint32_t bits(Mask a) { return a.v; }
SPLAT_INLINE Lanes select(Mask m, Lanes a, Lanes b) {
  return {_mm512_mask_blend_ps(m.v, b.v, a.v)};
}
SPLAT_INLINE Lanes keep(Mask m, Lanes a) { return {_mm512_maskz_mov_ps(m.v, a.v)}; }

SPLAT_INLINE Lanes exp2(Lanes x) {
  const __m512 n = _mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x.v, n);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(kExp2[4]), f, _mm512_set1_ps(kExp2[3]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2[2]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2[1]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2[0]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return {_mm512_scalef_ps(p, n)};
}

SPLAT_INLINE Lanes reciprocal(Lanes a) {
  const __m512 r = _mm512_rcp14_ps(a.v);
  return {_mm512_mul_ps(r, _mm512_fnmadd_ps(a.v, r, _mm512_set1_ps(2.0f)))};
}

// Lists the i in [0, count) whose masks have the bit. Both arrays have room for another sixteen,
// and the masks there are zero.
SPLAT_INLINE int compact(const uint16_t* masks, int count, int bit, uint16_t* list) {
  const __m512i wanted = _mm512_set1_epi32(1 << bit);
  __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int length = 0;
  for (int i = 0; i < count; i += 16) {
    const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(masks + i));
    const __mmask16 has = _mm512_test_epi32_mask(_mm512_cvtepu16_epi32(sixteen), wanted);
    const __m256i found = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(has, index));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(list + length), found);
    length += __builtin_popcount(has);
    index = _mm512_add_epi32(index, _mm512_set1_epi32(16));
  }
  return length;
}

// Where the floats of three channels lie when they alternate: float j is pixel j / 3 of channel
// j % 3.
struct Weave {
  int32_t split[3][16];  // of channel k: where pixel i lies
  int32_t merge[3][16];  // of float 16 v + i: its pixel, + 16 if it is of the second channel
  __mmask16 third[3];    // of float 16 v + i: it is of the third channel
};

constexpr Weave make_weave() {
  Weave w{};
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < 16; ++i) {
      w.split[k][i] = 3 * i + k;
      const int j = 16 * k + i;
      w.merge[k][i] = j / 3 + (j % 3 == 1 ? 16 : 0);
      if (j % 3 == 2) w.third[k] = static_cast<__mmask16>(w.third[k] | 1 << i);
    }
  }
  return w;
}
constexpr Weave kWeave = make_weave();

SPLAT_INLINE void split_channels(const float* p, Lanes (&to)[3]) {
  const __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16), c = _mm512_loadu_ps(p + 32);
  for (int k = 0; k < 3; ++k) {
    // Both permutations read only the low bits of the index: 5 for two registers, 4 for one.
    const __m512i index = _mm512_loadu_si512(kWeave.split[k]);
    const __mmask16 beyond = _mm512_cmpge_epi32_mask(index, _mm512_set1_epi32(32));
    const __m512 ab = _mm512_permutex2var_ps(a, index, b);
    to[k] = {_mm512_mask_permutexvar_ps(ab, beyond, index, c)};
  }
}

SPLAT_INLINE void merge_channels(const Lanes (&from)[3], float* p) {
  for (int k = 0; k < 3; ++k) {
    const __m512i index = _mm512_loadu_si512(kWeave.merge[k]);
    const __m512 two = _mm512_permutex2var_ps(from[0].v, index, from[1].v);
    _mm512_storeu_ps(p + 16 * k,
                     _mm512_mask_permutexvar_ps(two, kWeave.third[k], index, from[2].v));
  }
}

SPLAT_INLINE __m512 sum_quarters(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab =
      _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
  const __m512 cd =
      _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xEE));
  return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
}

// The sum over the lanes of a[k] lands in lane k.
SPLAT_INLINE Lanes sums(const Lanes (&a)[12]) {
  // Lane 4 i + j of q[k] sums a quarter of a[4 j' + ...]; the picks below leave a[k] in lane k.
  const __m512 q0 = sum_quarters(a[0].v, a[4].v, a[8].v, _mm512_setzero_ps());
  const __m512 q1 = sum_quarters(a[1].v, a[5].v, a[9].v, _mm512_setzero_ps());
  const __m512 q2 = sum_quarters(a[2].v, a[6].v, a[10].v, _mm512_setzero_ps());
  const __m512 q3 = sum_quarters(a[3].v, a[7].v, a[11].v, _mm512_setzero_ps());
  const __m512 q01 = _mm512_add_ps(_mm512_unpacklo_ps(q0, q1), _mm512_unpackhi_ps(q0, q1));
  const __m512 q23 = _mm512_add_ps(_mm512_unpacklo_ps(q2, q3), _mm512_unpackhi_ps(q2, q3));
  const __m512d lo = _mm512_unpacklo_pd(_mm512_castps_pd(q01), _mm512_castps_pd(q23));
  const __m512d hi = _mm512_unpackhi_pd(_mm512_castps_pd(q01), _mm512_castps_pd(q23));
  return {_mm512_add_ps(_mm512_castpd_ps(lo), _mm512_castpd_ps(hi))};
}

#elif defined(__AVX2__)

struct Lanes {
  __m256 lo, hi;
};
struct Mask {
  __m256 lo, hi;
};

SPLAT_INLINE Lanes splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
SPLAT_INLINE Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
SPLAT_INLINE void store(float* p, Lanes a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
SPLAT_INLINE Lanes operator+(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
SPLAT_INLINE Lanes operator-(Lanes a, Lanes b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
SPLAT_INLINE Lanes operator*(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
SPLAT_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
SPLAT_INLINE Lanes fnma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
SPLAT_INLINE Lanes min(Lanes a, Lanes b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
SPLAT_INLINE Lanes max(Lanes a, Lanes b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
SPLAT_INLINE Lanes abs(Lanes a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
SPLAT_INLINE Mask operator>=(Lanes a, Lanes b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_GE_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GE_OQ)};
}
SPLAT_INLINE Mask operator>(Lanes a, Lanes b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ)};
}
SPLAT_INLINE Mask operator&(Mask a, Mask b) {
  return {_mm256_and_ps(a.lo, b.lo), _mm256_and_ps(a.hi, b.hi)};
}
SPLAT_INLINE Mask without(Mask a, Mask b) {
  return {_mm256_andnot_ps(b.lo, a.lo), _mm256_andnot_ps(b.hi, a.hi)};
}
SPLAT_INLINE bool any(Mask a) { return _mm256_movemask_ps(_mm256_or_ps(a.lo, a.hi)) != 0; }
SPLAT_INLINE uint32_t bits(Mask a) {
  return static_cast<uint32_t>(_mm256_movemask_ps(a.lo)) |
         static_cast<uint32_t>(_mm256_movemask_ps(a.hi)) << 8;
}
SPLAT_INLINE Lanes select(Mask m, Lanes a, Lanes b) {
  return {_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}
SPLAT_INLINE Lanes keep(Mask m, Lanes a) {
  return {_mm256_and_ps(m.lo, a.lo), _mm256_and_ps(m.hi, a.hi)};
}

SPLAT_INLINE __m256 exp2(__m256 x) {
  x = _mm256_max_ps(x, _mm256_set1_ps(-126.0f));
  const __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 f = _mm256_sub_ps(x, n);
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(kExp2[4]), f, _mm256_set1_ps(kExp2[3]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kExp2[2]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kExp2[1]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kExp2[0]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
  const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), shift));
}
SPLAT_INLINE Lanes exp2(Lanes x) { return {exp2(x.lo), exp2(x.hi)}; }

SPLAT_INLINE Lanes reciprocal(Lanes a) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return {_mm256_div_ps(one, a.lo), _mm256_div_ps(one, a.hi)};
}

SPLAT_INLINE __m128 sum_four(Lanes a, Lanes b, Lanes c, Lanes d) {
  const __m256 ab = _mm256_hadd_ps(_mm256_add_ps(a.lo, a.hi), _mm256_add_ps(b.lo, b.hi));
  const __m256 cd = _mm256_hadd_ps(_mm256_add_ps(c.lo, c.hi), _mm256_add_ps(d.lo, d.hi));
  const __m256 abcd = _mm256_hadd_ps(ab, cd);
  return _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1));
}

// The sum over the lanes of a[k] lands in lane k.
SPLAT_INLINE Lanes sums(const Lanes (&a)[12]) {
  const __m128 first = sum_four(a[0], a[1], a[2], a[3]);
  const __m128 second = sum_four(a[4], a[5], a[6], a[7]);
  const __m128 third = sum_four(a[8], a[9], a[10], a[11]);
  return {_mm256_set_m128(second, first), _mm256_set_m128(_mm_setzero_ps(), third)};
}

#else

struct alignas(64) Lanes {
  float v[16];
};
struct alignas(64) Mask {
  int32_t v[16];
};

#define SPLAT_EACH(result, expression)                \
  result;                                             \
  for (int i = 0; i < 16; ++i) r.v[i] = (expression); \
  return r

SPLAT_INLINE Lanes splat(float x) { SPLAT_EACH(Lanes r, x); }
SPLAT_INLINE Lanes load(const float* p) { SPLAT_EACH(Lanes r, p[i]); }
SPLAT_INLINE void store(float* p, Lanes a) { std::memcpy(p, a.v, sizeof a.v); }
SPLAT_INLINE Lanes operator+(Lanes a, Lanes b) { SPLAT_EACH(Lanes r, a.v[i] + b.v[i]); }
SPLAT_INLINE Lanes operator-(Lanes a, Lanes b) { SPLAT_EACH(Lanes r, a.v[i] - b.v[i]); }
SPLAT_INLINE Lanes operator*(Lanes a, Lanes b) { SPLAT_EACH(Lanes r, a.v[i] * b.v[i]); }
SPLAT_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) { SPLAT_EACH(Lanes r, a.v[i] * b.v[i] + c.v[i]); }
SPLAT_INLINE Lanes fnma(Lanes a, Lanes b, Lanes c) {
  SPLAT_EACH(Lanes r, c.v[i] - a.v[i] * b.v[i]);
}
SPLAT_INLINE Lanes min(Lanes a, Lanes b) { SPLAT_EACH(Lanes r, a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
SPLAT_INLINE Lanes max(Lanes a, Lanes b) { SPLAT_EACH(Lanes r, a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
SPLAT_INLINE Lanes abs(Lanes a) { SPLAT_EACH(Lanes r, std::fabs(a.v[i])); }
SPLAT_INLINE Mask operator>=(Lanes a, Lanes b) { SPLAT_EACH(Mask r, a.v[i] >= b.v[i] ? -1 : 0); }
SPLAT_INLINE Mask operator>(Lanes a, Lanes b) { SPLAT_EACH(Mask r, a.v[i] > b.v[i] ? -1 : 0); }
SPLAT_INLINE Mask operator&(Mask a, Mask b) { SPLAT_EACH(Mask r, a.v[i] & b.v[i]); }
SPLAT_INLINE Mask without(Mask a, Mask b) { SPLAT_EACH(Mask r, a.v[i] & ~b.v[i]); }
SPLAT_INLINE bool any(Mask a) {
  int32_t all = 0;
  for (int i = 0; i < 16; ++i) all |= a.v[i];
  return all != 0;
}
SPLAT_INLINE uint32_t bits(Mask a) {
  uint32_t all = 0;
  for (int i = 0; i < 16; ++i) all |= static_cast<uint32_t>(a.v[i] & 1) << i;
  return all;
}
SPLAT_INLINE Lanes select(Mask m, Lanes a, Lanes b) {
  SPLAT_EACH(Lanes r, m.v[i] ? a.v[i] : b.v[i]);
}
SPLAT_INLINE Lanes keep(Mask m, Lanes a) { SPLAT_EACH(Lanes r, m.v[i] ? a.v[i] : 0.0f); }

SPLAT_INLINE float exp2_one(float x) {
  x = x > -126.0f ? x : -126.0f;
  const int32_t n = static_cast<int32_t>(x - 0.5f);  // x <= 0: to the nearest
  const float f = x - static_cast<float>(n);
  const float p =
      1.0f + f * (kExp2[0] + f * (kExp2[1] + f * (kExp2[2] + f * (kExp2[3] + f * kExp2[4]))));
  const int32_t exponent = (n + 127) << 23;
  float scale;
  std::memcpy(&scale, &exponent, sizeof scale);
  return p * scale;
}
SPLAT_INLINE Lanes exp2(Lanes x) { SPLAT_EACH(Lanes r, exp2_one(x.v[i])); }
SPLAT_INLINE Lanes reciprocal(Lanes a) { SPLAT_EACH(Lanes r, 1.0f / a.v[i]); }
#undef SPLAT_EACH

// The sum over the lanes of a[k] lands in lane k.
SPLAT_INLINE Lanes sums(const Lanes (&a)[12]) {
  Lanes r = splat(0.0f);
  for (int k = 0; k < 12; ++k) {
    float quarter[4];
    for (int i = 0; i < 4; ++i) {
      quarter[i] = (a[k].v[i] + a[k].v[i + 4]) + (a[k].v[i + 8] + a[k].v[i + 12]);
    }
    r.v[k] = (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
  }
  return r;
}

#endif

#if !defined(__AVX512F__)
SPLAT_INLINE void split_channels(const float* p, Lanes (&to)[3]) {
  float values[16];
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < 16; ++i) values[i] = p[3 * i + k];
    to[k] = load(values);
  }
}

SPLAT_INLINE void merge_channels(const Lanes (&from)[3], float* p) {
  float values[16];
  for (int k = 0; k < 3; ++k) {
    store(values, from[k]);
    for (int i = 0; i < 16; ++i) p[3 * i + k] = values[i];
  }
}

// Lists the i in [0, count) whose masks have the bit. Both arrays have room for another sixteen,
// and the masks there are zero.
SPLAT_INLINE int compact(const uint16_t* masks, int count, int bit, uint16_t* list) {
  int length = 0;
  for (int i = 0; i < count; ++i) {
    list[length] = static_cast<uint16_t>(i);
    length += masks[i] >> bit & 1;
  }
  return length;
}
#endif

// The lowest set bit.
SPLAT_INLINE int lowest(uint32_t mask) {
#if defined(_MSC_VER)
  unsigned long at;
  _BitScanForward(&at, mask);
  return static_cast<int>(at);
#else
  return __builtin_ctz(mask);
#endif
}

}  // namespace SPLAT_ISA
}  // namespace splat
