import Models
import WeightFile

/// The settings that a weight file carries besides the shapes of its networks.
package enum ModelFile {
  package enum Key {
    /// The side in pixels of the pictures that the UNet was trained on.
    package static let nativeSize = "audiotoken.picture.native_size"
    static let scheduler = "audiotoken.scheduler."
    static let tokenizer = "audiotoken.tokenizer."
  }
}

extension SamplerConfiguration {
  private static let prefix = ModelFile.Key.scheduler

  package func write(to metadata: inout Metadata, kind: Sampler.Kind) {
    let p = Self.prefix
    metadata[p + "sampler"] = .string(kind.rawValue)
    metadata.set(p + "train_steps", trainSteps)
    metadata[p + "beta_start"] = .float64(betaStart)
    metadata[p + "beta_end"] = .float64(betaEnd)
    metadata[p + "beta_schedule"] = .string(betaSchedule.rawValue)
    metadata[p + "prediction_type"] = .string(prediction.rawValue)
    metadata[p + "timestep_spacing"] = .string(spacing.rawValue)
    metadata.set(p + "steps_offset", stepsOffset)
    metadata[p + "set_alpha_to_one"] = .bool(setAlphaToOne)
    metadata[p + "skip_prk_steps"] = .bool(skipRungeKutta)
    metadata[p + "clip_sample"] = .bool(clipSample)
    metadata[p + "clip_sample_range"] = .float32(clipRange)
  }

  init(_ metadata: Metadata) throws(WeightFileError) {
    let p = Self.prefix
    self.init()
    trainSteps = try metadata.integer(p + "train_steps")
    betaStart = try metadata.double(p + "beta_start")
    betaEnd = try metadata.double(p + "beta_end")
    betaSchedule = try metadata.choice(p + "beta_schedule")
    prediction = try metadata.choice(p + "prediction_type")
    spacing = try metadata.choice(p + "timestep_spacing")
    stepsOffset = try metadata.integer(p + "steps_offset")
    setAlphaToOne = try metadata.bool(p + "set_alpha_to_one")
    skipRungeKutta = try metadata.bool(p + "skip_prk_steps")
    clipSample = try metadata.bool(p + "clip_sample")
    clipRange = Float(try metadata.double(p + "clip_sample_range"))
  }

  /// The sampler that the model was published with.
  static func kind(_ metadata: Metadata) throws(WeightFileError) -> Sampler.Kind {
    try metadata.choice(prefix + "sampler")
  }
}

extension TokenizerData {
  private static let prefix = ModelFile.Key.tokenizer

  package func write(to metadata: inout Metadata) {
    let p = Self.prefix
    metadata[p + "merges"] = .array(merges)
    metadata[p + "byte_tokens"] = .array(byteTokens)
    metadata[p + "byte_end_tokens"] = .array(byteEndTokens)
    metadata.set(p + "begin_id", Int(begin))
    metadata.set(p + "end_id", Int(end))
    metadata.set(p + "padding_id", Int(padding))
    metadata[p + "placeholder"] = .string(placeholderText)
    metadata.set(p + "placeholder_id", Int(placeholder))
    metadata.set(p + "length", length)
  }

  /// - Parameter vocabulary: rows of the token embedding, which every id but the placeholder's has to be below.
  init(_ metadata: Metadata, vocabulary: Int) throws(WeightFileError) {
    let p = Self.prefix
    func ids(_ key: String) throws(WeightFileError) -> [Int32] {
      let values = try metadata.integers(p + key)
      guard let bad = values.first(where: { !(0..<vocabulary).contains($0) }) else { return values.map(Int32.init) }
      throw metadata.refusal(p + key, found: String(bad), expected: "ids from 0 to \(vocabulary - 1)")
    }
    func id(_ key: String, limit: Int) throws(WeightFileError) -> Int32 {
      let value = try metadata.integer(p + key)
      guard (0..<limit).contains(value) else {
        throw metadata.refusal(p + key, found: String(value), expected: "a number from 0 to \(limit - 1)")
      }
      return Int32(value)
    }
    self.init(
      merges: try ids("merges"), byteTokens: try ids("byte_tokens"), byteEndTokens: try ids("byte_end_tokens"),
      begin: try id("begin_id", limit: vocabulary), end: try id("end_id", limit: vocabulary),
      padding: try id("padding_id", limit: vocabulary), placeholderText: try metadata.string(p + "placeholder"),
      placeholder: try id("placeholder_id", limit: 1 << 24), length: Int(try id("length", limit: 1 << 14)))
  }
}

extension Metadata {
  /// One of the raw values of `Choice`.
  fileprivate func choice<Choice: RawRepresentable & CaseIterable>(
    _ key: String
  ) throws(WeightFileError) -> Choice where Choice.RawValue == String {
    let found = try string(key)
    guard let choice = Choice(rawValue: found) else {
      throw refusal(key, found: found, expected: Choice.allCases.map(\.rawValue).joined(separator: " or "))
    }
    return choice
  }
}
