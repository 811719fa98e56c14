import Tensors

@testable import Models

/// What a weight source holds, by its logical indices.
struct DenseMatrix {
  let shape: MatrixShape
  /// [outputs][inputs of a group][taps], as torch orders a convolution's weight.
  var values: [Float]
  /// [outputs], or empty.
  var bias: [Float]

  subscript(output: Int, input: Int, tap: Int) -> Float {
    values[(output * shape.inputs + input) * shape.taps + tap]
  }
}

/// Random weights in memory, the same for the same names, packed here as Weights/README.md describes it. The memory is
/// never freed, because networks hold bare pointers into it.
final class RandomWeights: WeightSource {
  enum Kind: CaseIterable {
    case int8
    /// int8 whose neighbours of one sign add up to at most 128.
    case int8Pairs
    /// int8 of which each four of one sign adds up to at most 128.
    case int8Fours
    case float16
    case float32

    var isInt8: Bool { form != nil }
    var form: CodeForm? {
      switch self {
      case .int8: .full
      case .int8Pairs: .pairs
      case .int8Fours: .fours
      case .float16, .float32: nil
      }
    }
  }

  let kind: Kind
  /// What was handed out, as it counts: int8 as code times scale.
  private(set) var matrices: [String: DenseMatrix] = [:]
  private(set) var vectors: [String: [Float]] = [:]
  private(set) var tables: [String: [Float]] = [:]

  /// Whether int8 convolutions that can be are computed by Winograd's algorithm.
  let transforms: Bool

  init(_ kind: Kind, transforms: Bool = false) {
    self.kind = kind
    self.transforms = transforms
  }

  func matrix(_ name: String, _ shape: MatrixShape, _ precision: Precision, bias: Bool) -> PackedMatrix {
    var generator = Generator(Self.seed(name))
    let bias = bias ? generator.floats(shape.outputs) : []
    let padded = bias.isEmpty ? nil : Layout.spread(bias, shape)
    let spread = 1 / Float(shape.inputs * shape.taps).squareRoot()
    let values = generator.floats(shape.outputs * shape.inputs * shape.taps, -1...1).map { $0 * spread }
    let elements: PackedMatrix.Elements
    let kind = precision == .kept ? .float32 : kind
    switch kind {
    case .int8, .int8Pairs, .int8Fours:
      var codes = values.map { Int8(($0 / spread * 127).rounded()) }
      if kind == .int8Pairs { Layout.limitPairs(of: &codes, shape) }
      // Any four of these fit.
      if kind == .int8Fours { codes = codes.map { $0 / 4 } }
      let scales = (0..<shape.outputs).map { _ in generator.float(0.25...2) * spread / 127 }
      let perOutput = shape.inputs * shape.taps
      matrices[name] = DenseMatrix(
        shape: shape, values: codes.indices.map { Float(codes[$0]) * scales[$0 / perOutput] }, bias: bias)
      elements = .int8(
        keep(Layout.codes(codes, shape)), scale: keep(Layout.spread(scales, shape)),
        sum: keep(Layout.sums(codes, shape)), kind.form ?? .full)
    case .float16:
      let halves = values.map { Float16($0) }
      matrices[name] = DenseMatrix(shape: shape, values: halves.map { Float($0) }, bias: bias)
      elements = .float16(keep(Layout.floats(halves.map(\.bitPattern), shape)))
    case .float32:
      matrices[name] = DenseMatrix(shape: shape, values: values, bias: bias)
      elements = .float32(keep(Layout.floats(values, shape)))
    }
    return PackedMatrix(
      elements: elements, shape: shape, bias: padded.map(keep),
      isTransformed: transforms && kind.isInt8 && precision == .transformed)
  }

  func vector(_ name: String, _ dimensions: [Int]) -> UnsafePointer<Float> {
    var generator = Generator(Self.seed(name))
    let isNorm = name.hasSuffix("norm.weight") || name.hasSuffix("norm1.weight") || name.hasSuffix("norm2.weight")
    let values = generator.floats(dimensions.reduce(1, *), isNorm ? 0.5...1.5 : -1...1)
    vectors[name] = values
    return keep(values)
  }

