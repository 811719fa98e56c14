import CKernels
import Tensors

/// The input of a matrix product in the form that the weights ask for.
package enum Activations {
  case float(Matrix)
  case quantized(QuantizedRows)

  package var rows: Int {
    switch self {
    case .float(let x): x.rows
    case .quantized(let x): x.rows
    }
  }

  /// 2 where the second half of the rows is paired with the first.
  var ways: Int { if case .quantized(let x) = self, x.isPaired { 2 } else { 1 } }
}

extension Run {
  /// `x` as `weights` want it: quantised to u8 per row, or as it is. Lives in the arena.
  /// - Parameter rows: those to take, as in `quantize`; all by default.
  /// - Parameter isPaired: false where the two halves of a guided run have nothing in common, as the prompts.
  package func activations(
    _ x: RowSource, rows: Range<Int>? = nil, for weights: PackedMatrix, isPaired: Bool = true
  ) -> Activations {
    switch weights.elements {
    case .int8: .quantized(quantize(x, rows: rows, isPaired: isPaired && isGuided && x.rows % 2 == 0))
    case .float32, .float16: .float(materialise(x, rows: rows))
    }
  }

  /// out[r] = residual[r] + bias + sum over taps of x[window(tap, r)] times the weights, group by group.
  ///
  /// - Parameters:
  ///   - rows: those of `out` that this is, all by default; of a paired product those of its first half.
  ///   - residual: may be `out`.
  ///   - bias: replaces the weights' own where given: f32 [padded outputs].
  package func multiply(
    _ x: Activations, by weights: PackedMatrix, through window: Window, into out: StoredRows, rows: Range<Int>? = nil,
    adding residual: StoredRows? = nil, bias: UnsafePointer<Float>? = nil
  ) {
    let shape = weights.shape
    precondition(out.columns == shape.outputs)
    if let residual {
      precondition(residual.rows == out.rows && residual.columns == out.columns && residual.storage == out.storage)
    }
    let mark = arena.used
    defer { arena.release(to: mark) }
    observe(x, by: weights, through: window, rows: rows.map { $0.count * x.ways } ?? out.rows)
    if case .quantized(let input) = x, weights.isTransformed, window.hasTiles {
      let pixels = window.output.height * window.output.width
      let tiled = WinogradProduct(
        x: input, weights: weights, window: window, bias: bias ?? weights.bias, padding: paddingRow(for: x, shape),
        kernels: kernels, images: (rows?.count ?? out.rows / x.ways) / pixels)
      return multiplyTiles(tiled, into: out, rows: rows, adding: residual)
    }
    let product = BlockProduct(
      x: x, weights: weights, window: window, rows: rows.map { $0.count * x.ways } ?? out.rows,
      bias: bias ?? weights.bias, padding: paddingRow(for: x, shape), kernels: kernels)
    let origin = rows?.lowerBound ?? 0
    let pairs = product.isPaired ? origin + out.rows / 2 : nil
    for panels in weights.parts {
      willUse(weights, panels: panels)
      let slicing = product.slicing(panels, threads: pool.threads)
      parallel(
        shape.work, slicing.count, products: product.rows * shape.products * panels.count / shape.panelsPerGroup
      ) { range in
        for item in range {
          let (rows, tile) = slicing[item]
          let first = rows.lowerBound
          product.compute(
            rows, tile,
            into: .init(
              storage: out.storage, out: out.row(origin + first), pairs: pairs.map { out.row($0 + first) },
              residual: residual.map { UnsafeRawPointer($0.row(origin + first)) },
              pairResidual: residual.flatMap { residual in pairs.map { UnsafeRawPointer(residual.row($0 + first)) } }))
        }
      }
    }
  }

  package func multiply(
    _ x: Activations, by weights: PackedMatrix, through window: Window, into out: Matrix,
    adding residual: Matrix? = nil, bias: UnsafePointer<Float>? = nil
  ) {
    multiply(
      x, by: weights, through: window, into: StoredRows(out), adding: residual.map { StoredRows($0) }, bias: bias)
  }

