import CKernels
import Kernels
import Testing

/// Values of every kind that a network can hand on: ordinary, tiny, huge, exact zeros, and runs of one value.
private func awkward(_ random: inout Generator, _ count: Int, limit: Float = 1e18) -> [Float] {
  let style = random.integer(0...6)
  return (0..<count).map { _ in
    switch style {
    case 0, 1: random.float(-4...4)
    case 2: random.float() * 1e-20
    case 3: random.float() * limit
    case 4: 0
    case 5: 3.25
    default: random.pick([0, -0.0, 1, -1, 1e-38, -.leastNonzeroMagnitude, 87.5, -88.5, limit, -limit, 1e-6])
    }
  }
}

private let widths = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 64, 65, 100, 320, 321, 767]
private let activations = [AT_IDENTITY, AT_SILU, AT_GELU, AT_QUICK_GELU, AT_RELU]

@Suite struct RowTests {
  @Test("Quantised rows, and differences of rows, are the same codes on every processor", arguments: variants)
  func quantizeRows(_ table: KernelTable) {
    var random = Generator(11)
    for columns in widths {
      for (rows, halves, differs, inPlace) in [
        (1, false, false, false), (5, false, false, true), (3, true, false, false), (2, false, true, false),
        (3, false, true, true), (3, true, true, false),
      ] {
        for padded in [columns, (columns + 3) / 4 * 4] {
          let stride = columns + random.integer(0...3)
          func some() -> Elements {
            Elements((0..<rows).flatMap { _ in awkward(&random, stride, limit: halves ? 6e4 : 1e30) }, halves: halves)
          }
          let (x, other) = (some(), some())
          let skipped = (stride - columns) * (halves ? 2 : 4)
          func run(_ table: KernelTable) -> (codes: [UInt8], scale: [Float], zero: [Int32]) {
            let q = Guarded([UInt8](repeating: 77, count: rows * padded))
            let scale = Guarded([Float](repeating: -1, count: rows))
            let zero = Guarded([Int32](repeating: -1, count: rows))
            let row = Guarded([Float](repeating: .nan, count: columns))
            let taken = Elements(x.elements, halves: halves)
            let first = taken.base + skipped
            withExtendedLifetime((taken, other, row)) {
              call(
                table.quantizeRows,
                at_quantize(
                  x: first, other: differs ? UnsafeRawPointer(other.base + skipped) : nil, halves: halves,
                  row: inPlace ? first.assumingMemoryBound(to: Float.self) : row.base, x_stride: stride, q: q.base,
                  q_stride: padded, scale: scale.base, zero: zero.base,
                  rows: rows, columns: columns, padded: padded))
            }
            if !halves && !differs { expectSameBits(taken.elements, x.elements, "\(table.name) writes to rows") }
            return (q.elements, scale.elements, zero.elements)
          }
          let (found, expected) = (run(table), run(Oracle.kernels))
          let label = "\(table.name): \(rows) x \(columns), halves \(halves), differs \(differs), in place \(inPlace)"
          #expect(found.codes == expected.codes, "\(label)")
          #expect(found.zero == expected.zero, "\(label)")
          expectSameBits(found.scale, expected.scale, "scales, \(label)")
        }
      }
    }
  }

  @Test("Layer norm gives the same bits on every processor, also in place", arguments: variants)
  func layerNorm(_ table: KernelTable) {
    var random = Generator(12)
    for columns in widths {
      for (inPlace, halves) in [(false, false), (true, false), (false, true)] {
        // More rows than a kernel takes in step, and some that are left over.
        let rows = 7
        let x = (0..<rows).flatMap { _ in awkward(&random, columns, limit: halves ? 6e4 : 1e18) }
        let gamma = Guarded(random.floats(columns))
        let beta = Guarded(random.floats(columns))
        func run(_ table: KernelTable) -> [Float] {
          let input = Elements(x, halves: halves)
          let out = Guarded(x.map { inPlace ? $0 : -9 })
          withExtendedLifetime(input) {
            call(
              table.layerNorm,
              at_layer_norm(
                x: inPlace ? UnsafeRawPointer(out.base) : UnsafeRawPointer(input.base), halves: halves, out: out.base,
                rows: rows, columns: columns, gamma: gamma.base, beta: beta.base, epsilon: 1e-5))
          }
          return out.elements
        }
        expectSameBits(
          run(table), run(Oracle.kernels), "\(table.name): \(columns) columns, in place \(inPlace), halves \(halves)")
      }
    }
  }

