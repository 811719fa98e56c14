import CKernels
import Tensors

/// The input of a matrix product in the form that the weights ask for.
package enum Activations {
  case float(Matrix)
  case quantized(QuantizedRows)
}

/// Which input row each tap of each output row reads.
package protocol RowGather {
  /// The input row for `tap` of output row `row`; negative where the tap falls on padding.
  func source(tap: Int, row: Int) -> Int
}

/// Linear layers: output row r reads input row r.
package struct SameRow: RowGather {
  package init() {}
  @inline(__always) package func source(tap: Int, row: Int) -> Int { row }
}

extension Run {
  /// `x` as `weights` want it: quantised to u8 per row, or as it is. Lives in the arena.
  /// - Parameter isPaired: false where the two halves of a guided run have nothing in common, as the prompts.
  package func activations(_ x: Matrix, for weights: PackedMatrix, isPaired: Bool = true) -> Activations {
    switch weights.elements {
    case .int8: .quantized(quantize(x, isPaired: isPaired && isGuided && x.rows % 2 == 0))
    case .float32, .float16: .float(x)
    }
  }

  /// u8 rows with a scale and a zero point each (`Oracle.quantizeRows`); where `isPaired`, the second half of the rows as
  /// differences to the first.
  package func quantize(_ x: Matrix, isPaired: Bool = false) -> QuantizedRows {
    let stride = x.columns.roundedUp(to: MatrixShape.quad)
    // A group of channels whose width is no multiple of four is read up to three bytes past the row's end.
    let rows = QuantizedRows(
      values: arena.allocate(UInt8.self, x.rows * stride + MatrixShape.quad), scale: floats(x.rows),
      zero: arena.allocate(Int32.self, x.rows), rows: x.rows, columns: x.columns, stride: stride, isPaired: isPaired)
    let plain = isPaired ? x.rows / 2 : x.rows
    let grain = max(1, 16_384 / x.columns)
    parallel(plain, grain: grain) { range in
      quantize(x.rows(range), into: rows, at: range.lowerBound)
      guard isPaired else { return }
      withUnsafeTemporaryAllocation(of: Float.self, capacity: range.count * x.columns) { buffer in
        guard let base = buffer.baseAddress else { return }
        var difference = at_add(
          a: x.row(range.lowerBound), b: x.row(plain + range.lowerBound), out: base, count: buffer.count, alpha: -1)
        kernels.add(&difference)
        let differences = Matrix(base: base, rows: range.count, columns: x.columns)
        quantize(differences, into: rows, at: plain + range.lowerBound)
      }
    }
    return rows
  }

  private func quantize(_ x: Matrix, into rows: QuantizedRows, at first: Int) {
    var arguments = at_quantize(
      x: x.base, x_stride: x.columns, q: rows.values + first * rows.stride, q_stride: rows.stride,
      scale: rows.scale + first, zero: rows.zero + first, rows: x.rows, columns: x.columns, padded: rows.stride)
    kernels.quantizeRows(&arguments)
  }

  /// out[r] = residual[r] + bias + sum over taps of x[gather(tap, r)] times the weights, group by group.
  ///
  /// `bias` replaces the weights' own where given: f32 [padded outputs]. `residual` may be `out`.
  package func multiply<Gather: RowGather>(
    _ x: Activations, by weights: PackedMatrix, gather: Gather, into out: Matrix, adding residual: Matrix? = nil,
    bias: UnsafePointer<Float>? = nil
  ) {
    let shape = weights.shape
    precondition(out.columns == shape.outputs)
    if let residual { precondition(residual.rows == out.rows && residual.columns == out.columns) }
    let mark = arena.used
    defer { arena.release(to: mark) }
    let product = BlockProduct(
      x: x, weights: weights, gather: gather, out: out, residual: residual, bias: bias ?? weights.bias,
      padding: paddingRow(for: x, shape), kernels: kernels)
    let blocks = product.blocks
    // Few rows: cut the panels too, so that all threads have work.
    let wanted = (8 * pool.threads).roundedUp(to: blocks) / blocks
    let slice = max(2, (shape.panelsPerGroup / max(1, wanted)).roundedUp(to: 2))
    let slices = shape.panelsPerGroup.roundedUp(to: slice) / slice
    parallel(blocks * shape.groups * slices) { range in
      for item in range {
        let (block, rest) = item.quotientAndRemainder(dividingBy: shape.groups * slices)
        let (group, part) = rest.quotientAndRemainder(dividingBy: slices)
        product.compute(
          block: block, group: group, panels: part * slice..<min((part + 1) * slice, shape.panelsPerGroup))
      }
    }
  }

