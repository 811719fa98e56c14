import CKernels
import Tensors

/// Rows that a matrix product reads: there already, or normalised when they are needed, so that the normalised ones never
/// lie in memory as floats.
package enum RowSource {
  case rows(StoredRows)
  case map(JoinedMap)
  case groupNorm(GroupNormalised)
  /// gamma, beta: [columns].
  case layerNorm(StoredRows, gamma: UnsafePointer<Float>, beta: UnsafePointer<Float>, epsilon: Float)

  package static func matrix(_ x: Matrix) -> RowSource { .rows(StoredRows(x)) }

  package var rows: Int {
    switch self {
    case .rows(let x), .layerNorm(let x, _, _, _): x.rows
    case .map(let x): x.pixels
    case .groupNorm(let x): x.map.pixels
    }
  }
  package var columns: Int {
    switch self {
    case .rows(let x), .layerNorm(let x, _, _, _): x.columns
    case .map(let x): x.channels
    case .groupNorm(let x): x.map.channels
    }
  }
}

extension RowSource {
  /// The rows themselves, where nothing is left to be done to them.
  fileprivate var there: StoredRows? {
    switch self {
    case .rows(let x): x
    case .map(let x): x.second == nil ? x.first.rows : nil
    case .groupNorm, .layerNorm: nil
    }
  }
}

/// A map and what turns it into a normalised one: activation(x * factor + offset), both [images, channels].
package struct GroupNormalised {
  package let map: JoinedMap
  let factors: Matrix
  let offsets: Matrix
  let activation: Activation

  /// What does the same to some lines of the map.
  package func applied(to band: JoinedMap) -> GroupNormalised {
    precondition(band.images == map.images && band.channels == map.channels)
    return GroupNormalised(map: band, factors: factors, offsets: offsets, activation: activation)
  }
}

extension Run {
  /// The rows `range` of `source`, into `out` [range.count, columns].
  func compute(_ source: RowSource, _ range: Range<Int>, into out: UnsafeMutablePointer<Float>) {
    switch source {
    case .rows(let x): copy(x, range, to: out)
    case .layerNorm(let x, let gamma, let beta, let epsilon):
      var arguments = at_layer_norm(
        x: x.row(range.lowerBound), halves: x.storage == .float16, out: out, rows: range.count, columns: x.columns,
        gamma: gamma, beta: beta, epsilon: epsilon)
      kernels.layerNorm(&arguments)
    case .map(let x):
      x.eachPart { part, column in
        // Rows of a part alone are as far apart in `out` as in the part itself; others are taken one by one.
        let run = x.second == nil ? range.count : 1
        for row in stride(from: range.lowerBound, to: range.upperBound, by: run) {
          copy(part.rows, row..<row + run, to: out + (row - range.lowerBound) * x.channels + column)
        }
      }
    case .groupNorm(let x): normalise(x, range, into: out)
    }
  }

  private func copy(_ x: StoredRows, _ range: Range<Int>, to out: UnsafeMutablePointer<Float>) {
    let count = range.count * x.columns
    let first = UnsafeRawPointer(x.row(range.lowerBound))
    switch x.storage {
    case .float32: out.update(from: first.assumingMemoryBound(to: Float.self), count: count)
    case .float16:
      var arguments = at_widen(x: first.assumingMemoryBound(to: UInt16.self), out: out, count: count)
      kernels.widen(&arguments)
    }
  }

  private func normalise(_ x: GroupNormalised, _ range: Range<Int>, into out: UnsafeMutablePointer<Float>) {
    let pixels = x.map.height * x.map.width
    x.map.eachPart { part, column in
      var first = range.lowerBound
      while first < range.upperBound {
        let image = first / pixels
        let end = x.map.second == nil ? min(range.upperBound, (image + 1) * pixels) : first + 1
        var arguments = at_affine(
          x: part.rows.row(first), out: out + (first - range.lowerBound) * x.map.channels + column,
          rows: end - first, channels: part.channels, factor: x.factors.row(image) + column,
          offset: x.offsets.row(image) + column, activation: x.activation.kernel,
          halves: part.storage == .float16)
        kernels.affine(&arguments)
        first = end
      }
    }
  }

