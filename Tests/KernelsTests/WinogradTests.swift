import CKernels
import Kernels
import Testing

/// One convolution in tiles with its own memory, to be run by any table.
struct WinogradProblem: CustomStringConvertible {
  enum Residual: CaseIterable { case none, separate, inPlace }

  var tiles: Int
  var inputs: Int
  var outputs: Int
  var panels: Range<Int>?
  var bias = true
  var residual = Residual.none
  var paired = false
  var halves = false
  /// Codes, weights and signs that lead to the largest sums.
  var extreme = false
  var seed = 1

  var description: String {
    "\(tiles) tiles, \(inputs) -> \(outputs), panels \(panels.map { "\($0)" } ?? "all"), residual \(residual), "
      + "paired \(paired), halves \(halves), extreme \(extreme)"
  }

  struct Result {
    let codes: [Int16]
    let steps: [Float]
    /// The whole output buffers: also what was not to be written.
    let out: [Float]
  }

  /// What goes in, the same for all tables.
  struct Inputs {
    let codes: Guarded<UInt8>
    let order: [Int]
    let scales: Guarded<Float>
    let zeros: Guarded<Int32>
    /// [panel][tap][inputs / 4][8][4]
    let weights: Guarded<Int8>
    let outputScales: Guarded<Float>
    let biases: Guarded<Float>
  }

  func inputs(_ random: inout Generator) -> Inputs {
    let pixels = 36 + tiles
    let entries = 36 * tiles
    let codes = (0..<pixels * inputs).map { _ in
      extreme ? random.pick([0, 255, 255, 255, 255]) : random.integer(0...255) as UInt8
    }
    // Outputs with weights of one sign reach the largest sums, and checkered ones those of the other places.
    let weights = (0..<outputs * inputs * 9).map { i -> Int8 in
      guard extreme else { return random.integer(-127...127) }
      let (output, tap) = (i / 4 % 8, i / (8 * inputs) % 9)
      return output < 3
        ? 127 : output < 6 ? -127 : output == 6 ? (tap % 2 == 0 ? 127 : -127) : random.pick([127, -127])
    }
    return Inputs(
      codes: Guarded(codes), order: (0..<entries).map { _ in random.integer(0...pixels - 1) },
      scales: Guarded((0..<entries).map { $0 % 11 == 3 ? 0 : extreme ? 0.5 : random.float(0...0.1) }),
      zeros: Guarded((0..<entries).map { _ in extreme ? 0 : random.integer(0...255) }), weights: Guarded(weights),
      outputScales: Guarded(random.floats(outputs, 0...0.01)), biases: Guarded(random.floats(outputs)))
  }

  /// `isWhole`: all tiles are multiplied by one call, otherwise by two.
  func run(_ table: KernelTable, isWhole: Bool) -> Result {
    var random = Generator(seed)
    let x = inputs(&random)
    let rows = Guarded(x.order.map { UnsafeRawPointer(x.codes.base + $0 * inputs) })
    // Two tiles side by side, as far apart as in a map of eight columns.
    let (across, line) = (2, 8)
    let ownTiles = paired ? tiles / 2 : tiles
    let corners = (0..<tiles).map { tile -> Int in
      let (row, column) = (tile % ownTiles).quotientAndRemainder(dividingBy: across)
      return row * 4 * line + column * 4
    }
    let pixels = Guarded(corners)
    let outRows = (ownTiles + across - 1) / across * 4 * line
    func buffer() -> Elements { Elements(random.floats(outRows * outputs), halves: halves) }
    let (out, other) = ((buffer(), buffer()), (buffer(), buffer()))
    let added: (UnsafeMutableRawPointer, UnsafeMutableRawPointer)? =
      switch residual {
      case .none: nil
      case .separate: (other.0.base, other.1.base)
      case .inPlace: (out.0.base, out.1.base)
      }
    let codes = Guarded([Int16](repeating: 7, count: at_winograd_codes(tiles, inputs)))
    let steps = Guarded([Float](repeating: 7, count: 36 * tiles * at_winograd_chunks(inputs)))
    let workspace = Guarded([UInt8](repeating: 0xff, count: at_winograd_workspace(tiles)))
    let range = panels ?? 0..<outputs / 8
    let product = at_gemm(
      rows: rows.base, row_scale: x.scales.base, row_zero: x.zeros.base, row_count: tiles, taps: 9, inputs: inputs,
      weights: x.weights.base, scale: x.outputScales.base, sum: nil, bias: bias ? x.biases.base : nil,
      panels: outputs / 8, panel_begin: range.lowerBound, panel_end: range.upperBound, outputs: outputs,
      residual: added.map { UnsafeRawPointer($0.0) }, residual_stride: outputs, out: out.0.base, out_stride: outputs,
      paired: paired, pair_residual: added.map { UnsafeRawPointer($0.1) }, pair_out: out.1.base, halves: halves)
    var arguments = at_winograd(
      product: product, pixels: pixels.base, line: line, codes: codes.base, steps: steps.base, tile_begin: 0,
      tile_end: tiles / 2, workspace: workspace.base)
    // As threads share tiles among them.
    call(table.winogradInputs, arguments)
    arguments.tile_begin = tiles / 2
    arguments.tile_end = tiles
    call(table.winogradInputs, arguments)
    // Each part with whatever the other left in the workspace.
    withExtendedLifetime((x, other, workspace)) {
      for part in isWhole ? [0..<ownTiles] : [ownTiles / 3..<ownTiles, 0..<ownTiles / 3] {
        arguments.tile_begin = part.lowerBound
        arguments.tile_end = part.upperBound
        call(table.winogradProducts, arguments)
      }
    }
    return Result(codes: codes.elements, steps: steps.elements, out: out.0.elements + out.1.elements)
  }
}

