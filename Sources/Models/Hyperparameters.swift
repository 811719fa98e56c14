import WeightFile

/// The shapes of all networks of a file: everything their initialisers need besides the tensors.
package struct ModelConfiguration: Equatable, Sendable {
  package var beats: BEATsConfiguration
  package var projector: ProjectorConfiguration
  package var text: TextConfiguration
  package var unet: UNetConfiguration
  package var vae: VAEConfiguration
  package init(
    beats: BEATsConfiguration, projector: ProjectorConfiguration, text: TextConfiguration, unet: UNetConfiguration,
    vae: VAEConfiguration
  ) {
    self.beats = beats
    self.projector = projector
    self.text = text
    self.unet = unet
    self.vae = vae
  }

  /// Reads the sizes back from a file and checks that the networks can be built from them.
  package init(_ metadata: Metadata) throws(WeightFileError) {
    beats = try BEATsConfiguration(Keys(metadata, "beats"))
    projector = try ProjectorConfiguration(Keys(metadata, "projector"))
    text = try TextConfiguration(Keys(metadata, "text"))
    unet = try UNetConfiguration(Keys(metadata, "unet"))
    vae = try VAEConfiguration(Keys(metadata, "vae"))
    try check(metadata)
  }

  package func write(to metadata: inout Metadata) {
    beats.write(to: &metadata, "audiotoken.beats.")
    projector.write(to: &metadata, "audiotoken.projector.")
    text.write(to: &metadata, "audiotoken.text.")
    unet.write(to: &metadata, "audiotoken.unet.")
    vae.write(to: &metadata, "audiotoken.vae.")
  }

  /// The stages have to fit each other.
  private func check(_ metadata: Metadata) throws(WeightFileError) {
    for (name, found, expected) in mismatches {
      throw metadata.refusal("audiotoken." + name, found: String(found), expected: String(expected))
    }
  }

  /// Sizes that two stages share and on which they disagree.
  package var mismatches: [(name: String, found: Int, expected: Int)] {
    [
      ("projector.feature_width", projector.featureWidth, beats.featureWidth),
      ("projector.token_width", projector.tokenWidth, text.width),
      ("unet.context_width", unet.contextWidth, text.width),
      ("vae.latent_channels", vae.latentChannels, unet.latentChannels),
    ].filter { $0.1 != $0.2 }.map { (name: $0.0, found: $0.1, expected: $0.2) }
  }
}

/// One stage's keys of a file's metadata, read with bounds that keep later arithmetic sound.
private struct Keys {
  let metadata: Metadata
  let prefix: String
  /// Four times it is the most inputs of a product whose sum of u8 x s8 is certain to fit 32 bits.
  static let limit = 1 << 14
  static let vocabularyLimit = 1 << 20
  /// Layers of a stack. With it, the largest networks that a file can ask for have some 100,000 tensors.
  static let depthLimit = 256
  /// The same for stacks that lie inside other stacks.
  static let innerDepthLimit = 16

  init(_ metadata: Metadata, _ stage: String) {
    self.metadata = metadata
    prefix = "audiotoken." + stage + "."
  }

  func refusal(_ key: String, found: String, expected: String) -> WeightFileError {
    metadata.refusal(prefix + key, found: found, expected: expected)
  }

  func size(_ key: String, limit: Int = Keys.limit) throws(WeightFileError) -> Int {
    let value = try metadata.integer(prefix + key)
    guard (1...limit).contains(value) else {
      throw refusal(key, found: String(value), expected: "a number from 1 to \(limit)")
    }
    return value
  }

  func natural(_ key: String) throws(WeightFileError) -> Int {
    let value = try metadata.integer(prefix + key)
    guard (0...Self.limit).contains(value) else {
      throw refusal(key, found: String(value), expected: "a number from 0 to \(Self.limit)")
    }
    return value
  }

  /// Between one and eight sizes, or `count` of them where given.
  func sizes(_ key: String, count: Int? = nil, limit: Int = Keys.limit) throws(WeightFileError) -> [Int] {
    let values = try metadata.integers(prefix + key)
    guard count.map({ $0 == values.count }) ?? (1...8).contains(values.count) else {
      throw refusal(key, found: "\(values.count) values", expected: count.map { "\($0) values" } ?? "1 to 8 values")
    }
    let sizes = Array(values)
    guard sizes.allSatisfy({ (1...limit).contains($0) }) else {
      throw refusal(key, found: "\(sizes)", expected: "numbers from 1 to \(limit)")
    }
    return sizes
  }

