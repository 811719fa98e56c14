// Quantisation, norms, activations: one pass over rows of floats.
#if defined(__x86_64__)
#include "avx2.h"
#include <string.h>

// Oracle.roundToInteger
AVX2_INLINE __m256i round_to_integer(__m256 x) {
  const __m256 magic = all(12582912.0f);
  return _mm256_sub_epi32(_mm256_castps_si256(add(x, magic)), _mm256_castps_si256(magic));
}

AVX2_INLINE float smallest(__m256 v) {
  __m128 m = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_min_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
}

AVX2_INLINE float largest(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// Codes of 8 values, one in each 32-bit lane.
AVX2_INLINE __m256i codes(__m256 x, __m256 inverse, __m256i zero) {
  const __m256i q = _mm256_add_epi32(round_to_integer(mul(x, inverse)), zero);
  return _mm256_min_epi32(_mm256_max_epi32(q, _mm256_setzero_si256()), _mm256_set1_epi32(255));
}

AVX2_INLINE void range_of_row(const float *x, size_t columns, float *low, float *high) {
  __m256 lows[4] = {zero8(), zero8(), zero8(), zero8()}, highs[4] = {zero8(), zero8(), zero8(), zero8()};
  size_t c = 0;
  for (; c + 32 <= columns; c += 32) {
    UNROLLED for (size_t j = 0; j < 4; j++) {
      const __m256 v = _mm256_loadu_ps(x + c + 8 * j);
      lows[j] = _mm256_min_ps(v, lows[j]);
      highs[j] = _mm256_max_ps(v, highs[j]);
    }
  }
  for (; c < columns; c += 8) { // lanes past the end are zero, which the range holds anyway
    const __m256 v = load_some(x + c, columns - c);
    lows[0] = _mm256_min_ps(v, lows[0]);
    highs[0] = _mm256_max_ps(v, highs[0]);
  }
  *low = smallest(_mm256_min_ps(_mm256_min_ps(lows[0], lows[1]), _mm256_min_ps(lows[2], lows[3])));
  *high = largest(_mm256_max_ps(_mm256_max_ps(highs[0], highs[1]), _mm256_max_ps(highs[2], highs[3])));
}

AVX2_INLINE void quantize_row(const float *x, size_t columns, float inverse, int32_t zero, uint8_t *q) {
  const __m256 factor = all(inverse);
  const __m256i zeros = _mm256_set1_epi32(zero);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); // undoes the packs' interleaving of halves
  size_t c = 0;
  for (; c + 32 <= columns; c += 32) {
    __m256i v[4];
    UNROLLED for (size_t j = 0; j < 4; j++) v[j] = codes(_mm256_loadu_ps(x + c + 8 * j), factor, zeros);
    const __m256i words = _mm256_packus_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    _mm256_storeu_si256((__m256i *)(q + c), _mm256_permutevar8x32_epi32(words, order));
  }
  for (; c < columns; c += 8) {
    const size_t count = columns - c < 8 ? columns - c : 8;
    const __m256i v = codes(load_some(x + c, count), factor, zeros);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    uint8_t bytes[16];
    _mm_storeu_si128((__m128i *)bytes, _mm_packus_epi16(words, words));
    memcpy(q + c, bytes, count);
  }
}

AVX2 void at_quantize_rows_avx2(const at_quantize *a) {
  for (size_t r = 0; r < a->rows; r++) {
    const float *x = a->x + r * a->x_stride;
    uint8_t *q = a->q + r * a->q_stride;
    float low, high;
    range_of_row(x, a->columns, &low, &high);
    const float range = high - low;
    const bool usable = range > 1e-30f;
    const float inverse = usable ? 255 / range : 0;
    a->scale[r] = usable ? range / 255 : 0;
    const __m256i zero = round_to_integer(all(-low * inverse));
    a->zero[r] = _mm256_cvtsi256_si32(zero);
    quantize_row(x, a->columns, inverse, a->zero[r], q);
    for (size_t c = a->columns; c < a->padded; c++) q[c] = 0;
  }
}

AVX2 void at_layer_norm_avx2(const at_layer_norm *a) {
  for (size_t r = 0; r < a->rows; r++) {
    const float *x = a->x + r * a->columns;
    float *out = a->out + r * a->columns;
    __m256 sum = zero8(), squares = zero8();
    for (size_t c = 0; c < a->columns; c += 8) sum = add(sum, load_some(x + c, a->columns - c));
    const __m256 mean = all(sum_lanes(sum) / (float)a->columns);
    for (size_t c = 0; c < a->columns; c += 8) {
      const __m256 d = sub(load_some(x + c, a->columns - c), mean);
      const __m256 square = mul(d, d);
      // Lanes past the end hold the mean's square, which is no element's.
      squares = add(squares, c + 8 <= a->columns ? square : _mm256_and_ps(
          square, _mm256_castsi256_ps(lanes_below((ptrdiff_t)(a->columns - c)))));
    }
    const float variance = sum_lanes(squares) / (float)a->columns;
    const __m256 inverse = divide(all(1), _mm256_sqrt_ps(all(variance + a->epsilon)));
    for (size_t c = 0; c < a->columns; c += 8) {
      const size_t count = a->columns - c;
      const __m256 y = mul(sub(load_some(x + c, count), mean), inverse);
      store_some(out + c, count, add(mul(y, load_some(a->gamma + c, count)), load_some(a->beta + c, count)));
    }
  }
}

