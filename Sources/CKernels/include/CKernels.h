// The kernels' contract. Sources/Kernels/Oracle.swift defines what each one computes, operation by operation; every
// variant gives the same bits. No float operation is contracted (a * b + c is two roundings) or reordered, so a
// picture does not depend on the processor.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

enum { AT_PANEL = 8 };           // outputs in a panel of packed weights
enum { AT_QUAD = 4 };            // inputs in a quad of packed int8 weights
enum { AT_GEMM_ROWS = 256 };     // rows of one int8 product at most
// Keys between two rescalings of the online softmax, in f32 and in integers.
enum { AT_ATTENTION_TILE = 64, AT_CODED_TILE = 128 };
enum { AT_ATTENTION_QUERIES = 32 }; // queries that any kernel takes at once, at most

// Rows -> u8 rows, each with its scale and zero point: x = scale * (q - zero), or x - other where there is one.
typedef struct {
  const void *x, *_Nullable other; // f32, or f16 where `halves`
  bool halves;
  // [columns]: what is quantised; for f32 without another it is not used. Of f32, may be the row of x that is quantised,
  // or one before it.
  float *_Nullable row;
  size_t x_stride; // elements, of other too
  uint8_t *q;
  size_t q_stride; // bytes, >= padded
  float *scale;
  int32_t *zero;
  size_t rows, columns, padded; // bytes columns..<padded of q are written as 0
} at_quantize;

// out[r][o] = bias[o] + residual[r][o] + scale[o] * sum over taps t of row_scale[t][r] * (a[t][r] - row_zero[t][r]) . w[t][o]
// A linear layer has one tap; a convolution has one a kernel position, each with its own row pointers.
// Where `paired`, rows n/2 + r of the n hold differences to rows r: what r gives, before its residual, is added to them
// and takes the place of their bias. Int8 only.
typedef struct {
  const void *_Nonnull const *_Nonnull rows; // [taps][row_count]: first element of each input row (u8, or f32 where weights are float)
  const float *_Nullable row_scale;  // [taps][row_count], int8 only
  const int32_t *_Nullable row_zero; // [taps][row_count], int8 only: 0...255
  size_t row_count, taps;
  size_t inputs;                 // elements of a row that are read; for int8 a multiple of AT_QUAD
  const void *weights;           // int8 [panel][tap][inputs / 4][8][4]; f32, f16 [panel][tap][inputs][8]
  const float *_Nullable scale;            // [panels * 8], int8 only
  const int32_t *_Nullable sum;            // [taps][panels * 8], int8 only: of the weights over the inputs; not all read it
  const float *_Nullable bias;             // [panels * 8] or NULL
  size_t panels;                 // of the whole matrix (the stride of sum)
  size_t panel_begin, panel_end; // those to compute
  size_t outputs;                // columns that exist: the last panel may be partial
  const void *_Nullable residual;          // added last, or NULL; may be out itself
  size_t residual_stride;
  void *out;
  size_t out_stride; // elements
  bool paired;
  const void *_Nullable pair_residual; // where the second half of the rows has its residual, NULL where `residual` is, and its results
  void *_Nullable pair_out;
  bool halves; // whether residuals and results are f16: rounded to nearest even, at most 65504 in magnitude
} at_gemm;

// A 3x3 convolution of stride 1 by Winograd's F(4x4, 3x3) [Lavin and Gray, arXiv 1509.09308]: of 6x6 pixels of the input a
// tile of 4x4 of the output, in 36 products of channels instead of 144. The input's pixels are transformed as floats, and
// what comes of each of the 36 places is coded in s16, AT_WINOGRAD_CHANNELS channels at a time, in steps that are as small
// as s32 sums allow: weights are transformed as integers, without their denominators, which the steps take on. Sums over
// a chunk of channels are exact; chunks are added up as floats.
enum {
  AT_WINOGRAD_PLACES = 36,
  AT_WINOGRAD_CHANNELS = 128, // of a chunk
  AT_WINOGRAD_OUTPUTS = 32,   // that are computed at once
  AT_WINOGRAD_GAP = 64,       // bytes between places, so that they do not all fall on the same lines of a cache
};

// What products are of, in two steps. Inputs: tiles tile_begin..<tile_end to codes and steps. Products: those tiles, or
// where `paired` those of the first half with their pairs, by the panels panel_begin..<panel_end.
typedef struct {
  // `rows`, `row_scale` and `row_zero` are of the tiles' pixels, [36][row_count]; row_count is that of the tiles, taps is
  // 9, inputs and outputs are multiples of 32, panels are taken by fours, and `sum` is not read. Where `paired`, tiles of
  // the second half hold differences to those of the first.
  at_gemm product;
  const size_t *pixels; // [row_count]: the row of the results that a tile's first pixel is
  size_t line;          // rows from a tile's pixel to the one below
  int16_t *codes;       // at_winograd_codes(...) of them, [row_count][channels of the chunk] from each at_winograd_place on
  float *steps;         // [chunks][36][row_count]
  size_t tile_begin, tile_end;
  void *_Nullable workspace; // for products: at_winograd_workspace(row_count) bytes, 64-byte aligned
} at_winograd;

