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
  package func activations(_ x: Matrix, for weights: PackedMatrix) -> Activations {
    switch weights.elements {
    case .int8: .quantized(quantize(x))
    case .float32, .float16: .float(x)
    }
  }

  /// u8 rows with a scale and a zero point each (`Oracle.quantizeRows`).
  package func quantize(_ x: Matrix) -> QuantizedRows {
    let stride = x.columns.roundedUp(to: MatrixShape.quad)
    // A group of channels whose width is no multiple of four is read up to three bytes past the row's end.
    let rows = QuantizedRows(
      values: arena.allocate(UInt8.self, x.rows * stride + MatrixShape.quad), scale: floats(x.rows),
      zero: arena.allocate(Int32.self, x.rows), rows: x.rows, columns: x.columns, stride: stride)
    parallel(x.rows, grain: max(1, 16_384 / x.columns)) { range in
      var arguments = at_quantize(
        x: x.row(range.lowerBound), x_stride: x.columns, q: rows.values + range.lowerBound * stride, q_stride: stride,
        scale: rows.scale + range.lowerBound, zero: rows.zero + range.lowerBound, rows: range.count, columns: x.columns,
        padded: stride)
      kernels.quantizeRows(&arguments)
    }
    return rows
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
    let blocks = out.rows.roundedUp(to: product.blockRows) / product.blockRows
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
  var blockRows: Int { weights.shape.taps > 16 ? 20 : 60 }

  func compute(block: Int, group: Int, panels: Range<Int>) {
    let first = block * blockRows
    let count = min(blockRows, out.rows - first)
    let entries = weights.shape.taps * count
    withUnsafeTemporaryAllocation(of: UnsafeRawPointer.self, capacity: entries) { rows in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: entries) { scales in
        withUnsafeTemporaryAllocation(of: Int32.self, capacity: entries) { zeros in
          guard let rows = rows.baseAddress, let scales = scales.baseAddress, let zeros = zeros.baseAddress else {
            return
          }
          fill(rows, scales, zeros, first: first, count: count, group: group)
          multiply(rows, scales, zeros, first: first, count: count, group: group, panels: panels)
        }
      }
    }
  }

  private func fill(
    _ rows: UnsafeMutablePointer<UnsafeRawPointer>, _ scales: UnsafeMutablePointer<Float>,
    _ zeros: UnsafeMutablePointer<Int32>, first: Int, count: Int, group: Int
  ) {
    let column = group * weights.shape.inputs
    for tap in 0..<weights.shape.taps {
      for r in 0..<count {
        let entry = tap * count + r
        let source = gather.source(tap: tap, row: first + r)
        switch x {
        case .float(let x):
          rows[entry] = source < 0 ? padding : UnsafeRawPointer(x.row(source) + column)
        case .quantized(let x):
          rows[entry] = source < 0 ? padding : UnsafeRawPointer(x.values + source * x.stride + column)
          scales[entry] = source < 0 ? 0 : x.scale[source]
          zeros[entry] = source < 0 ? 0 : x.zero[source]
        }
      }
    }
  }

  private func multiply(
    _ rows: UnsafePointer<UnsafeRawPointer>, _ scales: UnsafePointer<Float>, _ zeros: UnsafePointer<Int32>, first: Int,
    count: Int, group: Int, panels: Range<Int>
  ) {
    let shape = weights.shape
    let width = shape.outputs / shape.groups
    let paddedColumn = group * shape.panelsPerGroup * MatrixShape.panel
    var a = at_gemm(
      rows: rows, row_scale: scales, row_zero: zeros, row_count: count, taps: shape.taps, inputs: shape.inputs,
      weights: padding, scale: nil, sum: nil, bias: bias.map { $0 + paddedColumn }, panels: shape.panels,
      panel_begin: panels.lowerBound, panel_end: panels.upperBound, outputs: width,
      residual: residual.map { UnsafePointer($0.row(first) + group * width) }, residual_stride: out.columns,
      out: out.row(first) + group * width, out_stride: out.columns)
    switch weights.elements {
    case .int8(let values, let scale, let sum):
      a.inputs = shape.paddedInputs
      a.weights = UnsafeRawPointer(values + paddedColumn * shape.taps * shape.paddedInputs)
      a.scale = scale + paddedColumn
      a.sum = sum + paddedColumn
      kernels.gemmInt8(&a)
    case .float32(let values):
      a.weights = UnsafeRawPointer(values + paddedColumn * shape.taps * shape.inputs)
      kernels.gemmFloat32(&a)
    case .float16(let values):
      a.weights = UnsafeRawPointer(values + paddedColumn * shape.taps * shape.inputs)
      kernels.gemmFloat16(&a)
    }
  }
}