AVX2_INLINE void channel_sums(const int vectors, const at_channel_sums *a, size_t c, size_t count) {
  __m256 sum[4], square[4];
  UNROLLED for (int j = 0; j < vectors; j++) sum[j] = square[j] = zero8();
  for (size_t r = 0; r < a->rows; r++) {
    const float *x = a->x + r * a->channels + c;
    UNROLLED for (int j = 0; j < vectors; j++) {
      const __m256 v = load_some(x + 8 * j, count - 8 * (size_t)j);
      sum[j] = add(sum[j], v);
      square[j] = add(square[j], mul(v, v));
    }
  }
  UNROLLED for (int j = 0; j < vectors; j++) {
    store_some(a->sum + c + 8 * j, count - 8 * (size_t)j, sum[j]);
    store_some(a->square + c + 8 * j, count - 8 * (size_t)j, square[j]);
  }
}

AVX2 void at_channel_sums_avx2(const at_channel_sums *a) {
  size_t c = 0;
  for (; c + 32 <= a->channels; c += 32) channel_sums(4, a, c, 32);
  for (; c < a->channels; c += 8) channel_sums(1, a, c, a->channels - c < 8 ? a->channels - c : 8);
}

AVX2_INLINE __m256 activate(const at_activation activation, __m256 x) {
  switch (activation) {
    case AT_SILU: return silu8(x);
    case AT_GELU: return gelu8(x);
    case AT_QUICK_GELU: return quick_gelu8(x);
    case AT_RELU: return _mm256_andnot_ps(_mm256_cmp_ps(zero8(), x, _CMP_GE_OQ), x);
    default: return x;
  }
}

AVX2_INLINE void affine(const at_activation activation, const at_affine *a) {
  for (size_t r = 0; r < a->rows; r++) {
    const float *x = a->x + r * a->channels;
    float *out = a->out + r * a->channels;
    for (size_t c = 0; c < a->channels; c += 8) {
      const size_t count = a->channels - c;
      const __m256 y = add(mul(load_some(x + c, count), load_some(a->factor + c, count)), load_some(a->offset + c, count));
      store_some(out + c, count, activate(activation, y));
    }
  }
}

AVX2 void at_affine_avx2(const at_affine *a) {
  switch (a->activation) {
    case AT_SILU: affine(AT_SILU, a); break;
    case AT_GELU: affine(AT_GELU, a); break;
    case AT_QUICK_GELU: affine(AT_QUICK_GELU, a); break;
    case AT_RELU: affine(AT_RELU, a); break;
    default: affine(AT_IDENTITY, a); break;
  }
}

AVX2_INLINE void map(const at_activation activation, const at_map *a) {
  for (size_t i = 0; i < a->count; i += 8)
    store_some(a->out + i, a->count - i, activate(activation, load_some(a->x + i, a->count - i)));
}

AVX2 void at_map_avx2(const at_map *a) {
  switch (a->activation) {
    case AT_SILU: map(AT_SILU, a); break;
    case AT_GELU: map(AT_GELU, a); break;
    case AT_QUICK_GELU: map(AT_QUICK_GELU, a); break;
    case AT_RELU: map(AT_RELU, a); break;
    default: map(AT_IDENTITY, a); break;
  }
}

AVX2 void at_add_avx2(const at_add *a) {
  const __m256 alpha = all(a->alpha);
  for (size_t i = 0; i < a->count; i += 8) {
    const size_t count = a->count - i;
    store_some(a->out + i, count, add(mul(load_some(a->a + i, count), alpha), load_some(a->b + i, count)));
  }
}

AVX2 void at_gated_gelu_avx2(const at_gated_gelu *a) {
  for (size_t r = 0; r < a->rows; r++) {
    const float *x = a->x + r * 2 * a->columns, *gate = x + a->columns;
    for (size_t c = 0; c < a->columns; c += 8) {
      const size_t count = a->columns - c;
      store_some(a->out + r * a->columns + c, count, mul(load_some(x + c, count), gelu8(load_some(gate + c, count))));
    }
  }
}
#endif
