/// Infers the configurations of a single-file model from the names and shapes of its tensors.
struct LatentDiffusionShapes {
  let path: String
  let checkpoint: Checkpoint

  /// Whether the text encoder is open_clip's, which tells Stable Diffusion 2.x from 1.x.
  var isOpenCLIP: Bool {
    checkpoint.tensors[LatentDiffusionNames.openCLIPPrefix + "token_embedding.weight"] != nil
  }

  /// The head width of every CLIP text encoder in use, and of the attention in the UNet of 2.x.
  private static let headWidth = 64

  private func find(_ name: String) -> SourceTensor? { checkpoint.tensors[name] }

  private func shape(_ name: String, rank: Int, purpose: String) throws(CheckpointError) -> [Int] {
    guard let tensor = find(name) else { throw .missingTensor(file: path, tensor: name, purpose: purpose) }
    guard tensor.shape.count == rank, !tensor.shape.contains(0) else {
      throw .shape(file: path, tensor: name, found: tensor.shape, expected: "\(rank) dimensions, none of them 0")
    }
    return tensor.shape
  }

  private func heads(_ channels: Int, tensor: String) throws(CheckpointError) -> Int {
    guard channels.isMultiple(of: LatentDiffusionShapes.headWidth) else {
      let expected = "a multiple of \(LatentDiffusionShapes.headWidth) channels"
      throw .shape(file: path, tensor: tensor, found: [channels], expected: expected)
    }
    return channels / LatentDiffusionShapes.headWidth
  }

  private func object(_ values: [String: JSONValue]) -> JSONObject {
    JSONObject(file: "\(path) (inferred from its tensors)", values: values)
  }

  // MARK: UNet

  private struct Level {
    var channels: Int
    var layers: Int
    var hasAttention: Bool
  }

  /// Walks input_blocks.1, 2, ...: each is a residual block with or without attention, or ends a level by downsampling.
  private func unetLevels() throws(CheckpointError) -> [Level] {
    let prefix = LatentDiffusionNames.unetPrefix + "input_blocks."
    var levels: [Level] = []
    var startsLevel = true
    var index = 1
    while true {
      if find("\(prefix)\(index).0.op.weight") != nil {
        startsLevel = true
      } else if find("\(prefix)\(index).0.in_layers.2.weight") != nil {
        let name = "\(prefix)\(index).0.in_layers.2.weight"
        let channels = try shape(name, rank: 4, purpose: "the UNet")[0]
        if startsLevel { levels.append(Level(channels: channels, layers: 0, hasAttention: false)) }
        levels[levels.count - 1].layers += 1
        if find("\(prefix)\(index).1.proj_in.weight") != nil { levels[levels.count - 1].hasAttention = true }
        startsLevel = false
      } else {
        break
      }
      index += 1
    }
    guard let first = levels.first else {
      throw .missingTensor(file: path, tensor: "\(prefix)1.0.in_layers.2.weight", purpose: "the UNet")
    }
    guard levels.allSatisfy({ $0.layers == first.layers }) else {
      throw .unknownTensor(
        file: path, tensor: "\(prefix)*", purpose: "a UNet with the same number of layers at each level")
    }
    return levels
  }

  /// The dictionary of diffusers' UNet2DConditionModel.
  func unetConfig(predictionType: String?) throws(CheckpointError) -> JSONObject {
    let prefix = LatentDiffusionNames.unetPrefix
    let convIn = try shape(prefix + "input_blocks.0.0.weight", rank: 4, purpose: "the UNet")
    let convOut = try shape(prefix + "out.2.weight", rank: 4, purpose: "the UNet")
    let levels = try unetLevels()
    let attention = prefix + "middle_block.1."
    let context = try shape(
      attention + "transformer_blocks.0.attn2.to_k.weight", rank: 2, purpose: "the UNet's attention")[1]
    let isLinear = find(attention + "proj_in.weight")?.shape.count == 2
    // The original code fixes the number of heads in 1.x and their width in 2.x; diffusers calls both by one name.
    var heads = JSONValue.integer(8)
    if isLinear {
      var perLevel: [JSONValue] = []
      for level in levels { perLevel.append(.integer(try self.heads(level.channels, tensor: attention + "*"))) }
      heads = .array(perLevel)
    }
    let sampleSize = isOpenCLIP && predictionType != "epsilon" ? 96 : 64
    return object([
      "_class_name": .string("UNet2DConditionModel"), "act_fn": .string("silu"), "attention_head_dim": heads,
      "block_out_channels": .array(levels.map { .integer($0.channels) }), "center_input_sample": .bool(false),
      "cross_attention_dim": .integer(context), "downsample_padding": .integer(1),
      "down_block_types": .array(
        levels.map { .string($0.hasAttention ? "CrossAttnDownBlock2D" : "DownBlock2D") }),
      "flip_sin_to_cos": .bool(true), "freq_shift": .integer(0), "in_channels": .integer(convIn[1]),
      "layers_per_block": .integer(levels[0].layers), "mid_block_scale_factor": .integer(1),
      "mid_block_type": .string("UNetMidBlock2DCrossAttn"), "norm_eps": .number(1e-5),
      "norm_num_groups": .integer(32), "out_channels": .integer(convOut[0]), "sample_size": .integer(sampleSize),
      "up_block_types": .array(
        levels.reversed().map { .string($0.hasAttention ? "CrossAttnUpBlock2D" : "UpBlock2D") }),
      "use_linear_projection": .bool(isLinear),
    ])
  }