  /// All rows of `source`, or `rows`: themselves where they are there, or in the arena.
  package func materialise(_ source: RowSource, rows: Range<Int>? = nil) -> Matrix {
    let rows = rows ?? 0..<source.rows
    if case .rows(let x) = source, let matrix = x.matrix { return matrix.rows(rows) }
    let out = matrix(rows.count, source.columns)
    parallel(.normalisation, rows.count, grain: max(1, 16_384 / source.columns)) { range in
      compute(
        source, rows.lowerBound + range.lowerBound..<rows.lowerBound + range.upperBound,
        into: out.row(range.lowerBound))
    }
    return out
  }

  /// u8 rows with a scale and a zero point each (`Oracle.quantizeRows`); where `isPaired`, the second half of the rows as
  /// differences to the first.
  /// - Parameter rows: those to take, all by default; where paired, of the first half, with those paired with them.
  package func quantize(_ source: RowSource, rows: Range<Int>? = nil, isPaired: Bool = false) -> QuantizedRows {
    let (half, columns) = (source.rows / 2, source.columns)
    let rows = rows ?? 0..<(isPaired ? half : source.rows)
    let out = quantizedRows(isPaired ? 2 * rows.count : rows.count, columns, isPaired: isPaired)
    let step = Self.rowsAtOnce(columns)
    let grain = max(step, 16_384 / columns / step * step)
    let piece = step * columns
    parallel(.quantisation, rows.count, grain: grain, scratch: 2 * piece) { range, scratch in
      if let there = source.there, observer == nil {
        guard isPaired else {
          let first = there.row(rows.lowerBound + range.lowerBound)
          return encode(
            first, storage: there.storage, count: range.count, row: scratch, into: out, at: range.lowerBound)
        }
        for row in range {
          let place = there.row(rows.lowerBound + row)
          encode(place, storage: there.storage, row: scratch, into: out, at: row)
          encode(
            there.row(half + rows.lowerBound + row), minus: place, storage: there.storage, row: scratch, into: out,
            at: rows.count + row)
        }
        return
      }
      for first in stride(from: range.lowerBound, to: range.upperBound, by: step) {
        let count = min(step, range.upperBound - first)
        let taken = rows.lowerBound + first..<rows.lowerBound + first + count
        compute(source, taken, into: scratch)
        let plain = Matrix(base: scratch, rows: count, columns: columns)
        quantize(plain, into: out, at: first)
        guard isPaired else { continue }
        let paired = Matrix(base: scratch + piece, rows: count, columns: columns)
        compute(source, half + taken.lowerBound..<half + taken.upperBound, into: paired.base)
        quantize(paired, minus: plain, into: out, at: rows.count + first)
      }
    }
    return out
  }

  /// A few rows, which stay in the first cache or nearly: fours, which layer norms take in step, where rows are not too long.
  private static func rowsAtOnce(_ columns: Int) -> Int {
    let few = 4096 / columns
    return few < 3 ? max(1, few) : max(4, few / 4 * 4)
  }

  /// What stands beside the codes of quantised rows, in the arena: [rows] each.
  package func rowCodes(_ rows: Int) -> (scale: UnsafeMutablePointer<Float>, zero: UnsafeMutablePointer<Int32>) {
    (floats(rows), arena.allocate(Int32.self, rows))
  }

