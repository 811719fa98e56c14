import CKernels
import Tensors

/// Rows that a matrix product reads: there already, or normalised when they are needed, so that the normalised ones never
/// lie in memory as floats.
package enum RowSource {
  case matrix(Matrix)
  case map(JoinedMap)
  case groupNorm(GroupNormalised)
  /// gamma, beta: [columns].
  case layerNorm(Matrix, gamma: UnsafePointer<Float>, beta: UnsafePointer<Float>, epsilon: Float)

  package var rows: Int {
    switch self {
    case .matrix(let x), .layerNorm(let x, _, _, _): x.rows
    case .map(let x): x.pixels
    case .groupNorm(let x): x.map.pixels
    }
  }
  package var columns: Int {
    switch self {
    case .matrix(let x), .layerNorm(let x, _, _, _): x.columns
    case .map(let x): x.channels
    case .groupNorm(let x): x.map.channels
    }
  }
}

/// A map and what turns it into a normalised one: activation(x * factor + offset), both [images, channels].
package struct GroupNormalised {
  package let map: JoinedMap
  let factors: Matrix
  let offsets: Matrix
  let activation: Activation
}

extension Run {
  /// The rows `range` of `source`, into `out` [range.count, columns].
  func compute(_ source: RowSource, _ range: Range<Int>, into out: UnsafeMutablePointer<Float>) {
    switch source {
    case .matrix(let x):
      out.update(from: x.row(range.lowerBound), count: range.count * x.columns)
    case .layerNorm(let x, let gamma, let beta, let epsilon):
      var arguments = at_layer_norm(
        x: x.row(range.lowerBound), out: out, rows: range.count, columns: x.columns, gamma: gamma, beta: beta,
        epsilon: epsilon)
      kernels.layerNorm(&arguments)
    case .map(let x):
      var column = 0
      for part in x.parts {
        for row in range {
          let place = out + (row - range.lowerBound) * x.channels + column
          place.update(from: part.tokens.row(row), count: part.channels)
        }
        column += part.channels
      }
    case .groupNorm(let x): normalise(x, range, into: out)
    }
  }

  private func normalise(_ x: GroupNormalised, _ range: Range<Int>, into out: UnsafeMutablePointer<Float>) {
    let pixels = x.map.height * x.map.width
    var column = 0
    for part in x.map.parts {
      var first = range.lowerBound
      while first < range.upperBound {
        let image = first / pixels
        // Rows of a part alone are as far apart in `out` as in the part itself; others are taken one by one.
        let end = x.map.second == nil ? min(range.upperBound, (image + 1) * pixels) : first + 1
        var arguments = at_affine(
          x: part.tokens.row(first), out: out + (first - range.lowerBound) * x.map.channels + column,
          rows: end - first, channels: part.channels, factor: x.factors.row(image) + column,
          offset: x.offsets.row(image) + column, activation: x.activation.kernel)
        kernels.affine(&arguments)
        first = end
      }
      column += part.channels
    }
  }

  /// All rows of `source`: itself where they are there, or in the arena.
  package func materialise(_ source: RowSource) -> Matrix {
    if case .matrix(let x) = source { return x }
    let out = matrix(source.rows, source.columns)
    parallel(.normalisation, source.rows, grain: max(1, 16_384 / source.columns)) { range in
      compute(source, range, into: out.row(range.lowerBound))
    }
    return out
  }

  /// u8 rows with a scale and a zero point each (`Oracle.quantizeRows`); where `isPaired`, the second half of the rows as
  /// differences to the first.
  package func quantize(_ source: RowSource, isPaired: Bool = false) -> QuantizedRows {
    let rows = quantizedRows(source.rows, source.columns, isPaired: isPaired)
    let grain = max(1, 8192 / source.columns)
    let piece = grain * source.columns
    parallel(.quantisation, isPaired ? source.rows / 2 : source.rows, grain: grain, scratch: 2 * piece) {
      range, scratch in
      if case .matrix(let x) = source, !isPaired { return quantize(x.rows(range), into: rows, at: range.lowerBound) }
      compute(source, range, into: scratch)
      let plain = Matrix(base: scratch, rows: range.count, columns: source.columns)
      quantize(plain, into: rows, at: range.lowerBound)
      guard isPaired else { return }
      let half = source.rows / 2
      let paired = Matrix(base: scratch + piece, rows: range.count, columns: source.columns)
      compute(source, half + range.lowerBound..<half + range.upperBound, into: paired.base)
      quantize(paired, minus: plain, into: rows, at: half + range.lowerBound)
    }
    return rows
  }

  /// Quantised rows in the arena that nothing has been written to.
  func quantizedRows(_ rows: Int, _ columns: Int, isPaired: Bool) -> QuantizedRows {
    let stride = columns.roundedUp(to: MatrixShape.quad)
    // A group of channels whose width is no multiple of four is read up to three bytes past the row's end.
    return QuantizedRows(
      values: arena.allocate(UInt8.self, rows * stride + MatrixShape.quad), scale: floats(rows),
      zero: arena.allocate(Int32.self, rows), rows: rows, columns: columns, stride: stride, isPaired: isPaired)
  }

  func quantize(_ x: Matrix, into rows: QuantizedRows, at first: Int) {
    var arguments = at_quantize(
      x: x.base, x_stride: x.columns, q: rows.values + first * rows.stride, q_stride: rows.stride,
      scale: rows.scale + first, zero: rows.zero + first, rows: x.rows, columns: x.columns, padded: rows.stride)
    kernels.quantizeRows(&arguments)
  }

  /// Quantises x - other; what is left in `x` means nothing.
  func quantize(_ x: Matrix, minus other: Matrix, into rows: QuantizedRows, at first: Int) {
    var difference = at_add(a: other.base, b: x.base, out: x.base, count: x.count, alpha: -1)
    kernels.add(&difference)
    quantize(x, into: rows, at: first)
  }
}