  private func paddingRow(for x: Activations, _ shape: MatrixShape) -> UnsafeRawPointer {
    switch x {
    case .quantized(let rows): return UnsafeRawPointer(rows.values)  // counts for nothing: its scale and zero are 0
    case .float:
      let zeros = floats(shape.inputs)
      serial { zeros.update(repeating: 0, count: shape.inputs) }
      return UnsafeRawPointer(zeros)
    }
  }
}

/// One product, cut into blocks of rows and runs of panels that threads compute in any order.
private struct BlockProduct<Gather: RowGather> {
  let x: Activations
  let weights: PackedMatrix
  let gather: Gather
  let out: Matrix
  let residual: Matrix?
  let bias: UnsafePointer<Float>?
  let padding: UnsafeRawPointer
  let kernels: KernelTable

  /// Rows of a block: its activations and one pair of panels stay in the first two caches.
  private var blockRows: Int { weights.shape.taps > 16 ? 20 : isPaired ? 32 : 60 }
  private var isPaired: Bool { if case .quantized(let rows) = x { rows.isPaired } else { false } }
  /// The rows that are cut into blocks: all, or the first half where the second is computed with it.
  private var blockedRows: Int { isPaired ? out.rows / 2 : out.rows }
  var blocks: Int { blockedRows.roundedUp(to: blockRows) / blockRows }

