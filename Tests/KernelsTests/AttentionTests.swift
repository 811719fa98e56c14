import CKernels
import Kernels
import Testing

/// One head's attention with its own memory, to be run by any table.
struct AttentionProblem: CustomStringConvertible {
  var queries: Int
  var keys: Int
  var headWidth: Int
  var firstQuery = 0
  var causal = false
  var biased = false
  var padding = 0
  var magnitude: Float = 2

  var description: String {
    "\(queries) queries from \(firstQuery), \(keys) keys, width \(headWidth), causal \(causal), biased \(biased)"
  }

  func run(_ table: KernelTable) -> [Float] {
    var random = Generator(queries * 1000 + keys + headWidth)
    let stride = headWidth + padding
    func rows(_ count: Int, _ range: ClosedRange<Float>) -> Guarded<Float> {
      Guarded(random.floats((count - 1) * stride + headWidth, range))
    }
    let q = rows(queries, -magnitude...magnitude)
    let k = rows(keys, -magnitude...magnitude)
    let v = rows(keys, -1...1)
    let out = rows(queries, -9...9)
    let last = firstQuery + queries - 1
    let bias = Guarded(random.floats(biased ? last + keys : 0, -4...4))
    let gate = Guarded(random.floats(biased ? queries : 0))
    let workspace = Guarded([Float](repeating: .nan, count: at_attention_workspace(queries, headWidth)))
    withExtendedLifetime((q, k, v, bias, gate, workspace)) {
      call(
        table.attention,
        at_attention(
          q: q.base, k: k.base, v: v.base, out: out.base, q_stride: stride, k_stride: stride, v_stride: stride,
          out_stride: stride, queries: queries, keys: keys, head_width: headWidth, first_query: firstQuery,
          scale: 1 / Float(headWidth).squareRoot(), causal: causal, bias: biased ? bias.base + last : nil,
          gate: biased ? gate.base : nil, workspace: workspace.base))
    }
    return out.elements
  }

  func expectAgreement(_ table: KernelTable) {
    expectSameBits(run(table), run(Oracle.kernels), "\(table.name): \(self)")
  }
}

@Suite struct AttentionTests {
  @Test("Attention gives the same bits for every number of keys", arguments: variants)
  func keys(_ table: KernelTable) {
    for keys in [1, 2, 7, 8, 9, 15, 16, 17, 33, 63, 64, 65, 77, 127, 128, 129, 496] {
      AttentionProblem(queries: 1, keys: keys, headWidth: 40).expectAgreement(table)
      AttentionProblem(queries: 13, keys: keys, headWidth: 8, padding: 5).expectAgreement(table)
    }
  }

  @Test("Attention gives the same bits for every head", arguments: variants)
  func headWidths(_ table: KernelTable) {
    for width in [1, 2, 3, 4, 7, 8, 9, 12, 15, 16, 17, 24, 25, 40, 48, 64, 80, 160, 512] {
      for queries in [1, 2, 3, 4, 5, 6, 7, 8, 12, 17] {
        AttentionProblem(queries: queries, keys: 70, headWidth: width, padding: queries % 2).expectAgreement(table)
      }
    }
  }

  @Test("No query sees a key after it", arguments: variants)
  func causal(_ table: KernelTable) {
    for first in [0, 1, 5, 57, 60, 63, 64, 65, 100] {
      for queries in [1, 6, 7, 20] {
        AttentionProblem(queries: queries, keys: first + queries, headWidth: 24, firstQuery: first, causal: true)
          .expectAgreement(table)
        AttentionProblem(queries: queries, keys: 140, headWidth: 16, firstQuery: first, causal: true, biased: true)
          .expectAgreement(table)
        AttentionProblem(queries: queries, keys: first / 2 + 1, headWidth: 9, firstQuery: first, causal: true)
          .expectAgreement(table)
      }
    }
    AttentionProblem(queries: 77, keys: 77, headWidth: 64, causal: true).expectAgreement(table)
  }

  @Test("A gated position bias is added alike", arguments: variants)
  func bias(_ table: KernelTable) {
    for (first, queries, keys) in [(0, 1, 1), (0, 9, 9), (3, 6, 65), (64, 13, 77), (100, 62, 496), (0, 96, 70)] {
      AttentionProblem(queries: queries, keys: keys, headWidth: 64, firstQuery: first, biased: true)
        .expectAgreement(table)
    }
  }

  @Test("Scores far apart neither overflow nor vanish", arguments: variants)
  func largeScores(_ table: KernelTable) {
    for magnitude in [0, 1e-6, 20, 1e4] as [Float] {
      AttentionProblem(queries: 7, keys: 200, headWidth: 40, magnitude: magnitude).expectAgreement(table)
    }
  }
}