  // MARK: VAE

  /// The number of levels of the VAE decoder.
  func decoderLevels() throws(CheckpointError) -> Int {
    var levels = 0
    while find("\(LatentDiffusionNames.vaePrefix)decoder.up.\(levels).block.0.conv1.weight") != nil { levels += 1 }
    guard levels > 0 else {
      throw .missingTensor(
        file: path, tensor: LatentDiffusionNames.vaePrefix + "decoder.up.0.block.0.conv1.weight",
        purpose: "the VAE decoder")
    }
    return levels
  }

  /// The dictionary of diffusers' AutoencoderKL.
  func vaeConfig() throws(CheckpointError) -> JSONObject {
    let decoder = LatentDiffusionNames.vaePrefix + "decoder."
    let convIn = try shape(decoder + "conv_in.weight", rank: 4, purpose: "the VAE decoder")
    let convOut = try shape(decoder + "conv_out.weight", rank: 4, purpose: "the VAE decoder")
    let levels = try decoderLevels()
    var channels: [JSONValue] = []
    for level in 0..<levels {
      let name = "\(decoder)up.\(level).block.0.conv1.weight"
      channels.append(.integer(try shape(name, rank: 4, purpose: "the VAE decoder")[0]))
    }
    var blocks = 1
    while find("\(decoder)up.0.block.\(blocks).conv1.weight") != nil { blocks += 1 }
    return object([
      "_class_name": .string("AutoencoderKL"), "act_fn": .string("silu"), "block_out_channels": .array(channels),
      "down_block_types": .array([JSONValue](repeating: .string("DownEncoderBlock2D"), count: levels)),
      "in_channels": .integer(convOut[0]), "latent_channels": .integer(convIn[1]),
      "layers_per_block": .integer(blocks - 1), "norm_num_groups": .integer(32), "out_channels": .integer(convOut[0]),
      "scaling_factor": .number(0.18215),
      "up_block_types": .array([JSONValue](repeating: .string("UpDecoderBlock2D"), count: levels)),
    ])
  }

  // MARK: Text encoder

  /// The names of the text encoder's tensors from which its sizes are read.
  private struct TextNames {
    let tokens: String
    let positions: String
    let layers: String
    let hidden: String
  }

  private var textNames: TextNames {
    if isOpenCLIP {
      let prefix = LatentDiffusionNames.openCLIPPrefix
      return TextNames(
        tokens: prefix + "token_embedding.weight", positions: prefix + "positional_embedding",
        layers: prefix + "transformer.resblocks.", hidden: ".mlp.c_fc.weight")
    }
    // Some tools drop the inner prefix, as transformers itself does since its fifth version.
    let inner = LatentDiffusionNames.clipPrefix + "text_model."
    let prefix = find(inner + "embeddings.token_embedding.weight") == nil ? LatentDiffusionNames.clipPrefix : inner
    return TextNames(
      tokens: prefix + "embeddings.token_embedding.weight",
      positions: prefix + "embeddings.position_embedding.weight", layers: prefix + "encoder.layers.",
      hidden: ".mlp.fc1.weight")
  }

  /// The number of layers in use: all in 1.x; 2.x was trained on the output of the last but one.
  func textLayers() throws(CheckpointError) -> Int {
    let names = textNames
    var layers = 0
    while find("\(names.layers)\(layers)\(names.hidden)") != nil { layers += 1 }
    let least = isOpenCLIP ? 2 : 1
    guard layers >= least else {
      throw .missingTensor(
        file: path, tensor: "\(names.layers)\(layers)\(names.hidden)", purpose: "the text encoder")
    }
    return isOpenCLIP ? layers - 1 : layers
  }

  /// The dictionary of transformers' CLIPTextModel.
  func textConfig() throws(CheckpointError) -> JSONObject {
    let names = textNames
    let tokens = try shape(names.tokens, rank: 2, purpose: "the text encoder")
    let positions = try shape(names.positions, rank: 2, purpose: "the text encoder")
    let hidden = try shape("\(names.layers)0\(names.hidden)", rank: 2, purpose: "the text encoder")
    return object([
      "_class_name": .string("CLIPTextModel"), "bos_token_id": .integer(49_406), "eos_token_id": .integer(49_407),
      "hidden_act": .string(isOpenCLIP ? "gelu" : "quick_gelu"), "hidden_size": .integer(tokens[1]),
      "intermediate_size": .integer(hidden[0]), "layer_norm_eps": .number(1e-5),
      "max_position_embeddings": .integer(positions[0]), "model_type": .string("clip_text_model"),
      "num_attention_heads": .integer(try heads(tokens[1], tensor: names.tokens)),
      "num_hidden_layers": .integer(try textLayers()), "vocab_size": .integer(tokens[0]),
    ])
  }

  // MARK: Scheduler

  /// The dictionary of the schedulers that both versions were published with.
  func schedulerConfig(predictionType: String?) -> JSONObject {
    object([
      "_class_name": .string(isOpenCLIP ? "DDIMScheduler" : "PNDMScheduler"), "beta_end": .number(0.012),
      "beta_schedule": .string("scaled_linear"), "beta_start": .number(0.00085), "clip_sample": .bool(false),
      "num_train_timesteps": .integer(1_000),
      "prediction_type": .string(predictionType ?? (isOpenCLIP ? "v_prediction" : "epsilon")),
      "set_alpha_to_one": .bool(false), "skip_prk_steps": .bool(true), "steps_offset": .integer(1),
      "trained_betas": .null,
    ])
  }
}