@Suite struct WinogradTests {
  static let problems: [WinogradProblem] = [
    .init(tiles: 1, inputs: 32, outputs: 32), .init(tiles: 3, inputs: 128, outputs: 64, bias: false),
    .init(tiles: 9, inputs: 160, outputs: 32, residual: .separate),
    .init(tiles: 8, inputs: 320, outputs: 64, panels: 4..<8, residual: .inPlace, halves: true),
    .init(tiles: 13, inputs: 64, outputs: 96, panels: 0..<8, halves: true),
    .init(tiles: 2, inputs: 96, outputs: 32, residual: .separate, paired: true),
    .init(tiles: 14, inputs: 288, outputs: 64, residual: .inPlace, paired: true, halves: true),
    .init(tiles: 10, inputs: 64, outputs: 32, bias: false, paired: true),
    .init(tiles: 5, inputs: 256, outputs: 32, extreme: true),
    .init(tiles: 6, inputs: 128, outputs: 32, paired: true, extreme: true),
  ]

  @Test("Every processor codes the same tiles and draws the same pixels from them", arguments: variants, problems)
  func sameBits(_ table: KernelTable, _ problem: WinogradProblem) {
    let (found, expected) = (problem.run(table, isWhole: false), problem.run(Oracle.kernels, isWhole: false))
    let wrong = found.codes.indices.first { found.codes[$0] != expected.codes[$0] }
    #expect(wrong == nil, "\(table.name): the codes of \(problem)")
    expectSameBits(found.steps, expected.steps, "\(table.name): the steps of \(problem)")
    expectSameBits(found.out, expected.out, "\(table.name): the results of \(problem)")
    let whole = problem.run(table, isWhole: true)
    expectSameBits(whole.out, expected.out, "\(table.name): the results of \(problem), all tiles at once")
  }

  @Test("Sums of the largest codes and weights stay within 32 bits, and are not far from their limit")
  func extremes() {
    var largest = 0
    for problem in Self.problems where problem.extreme {
      var random = Generator(problem.seed)
      let inputs = problem.inputs(&random)
      let codes = problem.run(Oracle.kernels, isWhole: false).codes
      for output in 0..<problem.outputs {
        let weights = (0..<problem.inputs).map { Matrices.weights(inputs.weights, output, $0, of: problem.inputs) }
        for tile in 0..<problem.tiles {
          for place in 0..<36 {
            for first in stride(from: 0, to: problem.inputs, by: Int(AT_WINOGRAD_CHANNELS)) {
              let width = min(Int(AT_WINOGRAD_CHANNELS), problem.inputs - first)
              let base = at_winograd_place(problem.tiles, problem.inputs, first, place) + tile * width
              // All partial sums too, whatever the order.
              let sum = (0..<width).reduce(0) { $0 + abs(Int(codes[base + $1])) * abs(weights[first + $1][place]) }
              largest = max(largest, sum)
            }
          }
        }
      }
    }
    #expect(largest < 1 << 31)
    #expect(largest > 1 << 30)
  }

