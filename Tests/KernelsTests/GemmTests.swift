import CKernels
import Kernels
import Testing

/// One matrix product with its own memory, to be run by any table.
struct GemmProblem: CustomStringConvertible {
  enum Weights { case int8, int8Pairs, int8Fours, float32, float16 }
  enum Residual: CaseIterable { case none, separate, inPlace }

  var kind: Weights
  /// Where `paired`, half of them are differences to the others.
  var rows: Int
  var outputs: Int
  var inputs: Int
  var taps = 1
  var panels: Range<Int>?
  var bias = true
  var residual = Residual.none
  var padding = 0
  var extreme = false
  var paired = false
  /// Whether results and residuals are f16.
  var halves = false
  var seed = 1

  var description: String {
    "\(kind) \(rows)x\(inputs) taps \(taps) -> \(outputs), panels \(panels.map { "\($0)" } ?? "all"), "
      + "residual \(residual), extreme \(extreme), paired \(paired), halves \(halves)"
  }

  private var isInt8: Bool { kind == .int8 || kind == .int8Pairs || kind == .int8Fours }
  private var panelCount: Int { (outputs + 7) / 8 }
  /// Rows of `out`, and where `paired` of `pair_out`.
  private var outRows: Int { paired ? rows / 2 : rows }

  private func activations(_ random: inout Generator) -> [UInt8] {
    let count = (rows + taps) * inputs
    if extreme { return (0..<count).map { _ in random.pick([0, 255, 255, 255]) } }
    return (0..<count).map { _ in random.integer(0...255) }
  }

  private func weights(_ random: inout Generator) -> [Int8] {
    let count = panelCount * taps * inputs * 8
    if kind == .int8Pairs { return (0..<count / 2).flatMap { pair($0, &random) } }
    if kind == .int8Fours { return fours(count, &random) }
    return (0..<count).map { i in
      guard extreme else { return random.integer(-128...127) }
      // Outputs with one sign throughout reach the largest sums; the others alternate.
      let output = i / 4 % 8
      return output < 3 ? 127 : output < 6 ? -127 : random.pick([127, -127, -128])
    }
  }

  /// Two neighbours that add up to at most 128 where they have one sign; in extreme products, to no less.
  private func pair(_ index: Int, _ random: inout Generator) -> [Int8] {
    if extreme {
      let output = index / 2 % 8
      let limits: [[Int8]] = [[64, 64], [127, 1], [1, 127], [65, 63]]
      let mixed: [[Int8]] = [[127, -127], [-127, 127]]
      if output == 0 { return [64, 64] }
      if output == 1 { return [-127, -1] }
      let negative = limits.map { $0.map { -$0 } }
      return random.pick(output < 4 ? limits : output < 6 ? negative : limits + negative + mixed)
    }
    let a: Int = random.integer(-127...127)
    let room = 128 - abs(a)
    let b = a == 0 ? random.integer(-127...127) : random.integer(a > 0 ? -127...min(room, 127) : -min(room, 127)...127)
    return [Int8(a), Int8(b)]
  }

  /// Codes of which each four keeps the limit for both signs; in extreme products all that have one sign are at it.
  private func fours(_ count: Int, _ random: inout Generator) -> [Int8] {
    var codes = [Int8](repeating: 0, count: count)
    // What is left for positive and for negative codes of each four, [panel and tap][eight inputs][output][half].
    var left: [Int: (Int, Int)] = [:]
    for i in 0..<count {
      let quads = inputs / 4
      let (quad, place) = (i / 32, i % 32)
      let four = ((quad / quads * ((quads + 1) / 2) + quad % quads / 2) * 8 + place / 4) * 2 + place % 4 / 2
      let room = left[four] ?? (128, 128)
      let isNegative = extreme ? place / 4 % 2 == 1 : random.pick([true, false])
      let most = min(isNegative ? room.1 : room.0, 127)
      let size: Int = extreme ? random.pick([most, most / 2, most]) : random.integer(0...most)
      codes[i] = Int8(isNegative ? -size : size)
      left[four] = isNegative ? (room.0, room.1 - size) : (room.0 - size, room.1)
    }
    return codes
  }

