/// Translates the names of the original latent diffusion code to those of diffusers and transformers.
struct LatentDiffusionNames {
  /// Residual blocks per level of the UNet's downward half.
  let layersPerBlock: Int
  /// Levels of the VAE decoder, which the two codes count in opposite directions.
  let decoderLevels: Int
  /// Layers of the text encoder that are used.
  let textLayers: Int
  /// Whether the text encoder is written by open_clip (2.x) rather than by transformers (1.x).
  let isOpenCLIP: Bool

  static let unetPrefix = "model.diffusion_model."
  static let vaePrefix = "first_stage_model."
  static let clipPrefix = "cond_stage_model.transformer."
  static let openCLIPPrefix = "cond_stage_model.model."

  /// The tensors of each component under their new names. A tensor of the UNet, the VAE's decoder or a layer of the text
  /// encoder without a place there is an error, since the network would compute something else; the VAE's encoder and what
  /// training left behind are skipped.
  func split(
    _ checkpoint: Checkpoint, path: String
  ) throws(CheckpointError) -> [StableDiffusionComponent: [String: SourceTensor]] {
    var result: [StableDiffusionComponent: [String: SourceTensor]] = [:]
    for (name, tensor) in checkpoint.tensors {
      if let rest = name.suffix(after: LatentDiffusionNames.unetPrefix) {
        guard let newName = unet(rest) else {
          throw .unknownTensor(file: path, tensor: name, purpose: "the UNet of Stable Diffusion 1.x or 2.x")
        }
        result[.unet, default: [:]][newName] = tensor.renamed(newName)
      } else if let rest = name.suffix(after: LatentDiffusionNames.vaePrefix) {
        guard let newName = vae(rest) else {
          guard !rest.hasPrefix("decoder.") else {
            throw .unknownTensor(file: path, tensor: name, purpose: "the VAE decoder of Stable Diffusion 1.x or 2.x")
          }
          continue
        }
        result[.vae, default: [:]][newName] = try asLinear(tensor, newName, path: path)
      } else if isOpenCLIP, let rest = name.suffix(after: LatentDiffusionNames.openCLIPPrefix) {
        try addOpenCLIP(rest, tensor, path: path, to: &result[.textEncoder, default: [:]])
      } else if !isOpenCLIP, let newName = name.suffix(after: LatentDiffusionNames.clipPrefix) {
        result[.textEncoder, default: [:]][newName] = tensor.renamed(newName)
      }
    }
    return result
  }

  // MARK: UNet

  private static let unetEnds = [
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
  ]

  private static let residualParts = [
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
  ]

  /// The new name for `name`, which lacks the UNet's prefix.
  func unet(_ name: String) -> String? {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    guard let kind = parts.last, kind == "weight" || kind == "bias" else { return nil }
    let module = parts.dropLast().joined(separator: ".")
    if let end = LatentDiffusionNames.unetEnds[module] { return "\(end).\(kind)" }
    guard parts.count >= 4 else { return nil }
    if parts[0] == "middle_block" { return middle(parts) }
    guard let index = Int(parts[1]), index >= 0, let slot = Int(parts[2]) else { return nil }
    let inner = parts[3...].joined(separator: ".")
    let position = parts[0] == "input_blocks" ? index - 1 : index
    guard position >= 0 else { return nil }
    let (block, layer) = position.quotientAndRemainder(dividingBy: layersPerBlock + 1)
    switch (parts[0], slot) {
    case ("input_blocks", 0) where parts[3] == "op": return "down_blocks.\(block).downsamplers.0.conv.\(kind)"
    case ("output_blocks", 1) where parts[3] == "conv", ("output_blocks", 2) where parts[3] == "conv":
      return "up_blocks.\(block).upsamplers.0.conv.\(kind)"
    case ("input_blocks", 0): return residual(inner).map { "down_blocks.\(block).resnets.\(layer).\($0)" }
    case ("output_blocks", 0): return residual(inner).map { "up_blocks.\(block).resnets.\(layer).\($0)" }
    case ("input_blocks", 1): return attention(inner).map { "down_blocks.\(block).attentions.\(layer).\($0)" }
    case ("output_blocks", 1): return attention(inner).map { "up_blocks.\(block).attentions.\(layer).\($0)" }
    default: return nil
    }
  }

  private func middle(_ parts: [String]) -> String? {
    let inner = parts[2...].joined(separator: ".")
    switch parts[1] {
    case "0": return residual(inner).map { "mid_block.resnets.0.\($0)" }
    case "1": return attention(inner).map { "mid_block.attentions.0.\($0)" }
    case "2": return residual(inner).map { "mid_block.resnets.1.\($0)" }
    default: return nil
    }
  }

  private func residual(_ inner: String) -> String? {
    for (old, new) in LatentDiffusionNames.residualParts {
      if let kind = inner.suffix(after: old + ".") { return "\(new).\(kind)" }
    }
    return nil
  }

  /// Both codes name the inside of a transformer alike; more than one block in it means another model (SDXL).
  private func attention(_ inner: String) -> String? {
    for part in ["norm.", "proj_in.", "proj_out.", "transformer_blocks.0."] where inner.hasPrefix(part) { return inner }
    return nil
  }