  /// The product with its rows put where `place` says: row r of [rows, outputs] is row place(r) of `out`.
  package func multiply(
    _ x: Activations, by weights: PackedMatrix, through window: Window, rows: Int, into out: StoredRows,
    at place: (Int) -> Int
  ) {
    let shape = weights.shape
    willUse(weights)
    observe(x, by: weights, through: window, rows: rows)
    precondition(out.columns == shape.outputs && shape.groups == 1)
    scratch {
      let product = BlockProduct(
        x: x, weights: weights, window: window, rows: rows, bias: weights.bias, padding: paddingRow(for: x, shape),
        kernels: kernels, scratchColumns: shape.outputs)
      let slicing = product.slicing(0..<shape.panelsPerGroup, threads: pool.threads)
      parallel(shape.work, slicing.count, scratch: product.blockFloats, products: rows * shape.products) {
        range, scratch in
        for item in range {
          let (rows, tile) = slicing[item]
          let block = StoredRows(
            base: scratch, storage: out.storage, rows: rows.count * x.ways, columns: shape.outputs)
          let pairs = product.isPaired ? block.row(rows.count) : nil
          product.compute(
            rows, tile,
            into: .init(storage: out.storage, out: block.base, pairs: pairs, residual: nil, pairResidual: nil))
          let columns = tile.columns(shape)
          let (offset, bytes) = (columns.lowerBound * out.storage.bytes, columns.count * out.storage.bytes)
          for index in 0..<block.rows {
            let way = index / rows.count
            let row = way * (product.rows / 2) + rows.lowerBound + index % rows.count
            (out.row(place(row)) + offset).copyMemory(from: block.row(index) + offset, byteCount: bytes)
          }
        }
      }
    }
  }

  /// What `multiplyGated` gates at once stays in the second cache, or nearly.
  private static var gatedColumns: Int { 128 }

  /// GEGLU: with y = x W^T + bias, [rows, 2n], y[:, :n] * gelu(y[:, n:]) as `next` wants it. Where that is quantised,
  /// and its columns fill panels, floats are there block by block only, and those before the gate a few columns of a block.
  package func multiplyGated(_ x: Activations, by weights: PackedMatrix, for next: PackedMatrix) -> Activations {
    let width = weights.shape.outputs / 2
    guard case .quantized(let input) = x, case .int8 = next.elements, width % MatrixShape.panel == 0 else {
      let out = matrix(x.rows, width)
      scratch {
        let both = matrix(x.rows, 2 * width)
        multiply(x, by: weights, through: .same(rows: x.rows), into: both)
        gatedGELU(both, into: out)
      }
      return activations(.matrix(out), for: next)
    }
    willUse(weights)
    observe(x, by: weights, through: .same(rows: input.rows), rows: input.rows)
    let out = quantizedRows(input.rows, width, isPaired: input.isPaired)
    let product = BlockProduct(
      x: x, weights: weights, window: .same(rows: input.rows), rows: input.rows, bias: weights.bias,
      padding: paddingRow(for: x, weights.shape), kernels: kernels, scratchColumns: 2 * width, threads: pool.threads)
    let blockRows = product.blockRows * x.ways
    parallel(
      .linear, product.blocks, scratch: blockRows * (width + 2 * min(Self.gatedColumns, width)),
      products: input.rows * weights.shape.products
    ) { range, scratch in
      for block in range {
        let rows = product.rows(of: block)
        product.computeGated(rows, into: scratch, before: scratch + blockRows * width, Self.gatedColumns)
        quantize(block: scratch, rows, into: out)
      }
    }
    return .quantized(out)
  }

