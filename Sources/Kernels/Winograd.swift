import CKernels
import Tensors

/// A 3x3 convolution by Winograd's F(4x4, 3x3), some tiles at a time: their inputs are transformed and coded, and then
/// multiplied. Where tiles are many, each thread takes some through both; where they are few, all threads code, and then
/// share out the outputs.
struct WinogradProduct {
  let x: QuantizedRows
  let weights: PackedMatrix
  let window: Window
  let bias: UnsafePointer<Float>?
  let padding: UnsafeRawPointer
  let kernels: KernelTable
  /// Of the output, all or those of the first half where the second is computed with it.
  let images: Int

  /// The sides of a tile of the output, and of the input that it is computed from.
  static let (core, side) = (Window.tileSide, Window.tileSide + 2)
  static let outputs = Int(AT_WINOGRAD_OUTPUTS)
  private static let places = Int(AT_WINOGRAD_PLACES)
  /// What the coded inputs of a run of tiles take at most, as long as there are some tiles.
  private static let runBytes = 6 << 20
  /// As many as leave room in the second cache for their sums, of some outputs, beside transformed weights.
  private static let mostTiles = 64
  /// With fewer, transforming all weights for each run takes longer than reading codes that another thread wrote.
  private static let leastOwnTiles = 32

  var ways: Int { x.isPaired ? 2 : 1 }
  private var across: Int { window.output.width / Self.core }
  private var down: Int { window.output.height / Self.core }
  /// Of the first half where paired.
  var tiles: Int { images * down * across }

  /// Whether tiles hold `rows` rows of the output, of one way.
  func coversAll(_ rows: Int) -> Bool { rows > 0 && tiles * Self.core * Self.core == rows }

  /// Tiles that are computed together, each as many as there are ways. The more there are, the fewer times weights are
  /// transformed.
  var runs: [Range<Int>] { runs(bytes: Self.runBytes, multipleOf: 1) }

  /// Runs of which each is one thread's own; none where tiles are too few. Codes that no other thread reads stay where they
  /// are: cores that share no cache take long to write what the other has read.
  func ownRuns(threads: Int) -> [Range<Int>]? {
    guard threads > 1 else { return nil }
    let runs = runs(bytes: Self.runBytes / threads, multipleOf: threads)
    let isLarge = { (run: Range<Int>) in run.count.roundedUp(to: 8 / ways) * ways >= Self.leastOwnTiles }
    return runs.count >= threads && runs.allSatisfy(isLarge) ? runs : nil
  }

  /// Runs of eights of tiles, as alike as can be; the last may miss some of its last eight.
  private func runs(bytes: Int, multipleOf threads: Int) -> [Range<Int>] {
    let inputs = weights.shape.inputs * Self.places * MemoryLayout<Int16>.stride
    let unit = 8 / ways
    let units = tiles.roundedUp(to: unit) / unit
    let most = min(max(bytes / inputs, 16), Self.mostTiles) / 8
    let count = min((units.roundedUp(to: most) / most).roundedUp(to: threads), units)
    return (0..<count).map { units * $0 / count * unit..<min(units * ($0 + 1) / count * unit, tiles) }
  }

  /// A run's tiles and what is made of them.
  struct Coded {
    let tiles: Range<Int>
    /// Of both ways.
    let count: Int
    let rows: UnsafeMutablePointer<UnsafeRawPointer>
    let scales: UnsafeMutablePointer<Float>
    let zeros: UnsafeMutablePointer<Int32>
    let pixels: UnsafeMutablePointer<Int>
    let codes: UnsafeMutablePointer<Int16>
    let steps: UnsafeMutablePointer<Float>
  }

  /// Bytes that `place` needs for so many tiles of one way.
  func codedBytes(_ tiles: Int) -> Int {
    let (count, inputs) = (ways * tiles, weights.shape.inputs)
    let entries = Self.places * count
    return Arena.bytes(UnsafeRawPointer.self, entries) + Arena.bytes(Float.self, entries)
      + Arena.bytes(Int32.self, entries) + Arena.bytes(Int.self, count)
      + Arena.bytes(Int16.self, at_winograd_codes(count, inputs))
      + Arena.bytes(Float.self, entries * at_winograd_chunks(inputs))
  }