  func flags(_ key: String, count: Int) throws(WeightFileError) -> [Bool] {
    let values = try metadata.bools(prefix + key)
    guard values.count == count else {
      throw refusal(key, found: "\(values.count) values", expected: "\(count) values")
    }
    return values
  }

  func positive(_ key: String) throws(WeightFileError) -> Double {
    let value = try metadata.double(prefix + key)
    guard value > 0, value < 1e6 else { throw refusal(key, found: "\(value)", expected: "a positive number") }
    return value
  }

  func bool(_ key: String) throws(WeightFileError) -> Bool { try metadata.bool(prefix + key) }

  /// Every one of `values`, stored under `key`, has to be a multiple of `divisor`.
  func divide(_ key: String, _ values: [Int], by divisor: Int) throws(WeightFileError) {
    for value in values where value % divisor != 0 {
      throw refusal(key, found: String(value), expected: "a multiple of \(divisor)")
    }
  }
}

extension BEATsConfiguration {
  fileprivate init(_ k: Keys) throws(WeightFileError) {
    self.init(
      patch: try k.size("patch"), embedWidth: try k.size("embed_width"), width: try k.size("width"),
      layers: try k.size("layers", limit: Keys.depthLimit), heads: try k.size("heads"),
      feedForward: try k.size("feed_forward"), positionKernel: try k.size("position_kernel"),
      positionGroups: try k.size("position_groups"),
      buckets: try k.size("buckets"), maximumDistance: try k.size("maximum_distance"), deepNorm: try k.bool("deep_norm")
    )
    try k.divide("width", [width], by: heads)
    try k.divide("width", [width], by: positionGroups)
    guard patch <= 128 else { throw k.refusal("patch", found: String(patch), expected: "at most 128") }
    guard layers >= Self.featureLayers[2] else {
      throw k.refusal("layers", found: String(layers), expected: "at least \(Self.featureLayers[2])")
    }
    guard buckets >= 4, maximumDistance > buckets / 4 else {
      throw k.refusal("buckets", found: String(buckets), expected: "from 4 to 4 times the maximum distance")
    }
  }

  fileprivate func write(to m: inout Metadata, _ prefix: String) {
    m.set(prefix + "patch", patch)
    m.set(prefix + "embed_width", embedWidth)
    m.set(prefix + "width", width)
    m.set(prefix + "layers", layers)
    m.set(prefix + "heads", heads)
    m.set(prefix + "feed_forward", feedForward)
    m.set(prefix + "position_kernel", positionKernel)
    m.set(prefix + "position_groups", positionGroups)
    m.set(prefix + "buckets", buckets)
    m.set(prefix + "maximum_distance", maximumDistance)
    m[prefix + "deep_norm"] = .bool(deepNorm)
  }
}

extension ProjectorConfiguration {
  fileprivate init(_ k: Keys) throws(WeightFileError) {
    self.init(featureWidth: try k.size("feature_width", limit: 4 * Keys.limit), tokenWidth: try k.size("token_width"))
  }

  fileprivate func write(to m: inout Metadata, _ prefix: String) {
    m.set(prefix + "feature_width", featureWidth)
    m.set(prefix + "token_width", tokenWidth)
  }
}

extension TextConfiguration {
  fileprivate init(_ k: Keys) throws(WeightFileError) {
    self.init(
      vocabulary: try k.size("vocabulary", limit: Keys.vocabularyLimit), positions: try k.size("positions"),
      width: try k.size("width"),
      layers: try k.size("layers", limit: Keys.depthLimit), heads: try k.size("heads"),
      feedForward: try k.size("feed_forward"), quickGELU: try k.bool("quick_gelu"), epsilon: try k.positive("epsilon"))
    try k.divide("width", [width], by: heads)
  }

