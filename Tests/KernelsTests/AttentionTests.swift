import CKernels
import Kernels
import Testing

/// How the channels of `count` rows are coded, as attention asks for it; each [width].
struct ChannelCodings {
  let centre, factor, step: Guarded<Float>

  init(_ rows: [Float], count: Int, stride: Int, width: Int) {
    let codings = (0..<width).map { d in
      let channel = (0..<count).map { rows[$0 * stride + d] }
      return Oracle.channelCoding(channel.min() ?? 0, channel.max() ?? 0)
    }
    centre = Guarded(codings.map(\.centre))
    factor = Guarded(codings.map(\.factor))
    step = Guarded(codings.map(\.step))
  }
}

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
  /// Some rows are far smaller than others, some are zero.
  var uneven = false

  var description: String {
    "\(queries) queries from \(firstQuery), \(keys) keys, width \(headWidth), causal \(causal), biased \(biased), "
      + "magnitude \(magnitude), uneven \(uneven)"
  }

  /// Elements from a row to the next, of each its own.
  private var strides: (q: Int, k: Int, v: Int, out: Int) {
    let stride = headWidth + padding
    return (stride, stride + 3, stride + 1, stride + 2)
  }
  private var last: Int { firstQuery + queries - 1 }
  private var scale: Float { 1 / Float(headWidth).squareRoot() }

  private struct Inputs {
    let q, k, v, out: Elements
    let bias, gate: Guarded<Float>
  }

  private func rows(
    _ count: Int, _ stride: Int, _ range: ClosedRange<Float>, _ random: inout Generator
  ) -> [Float] {
    var values = random.floats((count - 1) * stride + headWidth, range)
    if uneven {
      for i in values.indices { values[i] *= [1, 1e-3, 0, 1e-8, 30][i / stride % 5] }
    }
    return values
  }

  private func inputs(halves: Bool = false) -> Inputs {
    var random = Generator(queries * 1000 + keys + headWidth)
    let magnitude = halves ? min(magnitude, 1000) : magnitude
    return Inputs(
      q: Elements(rows(queries, strides.q, -magnitude...magnitude, &random), halves: halves),
      k: Elements(rows(keys, strides.k, -magnitude...magnitude, &random), halves: halves),
      v: Elements(rows(keys, strides.v, -1...1, &random), halves: halves),
      out: Elements(rows(queries, strides.out, -9...9, &random), halves: halves),
      bias: Guarded(random.floats(biased ? last + keys : 0, -4...4)),
      gate: Guarded(random.floats(biased ? queries : 0)))
  }

  func run(_ table: KernelTable) -> [Float] {
    let x = inputs()
    // What is read of it before it is written shows in the results: a maximum passes over numbers that are none.
    let space = at_attention_workspace(queries, headWidth)
    #expect(space % 16 == 0)
    let workspace = Guarded((0..<space).map { $0 % 2 == 0 ? Float.nan : .infinity })
    func floats(_ x: Elements) -> UnsafeMutablePointer<Float> { x.base.assumingMemoryBound(to: Float.self) }
    withExtendedLifetime((x, workspace)) {
      call(
        table.attention,
        at_attention(
          q: floats(x.q), k: floats(x.k), v: floats(x.v), out: floats(x.out), q_stride: strides.q,
          k_stride: strides.k, v_stride: strides.v, out_stride: strides.out, queries: queries, keys: keys,
          head_width: headWidth, first_query: firstQuery, scale: scale, causal: causal,
          bias: biased ? x.bias.base + last : nil, gate: biased ? x.gate.base : nil, workspace: workspace.base))
    }
    return x.out.elements
  }

  func runInt8(_ table: KernelTable, halves: Bool) -> [Float] {
    let x = inputs(halves: halves)
    let bytes = halves ? 2 : 4
    let tile = Int(AT_CODED_TILE)
    let tileBytes = at_attention_tile_bytes(headWidth)
    let tiles = Guarded([UInt8](repeating: 0xff, count: (keys + tile - 1) / tile * tileBytes))
    let ofKeys = ChannelCodings(x.k.elements, count: keys, stride: strides.k, width: headWidth)
    let ofValues = ChannelCodings(x.v.elements, count: keys, stride: strides.v, width: headWidth)
    let queryFactor = Guarded(ofKeys.step.elements.map { $0 * ReferenceMath.log2E * scale })
    // A multiple of the alignment: the memory ends with a page, and so its beginning is aligned too.
    let space = at_attention_int8_workspace(queries, headWidth)
    #expect(space % 64 == 0)
    let workspace = Guarded([UInt8](repeating: 0xff, count: space))
    withExtendedLifetime((x, ofKeys, ofValues, queryFactor, tiles, workspace)) {
      for first in Swift.stride(from: 0, to: keys, by: tile) {
        call(
          table.attentionPack,
          at_attention_pack(
            k: x.k.base + first * strides.k * bytes, v: x.v.base + first * strides.v * bytes,
            key_centre: ofKeys.centre.base, key_factor: ofKeys.factor.base, value_centre: ofValues.centre.base,
            value_factor: ofValues.factor.base, k_stride: strides.k, v_stride: strides.v,
            count: min(tile, keys - first), head_width: headWidth, tile: tiles.base + first / tile * tileBytes,
            halves: halves))
      }
      call(
        table.attentionInt8,
        at_attention_int8(
          q: x.q.base, tiles: tiles.base, query_factor: queryFactor.base, value_centre: ofValues.centre.base,
          value_step: ofValues.step.base, out: x.out.base, q_stride: strides.q, out_stride: strides.out,
          queries: queries, keys: keys, head_width: headWidth, workspace: workspace.base, halves: halves))
    }
    return x.out.elements
  }

  func expectAgreement(_ table: KernelTable) {
    expectSameBits(run(table), run(Oracle.kernels), "\(table.name): \(self)")
    guard !causal && !biased else { return }
    for halves in [false, true] {
      let name = "\(table.name), integers\(halves ? " of f16" : "")"
      expectSameBits(runInt8(table, halves: halves), runInt8(Oracle.kernels, halves: halves), "\(name): \(self)")
    }
  }
}