  private func sums(_ weights: [Int8]) -> [Int32] {
    var sums = [Int32](repeating: 0, count: taps * panelCount * 8)
    for (i, weight) in weights.enumerated() {
      let output = i / 4 % 8
      let tap = i / (8 * inputs) % taps
      sums[tap * panelCount * 8 + i / (8 * inputs * taps) * 8 + output] += Int32(weight)
    }
    return sums
  }

  /// The whole output buffers: also what was not to be written.
  func run(_ table: KernelTable) -> [Float] {
    var random = Generator(seed)
    let codes = Guarded(isInt8 ? activations(&random) : [])
    let values = Guarded(isInt8 ? [] : random.floats((rows + taps) * inputs, -3...3))
    let count = panelCount * taps * inputs * 8
    let int8 = isInt8 ? weights(&random) : []
    let weights8 = Guarded(int8)
    let weights32 = Guarded(kind == .float32 ? random.floats(count) : [])
    let weights16 = Guarded(kind == .float16 ? (0..<count).map { _ in Float16(random.float()).bitPattern } : [])
    let sum = Guarded(isInt8 && inputs > 0 ? sums(int8) : [Int32](repeating: 0, count: taps * panelCount * 8))
    let order = (0..<rows * taps).map { _ in random.integer(0...rows + taps - 1) }
    let rowPointers = Guarded<UnsafeRawPointer>(
      order.map { isInt8 ? UnsafeRawPointer(codes.base + $0 * inputs) : UnsafeRawPointer(values.base + $0 * inputs) })
    let rowScale = Guarded(order.map { $0 % 7 == 3 ? Float(0) : random.float(0...0.1) })
    let rowZero = Guarded(order.map { _ in random.integer(0...255) as Int32 })
    let scale = Guarded(random.floats(panelCount * 8, 0...0.01))
    let biases = Guarded(random.floats(panelCount * 8))
    let stride = outputs + padding
    func buffer(_ stride: Int) -> Elements {
      Elements(random.floats((outRows - 1) * stride + outputs), halves: halves)
    }
    let out = (buffer(stride), buffer(stride))
    let other = (buffer(outputs), buffer(outputs))
    let added: (UnsafeMutableRawPointer, UnsafeMutableRawPointer)? =
      switch residual {
      case .none: nil
      case .separate: (other.0.base, other.1.base)
      case .inPlace: (out.0.base, out.1.base)
      }
    let matrix: UnsafeRawPointer =
      switch kind {
      case .int8, .int8Pairs, .int8Fours: UnsafeRawPointer(weights8.base)
      case .float32: UnsafeRawPointer(weights32.base)
      case .float16: UnsafeRawPointer(weights16.base)
      }
    let range = panels ?? 0..<panelCount
    let arguments = at_gemm(
      rows: rowPointers.base, row_scale: isInt8 ? rowScale.base : nil, row_zero: isInt8 ? rowZero.base : nil,
      row_count: rows, taps: taps, inputs: inputs, weights: matrix, scale: isInt8 ? scale.base : nil,
      sum: isInt8 ? sum.base : nil, bias: bias ? biases.base : nil, panels: panelCount,
      panel_begin: range.lowerBound, panel_end: range.upperBound, outputs: outputs,
      residual: added.map { UnsafeRawPointer($0.0) },
      residual_stride: residual == .inPlace ? stride : outputs, out: out.0.base, out_stride: stride, paired: paired,
      pair_residual: paired ? added.map { UnsafeRawPointer($0.1) } : nil, pair_out: paired ? out.1.base : nil,
      halves: halves)
    withExtendedLifetime((codes, values, weights8, weights32, weights16, sum)) {
      withExtendedLifetime((rowPointers, rowScale, rowZero, scale, biases, other)) {
        switch kind {
        case .int8: call(table.gemmInt8, arguments)
        case .int8Pairs: call(table.gemmInt8Pairs, arguments)
        case .int8Fours: call(table.gemmInt8Fours, arguments)
        case .float32: call(table.gemmFloat32, arguments)
        case .float16: call(table.gemmFloat16, arguments)
        }
      }
    }
    return out.0.elements + out.1.elements
  }

