import AudioToken
import Converter
import Foundation
import Testing

@Suite("A picture depends on its settings alone")
struct DeterminismTests {
  private func pixels(
    threads: Int, kernels: String? = nil, weights: WeightType = .int8, guidance: Float = 7.5
  ) throws -> [UInt8] {
    var settings = GenerationSettings()
    settings.steps = 2
    settings.width = 64
    settings.height = 96
    settings.guidance = guidance
    let model = try ConvertedModels.shared.model("tiny", weights: weights)
    let sound = Goldens.fixtures.appendingPathComponent(Goldens.all.sound).path
    return try Pipeline(model: model, threads: threads, kernels: kernels)
      .generate(from: SoundSelection(path: sound), settings: settings).pixels
  }

  @Test("One, two and three threads make the same picture", arguments: [WeightType.int8, .float32])
  func threads(weights: WeightType) throws {
    let one = try pixels(threads: 1, weights: weights)
    #expect(try pixels(threads: 2, weights: weights) == one)
    #expect(try pixels(threads: 3, weights: weights) == one)
  }

  @Test("The portable kernels make the same picture as this processor's own", arguments: [WeightType.int8, .float16])
  func kernels(weights: WeightType) throws {
    #expect(try pixels(threads: 2, kernels: "portable", weights: weights) == pixels(threads: 2, weights: weights))
  }

  @Test("Guidance changes the picture, and so does turning it off")
  func guidance() throws {
    let usual = try pixels(threads: 2)
    #expect(try pixels(threads: 2, guidance: 3) != usual)
    #expect(try pixels(threads: 2, guidance: 1) != usual)
  }
}