static inline size_t at_winograd_chunks(size_t inputs) {
  return (inputs + AT_WINOGRAD_CHANNELS - 1) / AT_WINOGRAD_CHANNELS;
}
// Where the codes of a place are, of the chunk of channels that begins with `first`.
static inline size_t at_winograd_place(size_t tiles, size_t inputs, size_t first, size_t place) {
  const size_t gap = AT_WINOGRAD_GAP / sizeof(int16_t), left = inputs - first;
  const size_t width = left < AT_WINOGRAD_CHANNELS ? left : AT_WINOGRAD_CHANNELS;
  return AT_WINOGRAD_PLACES * (tiles * first + first / AT_WINOGRAD_CHANNELS * gap) + place * (tiles * width + gap);
}
static inline size_t at_winograd_codes(size_t tiles, size_t inputs) {
  return AT_WINOGRAD_PLACES * (tiles * inputs + at_winograd_chunks(inputs) * AT_WINOGRAD_GAP / sizeof(int16_t));
}

static inline size_t at_winograd_workspace(size_t tiles) {
  const size_t weights = AT_WINOGRAD_CHANNELS * AT_WINOGRAD_OUTPUTS * sizeof(int16_t) + AT_WINOGRAD_GAP;
  const size_t sums = tiles * AT_WINOGRAD_OUTPUTS * sizeof(float) + AT_WINOGRAD_GAP;
  return AT_WINOGRAD_PLACES * (weights + sums);
}

// f16 -> f32
typedef struct {
  const uint16_t *x;
  float *out;
  size_t count;
} at_widen;

typedef struct {
  const void *x; // f32, or f16 where `halves`
  bool halves;
  float *out; // may be x where that is f32
  size_t rows, columns;
  const float *gamma, *beta;
  float epsilon;
} at_layer_norm;

// Adds up rows: sum[c] and square[c] are set to the sums of x and x * x over the rows, in row order.
typedef struct {
  const void *x; // f32, or f16 where `halves`
  size_t rows, channels;
  float *sum, *square;
  bool halves;
} at_channel_sums;

// least[c] and greatest[c] are set to those of x over the rows, which there are.
typedef struct {
  const void *x; // f32, or f16 where `halves`
  size_t rows, channels;
  float *least, *greatest;
  bool halves;
} at_channel_ranges;

typedef enum { AT_IDENTITY, AT_SILU, AT_GELU, AT_QUICK_GELU, AT_RELU } at_activation;

// out = activation(x * factor[c] + offset[c])
typedef struct {
  const void *x; // f32, or f16 where `halves`
  float *out;    // may be x where that is f32
  size_t rows, channels;
  const float *factor, *offset;
  at_activation activation;
  bool halves;
} at_affine;

// out = activation(x)
typedef struct {
  const float *x;
  float *out; // may be x
  size_t count;
  at_activation activation;
} at_map;

// out = a * alpha + b
typedef struct {
  const float *a, *b;
  float *out; // may be a or b
  size_t count;
  float alpha;
} at_add;

// GEGLU: x is [rows, 2 * columns]; out = x[:, :columns] * gelu(x[:, columns:])
typedef struct {
  const float *x;
  float *out;
  size_t rows, columns;
  size_t out_stride; // from a row of `out` to the next
} at_gated_gelu;

// One head: out[i] = softmax over j of (scale * q[i].k[j] + gate[i] * bias[j - i]) times v. f32, online softmax.
typedef struct {
  const float *q, *k, *v;
  float *out;
  size_t q_stride, k_stride, v_stride, out_stride; // elements between rows
  size_t queries, keys, head_width;
  size_t first_query; // the index of q's first row in the sequence: for the causal mask and the bias
  float scale;
  bool causal;       // query i sees keys 0...first_query + i
  const float *_Nullable bias; // bias[d] for the distance d = key - query, negative ones too; or NULL
  const float *_Nullable gate; // [queries], with bias
  float *workspace;  // at_attention_workspace(queries, head_width) floats, 64-byte aligned
} at_attention;

// A tile of keys, values and scores, and what kernels keep of each query: at most it, and sums of its values.
static inline size_t at_attention_workspace(size_t queries, size_t head_width) {
  const size_t taken = (queries + AT_ATTENTION_QUERIES - 1) / AT_ATTENTION_QUERIES * AT_ATTENTION_QUERIES;
  const size_t width = (head_width + 15) / 16 * 16;
  return AT_ATTENTION_TILE * (2 * width + AT_ATTENTION_QUERIES) + taken * (2 * width + 2);
}