  func expectAgreement(_ table: KernelTable) {
    for halves in [false, true] {
      var problem = self
      problem.halves = halves
      expectSameBits(problem.run(table), problem.run(Oracle.kernels), "\(table.name): \(problem)")
    }
  }
}

@Suite struct GemmTests {
  @Test("Small and odd layers give the same picture on every processor", arguments: variants)
  func smallShapes(_ table: KernelTable) {
    for rows in [1, 2, 3, 4, 5, 7, 8, 9, 13] {
      for outputs in [1, 3, 4, 8, 9, 17, 31, 40] {
        let seed = rows * 100 + outputs
        let residual = GemmProblem.Residual.allCases[seed % 3]
        let padding = seed % 2 * 3
        for kind in [GemmProblem.Weights.int8, .int8Pairs, .int8Fours] {
          GemmProblem(
            kind: kind, rows: rows, outputs: outputs, inputs: 4 * (1 + seed % 23), taps: 1 + seed % 3,
            bias: seed % 5 != 0, residual: residual, padding: padding, seed: seed
          ).expectAgreement(table)
        }
        for kind in [GemmProblem.Weights.float32, .float16] {
          GemmProblem(
            kind: kind, rows: rows, outputs: outputs, inputs: 1 + seed % 37, taps: 1 + seed % 3, bias: seed % 5 != 0,
            residual: residual, padding: padding, seed: seed
          ).expectAgreement(table)
        }
      }
    }
  }

  @Test("Deep layers give the same picture on every processor", arguments: variants)
  func deepShapes(_ table: KernelTable) {
    for inputs in [4, 8, 28, 32, 36, 320, 768, 1020, 1024, 1028, 1284, 2052] {
      for kind in [GemmProblem.Weights.int8, .int8Pairs, .int8Fours] {
        GemmProblem(kind: kind, rows: 5, outputs: 17, inputs: inputs, seed: inputs).expectAgreement(table)
        GemmProblem(kind: kind, rows: 9, outputs: 16, inputs: inputs, taps: 2, seed: inputs).expectAgreement(table)
      }
    }
    for inputs in [1, 2, 3, 5, 320, 1023] {
      GemmProblem(kind: .float32, rows: 7, outputs: 17, inputs: inputs, seed: inputs).expectAgreement(table)
      GemmProblem(kind: .float16, rows: 7, outputs: 17, inputs: inputs, seed: inputs).expectAgreement(table)
    }
  }

  @Test("Layers of many tiles of rows give the same picture on every processor", arguments: variants)
  func manyTiles(_ table: KernelTable) {
    for kind in [GemmProblem.Weights.int8, .int8Pairs, .int8Fours] {
      for (rows, paired) in [(15, false), (16, false), (29, false), (40, false), (16, true), (24, true), (46, true)] {
        for (inputs, outputs) in [(4, 32), (12, 70), (36, 64), (320, 33), (2048, 32), (2052, 32)] {
          let seed = rows + inputs
          GemmProblem(
            kind: kind, rows: rows, outputs: outputs, inputs: inputs, panels: outputs == 70 ? 1..<6 : nil,
            bias: rows != 40, residual: GemmProblem.Residual.allCases[seed % 3], padding: rows % 2, paired: paired,
            seed: seed
          ).expectAgreement(table)
        }
      }
      for paired in [false, true] {
        GemmProblem(kind: kind, rows: 24, outputs: 32, inputs: 2048, extreme: true, paired: paired, seed: 24)
          .expectAgreement(table)
        GemmProblem(
          kind: kind, rows: Int(AT_GEMM_ROWS), outputs: 33, inputs: 16, residual: .inPlace, paired: paired, seed: 33
        ).expectAgreement(table)
        // Larger than second caches may be.
        GemmProblem(kind: kind, rows: 22, outputs: 280, inputs: 2048, paired: paired, seed: 280).expectAgreement(table)
      }
    }
  }