  func table(_ name: String, rows: Int, columns: Int) -> EmbeddingTable {
    var generator = Generator(Self.seed(name))
    let values = generator.floats(rows * columns)
    switch kind {
    case .int8, .int8Pairs, .int8Fours:
      let codes = values.map { Int8(($0 * 127).rounded()) }
      let scales = generator.floats(rows, 0.001...0.02)
      tables[name] = codes.indices.map { Float(codes[$0]) * scales[$0 / columns] }
      return EmbeddingTable(elements: .int8(keep(codes), scale: keep(scales)), rows: rows, columns: columns)
    case .float16:
      let halves = values.map { Float16($0) }
      tables[name] = halves.map { Float($0) }
      return EmbeddingTable(elements: .float16(keep(halves.map(\.bitPattern))), rows: rows, columns: columns)
    case .float32:
      tables[name] = values
      return EmbeddingTable(elements: .float32(keep(values)), rows: rows, columns: columns)
    }
  }

  private static func seed(_ name: String) -> Int { name.utf8.reduce(5381) { ($0 &* 33) ^ Int($1) } }

  private func keep<Element>(_ values: [Element]) -> UnsafePointer<Element> {
    let block = UnsafeMutableRawPointer.allocate(
      byteCount: max(1, values.count * MemoryLayout<Element>.stride), alignment: 64)
    let base = block.bindMemory(to: Element.self, capacity: values.count)
    base.initialize(from: values, count: values.count)
    return UnsafePointer(base)
  }
}

/// The packed layouts, written from their description: element by element, from the formula for its place.
enum Layout {
  /// Where output `index` lies when each group's outputs are filled up to a multiple of eight.
  static func place(_ output: Int, _ shape: MatrixShape) -> Int {
    let perGroup = shape.outputs / shape.groups
    return output / perGroup * ((perGroup + 7) / 8 * 8) + output % perGroup
  }

  static func panels(_ shape: MatrixShape) -> Int { shape.groups * ((shape.outputs / shape.groups + 7) / 8) }

  /// [outputs] -> [panels * 8], the rest zero.
  static func spread(_ values: [Float], _ shape: MatrixShape) -> [Float] {
    var result = [Float](repeating: 0, count: panels(shape) * 8)
    for (output, value) in values.enumerated() { result[place(output, shape)] = value }
    return result
  }

  /// Shrinks input 2i + 1 where it and input 2i have one sign and add up to more than 128.
  static func limitPairs(of codes: inout [Int8], _ shape: MatrixShape) {
    visit(shape) { _, input, _, source in
      guard input % 2 == 1 else { return }
      let (a, b) = (Int(codes[source - shape.taps]), Int(codes[source]))
      if a * b > 0 && a.magnitude + b.magnitude > 128 { codes[source] = Int8(a.signum() * (128 - abs(a))) }
    }
  }

  /// weight[output / 8][tap * quads + input / 4][output % 8][input % 4]
  static func codes(_ codes: [Int8], _ shape: MatrixShape) -> [Int8] {
    let quads = (shape.inputs + 3) / 4
    var result = [Int8](repeating: 0, count: panels(shape) * shape.taps * quads * 32)
    visit(shape) { output, input, tap, source in
      let column = tap * quads + input / 4
      result[((output / 8 * (shape.taps * quads) + column) * 8 + output % 8) * 4 + input % 4] = codes[source]
    }
    return result
  }

  /// sum[tap][output]: of the codes over the inputs.
  static func sums(_ codes: [Int8], _ shape: MatrixShape) -> [Int32] {
    let outputs = panels(shape) * 8
    var result = [Int32](repeating: 0, count: shape.taps * outputs)
    visit(shape) { output, _, tap, source in result[tap * outputs + output] += Int32(codes[source]) }
    return result
  }

  /// weight[output / 8][tap * inputs + input][output % 8]
  static func floats<Element: Numeric>(_ values: [Element], _ shape: MatrixShape) -> [Element] {
    var result = [Element](repeating: 0, count: panels(shape) * shape.taps * shape.inputs * 8)
    visit(shape) { output, input, tap, source in
      result[(output / 8 * (shape.taps * shape.inputs) + tap * shape.inputs + input) * 8 + output % 8] = values[source]
    }
    return result
  }

  /// Calls `body` with every weight's place among the padded outputs, its input and tap, and its index in torch's order.
  private static func visit(_ shape: MatrixShape, _ body: (Int, Int, Int, Int) -> Void) {
    for output in 0..<shape.outputs {
      for input in 0..<shape.inputs {
        for tap in 0..<shape.taps {
          body(place(output, shape), input, tap, (output * shape.inputs + input) * shape.taps + tap)
        }
      }
    }
  }
}
