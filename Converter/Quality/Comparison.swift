import AudioToken
import Models
import WeightFile

/// What to compare two models on.
package struct ComparisonSettings: Sendable {
  package var sounds: [String]
  package var seeds: [UInt64]
  package var steps: Int
  package var guidance: Float
  /// The model's own where nil.
  package var sampler: SamplerChoice?

  /// Finds out what is wrong with the settings and the sounds, before any work.
  package init(
    sounds: [String], seeds: [UInt64], steps: Int, guidance: Float = GenerationSettings().guidance,
    sampler: SamplerChoice? = nil
  ) throws(AudioTokenError) {
    (self.sounds, self.seeds, self.steps) = (sounds, seeds.isEmpty ? [0] : seeds, steps)
    (self.guidance, self.sampler) = (guidance, sampler)
    if sounds.isEmpty {
      throw AudioTokenError(.usage, "There is no sound to compare on; give one or more with --sound FILE.")
    }
    guard (1...1000).contains(steps) else {
      throw AudioTokenError(.usage, "--steps is \(steps), where 1 to 1000 is expected; 20 is usual.")
    }
    guard (0...1000).contains(guidance) else {
      throw AudioTokenError(.usage, "--guidance is \(guidance), where 0 to 1000 is expected; 7.5 is usual.")
    }
    if let twice = seeds.indices.first(where: { seeds[..<$0].contains(seeds[$0]) }) {
      throw AudioTokenError(.usage, "--seed \(seeds[twice]) is given twice; each seed makes one picture of a sound.")
    }
    for sound in sounds {
      do throws(AudioError) { _ = try Waveform.prepare(path: sound) } catch { throw AudioTokenError(error) }
    }
  }
}

/// What a comparison finds.
package struct Quality: Sendable {
  /// Of one sound with one seed.
  package struct Pair: Sendable {
    package let sound: String
    package let seed: UInt64
    package let psnr: Double
    /// nil where the picture is smaller than the window.
    package let ssim: Double?
    /// What the stages give, in order: |quantised - float| / |float|.
    package let stages: [(name: String, error: Double)]
    package let picture: Picture
    package let exact: Picture
  }
  package var pairs: [Pair] = []
  /// Of the quantised matrices that have a float counterpart, in the order of execution.
  package var layers: [LayerError] = []
  package let model: String
  package let modelHash: String
  package let original: String
  package let steps: Int
}

/// A quantised model beside the same one in floats, on the same sounds and seeds.
package final class Comparison {
  private let model: Pipeline
  private let exact: Pipeline
  private let names: (model: String, original: String)

  /// Opens both files; they are not looked up by name again.
  package init(model: String, original: String) throws(AudioTokenError) {
    let threads = availableProcessors()
    self.model = try Pipeline(model: model, threads: threads)
    exact = try Pipeline(model: original, threads: threads)
    names = (model, original)
    if exact.file.metadata["audiotoken.weights.type"] == .string("int8") {
      throw AudioTokenError(.data, "\(original) has weights of 8 bits; give a file made with --weights f32.")
    }
    guard try Self.configuration(self.model) == Self.configuration(exact),
      self.model.nativeSize == exact.nativeSize, Self.promptLength(self.model) == Self.promptLength(exact)
    else {
      throw AudioTokenError(
        .data, "\(model) and \(original) are networks of different sizes; give two files of one model.")
    }
  }

  private static func promptLength(_ pipeline: Pipeline) -> MetadataValue? {
    pipeline.file.metadata["audiotoken.tokenizer.length"]
  }

  private static func configuration(_ pipeline: Pipeline) throws(AudioTokenError) -> ModelConfiguration {
    do throws(WeightFileError) { return try ModelConfiguration(pipeline.file.metadata) } catch {
      throw AudioTokenError(error)
    }
  }

  /// What it is doing: which pair of how many, and what of it.
  package struct Progress: Sendable {
    package let pair: Int
    package let pairs: Int
    package let sound: String
    package let seed: UInt64
    package let isExact: Bool
    package let stage: AudioToken.Progress
  }

  /// - Parameter progress: called on this thread.
  package func run(
    _ comparison: ComparisonSettings, progress: (Progress) -> Void
  ) throws(AudioTokenError) -> Quality {
    var quality = Quality(
      model: names.model, modelHash: model.contentHash, original: names.original, steps: comparison.steps)
    let layers = LayerObserver(model.file, original: exact.file)
    model.productObserver = layers
    defer { model.productObserver = nil }
    let side = exact.nativeSize
    _ = try Quality.layout(pairs: comparison.sounds.count * comparison.seeds.count, width: side, height: side)
    let pairs = comparison.sounds.flatMap { sound in comparison.seeds.map { (sound, $0) } }
    for (index, (sound, seed)) in pairs.enumerated() {
      var settings = GenerationSettings()
      settings.steps = comparison.steps
      settings.guidance = comparison.guidance
      settings.sampler = comparison.sampler
      settings.seed = seed
      func generate(_ pipeline: Pipeline, isExact: Bool) throws(AudioTokenError) -> (Picture, TensorCollection) {
        let tensors = TensorCollection()
        let picture = try pipeline.generate(
          from: SoundSelection(path: sound), settings: settings, dump: TensorDump(into: tensors)
        ) { stage in
          progress(
            Progress(pair: index, pairs: pairs.count, sound: sound, seed: seed, isExact: isExact, stage: stage))
        }
        return (picture, tensors)
      }
      let expected = try generate(exact, isExact: true)
      let found = try generate(model, isExact: false)
      quality.pairs.append(Self.pair(sound, seed, found, expected))
    }
    quality.layers = layers.layers
    return quality
  }

  private static let stages = [
    ("fbank", "filter bank"), ("audio_features", "audio features"), ("audio_token", "audio token"),
    ("prompt_embeddings", "prompt embeddings"), ("eps_first", "first prediction"),
  ]

  private static func pair(
    _ sound: String, _ seed: UInt64, _ found: (Picture, TensorCollection), _ expected: (Picture, TensorCollection)
  ) -> Quality.Pair {
    func error(_ name: String) -> Double {
      PictureMetrics.relativeError(found.1.tensors[name] ?? [], expected.1.tensors[name] ?? [])
    }
    let (picture, exact) = (found.0, expected.0)
    return Quality.Pair(
      sound: sound, seed: seed, psnr: PictureMetrics.psnr(picture.pixels, exact.pixels),
      ssim: PictureMetrics.ssim(picture.pixels, exact.pixels, width: exact.width, height: exact.height),
      stages: stages.map { ($0.1, error($0.0)) } + [
        ("last latents", PictureMetrics.relativeError(found.1.lastLatents, expected.1.lastLatents)),
        ("picture", error("image")),
      ], picture: picture, exact: exact)
  }
}