// Attention in integers. Queries, keys and values are s8. Each channel of keys and of values is coded over its own range: a
// centre is taken off, which for keys adds the same to all scores of a query, and which the weighted mean of the values gets
// back; what is left is scaled to the limit of codes. The scale of a channel of keys is given to that of the queries, each of
// which is then scaled to the limit. Integer sums are exact. The softmax is taken in powers of two: how far a score lies
// below the largest is a whole number of steps, of between 2^-11 and 2^-10 of an exponent, the same for all keys of a query,
// and its weight a whole number up to AT_LARGEST_WEIGHT that the oracle's attentionWeight defines. It is counted from the
// tile's largest score, unless that is AT_REACH or more below the largest of all: so small weights keep their digits where
// all of a tile are small. All inputs are finite, and so are queries times their factors; heads have at most 2^15 channels.
enum {
  AT_CODE_LIMIT = 127,     // the largest magnitude of a code
  AT_DISTANCE_BITS = 10,   // of a distance in exponents, behind the point
  AT_LARGEST_WEIGHT = 255, // that of its tile's largest score
  // In steps: at least 7 exponents. What is 2^15 - 1 steps beyond must be 9 exponents beyond what is AT_REACH beyond, for
  // kernels that count in sixteen bits: no more than this.
  AT_REACH = 14 << AT_DISTANCE_BITS,
};

// A tile is packed once for all queries, in memory of at_attention_tile_bytes, for those kernels that come in the same
// table. Where lanes are not queries it is, with zeros for keys and channels that do not exist:
//   int16_t keys[head_width / 2, rounded up][AT_CODED_TILE][2]
//   int16_t values[AT_CODED_TILE / 2][head_width, rounded up to 8][2]
// Others take no more: of bytes, values alone leave 1024 of it, and sums of keys take 512.
static inline size_t at_attention_pairs(size_t head_width) { return (head_width + 1) / 2; }
static inline size_t at_attention_values(size_t head_width) { return (head_width + 7) / 8 * 8; }
static inline size_t at_attention_tile_bytes(size_t head_width) {
  const size_t elements = 2 * at_attention_pairs(head_width) + at_attention_values(head_width);
  return AT_CODED_TILE * elements * sizeof(int16_t);
}

// `count` keys and values of one head -> tile, 32-byte aligned.
typedef struct {
  const void *k, *v; // f32, or f16 where `halves`
  const float *key_centre, *key_factor, *value_centre, *value_factor; // [head_width]: codes are (x - centre) * factor
  size_t k_stride, v_stride; // elements between rows
  size_t count, head_width;
  void *tile;
  bool halves;
} at_attention_pack;

// One head as in at_attention, of keys that all queries see, from packed tiles.
typedef struct {
  const void *q; // f32, or f16 where `halves`
  const void *tiles;
  const float *query_factor;             // [head_width]: scores, in exponents of two, are q * factor * codes of keys
  const float *value_centre, *value_step; // [head_width]: values are centre + step * code
  void *out; // as q
  size_t q_stride, out_stride; // elements between rows
  size_t queries, keys, head_width;
  void *workspace; // at_attention_int8_workspace(queries, head_width) bytes, 64-byte aligned
  bool halves; // f16 results are rounded to nearest even, at most 65504 in magnitude
} at_attention_int8;

static inline size_t at_attention_int8_workspace(size_t queries, size_t head_width) {
  const size_t taken = (queries + AT_ATTENTION_QUERIES - 1) / AT_ATTENTION_QUERIES * AT_ATTENTION_QUERIES;
  const size_t of_query = at_attention_pairs(head_width) + (head_width + 15) / 16 * 16 + 6;
  return taken * of_query * sizeof(float) + AT_ATTENTION_QUERIES * AT_CODED_TILE * sizeof(int16_t);
}

#define AT_DECLARE_ANY_LANES(suffix)                      \
  void at_channel_ranges_##suffix(const at_channel_ranges *); \
  void at_quantize_rows_##suffix(const at_quantize *);    \
  void at_widen_##suffix(const at_widen *);               \
  void at_channel_sums_##suffix(const at_channel_sums *); \
  void at_affine_##suffix(const at_affine *);             \
  void at_map_##suffix(const at_map *);                   \
  void at_add_##suffix(const at_add *);                   \
  void at_gated_gelu_##suffix(const at_gated_gelu *);

#define AT_DECLARE_ATTENTION_INT8(suffix)                    \
  void at_attention_pack_##suffix(const at_attention_pack *); \
  void at_attention_int8_##suffix(const at_attention_int8 *);

#define AT_DECLARE_WINOGRAD(suffix)                  \
  void at_winograd_inputs_##suffix(const at_winograd *); \
  void at_winograd_products_##suffix(const at_winograd *);