  func compute(block: Int, group: Int, panels: Range<Int>) {
    let first = block * blockRows
    let rows = first..<min(first + blockRows, blockedRows)
    let tile = Tile(group: group, panels: panels)
    guard isPaired else { return multiply(rows, tile, into: out.rows(rows), bias: bias, adding: residual?.rows(rows)) }
    let half = out.rows / 2
    let pairs = rows.lowerBound + half..<rows.upperBound + half
    guard let residual else {
      multiply(rows, tile, into: out.rows(rows), bias: bias, adding: nil)
      multiply(pairs, tile, into: out.rows(pairs), bias: nil, adding: out.rows(rows))
      return
    }
    withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * rows.count * out.columns) { buffer in
      guard let base = buffer.baseAddress else { return }
      let sums = Matrix(base: base, rows: 2 * rows.count, columns: out.columns)
      let plain = sums.rows(0..<rows.count)
      let paired = sums.rows(rows.count..<2 * rows.count)
      multiply(rows, tile, into: plain, bias: bias, adding: nil)
      multiply(pairs, tile, into: paired, bias: nil, adding: plain)
      add(residual.rows(rows), to: plain, tile, into: out.rows(rows))
      add(residual.rows(pairs), to: paired, tile, into: out.rows(pairs))
    }
  }

  /// A run of panels of one group.
  private struct Tile {
    let group: Int
    let panels: Range<Int>

    func columns(_ shape: MatrixShape) -> Range<Int> {
      let width = shape.outputs / shape.groups
      let first = panels.lowerBound * MatrixShape.panel
      return group * width + first..<group * width + min(width, panels.upperBound * MatrixShape.panel)
    }
  }

  private func add(_ residual: Matrix, to sums: Matrix, _ tile: Tile, into out: Matrix) {
    let columns = tile.columns(weights.shape)
    for row in 0..<out.rows {
      var arguments = at_add(
        a: sums.row(row) + columns.lowerBound, b: residual.row(row) + columns.lowerBound,
        out: out.row(row) + columns.lowerBound, count: columns.count, alpha: 1)
      kernels.add(&arguments)
    }
  }

  /// The product of input rows `range` as gathered, into all rows of `result`.
  private func multiply(
    _ range: Range<Int>, _ tile: Tile, into result: Matrix, bias: UnsafePointer<Float>?, adding residual: Matrix?
  ) {
    let entries = weights.shape.taps * range.count
    withUnsafeTemporaryAllocation(of: UnsafeRawPointer.self, capacity: entries) { rows in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: entries) { scales in
        withUnsafeTemporaryAllocation(of: Int32.self, capacity: entries) { zeros in
          guard let rows = rows.baseAddress, let scales = scales.baseAddress, let zeros = zeros.baseAddress else {
            return
          }
          fill(rows, scales, zeros, range, group: tile.group)
          var arguments = arguments(tile, rows, into: result, bias: bias, adding: residual)
          arguments.row_scale = UnsafePointer(scales)
          arguments.row_zero = UnsafePointer(zeros)
          switch weights.elements {
          case .int8: kernels.gemmInt8(&arguments)
          case .float32: kernels.gemmFloat32(&arguments)
          case .float16: kernels.gemmFloat16(&arguments)
          }
        }
      }
    }
  }

  private func fill(
    _ rows: UnsafeMutablePointer<UnsafeRawPointer>, _ scales: UnsafeMutablePointer<Float>,
    _ zeros: UnsafeMutablePointer<Int32>, _ range: Range<Int>, group: Int
  ) {
    let column = group * weights.shape.inputs
    var entry = 0
    for tap in 0..<weights.shape.taps {
      for row in range {
        let source = gather.source(tap: tap, row: row)
        switch x {
        case .float(let x):
          rows[entry] = source < 0 ? padding : UnsafeRawPointer(x.row(source) + column)
        case .quantized(let x):
          rows[entry] = source < 0 ? padding : UnsafeRawPointer(x.values + source * x.stride + column)
          scales[entry] = source < 0 ? 0 : x.scale[source]
          zeros[entry] = source < 0 ? 0 : x.zero[source]
        }
        entry += 1
      }
    }
  }

  /// Everything but the scales and zeros of the input rows.
  private func arguments(
    _ tile: Tile, _ rows: UnsafePointer<UnsafeRawPointer>, into result: Matrix, bias: UnsafePointer<Float>?,
    adding residual: Matrix?
  ) -> at_gemm {
    let shape = weights.shape
    let width = shape.outputs / shape.groups
    let paddedColumn = tile.group * shape.panelsPerGroup * MatrixShape.panel
    var a = at_gemm(
      rows: rows, row_scale: nil, row_zero: nil, row_count: result.rows, taps: shape.taps, inputs: shape.inputs,
      weights: padding, scale: nil, sum: nil, bias: bias.map { $0 + paddedColumn }, panels: shape.panels,
      panel_begin: tile.panels.lowerBound, panel_end: tile.panels.upperBound, outputs: width,
      residual: residual.map { UnsafePointer($0.base + tile.group * width) }, residual_stride: out.columns,
      out: result.base + tile.group * width, out_stride: out.columns)
    switch weights.elements {
    case .int8(let values, let scale, let sum):
      a.inputs = shape.paddedInputs
      a.weights = UnsafeRawPointer(values + paddedColumn * shape.taps * shape.paddedInputs)
      a.scale = scale + paddedColumn
      a.sum = sum + paddedColumn
    case .float32(let values): a.weights = UnsafeRawPointer(values + paddedColumn * shape.taps * shape.inputs)
    case .float16(let values): a.weights = UnsafeRawPointer(values + paddedColumn * shape.taps * shape.inputs)
    }
    return a
  }
}