  @Test("Convolutions give the same picture on every processor", arguments: variants)
  func taps(_ table: KernelTable) {
    for (taps, inputs) in [(9, 4), (9, 64), (9, 1028), (25, 8), (128, 4), (128, 48)] {
      for kind in [GemmProblem.Weights.int8, .int8Pairs, .int8Fours, .float32, .float16] {
        GemmProblem(
          kind: kind, rows: 9, outputs: 43, inputs: inputs, taps: taps, residual: .separate, seed: taps + inputs
        ).expectAgreement(table)
      }
    }
  }

  @Test("Matrices too large for the caches are multiplied alike", arguments: variants)
  func largeMatrices(_ table: KernelTable) {
    for kind in [GemmProblem.Weights.int8, .int8Pairs, .int8Fours] {
      for (rows, paired) in [(8, false), (21, false), (14, true)] {
        GemmProblem(
          kind: kind, rows: rows, outputs: 280, inputs: 1348, taps: 2, residual: .inPlace, paired: paired, seed: rows
        ).expectAgreement(table)
      }
    }
  }

  @Test("A layer split over threads writes only its own columns", arguments: variants)
  func panelRanges(_ table: KernelTable) {
    for kind in [GemmProblem.Weights.int8, .int8Pairs, .int8Fours, .float32, .float16] {
      for range in [0..<0, 0..<1, 1..<2, 1..<4, 3..<8, 16..<20, 5..<40, 40..<40, 0..<40] {
        GemmProblem(
          kind: kind, rows: 9, outputs: 313, inputs: 12, taps: 2, panels: range, residual: .inPlace, padding: 2,
          seed: range.count
        ).expectAgreement(table)
      }
    }
  }

  @Test("Extreme codes and weights do not saturate", arguments: variants)
  func extremes(_ table: KernelTable) {
    for (rows, inputs, taps) in [
      (1, 5120, 1), (4, 5120, 1), (9, 5120, 1), (9, 5124, 1), (9, 1284, 2), (2, 4, 1), (3, 8, 9), (5, 12, 1),
    ] {
      for kind in [GemmProblem.Weights.int8, .int8Pairs, .int8Fours] {
        GemmProblem(kind: kind, rows: rows, outputs: 16, inputs: inputs, taps: taps, extreme: true, seed: inputs)
          .expectAgreement(table)
      }
    }
  }

  @Test("The two halves of guidance are multiplied at once alike", arguments: variants)
  func pairedRows(_ table: KernelTable) {
    for kind in [GemmProblem.Weights.int8, .int8Pairs, .int8Fours] {
      for pairs in [1, 2, 3, 4, 5, 6, 7, 13] {
        for (outputs, inputs, taps) in [(1, 4, 1), (8, 12, 9), (17, 36, 1), (24, 8, 2), (31, 64, 9)] {
          for residual in GemmProblem.Residual.allCases {
            let seed = pairs * 100 + outputs
            GemmProblem(
              kind: kind, rows: 2 * pairs, outputs: outputs, inputs: inputs, taps: taps, bias: seed % 4 != 0,
              residual: residual, padding: pairs % 3, paired: true, seed: seed
            ).expectAgreement(table)
          }
        }
      }
    }
  }

