import AudioToken
import Checkpoints
import Models

/// From the configuration files of checkpoints to the sizes of our networks. Settings that would change what a network
/// computes and that it does not have are refused by name.
enum ConfigurationReader {
  /// Every key of `allowed` has to be absent, null or equal to the value beside it.
  private static func require(_ config: JSONObject, _ allowed: [(String, [JSONValue])]) throws(ConvertError) {
    for (key, values) in allowed {
      guard config.has(key), let found = config.values[key], !values.contains(found) else { continue }
      let expected = values.isEmpty ? "null" : values.map(describe).joined(separator: " or ")
      throw .unsupported(file: config.file, key: key, found: describe(found), expected: expected)
    }
  }

  private static func describe(_ value: JSONValue) -> String {
    switch value {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .integer(let value): "\(value)"
    case .number(let value): "\(value)"
    case .string(let value): "\"\(value.prefix(60))\""
    case .array(let values): "[" + values.prefix(8).map(describe).joined(separator: ", ") + "]"
    case .object(let values): "a dictionary of \(values.count)"
    }
  }

  static func unet(_ config: JSONObject) throws(ConvertError) -> UNetConfiguration {
    try require(config, unetLimits)
    return try converting { () throws(CheckpointError) in
      let channels = try config.sizes("block_out_channels")
      let levels = channels.count
      let heads = try config.sizes("num_attention_heads", count: levels, default: 0)
      let widths = try config.sizes("attention_head_dim", count: levels, default: 8)
      return UNetConfiguration(
        latentChannels: try config.size("in_channels", default: 4), blockChannels: channels,
        downAttention: try attention(config, "down_block_types", ["CrossAttnDownBlock2D", "DownBlock2D"], levels),
        upAttention: try attention(config, "up_block_types", ["CrossAttnUpBlock2D", "UpBlock2D"], levels),
        midBlock: config.values["mid_block_type"] != .null,
        layersPerBlock: try config.sizes("layers_per_block", count: levels, default: 2),
        transformerDepth: try config.sizes("transformer_layers_per_block", count: levels, default: 1),
        // diffusers reads the key named for the width of a head as the number of heads.
        heads: config.has("num_attention_heads") ? heads : widths,
        contextWidth: try config.size("cross_attention_dim", default: 1280),
        groups: try config.size("norm_num_groups", default: 32), epsilon: try config.double("norm_eps", default: 1e-5),
        flipSinToCos: try config.bool("flip_sin_to_cos", default: true),
        frequencyShift: try config.size("freq_shift", default: 0))
    }
  }

  private static let unetLimits: [(String, [JSONValue])] = [
    ("act_fn", [.string("silu"), .string("swish")]), ("addition_embed_type", []),
    ("attention_type", [.string("default")]),
    ("center_input_sample", [.bool(false)]), ("class_embed_type", []), ("class_embeddings_concat", [.bool(false)]),
    ("conv_in_kernel", [.integer(3)]), ("conv_out_kernel", [.integer(3)]), ("cross_attention_norm", []),
    ("downsample_padding", [.integer(1)]), ("dual_cross_attention", [.bool(false)]), ("encoder_hid_dim", []),
    ("encoder_hid_dim_type", []), ("mid_block_only_cross_attention", [.bool(false)]),
    ("mid_block_scale_factor", [.integer(1), .number(1)]), ("mid_block_type", [.string("UNetMidBlock2DCrossAttn")]),
    ("num_class_embeds", []), ("only_cross_attention", [.bool(false)]),
    ("resnet_out_scale_factor", [.integer(1), .number(1)]), ("resnet_skip_time_act", [.bool(false)]),
    ("resnet_time_scale_shift", [.string("default")]), ("reverse_transformer_layers_per_block", []),
    ("time_cond_proj_dim", []), ("time_embedding_act_fn", []), ("time_embedding_dim", []),
    ("time_embedding_type", [.string("positional")]), ("timestep_post_act", []),
  ]

  /// The side in latent pixels of the pictures that the UNet was trained on.
  static func nativeSide(_ config: JSONObject) throws(ConvertError) -> Int {
    try converting { () throws(CheckpointError) in
      let side = try config.size("sample_size", default: 64)
      guard (1...1024).contains(side) else {
        throw .setting(file: config.file, key: "sample_size", found: String(side), expected: "a number from 1 to 1024")
      }
      return side
    }
  }

  /// For each block of a list of types, whether it attends to the text.
  private static func attention(
    _ config: JSONObject, _ key: String, _ types: [String], _ levels: Int
  ) throws(CheckpointError) -> [Bool] {
    let found = try config.strings(key)
    guard found.count == levels, found.allSatisfy(types.contains) else {
      throw .setting(
        file: config.file, key: key, found: found.joined(separator: ", "),
        expected: "\(levels) blocks of \(types.joined(separator: " or "))")
    }
    return found.map { $0 == types[0] }
  }

  static func vae(_ config: JSONObject) throws(ConvertError) -> VAEConfiguration {
    try require(
      config,
      [
        ("act_fn", [.string("silu"), .string("swish")]), ("out_channels", [.integer(3)]), ("shift_factor", []),
        ("latents_mean", []), ("latents_std", []),
      ])
    return try converting { () throws(CheckpointError) in
      let channels = try config.sizes("block_out_channels")
      if config.has("up_block_types") {
        _ = try attention(config, "up_block_types", ["UpDecoderBlock2D"], channels.count)
      }
      return VAEConfiguration(
        latentChannels: try config.size("latent_channels", default: 4), outputChannels: 3, blockChannels: channels,
        layersPerBlock: try config.size("layers_per_block", default: 1),
        groups: try config.size("norm_num_groups", default: 32),
        scalingFactor: try config.double("scaling_factor", default: 0.18215),
        midAttention: try config.bool("mid_block_add_attention", default: true),
        postQuantConvolution: try config.bool("use_post_quant_conv", default: true))
    }
  }

