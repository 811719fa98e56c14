import Kernels
import Tensors

/// torch Linear: [rows, inputs] -> [rows, outputs]
package struct Linear {
  package let weights: PackedMatrix

  package init(
    _ w: Weights, _ inputs: Int, _ outputs: Int, bias: Bool = true, precision: Precision = .quantized
  ) throws(WeightError) {
    weights = try w.matrix(MatrixShape(outputs: outputs, inputs: inputs), precision, bias: bias)
  }

  /// Whether its inputs are quantised.
  package var isQuantized: Bool { if case .int8 = weights.elements { true } else { false } }

  /// out = residual + x W^T + bias. `residual` may be `out`.
  package func callAsFunction(_ x: Activations, into out: StoredRows, adding residual: StoredRows? = nil, _ run: Run) {
    run.multiply(x, by: weights, through: .same(rows: out.rows), into: out, adding: residual)
  }

  package func callAsFunction(_ x: Activations, into out: Matrix, adding residual: Matrix? = nil, _ run: Run) {
    self(x, into: StoredRows(out), adding: residual.map { StoredRows($0) }, run)
  }

  package func callAsFunction(_ x: Matrix, into out: Matrix, adding residual: Matrix? = nil, _ run: Run) {
    self(.matrix(x), into: out, adding: residual, run)
  }

  package func callAsFunction(_ x: RowSource, into out: Matrix, adding residual: Matrix? = nil, _ run: Run) {
    self(x, into: StoredRows(out), adding: residual.map { StoredRows($0) }, run)
  }

  package func callAsFunction(_ x: RowSource, into out: StoredRows, adding residual: StoredRows? = nil, _ run: Run) {
    precondition(x.columns == weights.shape.inputs && x.rows == out.rows)
    let ways = run.ways(weights, rows: x.rows)
    for rows in run.bands(of: x.rows / ways, bytes: ways * weights.rowBytes) {
      run.scratch {
        let input = run.activations(x, rows: rows, for: weights)
        let window = Window.same(rows: ways * rows.count)
        run.multiply(input, by: weights, through: window, into: out, rows: rows, adding: residual)
      }
    }
  }

  /// Puts x W^T + bias where `x` is, whose rows are the longer ones: [H, W, outputs].
  func narrow(_ x: FeatureMap, _ run: Run) -> FeatureMap {
    precondition(x.images == 1 && weights.shape.outputs <= x.channels)
    let out = FeatureMap(
      base: x.base, storage: x.storage, images: 1, height: x.height, width: x.width, channels: weights.shape.outputs)
    // What is written ends before the lines that are still to be read.
    for lines in run.bands(of: x.height, bytes: x.width * weights.rowBytes) {
      run.scratch {
        let band = run.featureMap(like: out.lines(lines))
        self(.map(JoinedMap(x.lines(lines))), into: band.rows, run)
        run.serial { out.lines(lines).base.copyMemory(from: band.base, byteCount: band.bytes) }
      }
    }
    return out
  }
}

extension PackedMatrix {
  /// What a row of its inputs takes in the form that it asks for.
  var rowBytes: Int {
    switch elements {
    case .int8: shape.groups * shape.inputs
    case .float32, .float16: 4 * shape.groups * shape.inputs
    }
  }
}

extension Run {
  /// The rows of a product that are computed together: 2 where those of the second image are taken as differences.
  func ways(_ weights: PackedMatrix, rows: Int) -> Int {
    if case .int8 = weights.elements, isGuided, rows % 2 == 0 { 2 } else { 1 }
  }
}