  @Test("A guided layer split over threads writes only its own columns", arguments: variants)
  func pairedPanelRanges(_ table: KernelTable) {
    for kind in [GemmProblem.Weights.int8, .int8Pairs, .int8Fours] {
      for range in [0..<0, 0..<1, 1..<2, 1..<4, 3..<8, 16..<20, 5..<40, 40..<40] {
        for residual in GemmProblem.Residual.allCases {
          GemmProblem(
            kind: kind, rows: 10, outputs: 313, inputs: 12, taps: 2, panels: range, residual: residual, padding: 2,
            paired: true, seed: range.count
          ).expectAgreement(table)
        }
      }
    }
  }

  @Test("A block has as many rows as it may have", arguments: variants)
  func mostRows(_ table: KernelTable) {
    let most = Int(AT_GEMM_ROWS)
    for kind in [GemmProblem.Weights.int8, .int8Pairs, .int8Fours] {
      for (rows, paired) in [
        (most, false), (most - 1, false), (most - 2, false), (most, true), (most - 2, true), (most - 4, true),
      ] {
        for taps in [1, 9] {
          GemmProblem(
            kind: kind, rows: rows, outputs: 25, inputs: 8, taps: taps, residual: .inPlace, padding: 1,
            extreme: taps == 1, paired: paired, seed: rows
          ).expectAgreement(table)
        }
      }
    }
  }

  /// From the first panel and from the second on: kernels that take two side by side may treat them differently.
  @Test(
    "Every pair of weights at the limit is multiplied exactly with the largest codes", arguments: variants, [0, 1])
  func everyPair(_ table: KernelTable, firstPanel: Int) {
    // The first panel is never the second of two.
    var pairs = [(a: Int, b: Int)](repeating: (64, 64), count: 8)
    for a in 1...127 { pairs += [(a, 128 - a), (-a, a - 128), (a, -127), (-127, a)] }
    pairs += [(127, 0), (-127, 0), (0, 127), (0, -127)]
    let ends = [0, 1, 127, 128, 254, 255]
    let codes = ends.flatMap { x in ends.map { y in [x, y, 255 - x, 255 - y] } }
    // Each output has its pair in the first half of the quad and turned round in the second.
    let weights = Guarded(pairs.flatMap { [Int8($0.a), Int8($0.b), Int8($0.b), Int8($0.a)] })
    let x = Guarded(codes.flatMap { $0.map { UInt8($0) } })
    let rows = Guarded(codes.indices.map { UnsafeRawPointer(x.base + $0 * 4) })
    let ones = Guarded([Float](repeating: 1, count: max(pairs.count, codes.count)))
    let zeros = Guarded([Int32](repeating: 9, count: codes.count))
    let sums = Guarded(pairs.map { Int32(2 * ($0.a + $0.b)) })
    let out = Guarded([Float](repeating: 0, count: codes.count * pairs.count))
    #expect(pairs.count % 8 == 0)
    withExtendedLifetime((x, rows, ones, zeros, weights, sums)) {
      call(
        table.gemmInt8Pairs,
        at_gemm(
          rows: rows.base, row_scale: ones.base, row_zero: zeros.base, row_count: codes.count, taps: 1, inputs: 4,
          weights: weights.base, scale: ones.base, sum: sums.base, bias: nil, panels: pairs.count / 8,
          panel_begin: firstPanel, panel_end: pairs.count / 8, outputs: pairs.count, residual: nil, residual_stride: 0,
          out: out.base, out_stride: pairs.count, paired: false, pair_residual: nil, pair_out: nil, halves: false))
    }
    let expected = codes.flatMap { x -> [Float] in
      let (outer, inner) = (x[0] + x[3] - 18, x[1] + x[2] - 18)
      return pairs.enumerated().map { $0 < firstPanel * 8 ? 0 : Float(outer * $1.a + inner * $1.b) }
    }
    #expect(out.elements == expected)
  }

