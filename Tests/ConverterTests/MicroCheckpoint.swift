import Foundation
import Models
import Tensors

@testable import Converter

/// A random checkpoint set of the smallest sizes, in the layouts that users hold.
struct MicroCheckpoint {
  enum Spelling: CaseIterable {
    case newest
    case oldest
  }

  static let configuration = ModelConfiguration(
    beats: BEATsConfiguration(
      patch: 16, embedWidth: 12, width: 24, layers: 12, heads: 2, feedForward: 20, positionKernel: 8, positionGroups: 4,
      buckets: 32, maximumDistance: 80, deepNorm: true),
    projector: ProjectorConfiguration(featureWidth: 72, tokenWidth: 18),
    text: TextConfiguration(
      vocabulary: 516, positions: 8, width: 18, layers: 2, heads: 3, feedForward: 30, quickGELU: true, epsilon: 1e-5),
    unet: UNetConfiguration(
      latentChannels: 4, blockChannels: [8, 16, 12], downAttention: [true, true, false],
      upAttention: [false, true, true], midBlock: true, layersPerBlock: [1, 2, 1], transformerDepth: [1, 2, 1],
      heads: [2, 4, 3], contextWidth: 18, groups: 4, epsilon: 1e-5, flipSinToCos: true, frequencyShift: 0),
    vae: VAEConfiguration(
      latentChannels: 4, outputChannels: 3, blockChannels: [8, 12], layersPerBlock: 1, groups: 4,
      scalingFactor: 0.18215, midAttention: true, postQuantConvolution: true))

  var stages: [Stage: [String: PlainTensor]] = [:]
  var lora: [String: PlainTensor] = [:]
  var unet: [String: Any]
  var vae: [String: Any]
  var text: [String: Any]
  var beats: [String: Any]
  var scheduler: [String: Any] = [
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "skip_prk_steps": true, "set_alpha_to_one": false, "steps_offset": 1,
  ]
  /// For each layer and vector of the manifest, its elements as torch orders them, LoRA and weight norm folded in.
  private(set) var folded: [String: [Double]] = [:]
  private(set) var manifest: Manifest

  init(_ spelling: Spelling = .newest, withLora: Bool = false) throws {
    let c = Self.configuration
    unet = [
      "in_channels": 4, "out_channels": 4, "block_out_channels": c.unet.blockChannels,
      "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
      "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
      "layers_per_block": c.unet.layersPerBlock, "transformer_layers_per_block": c.unet.transformerDepth,
      "attention_head_dim": c.unet.heads, "cross_attention_dim": 18, "norm_num_groups": 4, "sample_size": 8,
    ]
    vae = ["block_out_channels": c.vae.blockChannels, "norm_num_groups": 4, "latent_channels": 4, "out_channels": 3]
    text = [
      "vocab_size": 516, "max_position_embeddings": 8, "hidden_size": 18, "num_hidden_layers": 2,
      "num_attention_heads": 3, "intermediate_size": 30, "hidden_act": "quick_gelu",
    ]
    beats = [
      "input_patch_size": 16, "embed_dim": 12, "encoder_embed_dim": 24, "encoder_layers": 12,
      "encoder_attention_heads": 2, "encoder_ffn_embed_dim": 20, "conv_pos": 8, "conv_pos_groups": 4,
      "num_buckets": 32, "max_distance": 80, "deep_norm": true, "conv_bias": false, "activation_fn": "gelu",
      "layer_norm_first": false, "relative_position_embedding": true, "gru_rel_pos": true, "predictor_class": 527,
      "layer_wise_gradient_decay_ratio": 0.6,
    ]
    manifest = try Manifest(c)
    for (index, request) in manifest.requests.enumerated() {
      var generator = Generator(index)
      add(request, spelling, withLora: withLora, &generator)
    }
    addUnused(spelling)
  }

  private mutating func put(
    _ stage: Stage, _ canonical: String, _ spelling: Spelling, _ tensor: PlainTensor
  ) -> String {
    let names = NameMap.candidates(canonical)
    let name = spelling == .newest ? names[0] : names[names.count - 1]
    stages[stage, default: [:]][name] = tensor
    return name
  }