/// torch Conv2d with a square kernel on channel-last maps: [images, H, W, in] -> [images, H', W', out].
/// `out` has the size of the result; where `enlarged` is given, x is first enlarged to it by nearest neighbour.
package struct Convolution {
  package let weights: PackedMatrix
  /// Whether its inputs are quantised.
  var isQuantized: Bool { if case .int8 = weights.elements { true } else { false } }
  package let kernel: Int
  package let stride: Int

  /// - Parameter enlarges: whether x is always enlarged, so that there are no tiles for Winograd's algorithm.
  package init(
    _ w: Weights, _ inputs: Int, _ outputs: Int, kernel: Int = 3, stride: Int = 1, precision: Precision = .quantized,
    enlarges: Bool = false
  ) throws(WeightError) {
    self.kernel = kernel
    self.stride = stride
    let shape = MatrixShape(outputs: outputs, inputs: inputs, taps: kernel * kernel)
    let isTransformed = precision == .quantized && stride == 1 && !enlarges && shape.canBeTransformed
    weights = try w.matrix(shape, isTransformed ? .transformed : precision)
  }

  package func callAsFunction(
    _ x: FeatureMap, into out: FeatureMap, enlarged: (height: Int, width: Int)? = nil,
    adding residual: FeatureMap? = nil, bias: UnsafePointer<Float>? = nil, _ run: Run
  ) {
    self(JoinedMap(x), .map(JoinedMap(x)), into: out, enlarged: enlarged, adding: residual, bias: bias, run)
  }

  package func callAsFunction(
    _ x: GroupNormalised, into out: FeatureMap, adding residual: FeatureMap? = nil, bias: UnsafePointer<Float>? = nil,
    _ run: Run
  ) {
    self(x.map, .groupNorm(x), into: out, enlarged: nil, adding: residual, bias: bias, run)
  }

  /// Output lines `lines` from a band of a single image of `out`'s size that holds the lines `held`.
  func callAsFunction(
    _ x: GroupNormalised, holding held: Range<Int>, into out: FeatureMap, lines: Range<Int>, _ run: Run
  ) {
    precondition(stride == 1 && x.map.images == 1 && x.map.height == held.count)
    run.scratch {
      let window = window(.init(out.height, out.width), nil, out).band(lines, reading: held)
      run.multiply(
        run.activations(.groupNorm(x), for: weights), by: weights, through: window, into: out.rows,
        rows: lines.lowerBound * out.width..<lines.upperBound * out.width)
    }
  }

  /// Out of rows that are quantised already.
  func callAsFunction(_ x: QuantizedRows, into out: FeatureMap, adding residual: FeatureMap, _ run: Run) {
    precondition(stride == 1)
    run.scratch {
      run.multiply(
        .quantized(x), by: weights, through: window(.init(out.height, out.width), nil, out), into: out.rows,
        adding: residual.rows)
    }
  }

  private func window(_ input: Window.Size, _ enlarged: Window.Size?, _ out: FeatureMap) -> Window {
    Window(
      kernel: .init(kernel, kernel), stride: stride, input: input, enlarged: enlarged,
      output: .init(out.height, out.width))
  }

  private func callAsFunction(
    _ x: JoinedMap, _ pixels: RowSource, into out: FeatureMap, enlarged: (height: Int, width: Int)?,
    adding residual: FeatureMap?, bias: UnsafePointer<Float>?, _ run: Run
  ) {
    precondition(x.channels == weights.shape.inputs && x.images == out.images)
    let window = window(.init(x.height, x.width), enlarged.map { .init($0.height, $0.width) }, out)
    // Images that are not computed together, and lines that are enlarged, are taken whole.
    let isWhole = enlarged != nil || x.images > run.ways(weights, rows: x.pixels)
    let lineBytes = x.images * x.width * stride * weights.rowBytes
    // Bands hold whole tiles.
    let step = weights.isTransformed && window.hasTiles ? Window.tileSide : 1
    let bands = run.bands(of: out.height / step, bytes: step * lineBytes).map {
      step * $0.lowerBound..<step * $0.upperBound
    }
    for lines in isWhole ? [0..<out.height] : bands {
      run.scratch {
        let held = window.inputLines(for: lines)
        let input = run.activations(
          pixels, rows: isWhole ? nil : held.lowerBound * x.width..<held.upperBound * x.width, for: weights)
        run.multiply(
          input, by: weights, through: window.band(lines, reading: held), into: out.rows,
          rows: isWhole ? nil : lines.lowerBound * out.width..<lines.upperBound * out.width, adding: residual?.rows,
          bias: bias)
      }
    }
  }
}

