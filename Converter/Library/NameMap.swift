import Models

/// From the file's canonical names to the spellings that checkpoints use. Whole path components are matched.
enum NameMap {
  /// The names that the tensor or layer `canonical` (stage first) may have in its checkpoint, the newest spelling first.
  static func candidates(_ canonical: String) -> [String] {
    var components = canonical.split(separator: ".").map(String.init)
    guard let stage = Stage(rawValue: components.removeFirst()) else { return [] }
    // The phases of an upsampler are made from one tensor.
    if let index = components.firstIndex(of: phases) { components.removeSubrange(index...index + 1) }
    switch stage {
    case .unet: return [join(components, replacing: unet)]
    case .vae: return vae.map { join(components, replacing: $0) }
    case .text:
      let name = join(components, replacing: text)
      return [name, "text_model." + name]
    case .beats: return [join(components, replacing: beats)]
    case .projector: return [join(components, replacing: projector)]
    }
  }

  private static let phases = "phases"

  /// Which place within an enlarged pixel a matrix is for, as `Upsampler` counts them; nil for all others.
  static func phase(_ canonical: String) -> Int? {
    let components = canonical.split(separator: ".")
    guard let index = components.firstIndex(of: Substring(phases)), index + 1 < components.count else { return nil }
    return Int(components[index + 1])
  }

  /// A rule replaces a run of components; an empty run in the middle of a name cannot match.
  typealias Rules = [(from: [String], to: [String])]

  private static let unet: Rules = [
    (["blocks"], ["transformer_blocks"]), (["ff", "in"], ["ff", "net", "0", "proj"]),
    (["ff", "out"], ["ff", "net", "2"]),
    (["q"], ["to_q"]), (["k"], ["to_k"]), (["v"], ["to_v"]), (["out"], ["to_out", "0"]),
  ]
  private static let vae: [Rules] = [
    [(["q"], ["to_q"]), (["k"], ["to_k"]), (["v"], ["to_v"]), (["out"], ["to_out", "0"])],
    [(["q"], ["query"]), (["k"], ["key"]), (["v"], ["value"]), (["out"], ["proj_attn"])],
  ]
  private static let text: Rules = [
    (["self_attn", "q"], ["self_attn", "q_proj"]), (["self_attn", "k"], ["self_attn", "k_proj"]),
    (["self_attn", "v"], ["self_attn", "v_proj"]), (["self_attn", "out"], ["self_attn", "out_proj"]),
  ]
  private static let beats: Rules =
    text + [
      (["pos_conv"], ["pos_conv", "0"]),
      (["relative_attention_bias"], ["layers", "0", "self_attn", "relative_attention_bias"]),
    ]
  private static let projector: Rules = [
    (["unary"], ["fga", "un_models", "0"]), (["pairwise"], ["fga", "pp_models", "0"]),
    (["reduce_potentials"], ["fga", "reduce_potentials", "0"]),
  ]

  private static func join(_ components: [String], replacing rules: Rules) -> String {
    var result: [String] = []
    var index = 0
    while index < components.count {
      let rule = rules.first { components[index...].starts(with: $0.from) }
      result += rule?.to ?? [components[index]]
      index += rule?.from.count ?? 1
    }
    return result.joined(separator: ".")
  }

  /// The LoRA factors of the UNet projection `canonical`: `<attention>.processor.to_q_lora.{down,up}.weight`.
  static func lora(_ canonical: String) -> (down: String, up: String)? {
    let components = canonical.split(separator: ".").map(String.init)
    guard components.first == Stage.unet.rawValue, let projection = components.last, components.count > 2,
      ["q", "k", "v", "out"].contains(projection), ["attn1", "attn2"].contains(components[components.count - 2])
    else { return nil }
    let attention = join(Array(components[1..<components.count - 1]), replacing: unet)
    let stem = "\(attention).processor.to_\(projection)_lora."
    return (stem + "down.weight", stem + "up.weight")
  }
}