  private mutating func add(
    _ request: Manifest.Request, _ spelling: Spelling, withLora: Bool, _ generator: inout Generator
  ) {
    let stage = request.stage
    switch request {
    case .matrix(let name, let shape, _, _) where name.contains(".phases."):
      let whole = String(name.prefix(upTo: name.range(of: ".phases.")!.lowerBound))
      if folded[whole] == nil {
        let kernel = MatrixShape(outputs: shape.outputs, inputs: shape.inputs, taps: 9)
        add(.matrix(name: whole, kernel, .quantized, bias: true), spelling, withLora: withLora, &generator)
      }
      folded[name] = phase(Int(name.suffix(1))!, of: folded[whole]!)
      folded[name + ".bias"] = folded[whole + ".bias"]
    case .matrix(let name, let shape, _, let bias):
      // The phases of an upsampler have made it.
      if folded[name] != nil { return }
      let row = shape.inputs * shape.taps
      // Rows of very different size, so that a scale that belongs to another row shows.
      let values = generator.floats(shape.outputs * row).enumerated().map { $1 * Float(1 + $0 / row % 7) }
      if bias {
        let biases = generator.floats(shape.outputs)
        _ = put(stage, name + ".bias", spelling, PlainTensor(shape: [shape.outputs], values: biases))
        folded[name + ".bias"] = biases.map(Double.init)
      }
      if name == "beats.encoder.pos_conv" {
        return addNormalised(name, [shape.outputs, shape.inputs, shape.taps], values, spelling, &generator)
      }
      var dimensions = [shape.outputs, shape.inputs]
      if shape.taps == 9 { dimensions += [3, 3] }
      let pointwise = ["proj_in", "proj_out", "conv_shortcut", "post_quant_conv"]
      if pointwise.contains(where: name.hasSuffix) { dimensions += [1, 1] }
      if name.hasSuffix("patch_embedding") { dimensions = [shape.outputs, 1, 16, 16] }
      if name.contains("unary") || name.contains("pairwise") { dimensions.append(1) }
      _ = put(stage, name + ".weight", spelling, PlainTensor(shape: dimensions, values: values))
      folded[name] = values.map(Double.init)
      if withLora, let names = NameMap.lora(name) { addLora(name, names, shape.outputs, row, &generator) }
    case .vector(let name, let dimensions):
      let values = generator.floats(dimensions.reduce(1, *))
      let shape = name.hasSuffix("grep_a") ? [1, dimensions[0], 1, 1] : dimensions
      _ = put(stage, name, spelling, PlainTensor(shape: shape, values: values))
      folded[name] = values.map(Double.init)
    case .table(let name, let rows, let columns):
      let values = generator.floats(rows * columns)
      _ = put(stage, name + ".weight", spelling, PlainTensor(shape: [rows, columns], values: values))
      folded[name] = values.map(Double.init)
    }
  }

  /// A 3x3 kernel's sums over what falls on each of 2x2 pixels, at one of the four places within an enlarged pixel.
  private func phase(_ phase: Int, of kernel: [Double]) -> [Double] {
    var sums = [Double](repeating: 0, count: kernel.count / 9 * 4)
    for (index, weight) in kernel.enumerated() {
      let (pair, tap) = index.quotientAndRemainder(dividingBy: 9)
      // Where the tap lands in the enlarged picture, halved, relative to the first of the two pixels.
      func pixel(_ place: Int, _ tap: Int) -> Int { Int((Double(place + tap - 1) / 2).rounded(.down)) - (place - 1) }
      sums[pair * 4 + 2 * pixel(phase / 2, tap / 3) + pixel(phase % 2, tap % 3)] += weight
    }
    return sums
  }

  /// A weight as torch's weight_norm over the last dimension keeps it.
  private mutating func addNormalised(
    _ name: String, _ shape: [Int], _ values: [Float], _ spelling: Spelling, _ generator: inout Generator
  ) {
    let taps = shape[2]
    let magnitudes = generator.floats(taps, 0.5...2)
    let stem = "encoder.pos_conv.0"
    let names =
      spelling == .newest
      ? (stem + ".parametrizations.weight.original0", stem + ".parametrizations.weight.original1")
      : (stem + ".weight_g", stem + ".weight_v")
    stages[.beats, default: [:]][names.0] = PlainTensor(shape: [1, 1, taps], values: magnitudes)
    stages[.beats, default: [:]][names.1] = PlainTensor(shape: shape, values: values)
    let lengths = (0..<taps).map { tap in
      stride(from: tap, to: values.count, by: taps).reduce(0) { $0 + Double(values[$1]) * Double(values[$1]) }
        .squareRoot()
    }
    folded[name] = values.indices.map { Double(magnitudes[$0 % taps]) * Double(values[$0]) / lengths[$0 % taps] }
  }

