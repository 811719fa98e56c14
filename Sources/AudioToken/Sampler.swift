/// How the noise levels of a diffusion model run from picture to noise and how its predictions are to be read: the keys of
/// diffusers' `scheduler_config.json`. The defaults are those of Stable Diffusion 1.
package struct SamplerConfiguration: Sendable, Equatable {
  package enum BetaSchedule: String, CaseIterable, Sendable {
    case linear
    case scaledLinear = "scaled_linear"
  }
  package enum Prediction: String, CaseIterable, Sendable {
    case noise = "epsilon"
    case velocity = "v_prediction"
  }
  package enum Spacing: String, CaseIterable, Sendable { case leading, trailing, linspace }

  package var trainSteps = 1000
  package var betaStart = 0.00085
  package var betaEnd = 0.012
  package var betaSchedule = BetaSchedule.scaledLinear
  package var prediction = Prediction.noise
  package var spacing = Spacing.leading
  package var stepsOffset = 1
  package var setAlphaToOne = false
  /// PNDM only: must be true; the Runge-Kutta steps are not implemented.
  package var skipRungeKutta = true
  /// DDIM only: clamp the predicted picture to +-`clipRange`. diffusers takes a missing `clip_sample` for true.
  package var clipSample = false
  package var clipRange: Float = 1

  package init() {}
}

package enum SamplerError: Error, Equatable, CustomStringConvertible {
  case steps(found: Int, most: Int)
  case rungeKutta
  case trainSteps(Int)
  case betas(start: Double, end: Double)
  case clipRange(Float)
  case stepsOffset(Int, trainSteps: Int)
  case timestep(Int, trainSteps: Int, steps: Int)

  package var description: String {
    switch self {
    case .steps(let found, let most):
      "The sampler was asked for \(found) steps, where 1 to \(most) are possible; change --steps."
    case .rungeKutta:
      "The model's scheduler has skip_prk_steps false, and PNDM is implemented without Runge-Kutta steps only; set it to "
        + "true in scheduler_config.json or use --sampler ddim."
    case .trainSteps(let found):
      "The model's scheduler has \(found) training steps, where 2 to 100000 are expected; check scheduler_config.json."
    case .betas(let start, let end):
      "The model's scheduler has betas from \(start) to \(end), where 0 < beta_start <= beta_end < 1 is expected; check "
        + "scheduler_config.json."
    case .clipRange(let found):
      "The model's scheduler clips samples to \(found), where a positive number is expected; check scheduler_config.json."
    case .stepsOffset(let found, let trainSteps):
      "The model's scheduler has steps_offset \(found), where 0 to \(trainSteps) is expected; check scheduler_config.json."
    case .timestep(let timestep, let trainSteps, let steps):
      "With \(steps) steps the model's scheduler reaches timestep \(timestep), outside its \(trainSteps) training steps; "
        + "choose another number of --steps."
    }
  }
}