  static func text(_ config: JSONObject) throws(ConvertError) -> TextConfiguration {
    try require(config, [("hidden_act", [.string("quick_gelu"), .string("gelu")])])
    return try converting { () throws(CheckpointError) in
      TextConfiguration(
        vocabulary: try config.size("vocab_size", default: 49408),
        positions: try config.size("max_position_embeddings", default: 77),
        width: try config.size("hidden_size", default: 512), layers: try config.size("num_hidden_layers", default: 12),
        heads: try config.size("num_attention_heads", default: 8),
        feedForward: try config.size("intermediate_size", default: 2048),
        quickGELU: try config.string("hidden_act", default: "quick_gelu") == "quick_gelu",
        epsilon: try config.double("layer_norm_eps", default: 1e-5))
    }
  }

  static func beats(_ config: JSONObject) throws(ConvertError) -> BEATsConfiguration {
    try require(
      config,
      [
        ("activation_fn", [.string("gelu")]), ("conv_bias", [.bool(false)]), ("layer_norm_first", [.bool(false)]),
        ("relative_position_embedding", [.bool(true)]), ("gru_rel_pos", [.bool(true)]),
      ])
    return try converting { () throws(CheckpointError) in
      BEATsConfiguration(
        patch: try config.size("input_patch_size"), embedWidth: try config.size("embed_dim"),
        width: try config.size("encoder_embed_dim"), layers: try config.size("encoder_layers"),
        heads: try config.size("encoder_attention_heads"), feedForward: try config.size("encoder_ffn_embed_dim"),
        positionKernel: try config.size("conv_pos"), positionGroups: try config.size("conv_pos_groups"),
        buckets: try config.size("num_buckets"), maximumDistance: try config.size("max_distance"),
        deepNorm: try config.bool("deep_norm"))
    }
  }

  static func projector(_ checkpoint: Checkpoint) throws(ConvertError) -> ProjectorConfiguration {
    let name = "fc2.weight"
    guard let tensor = checkpoint.tensors[name] else {
      throw .missing(tensor: "the token projector", files: checkpoint.files.map(\.path), spellings: [name])
    }
    guard tensor.shape.count == 2, tensor.shape.allSatisfy({ (1...JSONObject.largest).contains($0) }) else {
      throw .shape(file: tensor.path, tensor: name, found: tensor.shape, expected: [768, 2304])
    }
    return ProjectorConfiguration(featureWidth: tensor.shape[1], tokenWidth: tensor.shape[0])
  }

  /// The noise schedule and whether the model's own sampler is PNDM. Defaults are those of diffusers' classes.
  static func sampler(_ config: JSONObject) throws(ConvertError) -> (SamplerConfiguration, Sampler.Kind) {
    try require(
      config,
      [("thresholding", [.bool(false)]), ("trained_betas", []), ("rescale_betas_zero_snr", [.bool(false)])])
    let choices: [(String, [String])] = [
      ("beta_schedule", ["linear", "scaled_linear"]), ("prediction_type", ["epsilon", "v_prediction"]),
      ("timestep_spacing", ["leading", "trailing", "linspace"]),
    ]
    try require(config, choices.map { ($0.0, $0.1.map(JSONValue.string)) })
    let (result, kind) = try converting { () throws(CheckpointError) in
      let kind: Sampler.Kind =
        try config.string("_class_name", default: "PNDMScheduler") == "DDIMScheduler" ? .ddim : .pndm
      var result = SamplerConfiguration()
      result.trainSteps = try config.size("num_train_timesteps", default: 1000)
      result.betaStart = try config.double("beta_start", default: 0.0001)
      result.betaEnd = try config.double("beta_end", default: 0.02)
      result.betaSchedule = .init(rawValue: try config.string("beta_schedule", default: "linear")) ?? .linear
      result.prediction = .init(rawValue: try config.string("prediction_type", default: "epsilon")) ?? .noise
      result.spacing = .init(rawValue: try config.string("timestep_spacing", default: "leading")) ?? .leading
      result.stepsOffset = try config.size("steps_offset", default: 0)
      result.setAlphaToOne = try config.bool("set_alpha_to_one", default: kind == .ddim)
      result.skipRungeKutta = try config.bool("skip_prk_steps", default: false)
      result.clipSample = try config.bool("clip_sample", default: true)
      result.clipRange = Float(try config.double("clip_sample_range", default: 1))
      return (result, kind)
    }
    do throws(SamplerError) { _ = try NoiseSchedule(result) } catch {
      throw .schedule(file: config.file, reason: error.description)
    }
    return (result, kind)
  }
}

extension JSONObject {
  /// No size of a network and no count of a schedule comes near it, and the weight file can hold it.
  fileprivate static let largest = 1 << 24

  private func checked(_ key: String, _ values: [Int]) throws(CheckpointError) {
    for value in values where !(0...Self.largest).contains(value) {
      throw .setting(file: file, key: key, found: String(value), expected: "a number from 0 to \(Self.largest)")
    }
  }

  fileprivate func size(_ key: String, default fallback: Int? = nil) throws(CheckpointError) -> Int {
    if let fallback, !has(key) { return fallback }
    let value = try int(key)
    try checked(key, [value])
    return value
  }

  fileprivate func sizes(_ key: String) throws(CheckpointError) -> [Int] {
    let values = try ints(key)
    try checked(key, values)
    return values
  }

  fileprivate func sizes(_ key: String, count: Int, default fallback: Int) throws(CheckpointError) -> [Int] {
    let values = try ints(key, count: count, default: fallback)
    try checked(key, values)
    return values
  }
}
