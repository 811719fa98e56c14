import Glibc

/// Band-limited resampling by a windowed sinc: torchaudio.functional.resample with its defaults (sinc_interp_hann,
/// lowpass_filter_width 6, rolloff 0.99), for any two integer rates.
///
/// Output j is at time j / to. With rates reduced by their greatest common divisor and base = 0.99 min(from, to),
///
///     y[j] = sum over i of x[i] h(base (i / from - j / to)),   h(t) = base / from  sinc(t) cos^2(pi t / 12),  |t| < 6
///
/// and x is zero outside. The weights depend on j only through its phase, (j from) mod to. All arithmetic is binary64 without
/// fused operations, so that every machine gives the same samples.
package struct Resampler: Sendable {
  private static let zeroCrossings = 6.0
  private static let rolloff = 0.99
  /// Weights kept in a table (256 KB); rates with more phases compute them for each output.
  private static let largestTable = 32_768

  private let from: Int
  private let to: Int
  /// How many input samples on each side of its time an output depends on.
  package let reach: Int

  /// Rates in samples a second, both positive.
  package init(from: Int, to: Int) {
    precondition(from > 0 && to > 0, "a sample rate is positive")
    var (divisor, rest) = (from, to)
    while rest != 0 { (divisor, rest) = (rest, divisor % rest) }
    self.from = from / divisor
    self.to = to / divisor
    let base = Double(min(self.from, self.to)) * Self.rolloff
    reach = Int((Self.zeroCrossings * Double(self.from) / base).rounded(.up))
  }

  /// Inputs from `reach` before the sample at or before the output's time to `reach` after the next one.
  private var taps: Int { 2 * reach + 2 }

  /// [samples] -> [ceil(samples * to / from)], cut to the first `limit`.
  package func callAsFunction(_ input: [Float], limit: Int = .max) -> [Float] {
    let count = min(limit, outputCount(input.count))
    if from == to { return Array(input.prefix(count)) }
    let keepsTable = to <= min(count, Self.largestTable / taps)
    var table = [Double](repeating: 0, count: keepsTable ? to * taps : taps)
    if keepsTable {
      for phase in 0..<to { fillWeights(phase: phase, into: &table, at: phase * taps) }
    }
    var output = [Float](repeating: 0, count: count)
    var (whole, phase) = (0, 0)
    let (wholeStep, phaseStep) = from.quotientAndRemainder(dividingBy: to)
    for j in 0..<count {
      if !keepsTable { fillWeights(phase: phase, into: &table, at: 0) }
      let weights = keepsTable ? phase * taps : 0
      let firstInput = whole - reach
      var sum = 0.0
      for tap in max(0, -firstInput)..<max(0, -firstInput, min(taps, input.count - firstInput)) {
        sum += Double(input[firstInput + tap]) * table[weights + tap]
      }
      output[j] = Float(sum)
      whole += wholeStep
      phase += phaseStep
      if phase >= to { (whole, phase) = (whole + 1, phase - to) }
    }
    return output
  }

  private func outputCount(_ inputs: Int) -> Int {
    let (product, overflow) = inputs.multipliedReportingOverflow(by: to)
    precondition(!overflow, "a sound in memory is short enough to count its samples")
    return product / from + (product % from == 0 ? 0 : 1)
  }

  /// The weights of inputs whole - reach ... whole + reach + 1 for an output at whole + phase / to inputs.
  ///
  /// sin(pi t) and cos(pi t / 12) advance by a fixed angle from input to input, so two rotations replace a sine and a cosine
  /// for each; over the few dozen taps their error stays near 1e-15.
  private func fillWeights(phase: Int, into weights: inout [Double], at offset: Int) {
    let base = Double(min(from, to)) * Self.rolloff
    let step = base / Double(from)
    let unit = step / Double(to)
    var distance = -reach * to - phase  // in units of 1 / (from to), so that the centre is found exactly
    var sinc = Rotation(angle: Double.pi * unit * Double(distance), step: Double.pi * step)
    let toWindow = Double.pi / (2 * Self.zeroCrossings)
    var window = Rotation(angle: toWindow * unit * Double(distance), step: toWindow * step)
    for tap in 0..<taps {
      let time = unit * Double(distance)
      if time.magnitude >= Self.zeroCrossings {
        weights[offset + tap] = 0
      } else {
        let value = distance == 0 ? 1 : sinc.sine / (Double.pi * time)
        weights[offset + tap] = step * value * window.cosine * window.cosine
      }
      distance += to
      sinc.advance()
      window.advance()
    }
  }
}

/// The sine and cosine of an angle that grows by equal steps.
private struct Rotation {
  private(set) var sine: Double
  private(set) var cosine: Double
  private let stepSine: Double
  private let stepCosine: Double

  init(angle: Double, step: Double) {
    (sine, cosine) = (sin(angle), cos(angle))
    (stepSine, stepCosine) = (sin(step), cos(step))
  }

  mutating func advance() {
    (sine, cosine) = (sine * stepCosine + cosine * stepSine, cosine * stepCosine - sine * stepSine)
  }
}