  /// - Parameter memory: 64-byte aligned.
  func place(_ tiles: Range<Int>, in memory: UnsafeMutableRawPointer) -> Coded {
    let (count, inputs) = (ways * tiles.count, weights.shape.inputs)
    let entries = Self.places * count
    var next = memory
    func take<Element>(_ type: Element.Type, _ count: Int) -> UnsafeMutablePointer<Element> {
      defer { next += Arena.bytes(type, count) }
      return next.bindMemory(to: type, capacity: count)
    }
    return Coded(
      tiles: tiles, count: count, rows: take(UnsafeRawPointer.self, entries), scales: take(Float.self, entries),
      zeros: take(Int32.self, entries), pixels: take(Int.self, count),
      codes: take(Int16.self, at_winograd_codes(count, inputs)),
      steps: take(Float.self, entries * at_winograd_chunks(inputs)))
  }

  /// A run's tiles of one way, in as many parts as it takes for all threads to have work where slices of the outputs are
  /// few; each part transforms the weights once more.
  func parts(_ coded: Coded, slices: Int, threads: Int) -> [Range<Int>] {
    let count = coded.tiles.count
    let wanted = slices % threads == 0 || slices >= 4 * threads ? 1 : (4 * threads).roundedUp(to: slices) / slices
    let size = (count.roundedUp(to: wanted) / wanted).roundedUp(to: 8)
    return stride(from: 0, to: count, by: size).map { $0..<min($0 + size, count) }
  }

  /// Floats of memory that the products of a run need.
  func workspace(_ tiles: Int) -> Int { at_winograd_workspace(ways * tiles) / MemoryLayout<Float>.stride }

  /// Transforms and codes the inputs of some tiles of a run.
  func code(_ range: Range<Int>, of coded: Coded) {
    for index in range { gather(index, of: coded) }
    var arguments = arguments(coded)
    arguments.tile_begin = range.lowerBound
    arguments.tile_end = range.upperBound
    kernels.winogradInputs(&arguments)
  }

  /// Multiplies tiles of a run, with their pairs, by panels, into rows whose first column `out` and `pairs` point to.
  func multiply(
    _ coded: Coded, _ tiles: Range<Int>, _ panels: Range<Int>, workspace: UnsafeMutablePointer<Float>,
    into d: BlockProduct.Destination
  ) {
    var arguments = arguments(coded)
    arguments.tile_begin = tiles.lowerBound
    arguments.tile_end = tiles.upperBound
    arguments.product.panel_begin = panels.lowerBound
    arguments.product.panel_end = panels.upperBound
    arguments.product.bias = bias
    arguments.product.residual = d.residual
    arguments.product.pair_residual = d.pairResidual
    arguments.product.out = d.out
    arguments.product.pair_out = d.pairs
    arguments.product.halves = d.storage == .float16
    arguments.workspace = UnsafeMutableRawPointer(workspace)
    kernels.winogradProducts(&arguments)
  }

  private func gather(_ index: Int, of coded: Coded) {
    let isSecond = index >= coded.tiles.count
    let tile = coded.tiles.lowerBound + (isSecond ? index - coded.tiles.count : index)
    let (line, column) = tile.quotientAndRemainder(dividingBy: across)
    let (image, row) = line.quotientAndRemainder(dividingBy: down)
    let (top, left) = (row * Self.core, column * Self.core)
    coded.pixels[index] = (image * window.output.height + top) * window.output.width + left
    let first = isSecond ? x.rows / 2 : 0
    window.forEachSource(image, top..<top + Self.side, left..<left + Self.side) { place, source in
      let entry = place * coded.count + index
      let row = first + source
      coded.rows[entry] = source < 0 ? padding : UnsafeRawPointer(x.values + row * x.stride)
      coded.scales[entry] = source < 0 ? 0 : x.scale[row]
      coded.zeros[entry] = source < 0 ? 0 : x.zero[row]
    }
  }

