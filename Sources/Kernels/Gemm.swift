import CKernels
import Tensors

/// The input of a matrix product in the form that the weights ask for.
package enum Activations {
  case float(Matrix)
  case quantized(QuantizedRows)
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
    parallel(.quantisation, plain, grain: grain) { range in
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

  /// out[r] = residual[r] + bias + sum over taps of x[window(tap, r)] times the weights, group by group.
  ///
  /// `bias` replaces the weights' own where given: f32 [padded outputs]. `residual` may be `out`.
  package func multiply(
    _ x: Activations, by weights: PackedMatrix, through window: Window, into out: Matrix,
    adding residual: Matrix? = nil,
    bias: UnsafePointer<Float>? = nil
  ) {
    let shape = weights.shape
    precondition(out.columns == shape.outputs)
    if let residual { precondition(residual.rows == out.rows && residual.columns == out.columns) }
    let mark = arena.used
    defer { arena.release(to: mark) }
    let product = BlockProduct(
      x: x, weights: weights, window: window, out: out, residual: residual, bias: bias ?? weights.bias,
      padding: paddingRow(for: x, shape), kernels: kernels)
    let blocks = product.blocks
    // Few rows: cut the panels too, so that all threads have work.
    let wanted = (8 * pool.threads).roundedUp(to: blocks) / blocks
    let slice = max(2, (shape.panelsPerGroup / max(1, wanted)).roundedUp(to: 2))
    let slices = shape.panelsPerGroup.roundedUp(to: slice) / slice
    let products = out.rows * shape.outputs * shape.inputs * shape.taps
    let work = shape.taps > 1 ? Work.convolution : .linear
    parallel(work, blocks * shape.groups * slices, products: products) { range in
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
private struct BlockProduct {
  let x: Activations
  let weights: PackedMatrix
  let window: Window
  let out: Matrix
  let residual: Matrix?
  let bias: UnsafePointer<Float>?
  let padding: UnsafeRawPointer
  let kernels: KernelTable

  /// Rows of a block, all of them or those of the first half: its activations stay in the second cache, and the more
  /// there are the fewer times all weights pass by.
  private var blockRows: Int {
    let bytes = 192 << 10
    let most = Int(AT_GEMM_ROWS) / (isPaired ? 2 : 1)
    if weights.shape.taps > 16 { return 20 }
    let rows = bytes / weights.shape.inputs / (isPaired ? 2 : 1)
    return min(max(rows / 4 * 4, 32), most)
  }
  private var isPaired: Bool { if case .quantized(let rows) = x { rows.isPaired } else { false } }
  /// The rows that are cut into blocks: all, or the first half where the second is computed with it.
  private var blockedRows: Int { isPaired ? out.rows / 2 : out.rows }
  var blocks: Int { blockedRows.roundedUp(to: blockRows) / blockRows }

  func compute(block: Int, group: Int, panels: Range<Int>) {
    let first = block * blockRows
    let rows = first..<min(first + blockRows, blockedRows)
    multiply(rows, Tile(group: group, panels: panels))
  }

  /// A run of panels of one group.
  private struct Tile {
    let group: Int
    let panels: Range<Int>
  }

  /// The product of input rows `range` as gathered, and of those that are paired with them.
  private func multiply(_ range: Range<Int>, _ tile: Tile) {
    let entries = weights.shape.taps * range.count * (isPaired ? 2 : 1)
    withUnsafeTemporaryAllocation(of: UnsafeRawPointer.self, capacity: entries) { rows in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: entries) { scales in
        withUnsafeTemporaryAllocation(of: Int32.self, capacity: entries) { zeros in
          guard let rows = rows.baseAddress, let scales = scales.baseAddress, let zeros = zeros.baseAddress else {
            return
          }
          fill(rows, scales, zeros, range, group: tile.group)
          var arguments = arguments(tile, range, rows)
          arguments.row_scale = UnsafePointer(scales)
          arguments.row_zero = UnsafePointer(zeros)
          switch weights.elements {
          case .int8(_, _, _, pairs: true): kernels.gemmInt8Pairs(&arguments)
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
    let count = range.count * (isPaired ? 2 : 1)
    for place in 0..<count {
      let isSecond = place >= range.count
      let row = range.lowerBound + (isSecond ? out.rows / 2 + place - range.count : place)
      window.forEachTap(of: row) { tap, source in
        let entry = tap * count + place
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

  /// Everything but the scales and zeros of the input rows.
  private func arguments(
    _ tile: Tile, _ range: Range<Int>, _ rows: UnsafePointer<UnsafeRawPointer>
  ) -> at_gemm {
    let shape = weights.shape
    let width = shape.outputs / shape.groups
    let paddedColumn = tile.group * shape.panelsPerGroup * MatrixShape.panel
    func place(_ matrix: Matrix, _ row: Int) -> UnsafeMutablePointer<Float> { matrix.row(row) + tile.group * width }
    let first = range.lowerBound
    let paired = isPaired ? out.rows / 2 + first : 0
    var a = at_gemm(
      rows: rows, row_scale: nil, row_zero: nil, row_count: range.count * (isPaired ? 2 : 1), taps: shape.taps,
      inputs: shape.inputs, weights: padding, scale: nil, sum: nil, bias: bias.map { $0 + paddedColumn },
      panels: shape.panels, panel_begin: tile.panels.lowerBound, panel_end: tile.panels.upperBound, outputs: width,
      residual: residual.map { UnsafePointer(place($0, first)) }, residual_stride: out.columns,
      out: place(out, first), out_stride: out.columns, paired: isPaired,
      pair_residual: isPaired ? residual.map { UnsafePointer(place($0, paired)) } : nil,
      pair_out: isPaired ? place(out, paired) : nil)
    switch weights.elements {
    case .int8(let values, let scale, let sum, _):
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
