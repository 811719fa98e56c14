/// The noise levels of a diffusion model's training steps, and the choice of some of them to sample with.
package struct NoiseSchedule: Sendable {
  private let configuration: SamplerConfiguration
  /// Products of 1 - beta, f32 [trainSteps], falling.
  private let alphas: [Float]

  package init(_ configuration: SamplerConfiguration) throws(SamplerError) {
    guard (2...100_000).contains(configuration.trainSteps) else { throw .trainSteps(configuration.trainSteps) }
    let (start, end) = (configuration.betaStart, configuration.betaEnd)
    guard start > 0, start <= end, end < 1 else { throw .betas(start: start, end: end) }
    guard configuration.clipRange > 0 else { throw .clipRange(configuration.clipRange) }
    guard (0...configuration.trainSteps).contains(configuration.stepsOffset) else {
      throw .stepsOffset(configuration.stepsOffset, trainSteps: configuration.trainSteps)
    }
    self.configuration = configuration
    // torch multiplies the f32 values in binary64 and rounds each product.
    var product = 1.0
    alphas = Self.betas(configuration).map { beta in
      product *= Double(1 - beta)
      return Float(product)
    }
  }

  package func alpha(_ timestep: Int) -> Float? { alphas.indices.contains(timestep) ? alphas[timestep] : nil }

  /// Where the last step ends.
  var finalAlpha: Float { configuration.setAlphaToOne ? 1 : alphas[0] }

  private static func betas(_ configuration: SamplerConfiguration) -> [Float] {
    let count = configuration.trainSteps
    switch configuration.betaSchedule {
    case .linear: return linspace(Float(configuration.betaStart), Float(configuration.betaEnd), count)
    case .scaledLinear:
      let (start, end) = (configuration.betaStart.squareRoot(), configuration.betaEnd.squareRoot())
      let roots = linspace(Float(start), Float(end), count)
      return roots.map { $0 * $0 }
    }
  }

  /// torch.linspace in f32: from both ends towards the middle.
  private static func linspace(_ start: Float, _ end: Float, _ count: Int) -> [Float] {
    let step = (end - start) / Float(count - 1)
    return (0..<count).map { $0 < count / 2 ? start + step * Float($0) : end - step * Float(count - 1 - $0) }
  }

  /// The timesteps of `steps` steps, falling; each within the training steps.
  package func levels(steps: Int) throws(SamplerError) -> [Int] {
    let trained = configuration.trainSteps
    guard (1...trained).contains(steps) else { throw .steps(found: steps, most: trained) }
    let levels: [Int]
    switch configuration.spacing {
    case .leading:
      levels = (0..<steps).reversed().map { $0 * (trained / steps) + configuration.stepsOffset }
    case .trailing:
      let stride = Double(trained) / Double(steps)
      // The rounding is that of numpy.arange(trained, 0, -stride), which for some numbers of steps adds a timestep -1; here it
      // is left out.
      let delta = (Double(trained) - stride) - Double(trained)
      levels = (0..<steps).map { Int((Double(trained) + Double($0) * delta).rounded(.toNearestOrEven)) - 1 }
    case .linspace:
      let stride = Double(trained - 1) / Double(max(1, steps - 1))
      levels = (0..<steps).reversed().map { index in
        let isLast = index == steps - 1 && steps > 1
        return isLast ? trained - 1 : Int((Double(index) * stride).rounded(.toNearestOrEven))
      }
    }
    if let outside = levels.first(where: { !(0..<trained).contains($0) }) {
      throw .timestep(outside, trainSteps: trained, steps: steps)
    }
    return levels
  }
}