  private func arguments(_ coded: Coded) -> at_winograd {
    let shape = weights.shape
    guard case .int8(let values, let scale, _, _) = weights.elements else {
      preconditionFailure("only int8 weights are transformed")
    }
    let product = at_gemm(
      rows: UnsafePointer(coded.rows), row_scale: coded.scales, row_zero: coded.zeros, row_count: coded.count,
      taps: shape.taps, inputs: shape.inputs, weights: values, scale: scale, sum: nil, bias: nil,
      panels: shape.panels, panel_begin: 0, panel_end: 0, outputs: shape.outputs, residual: nil,
      residual_stride: shape.outputs, out: UnsafeMutableRawPointer(coded.codes), out_stride: shape.outputs,
      paired: x.isPaired, pair_residual: nil, pair_out: nil, halves: false)
    return at_winograd(
      product: product, pixels: coded.pixels, line: window.output.width, codes: coded.codes, steps: coded.steps,
      tile_begin: 0, tile_end: 0, workspace: nil)
  }
}

extension Run {
  /// `multiply` in tiles, of weights and a window that have them.
  func multiplyTiles(
    _ product: WinogradProduct, into out: StoredRows, rows: Range<Int>?, adding residual: StoredRows?
  ) {
    let shape = product.weights.shape
    precondition(product.coversAll(rows?.count ?? out.rows / product.ways), "the band holds a part of a tile")
    let origin = rows?.lowerBound ?? 0
    let pair = origin + out.rows / 2
    let destination = BlockProduct.Destination(
      storage: out.storage, out: out.row(origin), pairs: product.x.isPaired ? out.row(pair) : nil,
      residual: residual.map { UnsafeRawPointer($0.row(origin)) },
      pairResidual: product.x.isPaired ? residual.map { UnsafeRawPointer($0.row(pair)) } : nil)
    let tilePanels = WinogradProduct.outputs / MatrixShape.panel
    let ownRuns = product.ownRuns(threads: pool.threads)
    let runs = product.runs
    let kept = ownRuns == nil && runs.count == 1 ? code(runs[0], of: product) : nil
    // Weights pass by once, and inputs for each part of them.
    for panels in product.weights.parts {
      willUse(product.weights, panels: panels)
      let products =
        product.ways * WinogradProduct.core * WinogradProduct.core * panels.count * MatrixShape.panel * shape.inputs
        * shape.taps
      if let ownRuns {
        // Coded inputs, and what their products need.
        let largest = ownRuns.map(\.count).max() ?? 0
        let codedFloats = product.codedBytes(largest) / MemoryLayout<Float>.stride
        parallel(
          .convolution, ownRuns.count, scratch: codedFloats + product.workspace(largest),
          products: products * product.tiles
        ) { items, memory in
          for item in items {
            let coded = product.place(ownRuns[item], in: memory)
            product.code(0..<coded.count, of: coded)
            product.multiply(
              coded, 0..<coded.tiles.count, panels, workspace: memory + codedFloats, into: destination)
          }
        }
        continue
      }
      for tiles in runs {
        scratch {
          let coded = kept ?? code(tiles, of: product)
          let slices = panels.count / tilePanels
          let parts = product.parts(coded, slices: slices, threads: pool.threads)
          parallel(
            .convolution, parts.count * slices, scratch: product.workspace(tiles.count),
            products: products * tiles.count
          ) { items, workspace in
            for item in items {
              let first = panels.lowerBound + item % slices * tilePanels
              product.multiply(
                coded, parts[item / slices], first..<first + tilePanels, workspace: workspace, into: destination)
            }
          }
        }
      }
    }
  }

  private func code(_ tiles: Range<Int>, of product: WinogradProduct) -> WinogradProduct.Coded {
    let coded = product.place(tiles, in: arena.allocate(UInt8.self, product.codedBytes(tiles.count)))
    parallel(.convolution, coded.count, grain: 2) { product.code($0, of: coded) }
    return coded
  }
}