  func paddingRow(for x: Activations, _ shape: MatrixShape) -> UnsafeRawPointer {
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
struct BlockProduct {
  let x: Activations
  let weights: PackedMatrix
  let window: Window
  /// Of the result.
  let rows: Int
  let bias: UnsafePointer<Float>?
  let padding: UnsafeRawPointer
  let kernels: KernelTable

  /// Columns that a block's result has, or had before the gate, where blocks are to be so small that it stays in the
  /// caches, or nearly.
  var scratchColumns: Int?
  /// Threads that there are to be blocks for, at least one each: 1 where columns are shared out too.
  var threads = 1

  /// What a block's activations may take of the second cache: half of a share, less what weights take beside them.
  private static let blockBytes = max(at_second_cache_bytes() / 2 - (64 << 10), 192 << 10)

  /// Rows of a block, all of them or those of the first half: its activations stay in the second cache, and the more
  /// there are the fewer times all weights pass by.
  var blockRows: Int {
    if weights.shape.taps > 16 { return 20 }
    let ways = isPaired ? 2 : 1
    var most = Self.blockBytes / weights.shape.inputs / ways
    if let scratchColumns {
      // At least so many that reading the weights again for each block is not what takes the time.
      most = max((1 << 20) / (scratchColumns * MemoryLayout<Float>.stride), 128) / ways
    }
    most = min(most, blockedRows.roundedUp(to: threads) / threads)
    most = min(max(most / 4 * 4, 16), Int(AT_GEMM_ROWS) / ways)
    let blocks = blockedRows.roundedUp(to: most) / most
    return (blockedRows.roundedUp(to: blocks) / blocks).roundedUp(to: 4)
  }
  var isPaired: Bool { x.ways == 2 }
  /// The rows that are cut into blocks: all, or the first half where the second is computed with it.
  var blockedRows: Int { isPaired ? rows / 2 : rows }
  var blocks: Int { blockedRows.roundedUp(to: blockRows) / blockRows }
  /// What a block's result takes.
  var blockFloats: Int { blockRows * (isPaired ? 2 : 1) * weights.shape.outputs }

  /// The rows of a block, among all or among the first half.
  func rows(of block: Int) -> Range<Int> { block * blockRows..<min((block + 1) * blockRows, blockedRows) }

  /// A run of panels of one group.
  struct Tile {
    let group: Int
    let panels: Range<Int>

    /// Of a product of one group.
    func columns(_ shape: MatrixShape) -> Range<Int> {
      panels.lowerBound * MatrixShape.panel..<min(panels.upperBound * MatrixShape.panel, shape.outputs)
    }
  }

  /// Pieces that threads take: blocks of rows and, where those are few, runs of panels too, so that all have work.
  struct Slicing {
    let product: BlockProduct
    /// Of each group.
    let panels: Range<Int>
    let slice: Int
    let slices: Int

    var count: Int { product.blocks * product.weights.shape.groups * slices }

    subscript(item: Int) -> (rows: Range<Int>, tile: Tile) {
      let shape = product.weights.shape
      let (block, rest) = item.quotientAndRemainder(dividingBy: shape.groups * slices)
      let (group, part) = rest.quotientAndRemainder(dividingBy: slices)
      let first = panels.lowerBound + part * slice
      let tile = Tile(group: group, panels: first..<min(first + slice, panels.upperBound))
      return (product.rows(of: block), tile)
    }
  }

  func slicing(_ panels: Range<Int>, threads: Int) -> Slicing {
    let wanted = (8 * threads).roundedUp(to: blocks) / blocks
    // Whole tiles; of four panels, which all kernels take in whole tiles, where slices are large enough.
    let share = max(1, panels.count / max(1, wanted))
    let slice = share.roundedUp(to: share < 4 ? kernels.tilePanels : 4)
    return Slicing(product: self, panels: panels, slice: slice, slices: panels.count.roundedUp(to: slice) / slice)
  }

  /// Where the rows of a block go and what is added to them: their first columns, [outputs] apart.
  struct Destination {
    let storage: Storage
    let out: UnsafeMutableRawPointer
    let pairs: UnsafeMutableRawPointer?
    let residual: UnsafeRawPointer?
    let pairResidual: UnsafeRawPointer?
    /// From a row to the next where that is not the number of outputs, and the panel whose outputs are the first of a row
    /// where that is not the first.
    var stride: Int?
    var firstPanel = 0
  }

  /// Input rows with their scales and zeros, as kernels take them.
  struct GatheredRows {
    let rows: UnsafeMutablePointer<UnsafeRawPointer>
    let scales: UnsafeMutablePointer<Float>
    let zeros: UnsafeMutablePointer<Int32>
    /// Without those that are paired with them.
    let count: Int
  }

  /// The product of input rows `range` as gathered, and of those that are paired with them.
  func compute(_ range: Range<Int>, _ tile: Tile, into destination: Destination) {
    gather(range, group: tile.group) { multiply($0, tile, into: destination) }
  }

  /// GEGLU of the rows `range`, and then of those paired with them: into `out`, half as many columns as there are
  /// outputs, of which some at a time are in `columns` before.
  func computeGated(
    _ range: Range<Int>, into out: UnsafeMutablePointer<Float>, before columns: UnsafeMutablePointer<Float>,
    _ most: Int
  ) {
    let width = weights.shape.outputs / 2
    gather(range, group: 0) { gathered in
      for first in stride(from: 0, to: width, by: most) {
        let count = min(most, width - first)
        for (half, place) in [first, width + first].enumerated() {
          let panels = place / MatrixShape.panel..<(place + count) / MatrixShape.panel
          let out = columns + half * count
          let destination = Destination(
            storage: .float32, out: out, pairs: isPaired ? out + range.count * 2 * count : nil, residual: nil,
            pairResidual: nil, stride: 2 * count, firstPanel: panels.lowerBound)
          multiply(gathered, Tile(group: 0, panels: panels), into: destination)
        }
        var gate = at_gated_gelu(
          x: columns, out: out + first, rows: range.count * x.ways, columns: count, out_stride: width)
        kernels.gatedGELU(&gate)
      }
    }
  }

  private func gather(_ range: Range<Int>, group: Int, _ body: (GatheredRows) -> Void) {
    let entries = weights.shape.taps * range.count * (isPaired ? 2 : 1)
    withUnsafeTemporaryAllocation(of: UnsafeRawPointer.self, capacity: entries) { rows in
      withUnsafeTemporaryAllocation(of: Float.self, capacity: entries) { scales in
        withUnsafeTemporaryAllocation(of: Int32.self, capacity: entries) { zeros in
          guard let rows = rows.baseAddress, let scales = scales.baseAddress, let zeros = zeros.baseAddress else {
            return
          }
          let gathered = GatheredRows(rows: rows, scales: scales, zeros: zeros, count: range.count)
          fill(gathered, range, group: group)
          body(gathered)
        }
      }
    }
  }

  private func multiply(_ rows: GatheredRows, _ tile: Tile, into destination: Destination) {
    var arguments = arguments(tile, rows, destination)
    switch weights.elements {
    case .int8(_, _, _, .fours): kernels.gemmInt8Fours(&arguments)
    case .int8(_, _, _, .pairs): kernels.gemmInt8Pairs(&arguments)
    case .int8(_, _, _, .full): kernels.gemmInt8(&arguments)
    case .float32: kernels.gemmFloat32(&arguments)
    case .float16: kernels.gemmFloat16(&arguments)
    }
  }

  private func fill(_ gathered: GatheredRows, _ range: Range<Int>, group: Int) {
    let (rows, scales, zeros) = (gathered.rows, gathered.scales, gathered.zeros)
    let column = group * weights.shape.inputs
    let count = range.count * (isPaired ? 2 : 1)
    for place in 0..<count {
      let isSecond = place >= range.count
      let row = range.lowerBound + (isSecond ? self.rows / 2 + place - range.count : place)
      window.forEachTap(of: row) { tap, source in
        let entry = tap * count + place
        switch x {
        case .float(let x):
          rows[entry] = source < 0 ? padding : UnsafeRawPointer(x.row(source) + column)
        case .quantized(let x):
          rows[entry] = source < 0 ? padding : UnsafeRawPointer(x.values + source * x.stride + column)
          scales[entry] = source < 0 ? 0 : x.scale[source] * (weights.tapScale?[tap] ?? 1)
          zeros[entry] = source < 0 ? 0 : x.zero[source]
        }
      }
    }
  }

  private func arguments(_ tile: Tile, _ rows: GatheredRows, _ d: Destination) -> at_gemm {
    let shape = weights.shape
    let width = shape.outputs / shape.groups
    let column = tile.group * width * d.storage.bytes
    let paddedColumn = (tile.group * shape.panelsPerGroup + d.firstPanel) * MatrixShape.panel
    var a = at_gemm(
      rows: rows.rows, row_scale: rows.scales, row_zero: rows.zeros, row_count: rows.count * (isPaired ? 2 : 1),
      taps: shape.taps, inputs: shape.inputs, weights: padding, scale: nil, sum: nil,
      bias: bias.map { $0 + paddedColumn }, panels: shape.panels,
      panel_begin: tile.panels.lowerBound - d.firstPanel, panel_end: tile.panels.upperBound - d.firstPanel,
      outputs: width - d.firstPanel * MatrixShape.panel, residual: d.residual.map { $0 + column },
      residual_stride: shape.outputs, out: d.out + column, out_stride: d.stride ?? shape.outputs, paired: isPaired,
      pair_residual: d.pairResidual.map { $0 + column }, pair_out: d.pairs.map { $0 + column },
      halves: d.storage == .float16)
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

extension MatrixShape {
  /// Multiply-accumulates of one row.
  fileprivate var products: Int { outputs * inputs * taps }
  fileprivate var work: Work { taps > 1 ? .convolution : .linear }
}