  /// Quantises what normalises `x` to where `x` is, which must be the last of the arena besides what normalises it;
  /// frees the rest.
  package func quantize(
    _ normalised: GroupNormalised, of x: FeatureMap,
    inPlaceWith coded: (scale: UnsafeMutablePointer<Float>, zero: UnsafeMutablePointer<Int32>)
  ) -> QuantizedRows {
    precondition(x.images == 1 && x.channels % MatrixShape.quad == 0)
    let values = x.base.assumingMemoryBound(to: UInt8.self)
    let origin = observer.map { _ in RowOrigin(rows: x.pixels, columns: x.channels) }
    // Codes are shorter than floats: what is written ends before the lines that are still to be read.
    for lines in bands(of: x.height, bytes: x.width * x.channels) {
      scratch {
        let band = quantize(.groupNorm(normalised.applied(to: JoinedMap(x.lines(lines)))))
        serial {
          let row = lines.lowerBound * x.width
          (values + row * x.channels).update(from: band.values, count: band.rows * x.channels)
          (coded.scale + row).update(from: band.scale, count: band.rows)
          (coded.zero + row).update(from: band.zero, count: band.rows)
          if let kept = band.origin { origin?.keep(kept.matrix, at: row) }
        }
      }
    }
    arena.shrink(UnsafeMutableRawPointer(values), to: x.pixels * x.channels + MatrixShape.quad)
    return QuantizedRows(
      values: values, scale: coded.scale, zero: coded.zero, rows: x.pixels, columns: x.channels, stride: x.channels,
      isPaired: false, origin: origin)
  }

  /// Quantised rows in the arena that nothing has been written to.
  func quantizedRows(_ rows: Int, _ columns: Int, isPaired: Bool) -> QuantizedRows {
    let stride = columns.roundedUp(to: MatrixShape.quad)
    // A group of channels whose width is no multiple of four is read up to three bytes past the row's end.
    return QuantizedRows(
      values: arena.allocate(UInt8.self, rows * stride + MatrixShape.quad), scale: floats(rows),
      zero: arena.allocate(Int32.self, rows), rows: rows, columns: columns, stride: stride, isPaired: isPaired,
      origin: observer.map { _ in RowOrigin(rows: rows, columns: columns) })
  }

  /// Quantises x, or x - other: what is left in `x` then means nothing.
  func quantize(_ x: Matrix, minus other: Matrix? = nil, into rows: QuantizedRows, at first: Int) {
    rows.origin?.keep(x, at: first)
    encode(x.base, minus: other?.base, storage: .float32, count: x.rows, row: x.base, into: rows, at: first)
  }

  /// Quantises the floats of `rows` in `block`, and where paired those of the second half that come after them.
  func quantize(block: UnsafeMutablePointer<Float>, _ rows: Range<Int>, into out: QuantizedRows) {
    let plain = Matrix(base: block, rows: rows.count, columns: out.columns)
    let paired = Matrix(base: block + plain.count, rows: rows.count, columns: out.columns)
    let step = Self.rowsAtOnce(out.columns)
    for first in stride(from: 0, to: rows.count, by: step) {
      let few = first..<min(first + step, rows.count)
      quantize(plain.rows(few), into: out, at: rows.lowerBound + first)
      guard out.isPaired else { continue }
      quantize(paired.rows(few), minus: plain.rows(few), into: out, at: out.rows / 2 + rows.lowerBound + first)
    }
  }

  /// Quantises `count` rows, less `other` where there is one, to those of `rows` from `first` on.
  /// - Parameter row: one as floats, to be written to where x is f16 or another row is taken off.
  private func encode(
    _ x: UnsafeRawPointer, minus other: UnsafeRawPointer? = nil, storage: Storage, count: Int = 1,
    row: UnsafeMutablePointer<Float>, into rows: QuantizedRows, at first: Int
  ) {
    var arguments = at_quantize(
      x: x, other: other, halves: storage == .float16, row: row, x_stride: rows.columns,
      q: rows.values + first * rows.stride, q_stride: rows.stride, scale: rows.scale + first,
      zero: rows.zero + first, rows: count, columns: rows.columns, padded: rows.stride)
    kernels.quantizeRows(&arguments)
  }
}