  @Test("Sums over rows give the same bits on every processor", arguments: variants)
  func channelSums(_ table: KernelTable) {
    var random = Generator(13)
    for channels in widths {
      for (rows, halves) in [(1, false), (2, true), (37, false), (37, true)] {
        let x = Elements((0..<rows).flatMap { _ in awkward(&random, channels) }, halves: halves)
        func run(_ table: KernelTable) -> [Float] {
          let sum = Guarded([Float](repeating: -1, count: channels))
          let square = Guarded([Float](repeating: -1, count: channels))
          call(
            table.channelSums,
            at_channel_sums(
              x: x.base, rows: rows, channels: channels, sum: sum.base, square: square.base, halves: halves))
          return sum.elements + square.elements
        }
        expectSameBits(run(table), run(Oracle.kernels), "\(table.name): \(rows) x \(channels)")
      }
    }
  }

  @Test("The ranges of channels are the same on every processor", arguments: variants)
  func channelRanges(_ table: KernelTable) {
    var random = Generator(18)
    for channels in widths {
      for (rows, halves) in [(1, false), (2, true), (37, false), (37, true)] {
        let x = Elements((0..<rows).flatMap { _ in awkward(&random, channels) }, halves: halves)
        func run(_ table: KernelTable) -> [Float] {
          let least = Guarded([Float](repeating: .nan, count: channels))
          let greatest = Guarded([Float](repeating: .nan, count: channels))
          call(
            table.channelRanges,
            at_channel_ranges(
              x: x.base, rows: rows, channels: channels, least: least.base, greatest: greatest.base, halves: halves))
          // The sign of a zero is left open.
          return (least.elements + greatest.elements).map { $0 + 0 }
        }
        expectSameBits(run(table), run(Oracle.kernels), "\(table.name): \(rows) x \(channels)")
      }
    }
  }

  @Test("Every binary16 number is widened exactly", arguments: variants + [Oracle.kernels])
  func widen(_ table: KernelTable) {
    let numbers = (0...UInt16.max).filter { !Float16(bitPattern: $0).isNaN }
    for count in [numbers.count, 1, 13] {
      let (x, out) = (Guarded(Array(numbers.suffix(count))), Guarded([Float](repeating: -1, count: count)))
      withExtendedLifetime(x) { call(table.widen, at_widen(x: x.base, out: out.base, count: count)) }
      expectSameBits(out.elements, numbers.suffix(count).map { Float(Float16(bitPattern: $0)) }, table.name)
    }
  }

  @Test(
    "Results are stored as the nearest binary16, ties to even, and never as infinity",
    arguments: variants + [Oracle.kernels])
  func narrow(_ table: KernelTable) {
    // Each number, the middle to the next, and the floats beside that middle; then what is out of reach.
    var values: [Float] = []
    for bits in stride(from: UInt16(0), to: 0x7bff, by: 1) {
      let (low, high) = (Float(Float16(bitPattern: bits)), Float(Float16(bitPattern: bits + 1)))
      let middle = (low + high) / 2
      values += [low, middle.nextDown, middle, middle.nextUp]
    }
    values += [65504, 65519.9, 65520, 1e9, .greatestFiniteMagnitude, 1e-30, .leastNonzeroMagnitude]
    values += values.dropFirst().map { -$0 }  // a product never is -0: it begins at 0
    while values.count % 8 != 3 { values.append(1) }
    let x = Guarded(values)
    let one = Guarded<Float>([1, 0, 0, 0, 0, 0, 0, 0])
    let rows = Guarded(values.indices.map { UnsafeRawPointer(x.base + $0) })
    let out = Guarded([UInt16](repeating: 9, count: values.count))
    withExtendedLifetime((x, one)) {
      call(
        table.gemmFloat32,
        at_gemm(
          rows: rows.base, row_scale: nil, row_zero: nil, row_count: values.count, taps: 1, inputs: 1,
          weights: one.base,
          scale: nil, sum: nil, bias: nil, panels: 1, panel_begin: 0, panel_end: 1, outputs: 1, residual: nil,
          residual_stride: 0, out: out.base, out_stride: 1, paired: false, pair_residual: nil, pair_out: nil,
          halves: true))
    }
    let expected = values.map { Float16(max(-65504, min(65504, $0))).bitPattern }
    let found = out.elements
    let wrong = values.indices.first { found[$0] != expected[$0] }
    #expect(wrong == nil, "\(table.name): \(wrong.map { "\(values[$0])" } ?? "")")
  }