/// Steps from noise to latents as diffusers' PNDMScheduler (PLMS, skip_prk_steps) or DDIMScheduler (eta 0) does it, to the bit
/// where its arithmetic is f32 element by element, which it is. The order of the elements is the caller's.
///
///     for call in 0..<sampler.timesteps.count {
///       predict(latents, sampler.timesteps[call])
///       sampler.step(call, prediction: prediction, latents: latents)
///     }
package struct Sampler: Sendable {
  package enum Kind: String, CaseIterable, Sendable { case pndm, ddim }

  /// One timestep per call of the model. PNDM predicts its second one twice, so it has one more than `steps` (for one step: one).
  package let timesteps: [Int]
  /// Elements in the latents.
  package let count: Int

  private let kind: Kind
  private let configuration: SamplerConfiguration
  /// Per call.
  private let coefficients: [Coefficients]
  private var next = 0
  /// PNDM: the last four predictions, [4, count], a ring.
  private var history: [Float]
  /// PNDM: the latents before the first call, from which the second starts again.
  private var beginning: [Float]
  private var kept = 0

  /// Allocates all that the steps need; checks that every timestep is one that the model was trained on.
  package init(
    _ kind: Kind, _ configuration: SamplerConfiguration, steps: Int, count: Int
  ) throws(SamplerError) {
    if kind == .pndm, !configuration.skipRungeKutta { throw .rungeKutta }
    let schedule = try NoiseSchedule(configuration)
    let levels = try schedule.levels(steps: steps)
    timesteps = kind == .ddim ? levels : Self.plms(levels)
    let ratio = configuration.trainSteps / steps
    var coefficients: [Coefficients] = []
    for (call, timestep) in timesteps.enumerated() {
      let again = kind == .pndm && call == 1
      let (from, to) = again ? (timestep + ratio, timestep) : (timestep, timestep - ratio)
      guard let alpha = schedule.alpha(from) else {
        throw .timestep(from, trainSteps: configuration.trainSteps, steps: steps)
      }
      guard let target = to < 0 ? schedule.finalAlpha : schedule.alpha(to) else {
        throw .timestep(to, trainSteps: configuration.trainSteps, steps: steps)
      }
      coefficients.append(Coefficients(alpha: alpha, target: target))
    }
    self.kind = kind
    self.configuration = configuration
    self.coefficients = coefficients
    self.count = count
    history = [Float](repeating: 0, count: kind == .pndm ? 4 * count : 0)
    beginning = [Float](repeating: 0, count: kind == .pndm ? count : 0)
  }

  /// The first level once, the second twice: PLMS takes its first step again with the mean of two predictions.
  private static func plms(_ levels: [Int]) -> [Int] {
    levels.count < 2 ? levels : [levels[0], levels[1]] + levels[1...]
  }

  /// Takes call `call` of `timesteps.indices`, in order: the model's prediction at that timestep, f32 [count], moves `latents`,
  /// f32 [count], to the next.
  ///
  /// Sound when both pointers have `count` elements and do not overlap.
  package mutating func step(
    _ call: Int, prediction: UnsafePointer<Float>, latents: UnsafeMutablePointer<Float>
  ) {
    precondition(call == next && call < timesteps.count, "the sampler's calls come in order")
    next += 1
    switch kind {
    case .ddim: stepImplicit(coefficients[call], prediction, latents)
    case .pndm: stepMultistep(call, prediction, latents)
    }
  }

  private func stepImplicit(
    _ c: Coefficients, _ prediction: UnsafePointer<Float>, _ latents: UnsafeMutablePointer<Float>
  ) {
    let (clips, range) = (configuration.clipSample, configuration.clipRange)
    for index in 0..<count {
      let (sample, output) = (latents[index], prediction[index])
      var picture: Float
      let noise: Float
      switch configuration.prediction {
      case .noise:
        picture = (sample - c.rootBeta * output) / c.rootAlpha
        noise = output
      case .velocity:
        picture = c.rootAlpha * sample - c.rootBeta * output
        noise = c.rootAlpha * output + c.rootBeta * sample
      }
      if clips { picture = min(max(picture, -range), range) }
      latents[index] = c.rootTarget * picture + c.rootTargetBeta * noise
    }
  }

  private mutating func stepMultistep(
    _ call: Int, _ prediction: UnsafePointer<Float>, _ latents: UnsafeMutablePointer<Float>
  ) {
    // The second call only refines the first step: its prediction is not kept.
    if call != 1 {
      let slot = kept % 4 * count
      for index in 0..<count { history[slot + index] = prediction[index] }
      kept += 1
    }
    if call == 0 { for index in 0..<count { beginning[index] = latents[index] } }
    let c = coefficients[call]
    let velocity = configuration.prediction == .velocity
    for index in 0..<count {
      let sample = call == 1 ? beginning[index] : latents[index]
      var output = call == 1 ? (prediction[index] + past(0, index)) / 2 : extrapolated(index)
      if velocity { output = c.rootAlpha * output + c.rootBeta * sample }
      latents[index] = c.ratio * sample - c.difference * output / c.denominator
    }
  }

  /// Element `index` of the prediction kept `age` predictions ago.
  private func past(_ age: Int, _ index: Int) -> Float { history[(kept - 1 - age) % 4 * count + index] }

  /// Adams-Bashforth of the order that the kept predictions allow, up to four.
  private func extrapolated(_ index: Int) -> Float {
    switch kept {
    case 1: past(0, index)
    case 2: (3 * past(0, index) - past(1, index)) / 2
    case 3: (23 * past(0, index) - 16 * past(1, index) + 5 * past(2, index)) / 12
    default:
      Float(1.0 / 24) * (55 * past(0, index) - 59 * past(1, index) + 37 * past(2, index) - 9 * past(3, index))
    }
  }
}

/// What a step from the noise level `alpha` to `target` (products of 1 - beta) multiplies by.
private struct Coefficients: Sendable {
  let rootAlpha: Float
  let rootBeta: Float
  let rootTarget: Float
  let rootTargetBeta: Float
  /// PNDM, formula (9) of arXiv 2202.09778: `ratio` sample - `difference` output / `denominator`.
  let ratio: Float
  let difference: Float
  let denominator: Float

  init(alpha: Float, target: Float) {
    let beta = 1 - alpha
    rootAlpha = alpha.squareRoot()
    rootBeta = beta.squareRoot()
    rootTarget = target.squareRoot()
    rootTargetBeta = (1 - target).squareRoot()
    ratio = (target / alpha).squareRoot()
    difference = target - alpha
    denominator = alpha * (1 - target).squareRoot() + (alpha * beta * target).squareRoot()
  }
}
