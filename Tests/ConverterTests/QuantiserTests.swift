import Foundation
import Tensors
import Testing

@testable import Checkpoints
@testable import Converter

@Suite struct QuantiserTests {
  private func quantise(
    _ values: [Float], _ form: CodeForm = .full
  ) -> (codes: [Int8], scale: Float?, error: QuantisationError) {
    var codes = [Int8](repeating: 99, count: values.count)
    var error = QuantisationError()
    let scale = values.withUnsafeBufferPointer { values in
      codes.withUnsafeMutableBufferPointer { Quantiser.quantise(values, into: $0, as: form, &error) }
    }
    return (codes, scale, error)
  }

  @Test("No code is -128, the largest weight is met, and none is off by more than half a step")
  func rows() throws {
    var generator = Generator(1)
    for round in 0..<3000 {
      let size = Float(sign: .plus, exponent: Int.random(in: -60...60, using: &generator), significand: 1)
      var values = generator.floats(1 + round % 40).map { $0 * size }
      if round % 3 == 0 { values[0] = -(values.map(\.magnitude).max() ?? 1) }
      let (codes, scale, error) = quantise(values)
      let step = try #require(scale)
      let greatest = values.map(\.magnitude).max() ?? 0
      #expect((step - greatest / 127).magnitude <= step * 0x1p-22)
      var noise = 0.0
      for (value, code) in zip(values, codes) {
        let off = Double(value) - Double(step) * Double(code)
        noise += off * off
        #expect(code != -128 && off.magnitude <= Double(step) * (0.5 + 127 * 0x1p-22), "\(value) in \(values)")
        if value.magnitude == greatest { #expect(code.magnitude == 127) }
      }
      let signal = values.reduce(0) { $0 + Double($1) * Double($1) }
      #expect((error.signal - signal).magnitude <= 1e-9 * signal)
      #expect((error.noise - noise).magnitude <= 1e-3 * noise + 1e-12 * signal)
    }
  }

  @Test(
    "Rows of zeros and of denormals become zeros with a scale that harms nothing", arguments: CodeForm.allCases)
  func smallRows(_ form: CodeForm) {
    for values in [[0, 0, -0.0], [.leastNonzeroMagnitude, 0], [1e-38, -1e-38], [1.4e-36, 1e-37]] as [[Float]] {
      let (codes, scale, error) = quantise(values, form)
      #expect(scale == 0 && codes.allSatisfy { $0 == 0 } && error.relative.isFinite, "\(values)")
    }
    let (codes, scale, _) = quantise([1.6e-36, -0.79e-36], form)
    #expect(codes[1] < -30 && (scale ?? 0) > 0)
    if form == .full { #expect(codes == [127, -63]) }
  }

  @Test("The largest floats do not overflow", arguments: CodeForm.allCases)
  func largeRows(_ form: CodeForm) {
    let greatest = Float.greatestFiniteMagnitude
    let (codes, scale, error) = quantise([greatest, -greatest, greatest / 4, 1], form)
    #expect(codes[0] == -codes[1] && codes[0] >= 31 && scale?.isFinite == true && error.relative.isFinite)
    if form == .full { #expect(codes == [127, -127, 32, 0]) }
    let (pair, unit, _) = quantise([greatest, greatest, -greatest, -greatest], form)
    #expect((unit ?? .infinity).isFinite && Set(pair.map(\.magnitude)).count == 1)
  }

  @Test("A value that is no number is refused wherever it stands", arguments: CodeForm.allCases)
  func notFinite(_ form: CodeForm) {
    for value in [Float.nan, .infinity, -.infinity, .signalingNaN] {
      for count in [5, 16, 40] {
        for position in 0..<count {
          var values = (0..<count).map { Float($0) }
          values[position] = value
          #expect(quantise(values, form).scale == nil)
        }
      }
    }
    #expect(quantise([], form).scale == 0)
  }

  // MARK: Pairs

  /// Distributions of weights: the first two as trained ones are, the last three as bad as can be.
  enum Shape: CaseIterable {
    case normal, laplace, even, oneSign, extremes

    var isBell: Bool { self == .normal || self == .laplace }

    func row(_ count: Int, _ generator: inout Generator) -> [Float] {
      (0..<count).map { _ in value(&generator) }
    }

    private func value(_ generator: inout Generator) -> Float {
      switch self {
      case .normal: return generator.floats(12, -0.5...0.5).reduce(0, +)
      case .laplace:
        let size = -logf(generator.floats(1, 1e-6...1)[0])
        return Bool.random(using: &generator) ? size : -size
      case .even: return generator.floats(1)[0]
      case .oneSign: return generator.floats(1, 0.5...1)[0]
      case .extremes:
        let choices: [Float] = [1, 0.99, 0.5, -1, 0]
        return choices[Int.random(in: 0..<5, using: &generator)]
      }
    }
  }

  private func checkFours(_ codes: [Int8], _ what: @autoclosure () -> String) {
    for first in stride(from: 0, to: codes.count, by: 8) {
      for half in [0, 2] {
        let four = [0, 1, 4, 5].map { first + half + $0 }.filter { $0 < codes.count }.map { Int(codes[$0]) }
        let (above, below) = (four.reduce(0) { $0 + max($1, 0) }, four.reduce(0) { $0 - min($1, 0) })
        #expect(above <= 128 && below <= 128, "\(four): \(what())")
      }
    }
    #expect(codes.allSatisfy { $0 != -128 }, "\(what())")
  }

  private func checkPairs(_ codes: [Int8], _ what: @autoclosure () -> String) {
    for first in stride(from: 0, to: codes.count - 1, by: 2) {
      let (a, b) = (Int(codes[first]), Int(codes[first + 1]))
      #expect(a * b <= 0 || abs(a) + abs(b) <= 128, "\(a), \(b): \(what())")
    }
    #expect(codes.allSatisfy { $0 != -128 }, "\(what())")
  }

  /// The squared error of codes that any form allows: |q| <= 63 fits in pairs, |q| <= 31 in fours.
  private func noise(_ values: [Float], upTo limit: Double) -> Double {
    let step = Double(values.map(\.magnitude).max() ?? 0) / limit
    return values.reduce(0) { sum, value in
      let off = Double(value) - step * (Double(value) / step).rounded(.toNearestOrEven)
      return sum + off * off
    }
  }

  @Test(
    "Pairs and fours of one sign fit, and no row is worse than with codes so small that all do",
    arguments: Shape.allCases,
    [CodeForm.pairs, .fours])
  func limits(_ shape: Shape, _ form: CodeForm) throws {
    var generator = Generator(3)
    for count in Array(1...40) + [63, 64, 511, 512, 513, 1280, 2048, 11_520] {
      for round in 0..<6 {
        let size = Float(sign: .plus, exponent: round * 16 - 40, significand: 1)
        let values = shape.row(count, &generator).map { $0 * size }
        let (codes, scale, error) = quantise(values, form)
        let step = Double(try #require(scale))
        checkPairs(codes, "\(shape), \(count)")
        if form == .fours { checkFours(codes, "\(shape), \(count)") }
        let noise = zip(values, codes).reduce(0) { sum, pair in
          let off = Double(pair.0) - step * Double(pair.1)
          return sum + off * off
        }
        let signal = values.reduce(0) { $0 + Double($1) * Double($1) }
        #expect((error.noise - noise).magnitude <= 1e-3 * noise + 1e-12 * signal)
        #expect((error.signal - signal).magnitude <= 1e-9 * signal)
        // Each difference is known to 2^-22 of its weight, because scales and quotients are floats.
        let safe = self.noise(values, upTo: form == .fours ? 31 : 63)
        #expect(
          noise.squareRoot() <= safe.squareRoot() * (1 + 1e-5) + 0x1p-22 * signal.squareRoot(), "\(shape), \(count)")
      }
    }
  }

  @Test("Weights like a bell curve lose less than 3 dB by pairs, even ones lose more")
  func noiseOfPairs() {
    for shape in [Shape.normal, .laplace, .even] {
      for count in [320, 1280, 11_520] {
        var generator = Generator(4)
        var (full, pairs) = (0.0, 0.0)
        for _ in 0..<20 {
          let values = shape.row(count, &generator)
          full += quantise(values).error.noise
          pairs += quantise(values, .pairs).error.noise
        }
        #expect((pairs < 2 * full) == shape.isBell && pairs > full, "\(shape), \(count): \(pairs / full)")
      }
    }
  }

  @Test("Where a four has to give way, all its codes of that sign do, and as little as they can")
  func nearestFour() {
    let rest = (0..<400_000).map { Float($0 % 16 - 8) }
    for corner: [Float] in [[127, 60, 40, 20], [50, 50, 50, 50], [-90, -40, 70, -3], [127, 2, 0, 1]] {
      let (codes, scale, _) = quantise([corner[0], corner[1], 127, 0, corner[2], corner[3], 0, 0] + rest, .fours)
      #expect(scale == 1)
      let found = [0, 1, 4, 5].map { Int(codes[$0]) }
      // The nearest of all fours that fit, by trying them; codes of the other sign stay.
      let sign: Float = corner[0] < 0 ? -1 : 1
      let size = corner.map { max(sign * $0, 0) }
      var best = Float.infinity
      for a in 0...127 {
        for b in 0...128 - a {
          for c in 0...128 - a - b {
            let d = min(Float(128 - a - b - c), size[3])
            let off = [Float(a) - size[0], Float(b) - size[1], Float(c) - size[2], d - size[3]]
            best = min(best, off.reduce(0) { $0 + $1 * $1 })
          }
        }
      }
      let distance = zip(found, corner).reduce(0) { sum, pair in
        sum + (sign * pair.1 > 0 ? (Float(pair.0) - pair.1) * (Float(pair.0) - pair.1) : 0)
      }
      // What rounding takes from one code goes to the next, so each may be one step from the best.
      #expect(distance <= best + 4, "\(found) for \(corner)")
    }
  }

  @Test("Pairs that are almost halfway between two that fit do not both round up")
  func pairsAtTies() {
    var row: [Float] = [127, 0]
    for code in 4...125 {
      for (a, b) in [(1, 3), (2, 3), (3, 1), (3, 4), (5, 7), (0, 0)] as [(Float, Float)] {
        row += [Float(code) + a * 0x1p-17, Float(129 - code) + b * 0x1p-17]
        row += [Float(code) + b * 0x1p-16, Float(129 - code) + a * 0x1p-17]
      }
    }
    let (codes, scale, _) = quantise(row + (0..<400_000).map { Float($0 % 60 - 30) }, .pairs)
    #expect(scale == 1)
    checkPairs(codes, "ties")
  }

  @Test("Where a pair has to give way, both codes do, and as little as they can")
  func nearestPair() {
    // A row long enough to keep its scale for the sake of its other weights.
    let rest = (0..<400_000).map { Float($0 % 60 - 30) }
    let corners: [(Float, Float)] = [(127, 127), (127, 60), (100, 90), (64, 66), (-127, -3), (-80, -70)]
    for (a, b) in corners {
      let (codes, scale, _) = quantise([a, b, 127, 0] + rest, .pairs)
      #expect(scale == 1)
      // The nearest of all pairs that fit.
      func distance(_ x: Float, _ y: Float) -> Float { (a - x) * (a - x) + (b - y) * (b - y) }
      let sign: Float = a < 0 ? -1 : 1
      let best = (1...127).map { distance(sign * Float($0), sign * Float(128 - $0)) }.min()
      let (x, y) = (Float(codes[0]), Float(codes[1]))
      #expect(distance(x, y) == best, "\(x), \(y) for \(a), \(b)")
    }
  }
}

@Suite struct PanelPackerTests {
  static let shapes = [
    MatrixShape(outputs: 1, inputs: 1), MatrixShape(outputs: 8, inputs: 4), MatrixShape(outputs: 9, inputs: 5),
    MatrixShape(outputs: 17, inputs: 3, taps: 9), MatrixShape(outputs: 3, inputs: 10, taps: 4),
    MatrixShape(outputs: 12, inputs: 4, taps: 8, groups: 3), MatrixShape(outputs: 24, inputs: 6, taps: 5, groups: 4),
    MatrixShape(outputs: 40, inputs: 7, taps: 2, groups: 2), MatrixShape(outputs: 16, inputs: 16, taps: 1, groups: 1),
  ]

  private func source(_ shape: MatrixShape, _ values: [Float]) throws -> SourceMatrix {
    let folder = try TemporaryFolder()
    let tensor = PlainTensor(shape: [shape.outputs, shape.inputs, shape.taps], values: values)
    let path = try folder.write("w.safetensors", Safetensors.file(["w": tensor]))
    return SourceMatrix(
      try #require(try Checkpoint(path: path).tensors["w"]), rowLength: shape.inputs * shape.taps)
  }

  private func place(_ output: Int, _ shape: MatrixShape) -> Int {
    let perGroup = shape.outputs / shape.groups
    return output / perGroup * ((perGroup + 7) / 8 * 8) + output % perGroup
  }

  @Test(
    "What is packed is found by the formula of the file's description", arguments: shapes, CodeForm.allCases)
  func int8(_ shape: MatrixShape, _ form: CodeForm) throws {
    var generator = Generator(shape.outputs)
    let values = generator.floats(shape.outputs * shape.inputs * shape.taps)
    let matrix = try source(shape, values)
    var packer = PanelPacker(shape, form)
    let quads = (shape.inputs + 3) / 4
    let panels = shape.groups * ((shape.outputs / shape.groups + 7) / 8)
    var all: [Int8] = []
    var scales = [Float](repeating: 0, count: panels * 8)
    var sums = [Int32](repeating: 0, count: shape.taps * panels * 8)
    var error = QuantisationError()
    for panel in 0..<panels {
      var packed = [Int8](repeating: 0, count: shape.taps * quads * 32)
      #expect(packer.int8(panel, of: matrix, into: &packed, scales: &scales, sums: &sums, &error))
      all += packed
    }
    var found = 0
    for output in 0..<shape.outputs {
      let o = place(output, shape)
      for tap in 0..<shape.taps {
        var sum: Int32 = 0
        for input in 0..<shape.inputs {
          let code = all[((o / 8 * shape.taps * quads + tap * quads + input / 4) * 8 + o % 8) * 4 + input % 4]
          let value = values[(output * shape.inputs + input) * shape.taps + tap]
          // A pair that does not fit loses at most half of 127 + 127 - 128, a four a quarter of 4 * 127 - 128 and a step.
          #expect(
            (Float(code) * scales[o] - value).magnitude <= scales[o]
              * (form == .full ? 0.50001 : form == .pairs ? 64 : 96))
          sum += Int32(code)
          found += code == 0 ? 0 : 1
        }
        #expect(sums[tap * panels * 8 + o] == sum)
      }
    }
    if form != .full {
      // Neighbours in the file are inputs 2i and 2i + 1 of one tap and one output.
      for (a, b) in stride(from: 0, to: all.count, by: 2).map({ (Int(all[$0]), Int(all[$0 + 1])) }) {
        #expect(a * b <= 0 || abs(a) + abs(b) <= 128)
      }
      #expect(error.relative < (form == .pairs ? 0.02 : 0.04))
    }
    #expect(all.count { $0 != 0 } == found, "padding is not zero")
    #expect(scales.count { $0 != 0 } == shape.outputs)
  }

  @Test("Floats are packed unchanged", arguments: shapes)
  func floats(_ shape: MatrixShape) throws {
    var generator = Generator(shape.inputs)
    let values = generator.floats(shape.outputs * shape.inputs * shape.taps, 0.5...1)
    let matrix = try source(shape, values)
    var packer = PanelPacker(shape)
    let row = shape.taps * shape.inputs
    var all: [Float] = []
    for panel in 0..<shape.groups * ((shape.outputs / shape.groups + 7) / 8) {
      var packed = [Float](repeating: 0, count: row * 8)
      #expect(packer.float(panel, of: matrix, into: &packed))
      all += packed
    }
    for output in 0..<shape.outputs {
      let o = place(output, shape)
      for tap in 0..<shape.taps {
        for input in 0..<shape.inputs {
          let found = all[(o / 8 * row + tap * shape.inputs + input) * 8 + o % 8]
          #expect(found == values[(output * shape.inputs + input) * shape.taps + tap])
        }
      }
    }
    #expect(all.count { $0 != 0 } == values.count, "padding is not zero")
  }
}

@Suite struct SourceMatrixTests {
  private struct Case: Decodable {
    let weight: [Float]
    let up: [Float]
    let down: [Float]
    let folded: [Double]
  }

  private func fold(
    _ tensors: [String: PlainTensor], _ make: ([String: SourceTensor]) throws -> SourceMatrix, rows: Int
  )
    throws -> [Float]
  {
    let folder = try TemporaryFolder()
    let checkpoint = try Checkpoint(path: folder.write("w.safetensors", Safetensors.file(tensors)))
    let matrix = try make(checkpoint.tensors)
    // Each row by itself, the last one first.
    var result = [Float](repeating: .nan, count: rows * matrix.rowLength)
    result.withUnsafeMutableBufferPointer { buffer in
      for row in (0..<rows).reversed() { matrix.read(row, into: buffer.baseAddress! + row * matrix.rowLength) }
    }
    return result
  }

  private func golden(_ name: String) throws -> Case {
    let data = try Data(contentsOf: URL(fileURLWithPath: fixture("folding.json")))
    return try #require(try JSONDecoder().decode([String: Case].self, from: data)[name])
  }

  private func expectClose(_ found: [Float], _ expected: [Double]) {
    #expect(found.count == expected.count)
    for (found, expected) in zip(found, expected) {
      #expect((Double(found) - expected).magnitude <= 4 * 0x1p-23 * max(1, expected.magnitude))
    }
  }

  @Test("A LoRA is added as torch adds it")
  func lora() throws {
    let golden = try golden("lora")
    let found = try fold(
      [
        "w": PlainTensor(shape: [6, 5], values: golden.weight), "up": PlainTensor(shape: [6, 2], values: golden.up),
        "down": PlainTensor(shape: [2, 5], values: golden.down),
      ],
      { tensors in
        SourceMatrix(
          try #require(tensors["w"]), rowLength: 5, up: try #require(tensors["up"]), down: try #require(tensors["down"])
        )
      }, rows: 6)
    expectClose(found, golden.folded)
  }

  @Test("A weight norm over the last dimension is multiplied out as torch does it")
  func weightNorm() throws {
    let golden = try golden("norm")
    let found = try fold(
      [
        "v": PlainTensor(shape: [6, 4, 5], values: golden.weight),
        "g": PlainTensor(shape: [1, 1, 5], values: golden.up),
      ],
      { tensors in
        SourceMatrix(direction: try #require(tensors["v"]), magnitude: try #require(tensors["g"]), rowLength: 20)
      }, rows: 6)
    expectClose(found, golden.folded)
  }
}