  @Test("Scale, shift and activation give the same bits on every processor, also in place", arguments: variants)
  func affine(_ table: KernelTable) {
    var random = Generator(14)
    for channels in widths {
      for activation in activations {
        let x = (0..<3).flatMap { _ in awkward(&random, channels) }
        let factor = Guarded(random.floats(channels, -2...2))
        let offset = Guarded(random.floats(channels, -2...2))
        let halves = random.integer(0...1) == 0
        let inPlace = !halves && random.integer(0...1) == 0
        func run(_ table: KernelTable) -> [Float] {
          let out = Guarded(inPlace ? x : x.map { _ in -9 })
          let separate = Elements(inPlace ? [] : x, halves: halves)
          withExtendedLifetime(separate) {
            call(
              table.affine,
              at_affine(
                x: inPlace ? UnsafeRawPointer(out.base) : UnsafeRawPointer(separate.base), out: out.base, rows: 3,
                channels: channels, factor: factor.base, offset: offset.base, activation: activation, halves: halves))
          }
          return out.elements
        }
        expectSameBits(
          run(table), run(Oracle.kernels), "\(table.name): \(channels), activation \(activation), halves \(halves)")
      }
    }
  }

  @Test("Activations give the same bits over their whole domain", arguments: variants)
  func map(_ table: KernelTable) {
    var random = Generator(15)
    let sweep = stride(from: Float(-120), through: 120, by: 0.0137).map { $0 }
    let bits = (0..<20_000).map { _ in Float(bitPattern: UInt32.random(in: 0...UInt32.max, using: &random)) }
    let inputs = [sweep, bits.filter(\.isFinite), widths.flatMap { awkward(&random, $0) }]
    for activation in activations {
      for x in inputs + widths.map({ random.floats($0, -10...10) }) {
        for inPlace in [false, true] {
          func run(_ table: KernelTable) -> [Float] {
            let input = Guarded(x)
            let out = inPlace ? input : Guarded(x.map { _ in -9 })
            withExtendedLifetime(input) {
              call(table.map, at_map(x: input.base, out: out.base, count: x.count, activation: activation))
            }
            return out.elements
          }
          expectSameBits(run(table), run(Oracle.kernels), "\(table.name): \(x.count), activation \(activation)")
        }
      }
    }
  }

  @Test("Sums of two tensors give the same bits on every processor, also in place", arguments: variants)
  func add(_ table: KernelTable) {
    var random = Generator(16)
    for count in widths {
      for alias in 0..<3 {
        let values = (awkward(&random, count), awkward(&random, count))
        let alpha: Float = random.pick([1, -1, 0.5, 0.123])
        func run(_ table: KernelTable) -> [Float] {
          let (a, b) = (Guarded(values.0), Guarded(values.1))
          let out = [Guarded(values.0.map { _ in -9 }), a, b][alias]
          withExtendedLifetime((a, b)) {
            call(table.add, at_add(a: a.base, b: b.base, out: out.base, count: count, alpha: alpha))
          }
          return out.elements
        }
        expectSameBits(run(table), run(Oracle.kernels), "\(table.name): \(count), alias \(alias)")
      }
    }
  }

  @Test("Gated GELU gives the same bits on every processor", arguments: variants)
  func gatedGELU(_ table: KernelTable) {
    var random = Generator(17)
    for columns in widths {
      let x = Guarded((0..<3).flatMap { _ in awkward(&random, 2 * columns) })
      func run(_ table: KernelTable) -> [Float] {
        let stride = columns + 5
        let out = Guarded([Float](repeating: -9, count: 2 * stride + columns))
        call(table.gatedGELU, at_gated_gelu(x: x.base, out: out.base, rows: 3, columns: columns, out_stride: stride))
        return out.elements
      }
      expectSameBits(run(table), run(Oracle.kernels), "\(table.name): \(columns)")
    }
  }
}
