// What every kernel begins with, whatever its instruction set.
//
// A kernel is written once, in lanes: `floats` holds LANES f32, `integers` as many s32, in whatever registers. A file
// lanes_*.h says what they are for one instruction set, and a C file compiles the kernels for it. There are eight lanes,
// because what adds up lanes gives other bits with other numbers of them. Kernels that add up none, or sixteen in a given
// order, have sixteen where registers have. The int8 product, and attention in integers, have a file for each way of
// multiplying: there are more ways than lanes.
#pragma once
#include "CKernels.h"

#pragma STDC FP_CONTRACT OFF

#define UNROLLED _Pragma("clang loop unroll(full)")

// The panels to compute end here: those that are asked for and hold outputs.
static inline size_t last_panel(const at_gemm *a) {
  const size_t used = (a->outputs + AT_PANEL - 1) / AT_PANEL;
  return a->panel_end < used ? a->panel_end : used;
}
