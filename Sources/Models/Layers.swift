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

  /// out = residual + x W^T + bias. `residual` may be `out`; `bias` [outputs, padded to 8] replaces the layer's own.
  package func callAsFunction(
    _ x: Activations, into out: Matrix, adding residual: Matrix? = nil, bias: UnsafePointer<Float>? = nil, _ run: Run
  ) {
    run.multiply(x, by: weights, through: .same(rows: out.rows), into: out, adding: residual, bias: bias)
  }

  package func callAsFunction(_ x: Matrix, into out: Matrix, adding residual: Matrix? = nil, _ run: Run) {
    self(.matrix(x), into: out, adding: residual, run)
  }

  package func callAsFunction(_ x: RowSource, into out: Matrix, adding residual: Matrix? = nil, _ run: Run) {
    precondition(x.columns == weights.shape.inputs && x.rows == out.rows)
    run.scratch { self(run.activations(x, for: weights), into: out, adding: residual, run) }
  }
}

/// torch Conv2d with a square kernel on channel-last maps: [images, H, W, in] -> [images, H', W', out].
/// `out` has the size of the result; where `enlarged` is given, x is first enlarged to it by nearest neighbour.
package struct Convolution {
  package let weights: PackedMatrix
  package let kernel: Int
  package let stride: Int

  package init(
    _ w: Weights, _ inputs: Int, _ outputs: Int, kernel: Int = 3, stride: Int = 1, precision: Precision = .quantized
  ) throws(WeightError) {
    self.kernel = kernel
    self.stride = stride
    weights = try w.matrix(MatrixShape(outputs: outputs, inputs: inputs, taps: kernel * kernel), precision)
  }

  package func callAsFunction(
    _ x: FeatureMap, into out: FeatureMap, enlarged: (height: Int, width: Int)? = nil,
    adding residual: FeatureMap? = nil, bias: UnsafePointer<Float>? = nil, _ run: Run
  ) {
    self(JoinedMap(x), .matrix(x.tokens), into: out, enlarged: enlarged, adding: residual, bias: bias, run)
  }

  package func callAsFunction(
    _ x: GroupNormalised, into out: FeatureMap, adding residual: FeatureMap? = nil, bias: UnsafePointer<Float>? = nil,
    _ run: Run
  ) {
    self(x.map, .groupNorm(x), into: out, enlarged: nil, adding: residual, bias: bias, run)
  }

  private func callAsFunction(
    _ x: JoinedMap, _ pixels: RowSource, into out: FeatureMap, enlarged: (height: Int, width: Int)?,
    adding residual: FeatureMap?, bias: UnsafePointer<Float>?, _ run: Run
  ) {
    precondition(x.channels == weights.shape.inputs && x.images == out.images)
    let window = Window(
      kernel: .init(kernel, kernel), stride: stride, input: .init(x.height, x.width),
      enlarged: enlarged.map { .init($0.height, $0.width) }, output: .init(out.height, out.width))
    run.scratch {
      let input = run.activations(pixels, for: weights)
      run.multiply(input, by: weights, through: window, into: out.tokens, adding: residual?.tokens, bias: bias)
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
    whole = doubles ? nil : try Convolution(w, channels, channels)
  }

  package func callAsFunction(_ x: FeatureMap, into out: FeatureMap, _ run: Run) {
    guard out.height == 2 * x.height, out.width == 2 * x.width else {
      guard let whole else { preconditionFailure("this upsampler doubles") }
      return whole(x, into: out, enlarged: (out.height, out.width), run)
    }
    run.scratch {
      let input = run.activations(.matrix(x.tokens), for: phases[0])
      for (phase, weights) in phases.enumerated() {
        let (dy, dx) = phase.quotientAndRemainder(dividingBy: 2)
        let size = Window.Size(x.height, x.width)
        let window = Window(
          kernel: .init(2, 2), stride: 1, input: size, output: size, padding: .init(1 - dy, 1 - dx))
        run.multiply(input, by: weights, through: window, rows: x.pixels, into: out.tokens) { pixel in
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
  package func callAsFunction(_ x: Matrix) -> RowSource {
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
  let gamma: UnsafePointer<Float>
  let beta: UnsafePointer<Float>
  let channels: Int
  let groups: Int
  let epsilon: Float

  package init(_ w: Weights, _ channels: Int, groups: Int, epsilon: Float) throws(WeightError) {
    gamma = try (w / "weight").vector(channels)
    beta = try (w / "bias").vector(channels)
    self.channels = channels
    self.groups = groups
    self.epsilon = epsilon
  }

  /// `x` to be normalised where it is read, by what is put in the arena now.
  package func callAsFunction(_ x: FeatureMap, activation: Activation = .identity, _ run: Run) -> GroupNormalised {
    self(JoinedMap(x), activation: activation, run)
  }

  package func callAsFunction(_ x: JoinedMap, activation: Activation = .identity, _ run: Run) -> GroupNormalised {
    precondition(x.channels == channels)
    return run.groupNorm(x, groups: groups, gamma: gamma, beta: beta, epsilon: epsilon, activation: activation)
  }

  /// `out` may be `x`.
  package func callAsFunction(_ x: FeatureMap, into out: FeatureMap, activation: Activation = .identity, _ run: Run) {
    precondition(x.channels == channels)
    run.groupNorm(x, into: out, groups: groups, gamma: gamma, beta: beta, epsilon: epsilon, activation: activation)
  }
}