  private mutating func addLora(
    _ name: String, _ names: (down: String, up: String), _ outputs: Int, _ inputs: Int, _ generator: inout Generator
  ) {
    let (down, up) = (generator.floats(2 * inputs), generator.floats(outputs * 2))
    lora[names.down] = PlainTensor(shape: [2, inputs], values: down)
    lora[names.up] = PlainTensor(shape: [outputs, 2], values: up)
    folded[name] = folded[name]?.enumerated().map { index, value in
      let (o, i) = index.quotientAndRemainder(dividingBy: inputs)
      return (0..<2).reduce(value) { $0 + Double(up[o * 2 + $1]) * Double(down[$1 * inputs + i]) }
    }
  }

  /// What released files hold besides.
  private mutating func addUnused(_ spelling: Spelling) {
    let one = PlainTensor(shape: [1], values: [1])
    for name in ["encoder.conv_in.weight", "encoder.down_blocks.0.resnets.0.conv1.weight", "quant_conv.weight"] {
      stages[.vae, default: [:]][name] = one
    }
    let prefix = spelling == .newest ? "" : "text_model."
    stages[.text, default: [:]][prefix + "embeddings.position_ids"] = one
    stages[.text, default: [:]]["text_projection.weight"] = one
    for name in [
      "predictor.weight", "predictor.bias", "encoder.layers.1.self_attn.relative_attention_bias.weight",
      "encoder.layers.11.self_attn.relative_attention_bias.weight",
    ] { stages[.beats, default: [:]][name] = one }
  }

  /// Writes the set and says how to convert it to `out/m.gguf` in the same folder, which is made.
  func write(to folder: TemporaryFolder, weights: WeightType = .int8) throws -> ConversionJob {
    try folder.write("sd/unet/config.json", json: unet)
    try folder.write("sd/vae/config.json", json: vae)
    try folder.write("sd/text_encoder/config.json", json: text)
    try folder.write("sd/scheduler/scheduler_config.json", json: scheduler)
    for (stage, path) in [
      (Stage.unet, "sd/unet/diffusion_pytorch_model.safetensors"),
      (.vae, "sd/vae/diffusion_pytorch_model.safetensors"), (.text, "sd/text_encoder/model.safetensors"),
      (.projector, "embedder.bin"),
    ] { try folder.write(path, Safetensors.file(stages[stage] ?? [:])) }
    try folder.write("beats.pt", TorchFile.file(["cfg": beats, "model": stages[.beats] ?? [:]]))
    try MicroTokenizer.write(to: folder, "sd/tokenizer")
    var job = ConversionJob(
      stableDiffusion: folder.path + "/sd", beats: folder.path + "/beats.pt", embedder: folder.path + "/embedder.bin",
      weights: weights, output: folder.path + "/out/m.gguf", licence: "none")
    if !lora.isEmpty { job.lora = try folder.write("lora.bin", TorchFile.file(lora)) }
    try FileManager.default.createDirectory(atPath: folder.path + "/out", withIntermediateDirectories: true)
    return job
  }
}

/// CLIP's vocabulary with two merges.
enum MicroTokenizer {
  /// How GPT-2's vocabulary writes a byte: printable ones as they are, the others as the letters from U+0100 on.
  static let letters: [String] = {
    let printable = Set(33...126).union(161...172).union(174...255)
    var next: UInt32 = 256
    return (0..<256).map { byte in
      if printable.contains(byte) { return String(Character(Unicode.Scalar(UInt8(byte)))) }
      defer { next += 1 }
      return String(Character(Unicode.Scalar(next)!))
    }
  }()

  /// The order of CLIP's first 256 tokens: the printable bytes, then the others.
  static let order: [Int] =
    Array(33...126) + Array(161...172) + Array(174...255) + Array(0...32) + Array(127...160) + [173]

  static func vocabulary(merges: [(String, String)]) -> [String] {
    order.map { letters[$0] } + order.map { letters[$0] + "</w>" } + merges.map { $0 + $1 }
      + ["<|startoftext|>", "<|endoftext|>"]
  }

  static func write(
    to folder: TemporaryFolder, _ path: String, merges: [(String, String)] = [("a", "b"), ("ab", "c</w>")]
  ) throws {
    let words = vocabulary(merges: merges)
    try folder.write(
      path + "/vocab.json", json: Dictionary(uniqueKeysWithValues: words.enumerated().map { ($1, $0) }))
    let lines = ["#version: 0.2"] + merges.map { "\($0) \($1)" }
    try folder.write(path + "/merges.txt", Data((lines.joined(separator: "\n") + "\n").utf8))
  }
}
