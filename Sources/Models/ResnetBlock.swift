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
        shortcut(.map(x), into: out.rows, run)
        conv2(normalised, into: out, adding: out, run)
      } else {
        conv2(normalised, into: out, adding: x.first, run)
      }
    }
  }

  /// A map at the bottom of the arena, from `mark` on, that nothing above is needed of -> its result, there.
  func settling(_ x: FeatureMap, at mark: Int, _ run: Run) -> FeatureMap {
    guard let shortcut else {
      self(x, time: nil, into: x, run)
      return x
    }
    guard outputs <= x.channels else {
      let out = run.featureMap(like: x, channels: outputs)
      self(x, time: nil, into: out, run)
      return run.settle(out, at: mark)
    }
    let h = run.featureMap(like: x, channels: outputs)
    run.scratch { conv1(norm1(x, activation: .silu, run), into: h, run) }
    let out = shortcut.narrow(x, run)
    conv2(norm2(h, activation: .silu, run), into: out, adding: out, run)
    return run.settle(out, at: mark)
  }

  /// Whether the codes that the second convolution reads can stand where the floats were.
  var canQuantizeInPlace: Bool { conv2.isQuantized && outputs % MatrixShape.quad == 0 }

  /// The same for `small` enlarged by `upsampler`, of which no more than a band is ever there: it is computed three times,
  /// for the norm, for the first convolution and for the shortcut.
  func settling(
    _ small: FeatureMap, enlargedBy upsampler: Upsampler, through shortcut: Linear, at mark: Int, _ run: Run
  ) -> FeatureMap {
    let (height, width) = (2 * small.height, 2 * small.width)
    let whole = FeatureMap(
      base: small.base, storage: small.storage, images: 1, height: height, width: width, channels: small.channels)
    let lineBytes = 2 * small.width * small.channels * small.storage.bytes
    func lines(_ bytes: Int) -> [Range<Int>] {
      // Whole tiles of the convolution, where the map has them.
      let step = small.height % 2 == 0 ? 2 : 1
      return run.bands(of: small.height / step, bytes: step * bytes).map {
        2 * step * $0.lowerBound..<2 * step * $0.upperBound
      }
    }
    /// Calls `body` with the band that holds `lines`.
    func enlarge(_ lines: Range<Int>, _ body: (FeatureMap) -> Void) {
      run.scratch {
        let band = run.featureMap(1, lines.count, width, small.channels, small.storage)
        upsampler(small, lines: lines, into: band, run)
        body(band)
      }
    }
    let coded = run.rowCodes(height * width)
    let h = run.featureMap(1, height, width, outputs, small.storage)
    run.scratch {
      let norm = norm1(like: whole, activation: .silu, run) { moments in
        for lines in lines(lineBytes) { enlarge(lines) { run.add(JoinedMap($0), to: moments) } }
      }
      for lines in lines(lineBytes) {
        let held = max(0, lines.lowerBound - 2)..<min(height, lines.upperBound + 2)
        enlarge(held) { conv1(norm.applied(to: JoinedMap($0)), holding: held, into: h, lines: lines, run) }
      }
    }
    let quantized = run.quantize(norm2(h, activation: .silu, run), of: h, inPlaceWith: coded)
    let out = run.featureMap(1, height, width, outputs, small.storage)
    // All that is kept is there now: the bands are narrow.
    for lines in lines(8 * lineBytes) {
      enlarge(lines) { shortcut(.map(JoinedMap($0)), into: out.lines(lines).rows, run) }
    }
    conv2(quantized, into: out, adding: out, run)
    return run.settle(out, at: mark)
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