  fileprivate func write(to m: inout Metadata, _ prefix: String) {
    m.set(prefix + "vocabulary", vocabulary)
    m.set(prefix + "positions", positions)
    m.set(prefix + "width", width)
    m.set(prefix + "layers", layers)
    m.set(prefix + "heads", heads)
    m.set(prefix + "feed_forward", feedForward)
    m[prefix + "quick_gelu"] = .bool(quickGELU)
    m[prefix + "epsilon"] = .float64(epsilon)
  }
}

extension UNetConfiguration {
  fileprivate init(_ k: Keys) throws(WeightFileError) {
    let channels = try k.sizes("block_channels")
    let levels = channels.count
    self.init(
      latentChannels: try k.size("latent_channels"), blockChannels: channels,
      downAttention: try k.flags("down_attention", count: levels),
      upAttention: try k.flags("up_attention", count: levels),
      midBlock: try k.bool("mid_block"),
      layersPerBlock: try k.sizes("layers_per_block", count: levels, limit: Keys.innerDepthLimit),
      transformerDepth: try k.sizes("transformer_depth", count: levels, limit: Keys.innerDepthLimit),
      heads: try k.sizes("heads", count: levels),
      contextWidth: try k.size("context_width"), groups: try k.size("groups"), epsilon: try k.positive("epsilon"),
      flipSinToCos: try k.bool("flip_sin_to_cos"), frequencyShift: try k.natural("frequency_shift"))
    try k.divide("block_channels", channels, by: groups)
    try k.divide("block_channels", [channels[0]], by: 2)
    guard frequencyShift < channels[0] / 2 else {
      throw k.refusal("frequency_shift", found: String(frequencyShift), expected: "less than \(channels[0] / 2)")
    }
    for (level, channels) in channels.enumerated() { try k.divide("block_channels", [channels], by: heads[level]) }
  }

  fileprivate func write(to m: inout Metadata, _ prefix: String) {
    m.set(prefix + "latent_channels", latentChannels)
    m.set(prefix + "block_channels", blockChannels)
    m[prefix + "down_attention"] = .array(downAttention)
    m[prefix + "up_attention"] = .array(upAttention)
    m[prefix + "mid_block"] = .bool(midBlock)
    m.set(prefix + "layers_per_block", layersPerBlock)
    m.set(prefix + "transformer_depth", transformerDepth)
    m.set(prefix + "heads", heads)
    m.set(prefix + "context_width", contextWidth)
    m.set(prefix + "groups", groups)
    m[prefix + "epsilon"] = .float64(epsilon)
    m[prefix + "flip_sin_to_cos"] = .bool(flipSinToCos)
    m.set(prefix + "frequency_shift", frequencyShift)
  }
}

extension VAEConfiguration {
  fileprivate init(_ k: Keys) throws(WeightFileError) {
    self.init(
      latentChannels: try k.size("latent_channels"), outputChannels: try k.size("output_channels"),
      blockChannels: try k.sizes("block_channels"),
      layersPerBlock: try k.size("layers_per_block", limit: Keys.innerDepthLimit),
      groups: try k.size("groups"), scalingFactor: try k.positive("scaling_factor"),
      midAttention: try k.bool("mid_attention"), postQuantConvolution: try k.bool("post_quant_convolution"))
    try k.divide("block_channels", blockChannels, by: groups)
    guard outputChannels == 3 else { throw k.refusal("output_channels", found: String(outputChannels), expected: "3") }
  }

  fileprivate func write(to m: inout Metadata, _ prefix: String) {
    m.set(prefix + "latent_channels", latentChannels)
    m.set(prefix + "output_channels", outputChannels)
    m.set(prefix + "block_channels", blockChannels)
    m.set(prefix + "layers_per_block", layersPerBlock)
    m.set(prefix + "groups", groups)
    m[prefix + "scaling_factor"] = .float64(scalingFactor)
    m[prefix + "mid_attention"] = .bool(midAttention)
    m[prefix + "post_quant_convolution"] = .bool(postQuantConvolution)
  }
}

extension Metadata {
  package mutating func set(_ key: String, _ value: Int) { self[key] = .uint32(UInt32(value)) }
  package mutating func set(_ key: String, _ values: [Int]) { self[key] = .array(values.map(UInt32.init)) }
}
