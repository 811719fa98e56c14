import Checkpoints
import Models

/// Refuses checkpoints of which a part would be dropped silently: a configuration that is smaller than its weights, or a
/// network with parts that ours does not have.
enum UnusedTensors {
  /// - Parameter read: for each stage, the checkpoint's names that its network asked for.
  static func check(_ checkpoints: [Stage: Checkpoint], read: [Stage: Set<String>]) throws(ConvertError) {
    for stage in Stage.allCases {
      let tensors = checkpoints[stage]?.tensors ?? [:]
      let unused = tensors.keys.filter { !(read[stage]?.contains($0) ?? false) && !isExpected($0, in: stage) }
      if let name = unused.min(), let tensor = tensors[name] { throw .unusedTensor(file: tensor.path, tensor: name) }
    }
  }

  /// Whether released checkpoints hold a tensor of this name that the way from sound to picture does not use.
  static func isExpected(_ name: String, in stage: Stage) -> Bool {
    let components = name.split(separator: ".", omittingEmptySubsequences: false)
    switch stage {
    case .unet, .projector: return false
    // The half that makes latents of pictures.
    case .vae: return ["encoder", "quant_conv"].contains(components[0])
    // The numbers from 0 to 76, and the rest of a whole CLIP.
    case .text:
      return components.last == "position_ids"
        || ["logit_scale", "text_projection", "vision_model", "visual_projection"].contains(components[0])
    // The classifier, what stood for masked patches, and the first layer's bias, which all layers share and list.
    case .beats:
      return ["mask_emb", "predictor"].contains(components[0])
        || components.starts(with: ["encoder", "layers"]) && components.dropFirst(3) == sharedBias[...]
    }
  }

  private static let sharedBias: [Substring] = ["self_attn", "relative_attention_bias", "weight"]
}