@Suite struct AttentionTests {
  @Test("Attention gives the same bits for every number of keys", arguments: variants)
  func keys(_ table: KernelTable) {
    for keys in [1, 2, 7, 8, 9, 15, 16, 17, 33, 63, 64, 65, 77, 127, 128, 129, 255, 256, 257, 496] {
      AttentionProblem(queries: 1, keys: keys, headWidth: 40).expectAgreement(table)
      AttentionProblem(queries: 13, keys: keys, headWidth: 8, padding: 5).expectAgreement(table)
      AttentionProblem(queries: 29, keys: keys, headWidth: 12).expectAgreement(table)
    }
  }

  @Test("Attention gives the same bits for every head", arguments: variants)
  func headWidths(_ table: KernelTable) {
    for width in [1, 2, 3, 4, 7, 8, 9, 12, 15, 16, 17, 24, 25, 40, 48, 64, 80, 160, 512] {
      for queries in [1, 2, 3, 4, 5, 6, 7, 8, 12, 17, 26] {
        AttentionProblem(queries: queries, keys: 70, headWidth: width, padding: queries % 2).expectAgreement(table)
      }
    }
  }

  @Test("Attention gives the same bits for whole groups of queries and tiles of keys", arguments: variants)
  func groups(_ table: KernelTable) {
    for queries in [31, 32, 33, 64, 70, 96, 97, 128, 129] {
      AttentionProblem(queries: queries, keys: 300, headWidth: 40, padding: 2).expectAgreement(table)
      AttentionProblem(queries: queries, keys: 128, headWidth: 20, magnitude: 9).expectAgreement(table)
      AttentionProblem(queries: queries, keys: 140, headWidth: 12, uneven: true).expectAgreement(table)
    }
  }

  @Test("Whole tiles of heads of any width give the same bits", arguments: variants)
  func wholeTiles(_ table: KernelTable) {
    for width in [1, 2, 3, 5, 6, 7, 9, 10, 18, 33, 42] {
      for queries in [17, 31, 33] {
        AttentionProblem(queries: queries, keys: 257, headWidth: width, uneven: true).expectAgreement(table)
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
    AttentionProblem(queries: 128, keys: 128, headWidth: 40, causal: true).expectAgreement(table)
  }

  @Test("A gated position bias is added alike", arguments: variants)
  func bias(_ table: KernelTable) {
    // The last two have 1024 biases, a whole page: what is read before the first one or after the last is found.
    for (first, queries, keys) in [
      (0, 1, 1), (0, 9, 9), (3, 6, 65), (64, 13, 77), (100, 62, 496), (0, 96, 70), (0, 30, 995), (450, 62, 513),
    ] {
      AttentionProblem(queries: queries, keys: keys, headWidth: 64, firstQuery: first, biased: true)
        .expectAgreement(table)
    }
  }

  @Test("Scores far apart neither overflow nor vanish", arguments: variants)
  func largeScores(_ table: KernelTable) {
    for magnitude in [0, 1e-18, 1e-6, 20, 1e4, 1e15] as [Float] {
      for queries in [7, 30] {
        AttentionProblem(queries: queries, keys: 200, headWidth: 40, magnitude: magnitude).expectAgreement(table)
      }
    }
  }

  @Test("Rows of very different size are coded alike", arguments: variants)
  func unevenRows(_ table: KernelTable) {
    for (queries, keys, width) in [(5, 64, 8), (9, 130, 40), (4, 3, 1), (6, 77, 161), (60, 77, 41)] {
      for causal in [false, true] {
        AttentionProblem(
          queries: queries, keys: keys, headWidth: width, causal: causal, biased: causal, padding: 3, magnitude: 9,
          uneven: true
        ).expectAgreement(table)
      }
    }
  }
}
