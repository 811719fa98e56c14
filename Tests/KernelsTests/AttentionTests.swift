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
  /// Some rows are far smaller than others, some are zero.
  var uneven = false

  var description: String {
    "\(queries) queries from \(firstQuery), \(keys) keys, width \(headWidth), causal \(causal), biased \(biased), "
      + "magnitude \(magnitude), uneven \(uneven)"
  }

  private var stride: Int { headWidth + padding }
  private var last: Int { firstQuery + queries - 1 }
  private var scale: Float { 1 / Float(headWidth).squareRoot() }

  private struct Inputs {
    let q, k, v, out: Elements
    let bias, gate: Guarded<Float>
  }

  private func rows(_ count: Int, _ range: ClosedRange<Float>, _ random: inout Generator) -> [Float] {
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
      q: Elements(rows(queries, -magnitude...magnitude, &random), halves: halves),
      k: Elements(rows(keys, -magnitude...magnitude, &random), halves: halves),
      v: Elements(rows(keys, -1...1, &random), halves: halves),
      out: Elements(rows(queries, -9...9, &random), halves: halves),
      bias: Guarded(random.floats(biased ? last + keys : 0, -4...4)),
      gate: Guarded(random.floats(biased ? queries : 0)))
  }

  func run(_ table: KernelTable) -> [Float] {
    let x = inputs()
    let workspace = Guarded([Float](repeating: .nan, count: at_attention_workspace(queries, headWidth)))
    func floats(_ x: Elements) -> UnsafeMutablePointer<Float> { x.base.assumingMemoryBound(to: Float.self) }
    withExtendedLifetime((x, workspace)) {
      call(
        table.attention,
        at_attention(
          q: floats(x.q), k: floats(x.k), v: floats(x.v), out: floats(x.out), q_stride: stride, k_stride: stride,
          v_stride: stride, out_stride: stride, queries: queries, keys: keys, head_width: headWidth,
          first_query: firstQuery, scale: scale, causal: causal, bias: biased ? x.bias.base + last : nil,
          gate: biased ? x.gate.base : nil, workspace: workspace.base))
    }
    return x.out.elements
  }

  /// In integers: the packed tiles, and the result.
  func runInt16(_ table: KernelTable, halves: Bool) -> (tiles: [UInt8], out: [Float]) {
    let x = inputs(halves: halves)
    let bytes = stride * (halves ? 2 : 4)
    let tile = Int(AT_ATTENTION_TILE)
    let tileBytes = at_attention_tile_bytes(headWidth)
    let tiles = Guarded([UInt8](repeating: 0xff, count: (keys + tile - 1) / tile * tileBytes))
    // A multiple of the alignment, so that the memory's end, which is that of a page, gives its beginning.
    let space = (at_attention_int16_workspace(queries, headWidth) + 31) / 32 * 32
    let workspace = Guarded([UInt8](repeating: 0xff, count: space))
    withExtendedLifetime((x, tiles, workspace)) {
      for first in Swift.stride(from: 0, to: keys, by: tile) {
        call(
          table.attentionPack,
          at_attention_pack(
            k: x.k.base + first * bytes, v: x.v.base + first * bytes, k_stride: stride, v_stride: stride,
            count: min(tile, keys - first), head_width: headWidth, tile: tiles.base + first / tile * tileBytes,
            halves: halves))
      }
      call(
        table.attentionInt16,
        at_attention_int16(
          q: x.q.base, tiles: tiles.base, out: x.out.base, q_stride: stride, out_stride: stride, queries: queries,
          keys: keys, head_width: headWidth, first_query: firstQuery, scale: scale, causal: causal,
          bias: biased ? x.bias.base + last : nil, gate: biased ? x.gate.base : nil, workspace: workspace.base,
          halves: halves))
    }
    return (tiles.elements, x.out.elements)
  }

  func expectAgreement(_ table: KernelTable) {
    expectSameBits(run(table), run(Oracle.kernels), "\(table.name): \(self)")
    for halves in [false, true] {
      let (found, expected) = (runInt16(table, halves: halves), runInt16(Oracle.kernels, halves: halves))
      let name = "\(table.name), integers\(halves ? " of f16" : "")"
      if let i = found.tiles.indices.first(where: { found.tiles[$0] != expected.tiles[$0] }) {
        let place = "tile \(i / at_attention_tile_bytes(headWidth)), byte \(i % at_attention_tile_bytes(headWidth))"
        Issue.record("\(name): \(place) is \(found.tiles[i]), expected \(expected.tiles[i]): \(self)")
      }
      expectSameBits(found.out, expected.out, "\(name): \(self)")
    }
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
    for magnitude in [0, 1e-18, 1e-6, 20, 1e4, 1e15] as [Float] {
      AttentionProblem(queries: 7, keys: 200, headWidth: 40, magnitude: magnitude).expectAgreement(table)
    }
  }

  @Test("Rows of very different size are coded alike", arguments: variants)
  func unevenRows(_ table: KernelTable) {
    for (queries, keys, width) in [(5, 64, 8), (9, 130, 40), (4, 3, 1), (6, 77, 161)] {
      for causal in [false, true] {
        AttentionProblem(
          queries: queries, keys: keys, headWidth: width, causal: causal, biased: causal, padding: 3, magnitude: 9,
          uneven: true
        ).expectAgreement(table)
      }
    }
  }
}