/// diffusers Upsample2D: [images, H, W, C] -> [images, 2H, 2W, C] by nearest neighbour, then torch Conv2d 3x3.
///
/// Each of the four places within an enlarged pixel sees 2x2 pixels of the input, through the sums of the weights that
/// fall on each: 4/9 of the products. Where a side is not quite doubled, the whole kernel is taken.
package struct Upsampler {
  /// By place: 2 * (row % 2) + column % 2.
  let phases: [PackedMatrix]
  let whole: Convolution?

  /// - Parameter doubles: whether sides are always doubled to the pixel.
  package init(_ w: Weights, _ channels: Int, doubles: Bool) throws(WeightError) {
    var phases: [PackedMatrix] = []
    for phase in 0..<4 {
      phases.append(try (w / "phases" / phase).matrix(MatrixShape(outputs: channels, inputs: channels, taps: 4)))
    }
    self.phases = phases
    whole = doubles ? nil : try Convolution(w, channels, channels, enlarges: true)
  }

  package func callAsFunction(_ x: FeatureMap, into out: FeatureMap, _ run: Run) {
    guard out.height == 2 * x.height, out.width == 2 * x.width else {
      guard let whole else { preconditionFailure("this upsampler doubles") }
      return whole(x, into: out, enlarged: (out.height, out.width), run)
    }
    guard x.images == 1 else { return self(x, lines: 0..<out.height, into: out, run) }
    for lines in run.bands(of: x.height, bytes: x.width * phases[0].rowBytes) {
      let large = 2 * lines.lowerBound..<2 * lines.upperBound
      self(x, lines: large, into: out.lines(large), run)
    }
  }

  /// Lines of the enlarged map, from an even one to an even one: [images, lines, 2W, C].
  func callAsFunction(_ x: FeatureMap, lines: Range<Int>, into out: FeatureMap, _ run: Run) {
    precondition(lines.lowerBound % 2 == 0 && lines.upperBound % 2 == 0 && out.height == lines.count)
    let small = lines.lowerBound / 2..<lines.upperBound / 2
    let held = max(0, small.lowerBound - 1)..<min(x.height, small.upperBound + 1)
    run.scratch {
      let input = run.activations(
        .map(JoinedMap(x)), rows: x.images == 1 ? held.lowerBound * x.width..<held.upperBound * x.width : nil,
        for: phases[0])
      for (phase, weights) in phases.enumerated() {
        let (dy, dx) = phase.quotientAndRemainder(dividingBy: 2)
        let size = Window.Size(x.height, x.width)
        let window = Window(
          kernel: .init(2, 2), stride: 1, input: size, output: size, padding: .init(1 - dy, 1 - dx)
        ).band(small, reading: held)
        let rows = x.images * small.count * x.width
        run.multiply(input, by: weights, through: window, rows: rows, into: out.rows) { pixel in
          let (line, column) = pixel.quotientAndRemainder(dividingBy: x.width)  // lines over all images
          return (2 * line + dy) * out.width + 2 * column + dx
        }
      }
    }
  }
}

/// torch LayerNorm over the last axis.
package struct LayerNorm {
  let gamma: UnsafePointer<Float>
  let beta: UnsafePointer<Float>
  let channels: Int
  let epsilon: Float

  package init(_ w: Weights, _ channels: Int, epsilon: Float = 1e-5) throws(WeightError) {
    gamma = try (w / "weight").vector(channels)
    beta = try (w / "bias").vector(channels)
    self.channels = channels
    self.epsilon = epsilon
  }

  /// `x` to be normalised where it is read.
  package func callAsFunction(_ x: StoredRows) -> RowSource {
    precondition(x.columns == channels)
    return .layerNorm(x, gamma: gamma, beta: beta, epsilon: epsilon)
  }

  /// `out` may be `x`.
  package func callAsFunction(_ x: Matrix, into out: Matrix, _ run: Run) {
    precondition(x.columns == channels && x.count == out.count)
    run.layerNorm(x, into: out, gamma: gamma, beta: beta, epsilon: epsilon)
  }
}

/// torch GroupNorm, with the activation that follows it.
package struct GroupNorm {
  let parameters: GroupNormParameters
  let channels: Int

  package init(_ w: Weights, _ channels: Int, groups: Int, epsilon: Float) throws(WeightError) {
    parameters = GroupNormParameters(
      groups: groups, gamma: try (w / "weight").vector(channels), beta: try (w / "bias").vector(channels),
      epsilon: epsilon)
    self.channels = channels
  }

  /// `x` to be normalised where it is read, by what is put in the arena now.
  package func callAsFunction(_ x: FeatureMap, activation: Activation = .identity, _ run: Run) -> GroupNormalised {
    self(JoinedMap(x), activation: activation, run)
  }

  package func callAsFunction(_ x: JoinedMap, activation: Activation = .identity, _ run: Run) -> GroupNormalised {
    precondition(x.channels == channels)
    return run.groupNorm(x, parameters, activation: activation)
  }

  /// The same for a map of the size of `x` that `read` adds up line by line.
  func callAsFunction(
    like x: FeatureMap, activation: Activation, _ run: Run, reading read: (ChannelMoments) -> Void
  ) -> GroupNormalised {
    run.groupNorm(JoinedMap(x), parameters, activation: activation, reading: read)
  }
}
