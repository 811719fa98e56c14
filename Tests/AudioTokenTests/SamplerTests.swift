import AudioToken
import Testing

private struct Run: Decodable {
  struct Config: Decodable {
    let betaStart: Double
    let betaEnd: Double
    let betaSchedule: String
    let stepsOffset: Int
    let setAlphaToOne: Bool
    let predictionType: String
    let timestepSpacing: String
    let clipSample: Bool?
    let clipSampleRange: Float?
  }
  let kind: String
  let steps: Int
  let config: Config
  let timesteps: [Int]
  let file: String

  func configuration() throws -> SamplerConfiguration {
    var result = SamplerConfiguration()
    result.betaStart = config.betaStart
    result.betaEnd = config.betaEnd
    result.betaSchedule = try #require(.init(rawValue: config.betaSchedule))
    result.stepsOffset = config.stepsOffset
    result.setAlphaToOne = config.setAlphaToOne
    result.prediction = try #require(.init(rawValue: config.predictionType))
    result.spacing = try #require(.init(rawValue: config.timestepSpacing))
    result.clipSample = config.clipSample ?? false
    result.clipRange = config.clipSampleRange ?? 1
    return result
  }
}

struct SamplerTests {
  @Test("every step of PNDM and DDIM is that of diffusers")
  func golden() throws {
    let predictions = try Fixture.floats("sampler_predictions.f32")
    let start = try Fixture.floats("sampler_start.f32")
    for run in try Fixture.json("sampler.json", as: [Run].self) {
      let kind = try #require(Sampler.Kind(rawValue: run.kind))
      var sampler = try Sampler(kind, run.configuration(), steps: run.steps, count: start.count)
      #expect(sampler.timesteps == run.timesteps, "\(run)")
      var latents = start
      var states: [Float] = []
      for call in sampler.timesteps.indices {
        let prediction = Array(predictions[call * start.count..<(call + 1) * start.count])
        sampler.step(call, prediction: prediction, latents: &latents)
        states += latents
      }
      let expected = try Fixture.floats(run.file)
      let scale = expected.reduce(1) { max($0, $1.magnitude) }
      expectClose(states, expected, within: 1e-6 * scale, "\(run.kind), \(run.steps) steps, \(run.file)")
    }
  }

  @Test("the noise levels are those of diffusers to the bit", arguments: ["linear", "scaled_linear"])
  func alphas(name: String) throws {
    var configuration = SamplerConfiguration()
    if name == "linear" {
      (configuration.betaStart, configuration.betaEnd, configuration.betaSchedule) = (0.0001, 0.02, .linear)
    }
    let schedule = try NoiseSchedule(configuration)
    let found = (0..<1000).map { schedule.alpha($0) ?? .nan }
    expectClose(found, try Fixture.floats("alphas_\(name).f32"), within: 1.2e-7)
    #expect(schedule.alpha(1000) == nil && schedule.alpha(-1) == nil)
  }

  @Test("any number of steps chooses the timesteps that diffusers chooses")
  func timesteps() throws {
    let sums = try Fixture.json("timesteps.json", as: [String: [Int?]].self)
    for (name, expected) in sums {
      var configuration = SamplerConfiguration()
      configuration.spacing = try #require(.init(rawValue: name))
      let schedule = try NoiseSchedule(configuration)
      #expect(expected.count == 1000)
      for (index, sum) in expected.enumerated() {
        let levels = try? schedule.levels(steps: index + 1)
        if let levels { #expect(levels.count == index + 1) }
        guard let sum else { continue }
        let found = levels?.enumerated().reduce(0) { $0 + ($1.offset + 1) * $1.element }
        #expect(found == sum, "\(name), \(index + 1) steps")
      }
    }
  }

  @Test("what the sampler cannot do is refused before it starts")
  func refused() throws {
    func failure(_ kind: Sampler.Kind, steps: Int = 10, _ change: (inout SamplerConfiguration) -> Void) -> SamplerError?
    {
      var configuration = SamplerConfiguration()
      change(&configuration)
      do throws(SamplerError) {
        _ = try Sampler(kind, configuration, steps: steps, count: 16)
        return nil
      } catch {
        return error
      }
    }
    #expect(failure(.pndm) { $0.skipRungeKutta = false } == .rungeKutta)
    #expect(failure(.ddim) { $0.skipRungeKutta = false } == nil)
    for steps in [0, -1, 1001, .max, .min] {
      #expect(failure(.pndm, steps: steps) { _ in } == .steps(found: steps, most: 1000))
    }
    #expect(failure(.ddim, steps: 1000) { _ in } == .timestep(1000, trainSteps: 1000, steps: 1000))
    #expect(failure(.ddim, steps: 1000) { $0.stepsOffset = 0 } == nil)
    #expect(failure(.ddim) { $0.trainSteps = .max } == .trainSteps(.max))
    #expect(failure(.ddim) { $0.trainSteps = 0 } == .trainSteps(0))
    #expect(failure(.ddim) { $0.stepsOffset = .max } == .stepsOffset(.max, trainSteps: 1000))
    #expect(failure(.ddim) { $0.betaEnd = 1 } == .betas(start: 0.00085, end: 1))
    #expect(failure(.ddim) { $0.betaStart = -1 } == .betas(start: -1, end: 0.012))
    #expect(failure(.ddim) { $0.clipRange = 0 } == .clipRange(0))
    guard case .betas = failure(.ddim, { $0.betaEnd = .nan }) else {
      Issue.record("NaN beta")
      return
    }
  }
}