  @Test("A convolution in tiles is off from the exact one by no more than the steps of its codes", arguments: 0..<3)
  func definition(_ index: Int) {
    let (inputs, outputs) = ([32, 160, 288][index], 32)
    let size = [4, 8, 12][index]
    var random = Generator(70 + index)
    let map = random.floats(size * size * inputs, 0...1).map { UInt8($0 * $0 * 255) }
    let pixelScales = random.floats(size * size, 0.001...0.1)
    let pixelZeros = (0..<size * size).map { _ in random.integer(0...255) as Int32 }
    let weights = Guarded((0..<outputs * inputs * 9).map { _ in random.integer(-127...127) as Int8 })
    let scale = Guarded(random.floats(outputs, 0.001...0.01))
    let codes = Guarded(map)
    let across = size / 4
    let tiles = across * across
    func pixel(_ tile: Int, _ place: Int) -> Int? {
      let (y, x) = (tile / across * 4 - 1 + place / 6, tile % across * 4 - 1 + place % 6)
      return (0..<size).contains(y) && (0..<size).contains(x) ? y * size + x : nil
    }
    let entries = (0..<36 * tiles).map { pixel($0 % tiles, $0 / tiles) }
    let rows = Guarded(entries.map { UnsafeRawPointer(codes.base + ($0 ?? 0) * inputs) })
    let rowScale = Guarded(entries.map { $0.map { pixelScales[$0] } ?? 0 })
    let rowZero = Guarded(entries.map { $0.map { pixelZeros[$0] } ?? 0 })
    let pixels = Guarded((0..<tiles).map { $0 / across * 4 * size + $0 % across * 4 })
    let out = Guarded([Float](repeating: .nan, count: size * size * outputs))
    let coded = Guarded([Int16](repeating: 0, count: at_winograd_codes(tiles, inputs)))
    let steps = Guarded([Float](repeating: 0, count: 36 * tiles * at_winograd_chunks(inputs)))
    let product = at_gemm(
      rows: rows.base, row_scale: rowScale.base, row_zero: rowZero.base, row_count: tiles, taps: 9, inputs: inputs,
      weights: weights.base, scale: scale.base, sum: nil, bias: nil, panels: outputs / 8, panel_begin: 0,
      panel_end: outputs / 8, outputs: outputs, residual: nil, residual_stride: outputs, out: out.base,
      out_stride: outputs, paired: false, pair_residual: nil, pair_out: nil, halves: false)
    let arguments = at_winograd(
      product: product, pixels: pixels.base, line: size, codes: coded.base, steps: steps.base, tile_begin: 0,
      tile_end: tiles, workspace: nil)
    withExtendedLifetime(codes) {
      call(Oracle.kernels.winogradInputs, arguments)
      call(Oracle.kernels.winogradProducts, arguments)
    }
    func value(_ pixel: Int?, _ channel: Int) -> Double {
      guard let pixel else { return 0 }
      return Double(Int32(map[pixel * inputs + channel]) - pixelZeros[pixel]) * Double(pixelScales[pixel])
    }
    /// What the rounding of codes and floats may change of a place's sum.
    func slack(_ tile: Int, _ place: Int, _ transformed: [[Int]]) -> Double {
      let (row, column) = (Matrices.input[place / 6], Matrices.input[place % 6])
      let factor = abs(Matrices.factor[place / 6] * Matrices.factor[place % 6])
      var sum = 0.0
      for channel in 0..<inputs {
        let chunk = channel / Int(AT_WINOGRAD_CHANNELS)
        let step = Double(steps.base[(chunk * 36 + place) * tiles + tile].magnitude)
        var size = 0.0
        for i in 0..<36 { size += abs(row[i / 6] * column[i % 6] * value(pixel(tile, i), channel)) }
        // A code is at most 32767 and is computed in four roundings; an element in eight for each side, and a sum in as
        // many as there are chunks and places of two sides.
        let change = step * (0.5 + 32767 * 0x1p-22) + 48 * 0x1p-24 * factor * size
        sum += Double(abs(transformed[channel][place])) * change
      }
      return sum
    }
    func exact(_ tile: Int, _ i: Int, _ j: Int, _ output: Int) -> Double {
      var sum = 0.0
      for tap in 0..<9 {
        let source = pixel(tile, (i + tap / 3) * 6 + j + tap % 3)
        for input in 0..<inputs {
          let quad = (output / 8 * 9 + tap) * (inputs / 4) + input / 4
          sum += value(source, input) * Double(weights.base[quad * 32 + output % 8 * 4 + input % 4])
        }
      }
      return sum
    }
    for output in stride(from: 0, to: outputs, by: 5) {
      let transformed = (0..<inputs).map { Matrices.weights(weights, output, $0, of: inputs) }
      let factor = Double(scale.base[output])
      for tile in 0..<tiles {
        let slacks = (0..<36).map { slack(tile, $0, transformed) }
        for i in 0..<4 {
          for j in 0..<4 {
            var bound = 0.0
            for place in 0..<36 {
              bound += abs(Matrices.output[i][place / 6] * Matrices.output[j][place % 6]) * slacks[place]
            }
            let found = Double(out.base[(pixels.base[tile] + i * size + j) * outputs + output])
            let difference = abs(found - exact(tile, i, j, output) * factor)
            #expect(difference <= bound * factor)
          }
        }
      }
    }
  }
}

/// Those of F(4x4, 3x3), as Lavin and Gray give them, with the weights' denominators apart.
private enum Matrices {
  static let input: [[Double]] = [
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
  ]
  static let weight = [[1, 0, 0], [1, 1, 1], [1, -1, 1], [1, 2, 4], [1, -2, 4], [0, 0, 1]]
  static let factor = [1.0 / 4, -1.0 / 6, -1.0 / 6, 1.0 / 24, 1.0 / 24, 1]
  static let output: [[Double]] = [
    [1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1],
  ]

  /// The 36 transformed weights between two channels.
  static func weights(_ packed: Guarded<Int8>, _ output: Int, _ channel: Int, of inputs: Int) -> [Int] {
    let taps = (0..<9).map { tap in
      let quad = (output / 8 * 9 + tap) * (inputs / 4) + channel / 4
      return Int(packed.base[quad * 32 + output % 8 * 4 + channel % 4])
    }
    return (0..<36).map { place in
      (0..<9).reduce(0) { $0 + weight[place / 6][$1 / 3] * weight[place % 6][$1 % 3] * taps[$1] }
    }
  }
}