  @Test("Fours of weights at the limit are multiplied exactly with the largest codes", arguments: variants)
  func foursAtTheLimit(_ table: KernelTable) {
    let patterns: [[Int]] = [
      [32, 32, 32, 32], [127, 1, 0, 0], [0, 0, 127, 1], [64, 0, 0, 64], [1, 127, -127, -1], [127, -127, 1, -1],
      [43, 43, 42, -128 + 1], [-127, 0, -1, 127],
    ]
    // One output for each pattern, and one for its opposite in the second panel; both fours of the eight inputs have it.
    let signs = [1, -1]
    let weights = Guarded(
      signs.flatMap { sign in
        [0, 2].flatMap { first in
          patterns.flatMap { pattern -> [Int8] in
            let pair = [Int8(sign * pattern[first]), Int8(sign * pattern[first + 1])]
            return pair + pair
          }
        }
      })
    let ends: [UInt8] = [0, 1, 127, 128, 254, 255]
    let codes = ends.flatMap { x in ends.map { y in [x, y, y, x, 255, x, y, 255] as [UInt8] } }
    let x = Guarded(codes.flatMap { $0 })
    let rows = Guarded(codes.indices.map { UnsafeRawPointer(x.base + $0 * 8) })
    let ones = Guarded([Float](repeating: 1, count: max(16, codes.count)))
    let zeros = Guarded([Int32](repeating: 0, count: codes.count))
    let sums = Guarded(signs.flatMap { sign in patterns.map { Int32(2 * sign * $0.reduce(0, +)) } })
    let out = Guarded([Float](repeating: 0, count: codes.count * 16))
    withExtendedLifetime((x, rows, ones, zeros, weights, sums)) {
      call(
        table.gemmInt8Fours,
        at_gemm(
          rows: rows.base, row_scale: ones.base, row_zero: zeros.base, row_count: codes.count, taps: 1, inputs: 8,
          weights: weights.base, scale: ones.base, sum: sums.base, bias: nil, panels: 2, panel_begin: 0,
          panel_end: 2, outputs: 16, residual: nil, residual_stride: 0, out: out.base,
          out_stride: 16, paired: false, pair_residual: nil, pair_out: nil, halves: false))
    }
    let expected = codes.flatMap { x -> [Float] in
      let c = x.map { Int($0) }
      let ofPair = [c[0] + c[2], c[1] + c[3], c[4] + c[6], c[5] + c[7]]
      return signs.flatMap { sign in
        patterns.map { w in Float(sign * (0..<4).reduce(0) { $0 + ofPair[$1] * w[$1] }) }
      }
    }
    #expect(out.elements == expected)
  }

  @Test("Every pair of a code and a weight is multiplied exactly", arguments: variants)
  func everyProduct(_ table: KernelTable) {
    // A row for each code, an output for each weight.
    let codes = Guarded((0..<256).flatMap { [UInt8](repeating: UInt8($0), count: 8) })
    let rows = Guarded((0..<256).map { UnsafeRawPointer(codes.base + $0 * 8) })
    let ones = Guarded([Float](repeating: 1, count: 256))
    let zeros = Guarded([Int32](repeating: 3, count: 256))
    for weight in stride(from: -128, through: 127, by: 8) {
      let weights = Guarded((0..<64).map { Int8(weight + $0 / 4 % 8) })
      let sums = Guarded((0..<8).map { Int32(weight + $0) * 8 })
      let out = Guarded([Float](repeating: 0, count: 256 * 8))
      withExtendedLifetime((codes, rows, ones, zeros, weights, sums)) {
        call(
          table.gemmInt8,
          at_gemm(
            rows: rows.base, row_scale: ones.base, row_zero: zeros.base, row_count: 256, taps: 1, inputs: 8,
            weights: weights.base, scale: ones.base, sum: sums.base, bias: nil, panels: 1, panel_begin: 0,
            panel_end: 1, outputs: 8, residual: nil, residual_stride: 0, out: out.base, out_stride: 8,
            paired: false, pair_residual: nil, pair_out: nil, halves: false))
      }
      let expected = (0..<256).flatMap { code in (0..<8).map { Float((code - 3) * (weight + $0) * 8) } }
      #expect(out.elements == expected)
    }
  }
}
