import Kernels
import Models

/// How long the stages of a picture take, and on what. Sounds, prompts and latents are made up; a stage's time does not
/// depend on what they are.
package struct Benchmark {
  package enum Stage: String, CaseIterable, Sendable {
    case beats
    case projector
    case text
    /// One UNet call on both halves of guidance, of those after a picture's first.
    case unetStep = "unet_step"
    case decoder = "vae_decode"
  }

  package struct Result: Sendable {
    package let stage: Stage
    /// Of each repetition.
    package let seconds: [Double]
    /// Summed over the repetitions.
    package let work: [(work: Work, entry: Profile.Entry)]

    package var median: Double { Benchmark.median(seconds) }
    /// Multiply-accumulates of one repetition.
    package var products: Int { work.reduce(0) { $0 + $1.entry.products } / max(1, seconds.count) }
  }

  private let pipeline: Pipeline
  private let plan: Pipeline.Plan
  private let context: [Float]

  /// Encodes a prompt, so that the UNet has something to attend to.
  package init(_ pipeline: Pipeline, width: Int?, height: Int?, maxRAM: Int?) throws(AudioTokenError) {
    var settings = GenerationSettings()
    settings.width = width
    settings.height = height
    self.pipeline = pipeline
    settings.maxRAM = maxRAM
    plan = try pipeline.plan(settings)
    pipeline.memory = try pipeline.memoryPlan(plan, limit: maxRAM)
    context = try pipeline.context(plan, Self.numbers(pipeline.configuration.text.width), nil) { _ in }
  }

  /// The middle of some numbers; of an even count the greater of the two.
  package static func median(_ values: [Double]) -> Double {
    values.isEmpty ? .nan : values.sorted()[values.count / 2]
  }

  static func numbers(_ count: Int) -> [Float] {
    var generator = NoiseGenerator(seed: 1)
    return generator.normal(count: count)
  }

  /// Runs a stage once to warm up, then `repetitions` times.
  package func run(_ stage: Stage, repetitions: Int) throws(AudioTokenError) -> Result {
    let body = try body(of: stage)
    try body()
    let profile = Profile()
    pipeline.profile = profile
    defer { pipeline.profile = nil }
    var seconds: [Double] = []
    for _ in 0..<repetitions {
      let start = monotonicSeconds()
      try body()
      seconds.append(monotonicSeconds() - start)
    }
    let work = Work.allCases.compactMap { work in profile.entries[work].map { (work: work, entry: $0) } }
    return Result(stage: stage, seconds: seconds, work: work)
  }

  private func body(of stage: Stage) throws(AudioTokenError) -> () throws(AudioTokenError) -> Void {
    let pipeline = pipeline
    switch stage {
    case .beats:
      let waveform = Self.numbers(Waveform.count).map { $0 * 0.1 }
      return { () throws(AudioTokenError) in _ = try pipeline.features(waveform) { _ in } }
    case .projector:
      let features = try pipeline.features(Self.numbers(Waveform.count).map { $0 * 0.1 }) { _ in }
      return { () throws(AudioTokenError) in _ = try pipeline.token(features.values) { _ in } }
    case .text:
      let token = Self.numbers(pipeline.configuration.text.width)
      return { [plan] () throws(AudioTokenError) in _ = try pipeline.context(plan, token, nil) { _ in } }
    case .unetStep:
      let latents = Self.numbers(plan.latentCount)
      let step = Pipeline.UNetStep(
        plan: plan, context: context, networks: pipeline.networks, keepsText: pipeline.memory?.keepsText ?? false)
      step.arena = try pipeline.arena(for: .unet, isGuided: plan.images == 2) { step.body($0, latents, timestep: 0) }
      step.weights = pipeline.window(.unet)
      return { () throws(AudioTokenError) in
        _ = step(latents, timestep: 500, kernels: pipeline.kernels, pool: pipeline.pool, profile: pipeline.profile)
      }
    case .decoder:
      let latents = Self.numbers(plan.latentCount)
      return { [plan] () throws(AudioTokenError) in _ = try pipeline.decode(plan, latents) { _ in } }
    }
  }
}