#define AT_DECLARE_KERNELS(suffix)                        \
  AT_DECLARE_ANY_LANES(suffix)                            \
  AT_DECLARE_WINOGRAD(suffix)                            \
  AT_DECLARE_ATTENTION_INT8(suffix)                      \
  void at_gemm_int8_##suffix(const at_gemm *);            \
  void at_gemm_float32_##suffix(const at_gemm *);         \
  void at_gemm_float16_##suffix(const at_gemm *);         \
  void at_layer_norm_##suffix(const at_layer_norm *);     \
  void at_attention_##suffix(const at_attention *);

#if defined(__x86_64__)
AT_DECLARE_KERNELS(sse41)
AT_DECLARE_KERNELS(avx2)
AT_DECLARE_ATTENTION_INT8(avxvnni)
AT_DECLARE_ATTENTION_INT8(avx512vnni)
AT_DECLARE_ANY_LANES(avx512vnni)
AT_DECLARE_WINOGRAD(avxvnni)
AT_DECLARE_WINOGRAD(avx512vnni)
void at_attention_avx512vnni(const at_attention *);
void at_gemm_int8_pairs_sse41(const at_gemm *);
void at_gemm_int8_fours_sse41(const at_gemm *);
void at_gemm_int8_pairs_avx2(const at_gemm *);
void at_gemm_int8_pairs_avx2single(const at_gemm *);
void at_gemm_int8_fours_avx2(const at_gemm *);
void at_gemm_int8_avxvnni(const at_gemm *);
void at_gemm_int8_avx512vnni(const at_gemm *);
void at_gemm_int8_avx512vnni_narrow(const at_gemm *);
#elif defined(__aarch64__)
AT_DECLARE_KERNELS(neon)
AT_DECLARE_ATTENTION_INT8(dotprod)
void at_gemm_int8_dotprod(const at_gemm *);
void at_gemm_int8_i8mm(const at_gemm *);
#endif

// The ceiling of a way of multiplying: its instructions over and over, in its kernel's order, on registers; those that a
// way takes from memory, on one line of the first cache. An iteration is AT_CEILING_PRODUCTS multiply-accumulates; what
// is returned means nothing.
enum { AT_CEILING_PRODUCTS = 256 };
#if defined(__x86_64__)
uint32_t at_ceiling_int8_pairs_sse41(size_t iterations);
uint32_t at_ceiling_int8_fours_sse41(size_t iterations);
uint32_t at_ceiling_int16_sse41(size_t iterations);
uint32_t at_ceiling_int8_pairs_avx2(size_t iterations);
uint32_t at_ceiling_int8_pairs_avx2single(size_t iterations);
uint32_t at_ceiling_int8_fours_avx2(size_t iterations);
uint32_t at_ceiling_int16_avx2(size_t iterations);
uint32_t at_ceiling_int8_avxvnni(size_t iterations);
uint32_t at_ceiling_int8_avx512vnni(size_t iterations);
#elif defined(__aarch64__)
uint32_t at_ceiling_int8_neon(size_t iterations);
uint32_t at_ceiling_int16_neon(size_t iterations);
uint32_t at_ceiling_int8_dotprod(size_t iterations);
uint32_t at_ceiling_int8_i8mm(size_t iterations);
#endif

// What this processor and kernel offer, as bits.
enum {
  AT_CPU_AVX2 = 1, AT_CPU_NEON = 2, AT_CPU_DOTPROD = 4, AT_CPU_I8MM = 8, AT_CPU_AVX_VNNI = 16, AT_CPU_AVX512_VNNI = 32,
  AT_CPU_SSE41 = 64,
  AT_CPU_SINGLE_MULTIPLIER = 128, // integers of AVX2 are multiplied in one pipe alone: AMD's Zen, Zen+ and Zen 2
};
uint32_t at_cpu_features(void);

// One processor's share of the second cache, in bytes; 0 where the system does not tell.
size_t at_second_cache_bytes(void);

// A pool of `threads - 1` helpers beside the caller. A region's range 0..<count is cut into pieces of `grain`, taken in
// any order by any thread. Helpers spin for a bounded time after a region and then sleep on a futex.
typedef struct at_pool at_pool;
// `worker` is below the number of threads and differs between pieces that are worked on at the same time, as long as no
// region is started while another one runs.
typedef void (*at_task)(void *_Nullable context, size_t worker, size_t begin, size_t end);
at_pool *_Nullable at_pool_create(int threads); // NULL where no thread can be had
void at_pool_run(at_pool *pool, size_t count, size_t grain, at_task task, void *_Nullable context);
void at_pool_destroy(at_pool *pool);

// What it takes one thread to hand a line of the cache to another and to get it back; NAN where there is no second thread.
double at_handover_seconds(void);

#pragma clang assume_nonnull end
