import Tensors
import WeightFile

/// Reads every int8 matrix that is asked for, and refuses one whose codes are not what kernels rely on: the recorded
/// sums, the form that the file promises, and of a convolution for Winograd's algorithm the same steps for all taps. Checksums do not tell, since a writer computes them of whatever it wrote.
package struct VerifiedWeights: WeightSource {
  private let source: MappedWeights

  package init(_ file: WeightFile) { source = MappedWeights(file) }

  package func matrix(
    _ name: String, _ shape: MatrixShape, _ precision: Precision, bias: Bool
  ) throws(WeightError) -> PackedMatrix {
    let matrix = try source.matrix(name, shape, precision, bias: bias)
    if case .int8(let codes, _, let sums, let form) = matrix.elements {
      guard holds(shape, UnsafeRawPointer(codes), sums, form), !matrix.isTransformed || canBeTransformed(matrix)
      else {
        throw .codes(file: source.file.path, tensor: name + ".weight")
      }
      source.file.release([source.file[name + ".weight"]].compactMap(\.self))
    }
    return matrix
  }

  package func vector(_ name: String, _ dimensions: [Int]) throws(WeightError) -> UnsafePointer<Float> {
    try source.vector(name, dimensions)
  }

  package func table(_ name: String, rows: Int, columns: Int) throws(WeightError) -> EmbeddingTable {
    try source.table(name, rows: rows, columns: columns)
  }

  /// Sums of transformed products are in range for codes of at most 127.
  private func canBeTransformed(_ matrix: PackedMatrix) -> Bool {
    guard let scale = matrix.tapScale else { return false }
    return (0..<matrix.shape.taps).allSatisfy { scale[$0] == 1 } && !matrix.bytes.contains(UInt8(bitPattern: -128))
  }

  /// Sound because the source has checked the dimensions of both tensors, which are those of the loops.
  private func holds(
    _ shape: MatrixShape, _ codes: UnsafeRawPointer, _ sums: UnsafePointer<Int32>, _ form: CodeForm
  ) -> Bool {
    let (quads, width) = (shape.paddedInputs / MatrixShape.quad, MatrixShape.panel * MatrixShape.quad)
    for panel in 0..<shape.panels {
      for tap in 0..<shape.taps {
        let block = codes + (panel * shape.taps + tap) * quads * width
        var (found, first) = (SIMD16<Int32>(), Pairs())
        for quad in 0..<quads {
          let pairs = Pairs(block + quad * width)
          found &+= SIMD16(truncatingIfNeeded: pairs.positive &- pairs.negative)
          // The second quad of a four is added to the first.
          let isSecond = form == .fours && quad % 2 == 1
          guard form == .full || pairs.fit(besides: isSecond ? first : Pairs()) else { return false }
          first = pairs
        }
        let recorded = sums + tap * shape.paddedOutputs + panel * MatrixShape.panel
        for output in 0..<MatrixShape.panel where recorded[output] != found[2 * output] &+ found[2 * output + 1] {
          return false
        }
      }
    }
    return true
  }
}

/// What the codes of each sign add up to in the sixteen pairs of eight outputs' quads.
private struct Pairs {
  var positive = SIMD16<Int16>()
  /// Without its sign.
  var negative = SIMD16<Int16>()

  init() {}

  /// `codes`: int8 [8 outputs, 4].
  init(_ codes: UnsafeRawPointer) {
    let both = codes.loadUnaligned(as: SIMD16<Int16>.self)
    let (even, odd, zero) = ((both &<< 8) &>> 8, both &>> 8, SIMD16<Int16>())
    positive = pointwiseMax(even, zero) &+ pointwiseMax(odd, zero)
    negative = zero &- pointwiseMin(even, zero) &- pointwiseMin(odd, zero)
  }

  func fit(besides other: Pairs) -> Bool {
    max((positive &+ other.positive).max(), (negative &+ other.negative).max()) <= 128
  }
}
