import Kernels
import Tensors

/// diffusers ResnetBlock2D: [images, H, W, in] -> [images, H, W, out]
struct ResnetBlock {
  let norm1: GroupNorm
  let conv1: Convolution
  let timeProjection: Linear?
  let norm2: GroupNorm
  let conv2: Convolution
  let shortcut: Linear?
  let outputs: Int

  /// - Parameter timeWidth: of the time embedding; nil where there is none (VAE).
  init(
    _ w: Weights, _ inputs: Int, _ outputs: Int, timeWidth: Int?, groups: Int, epsilon: Float
  ) throws(WeightError) {
    norm1 = try GroupNorm(w / "norm1", inputs, groups: groups, epsilon: epsilon)
    conv1 = try Convolution(w / "conv1", inputs, outputs)
    if let timeWidth {
      timeProjection = try Linear(w / "time_emb_proj", timeWidth, outputs)
    } else {
      timeProjection = nil
    }
    norm2 = try GroupNorm(w / "norm2", outputs, groups: groups, epsilon: epsilon)
    conv2 = try Convolution(w / "conv2", outputs, outputs)
    shortcut = inputs == outputs ? nil : try Linear(w / "conv_shortcut", inputs, outputs)
    self.outputs = outputs
  }

  /// - Parameter time: silu of the time embedding, [1, timeWidth]. `out` may be `x` where the channels are equal.
  func callAsFunction(_ x: FeatureMap, time: Matrix?, into out: FeatureMap, _ run: Run) {
    self(JoinedMap(x), time: time, into: out, run)
  }

  func callAsFunction(_ x: JoinedMap, time: Matrix?, into out: FeatureMap, _ run: Run) {
    run.scratch {
      let h = run.featureMap(like: out)
      run.scratch {
        conv1(norm1(x, activation: .silu, run), into: h, bias: timeBias(time, run), run)  // [H, W, in] -> [H, W, out]
      }
      let normalised = norm2(h, activation: .silu, run)
      if let shortcut {
        shortcut(.map(x), into: out.tokens, run)
        conv2(normalised, into: out, adding: out, run)
      } else {
        conv2(normalised, into: out, adding: x.first, run)
      }
    }
  }

  /// The time projection, added to the bias of the first convolution: both are constant over the picture. [out, padded]
  private func timeBias(_ time: Matrix?, _ run: Run) -> UnsafePointer<Float>? {
    guard let time, let timeProjection, let bias = conv1.weights.bias else { return nil }
    let sum = run.matrix(1, conv1.weights.shape.paddedOutputs)
    let own = Matrix(base: UnsafeMutablePointer(mutating: bias), rows: 1, columns: outputs)
    timeProjection(time, into: Matrix(base: sum.base, rows: 1, columns: outputs), adding: own, run)
    return UnsafePointer(sum.base)
  }
}