  // MARK: VAE

  private static let attentionParts = [
    "norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0",
  ]

  /// The new name for a tensor of the decoder, whose `name` lacks the VAE's prefix; nil for the rest of the VAE.
  func vae(_ name: String) -> String? {
    if name.hasPrefix("post_quant_conv.") { return name }
    let parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    guard parts.count >= 3, parts[0] == "decoder" else { return nil }
    let kind = parts[parts.count - 1]
    switch parts[1] {
    case "conv_in", "conv_out": return name
    case "norm_out": return "decoder.conv_norm_out.\(kind)"
    case "mid" where parts.count == 5: return middle(parts[2], parts[3], kind)
    case "up" where parts.count == 6 || parts.count == 7: return up(parts, kind)
    default: return nil
    }
  }

  private func middle(_ module: String, _ part: String, _ kind: String) -> String? {
    switch module {
    case "block_1": "decoder.mid_block.resnets.0.\(shortcut(part)).\(kind)"
    case "block_2": "decoder.mid_block.resnets.1.\(shortcut(part)).\(kind)"
    case "attn_1": LatentDiffusionNames.attentionParts[part].map { "decoder.mid_block.attentions.0.\($0).\(kind)" }
    default: nil
    }
  }

  /// decoder.up.LEVEL.block.LAYER.PART.KIND or decoder.up.LEVEL.upsample.conv.KIND.
  private func up(_ parts: [String], _ kind: String) -> String? {
    guard let level = Int(parts[2]), (0..<decoderLevels).contains(level) else { return nil }
    let block = decoderLevels - 1 - level
    switch parts[3] {
    case "upsample": return "decoder.up_blocks.\(block).upsamplers.0.conv.\(kind)"
    case "block" where parts.count == 7:
      return "decoder.up_blocks.\(block).resnets.\(parts[4]).\(shortcut(parts[5])).\(kind)"
    default: return nil
    }
  }

  private func shortcut(_ part: String) -> String { part == "nin_shortcut" ? "conv_shortcut" : part }

  /// The original code writes the attention's projections as 1 x 1 convolutions, diffusers as linears.
  private func asLinear(
    _ tensor: SourceTensor, _ newName: String, path: String
  ) throws(CheckpointError) -> SourceTensor {
    guard newName.contains(".attentions."), newName.hasSuffix(".weight"), !newName.contains("group_norm") else {
      return tensor.renamed(newName)
    }
    guard let linear = tensor.droppingTrailingOnes(rank: 2) else {
      throw .shape(file: path, tensor: tensor.name, found: tensor.shape, expected: "[channels, channels, 1, 1]")
    }
    return linear.renamed(newName)
  }

  // MARK: Text encoder of 2.x

  private static let openCLIPEnds = [
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight", "ln_final.bias": "text_model.final_layer_norm.bias",
  ]

  private static let openCLIPParts = [
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
  ]

  /// Adds `name`, which lacks open_clip's prefix. The layers after `textLayers` and the projection are skipped.
  private func addOpenCLIP(
    _ name: String, _ tensor: SourceTensor, path: String, to tensors: inout [String: SourceTensor]
  ) throws(CheckpointError) {
    if let newName = LatentDiffusionNames.openCLIPEnds[name] {
      tensors[newName] = tensor.renamed(newName)
      return
    }
    let parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    guard parts.count > 4, parts[0] == "transformer", parts[1] == "resblocks", let layer = Int(parts[2]),
      (0..<textLayers).contains(layer)
    else { return }
    let prefix = "text_model.encoder.layers.\(layer)"
    let kind = parts[parts.count - 1]
    if kind == "in_proj_weight" || kind == "in_proj_bias" {
      return try addProjections(tensor, prefix, kind == "in_proj_weight" ? "weight" : "bias", path, to: &tensors)
    }
    guard let part = LatentDiffusionNames.openCLIPParts[parts[3..<(parts.count - 1)].joined(separator: ".")] else {
      throw .unknownTensor(file: path, tensor: tensor.name, purpose: "the text encoder of Stable Diffusion 2.x")
    }
    tensors["\(prefix).\(part).\(kind)"] = tensor.renamed("\(prefix).\(part).\(kind)")
  }

  /// in_proj holds query, key and value one below the other: [3 * width, ...].
  private func addProjections(
    _ tensor: SourceTensor, _ prefix: String, _ kind: String, _ path: String, to tensors: inout [String: SourceTensor]
  ) throws(CheckpointError) {
    let width = (tensor.shape.first ?? 0) / 3
    for (index, projection) in ["q_proj", "k_proj", "v_proj"].enumerated() {
      guard tensor.shape.first == 3 * width, width > 0, let rows = tensor.rows((index * width)..<((index + 1) * width))
      else { throw .shape(file: path, tensor: tensor.name, found: tensor.shape, expected: "three times the width") }
      let newName = "\(prefix).self_attn.\(projection).\(kind)"
      tensors[newName] = rows.renamed(newName)
    }
  }
}

extension String {
  /// What follows `prefix`, or nil when the string does not begin with it.
  fileprivate func suffix(after prefix: String) -> String? {
    hasPrefix(prefix) ? String(dropFirst(prefix.count)) : nil
  }
}
