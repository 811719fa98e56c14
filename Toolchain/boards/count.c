// Runs one kernel of Arm some times, for its instructions to be counted: count KERNEL TIMES. Prints the
// multiply-accumulates of one time.
#include "CKernels.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 64, INPUTS = 640, OUTPUTS = 32, PANELS = OUTPUTS / AT_PANEL };

static size_t multiply(void (*kernel)(const at_gemm *), int times) {
  static uint8_t codes[ROWS][INPUTS];
  static int8_t weights[PANELS * INPUTS * AT_PANEL];
  static float row_scale[ROWS], scale[OUTPUTS], out[ROWS][OUTPUTS];
  static int32_t row_zero[ROWS], sum[OUTPUTS];
  static const void *rows[ROWS];
  for (size_t r = 0; r < ROWS; r++) rows[r] = codes[r];
  const at_gemm a = {.rows = rows, .row_scale = row_scale, .row_zero = row_zero, .row_count = ROWS, .taps = 1,
                     .inputs = INPUTS, .weights = weights, .scale = scale, .sum = sum, .panels = PANELS,
                     .panel_end = PANELS, .outputs = OUTPUTS, .out = out[0], .out_stride = OUTPUTS};
  for (int i = 0; i < times; i++) kernel(&a);
  return (size_t)ROWS * INPUTS * OUTPUTS;
}

// Self-attention of one head: the products of scores and of values.
static size_t attend(void (*pack_tile)(const at_attention_pack *), void (*kernel)(const at_attention_int8 *), int times) {
  enum { TOKENS = 128, WIDTH = 40 };
  static float x[TOKENS][WIDTH], out[TOKENS][WIDTH];
  static float zero[WIDTH], factor[WIDTH], step[WIDTH], query_factor[WIDTH];
  char *packed = aligned_alloc(64, (at_attention_tile_bytes(WIDTH) * (TOKENS / AT_CODED_TILE) + 63) / 64 * 64);
  for (size_t d = 0; d < WIDTH; d++) {
    factor[d] = AT_CODE_LIMIT;
    step[d] = 1.0f / AT_CODE_LIMIT;
    query_factor[d] = step[d] * 0.228f;
  }
  for (size_t t = 0; t < TOKENS; t++) {
    for (size_t d = 0; d < WIDTH; d++) x[t][d] = ((float)((t * 7 + d * 5) % 11) - 5) / 5;
  }
  for (size_t t = 0; t < TOKENS; t += AT_CODED_TILE) {
    const at_attention_pack pack = {.k = x[t], .v = x[t], .key_centre = zero, .key_factor = factor,
                                    .value_centre = zero, .value_factor = factor, .k_stride = WIDTH,
                                    .v_stride = WIDTH, .count = AT_CODED_TILE, .head_width = WIDTH,
                                    .tile = packed + t / AT_CODED_TILE * at_attention_tile_bytes(WIDTH)};
    pack_tile(&pack);
  }
  const at_attention_int8 a = {.q = x[0], .tiles = packed, .query_factor = query_factor, .value_centre = zero,
                               .value_step = step, .out = out[0], .q_stride = WIDTH, .out_stride = WIDTH,
                               .queries = TOKENS, .keys = TOKENS, .head_width = WIDTH,
                               .workspace = aligned_alloc(64, (at_attention_int8_workspace(TOKENS, WIDTH) + 63) / 64 * 64)};
  for (int i = 0; i < times; i++) kernel(&a);
  return (size_t)2 * TOKENS * TOKENS * WIDTH;
}

int main(int count, char **arguments) {
  if (count != 3) return 64;
  const int times = atoi(arguments[2]);
  size_t products = 0;
  if (!strcmp(arguments[1], "neon")) products = multiply(at_gemm_int8_neon, times);
  if (!strcmp(arguments[1], "dotprod")) products = multiply(at_gemm_int8_dotprod, times);
  if (!strcmp(arguments[1], "i8mm")) products = multiply(at_gemm_int8_i8mm, times);
  if (!strcmp(arguments[1], "attention")) products = attend(at_attention_pack_neon, at_attention_int8_neon, times);
  if (!strcmp(arguments[1], "attention-dotprod"))
    products = attend(at_attention_pack_dotprod, at_attention_int8_dotprod, times);
  printf("%zu\n", products);
  return products == 0;
}
