import Foundation
import Models
import Tensors
import Testing
import WeightFile

@testable import AudioToken
@testable import Converter

/// Reads a weight file's layers back by the formulas of Weights/README.md.
struct Unpacked {
  let file: WeightFile

  func elements<Element: BitwiseCopyable>(_ name: String, _: Element.Type) throws -> [Element] {
    let tensor = try #require(file[name], "\(name) is missing")
    #expect(tensor.type.elementBytes == MemoryLayout<Element>.size)
    let base = file.bytes(of: tensor).assumingMemoryBound(to: Element.self)
    return Array(UnsafeBufferPointer(start: base, count: tensor.elementCount))
  }

  static func place(_ output: Int, _ shape: MatrixShape) -> Int {
    let perGroup = shape.outputs / shape.groups
    return output / perGroup * ((perGroup + 7) / 8 * 8) + output % perGroup
  }

  /// Every weight in torch's order, with how far it may be from the source's.
  func matrix(_ name: String, _ shape: MatrixShape) throws -> [(value: Double, error: Double)] {
    let type = try #require(file[name + ".weight"]).type
    let quads = (shape.inputs + 3) / 4
    let codes = type == .i8 ? try elements(name + ".weight", Int8.self) : []
    let scales = type == .i8 ? try elements(name + ".scale", Float.self) : []
    let tapScales = type == .i8 && shape.taps > 1 ? try elements(name + ".tap_scale", Float.self) : []
    let halves = type == .f16 ? try elements(name + ".weight", UInt16.self) : []
    let floats = type == .f32 ? try elements(name + ".weight", Float.self) : []
    #expect(codes.allSatisfy { $0 != -128 }, "\(name)")
    var result: [(Double, Double)] = []
    for output in 0..<shape.outputs {
      let o = Self.place(output, shape)
      for input in 0..<shape.inputs {
        for tap in 0..<shape.taps {
          if type == .i8 {
            let code = codes[((o / 8 * shape.taps * quads + tap * quads + input / 4) * 8 + o % 8) * 4 + input % 4]
            let scale = Double(scales[o]) * Double(tapScales.isEmpty ? 1 : tapScales[tap])
            result.append((Double(code) * scale, scale / 2 * 1.00001))
          } else {
            let index = (o / 8 * shape.taps * shape.inputs + tap * shape.inputs + input) * 8 + o % 8
            let value = type == .f16 ? Float(Float16(bitPattern: halves[index])) : floats[index]
            result.append((Double(value), type == .f16 ? Double(value.magnitude) * 0x1p-11 + 0x1p-25 : 0))
          }
        }
      }
    }
    return result
  }

  /// Sum of the codes of each tap and output, and that nothing but zeros fills the panels.
  func checkSums(_ name: String, _ shape: MatrixShape) throws {
    let codes = try elements(name + ".weight", Int8.self)
    let sums = try elements(name + ".sum", Int32.self)
    let columns = (shape.inputs + 3) / 4
    let outputs = codes.count / (shape.taps * columns * 4)
    var expected = [Int32](repeating: 0, count: shape.taps * outputs)
    for (index, code) in codes.enumerated() {
      let (quad, lane) = (index / 32, index / 4 % 8)
      let (panel, column) = (quad / (shape.taps * columns), quad % (shape.taps * columns))
      expected[column / columns * outputs + panel * 8 + lane] += Int32(code)
    }
    #expect(sums == expected, "\(name)")
    let used = Set((0..<shape.outputs).map { Self.place($0, shape) })
    let scales = try elements(name + ".scale", Float.self)
    for o in 0..<outputs where !used.contains(o) {
      #expect(scales[o] == 0 && (0..<shape.taps).allSatisfy { sums[$0 * outputs + o] == 0 }, "\(name) padding")
    }
    let energy = codes.reduce(0) { $0 + Int($1) * Int($1) }
    #expect(energy > 0, "\(name)")
  }
}

func convert(_ job: ConversionJob) throws(ConvertError) -> ConversionReport {
  try ModelConverter(job).run { _ in }
}

@Suite struct ConversionTests {
  static let jobs = WeightType.allCases.flatMap { type in
    MicroCheckpoint.Spelling.allCases.map { (type, $0, $0 == .oldest) }
  }

  @Test("Every weight of the checkpoints is in the file, in its place", arguments: jobs)
  func everything(_ type: WeightType, _ spelling: MicroCheckpoint.Spelling, withLora: Bool) throws {
    let checkpoint = try MicroCheckpoint(spelling, withLora: withLora)
    let folder = try TemporaryFolder()
    let report = try convert(try checkpoint.write(to: folder, weights: type))
    let file = try WeightFile(path: folder.path + "/out/m.gguf")
    try file.verifyChecksums()
    #expect(try ModelConfiguration(file.metadata) == MicroCheckpoint.configuration)
    _ = try Networks(MappedWeights(file), ModelConfiguration(file.metadata))
    let unpacked = Unpacked(file: file)
    // The sum of a float and a product of two others.
    let rounding = 0x1p-20
    for request in checkpoint.manifest.requests {
      let expected = try #require(checkpoint.folded[request.name])
      switch request {
      case .matrix(let name, let shape, let precision, let bias):
        let declared = try #require(file[name + ".weight"]).type
        #expect(declared == (precision == .kept || type == .float32 ? .f32 : type == .float16 ? .f16 : .i8))
        for (index, (found, expected)) in zip(try unpacked.matrix(name, shape), expected).enumerated() {
          let error = (found.value - expected).magnitude
          guard error <= found.error + rounding else {
            Issue.record("\(name)[\(index)] is \(found.value), expected \(expected)")
            break
          }
        }
        if declared == .i8 { try unpacked.checkSums(name, shape) }
        guard bias else { continue }
        let biases = try unpacked.elements(name + ".bias", Float.self)
        let source = try #require(checkpoint.folded[name + ".bias"])
        #expect(source.indices.allSatisfy { Double(biases[Unpacked.place($0, shape)]) == source[$0] }, "\(name)")
        #expect(biases.count { $0 != 0 } == source.count, "\(name)")
      case .vector(let name, _):
        #expect(try unpacked.elements(name, Float.self).map(Double.init) == expected, "\(name)")
      case .table(let name, let rows, let columns):
        let scales = type == .int8 ? try unpacked.elements(name + ".scale", Float.self) : []
        let weight = name + ".weight"
        let found: [Double] =
          switch type {
          case .int8: try unpacked.elements(weight, Int8.self).map { Double($0) }
          case .float16: try unpacked.elements(weight, UInt16.self).map { Double(Float16(bitPattern: $0)) }
          case .float32: try unpacked.elements(weight, Float.self).map { Double($0) }
          }
        #expect(found.count == rows * columns)
        for (index, code) in found.enumerated() {
          let scale = type == .int8 ? Double(scales[index / columns]) : 1
          let bound = type == .int8 ? scale / 2 * 1.00001 : type == .float16 ? 0x1p-11 : 0
          guard (code * scale - expected[index]).magnitude <= bound else {
            fail("\(name)[\(index)] is \(code * scale), expected \(expected[index])")
            break
          }
        }
      }
    }
    try checkReport(report, file, checkpoint, type)
  }

  private func checkReport(
    _ report: ConversionReport, _ file: WeightFile, _ checkpoint: MicroCheckpoint, _ type: WeightType
  ) throws {
    #expect(report.contentHash == file.contentHash)
    #expect(report.fileBytes == file.byteCount)
    #expect(report.rows.map(\.stage) == Stage.allCases)
    let parameters = checkpoint.manifest.requests.reduce(0) { sum, request in
      sum + (checkpoint.folded[request.name]?.count ?? 0) + (checkpoint.folded[request.name + ".bias"]?.count ?? 0)
    }
    #expect(report.rows.reduce(0) { $0 + $1.parameters } == parameters)
    #expect(report.rows.reduce(0) { $0 + $1.bytes } == file.tensors.reduce(0) { $0 + $1.byteCount })
    for row in report.rows {
      // Uniform weights: the step is max / 127 and its error step / sqrt(12), so about 0.4 %.
      #expect(type == .int8 ? (0.001...0.01).contains(row.error.relative) : row.error.relative == 0, "\(row.stage)")
    }
    #expect(try file.metadata.string("audiotoken.weights.type") == type.rawValue)
    #expect(try file.metadata.integer("audiotoken.weights.limit") == 127)
    #expect(try file.metadata.string("general.license") == "none")
    let names = try file.metadata.strings("audiotoken.source.names")
    let hashes = try file.metadata.strings("audiotoken.source.sha256")
    #expect(names.count == hashes.count && names.count == (checkpoint.lora.isEmpty ? 5 : 6))
    #expect(names.contains("unet/diffusion_pytorch_model.safetensors") && hashes.allSatisfy { $0.count == 64 })
    let tokenizer = try TokenizerData(file.metadata, vocabulary: 516)
    #expect(tokenizer.placeholder == 516 && tokenizer.length == 8 && tokenizer.merges.count == 6)
  }

  @Test("The same checkpoints give the same file")
  func reproducible() throws {
    let checkpoint = try MicroCheckpoint(withLora: true)
    let hashes = try (0..<2).map { _ in
      let folder = try TemporaryFolder()
      _ = try convert(try checkpoint.write(to: folder))
      return try SHA256.ofFile(folder.path + "/out/m.gguf")
    }
    #expect(hashes[0] == hashes[1])
  }

  /// The error of converting a checkpoint that `change` has spoiled. Nothing may be left behind.
  private func refusal(
    of sound: MicroCheckpoint? = nil, weights: WeightType = .int8, withLora: Bool = false,
    _ change: (inout MicroCheckpoint) throws -> Void
  ) throws -> ConvertError {
    var checkpoint = try sound ?? MicroCheckpoint(.oldest, withLora: withLora)
    try change(&checkpoint)
    let folder = try TemporaryFolder()
    let job = try checkpoint.write(to: folder, weights: weights)
    let before = folder.contents
    do throws(ConvertError) { _ = try convert(job) } catch {
      #expect(folder.contents == before, "something is left behind")
      return error
    }
    throw Accepted()
  }

  private struct Accepted: Error {}

  @Test("A missing tensor is named by its place and its spellings")
  func missing() throws {
    for (stage, name, place) in [
      (Stage.unet, "mid_block.resnets.1.conv2.weight", "unet.mid_block.resnets.1.conv2.weight"),
      (
        .unet, "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj.bias",
        "unet.down_blocks.0.attentions.0.blocks.0.ff.in.bias"
      ),
      (.vae, "decoder.mid_block.attentions.0.query.weight", "vae.decoder.mid_block.attentions.0.q.weight"),
      (.text, "text_model.final_layer_norm.weight", "text.final_layer_norm.weight"),
      (.text, "text_model.embeddings.token_embedding.weight", "text.embeddings.token_embedding.weight"),
      (.beats, "encoder.layers.0.self_attn.grep_a", "beats.encoder.layers.0.self_attn.grep_a"),
      (.beats, "encoder.pos_conv.0.weight_g", "beats.encoder.pos_conv.weight"),
      (.projector, "fga.reduce_potentials.0.weight", "projector.reduce_potentials.weight"),
    ] {
      let error = try refusal { #expect($0.stages[stage]?.removeValue(forKey: name) != nil, "\(name)") }
      guard case .missing(place, let files, _) = error else {
        Issue.record("\(name): \(error)")
        continue
      }
      #expect(files.allSatisfy { error.description.contains($0) } && !files.isEmpty)
    }
  }

  @Test("A tensor of another shape is named with both shapes")
  func shapes() throws {
    for (stage, name) in [
      (Stage.unet, "conv_in.weight"), (.unet, "conv_in.bias"), (.vae, "decoder.conv_out.weight"),
      (.text, "text_model.embeddings.position_embedding.weight"), (.beats, "encoder.pos_conv.0.weight_v"),
      (.beats, "patch_embedding.weight"), (.projector, "fga.un_models.0.embed.weight"),
    ] {
      let error = try refusal { checkpoint in
        var tensor = try #require(checkpoint.stages[stage]?[name])
        tensor.values += tensor.values[..<(tensor.values.count / tensor.shape[0])]
        tensor.shape[0] += 1
        checkpoint.stages[stage]?[name] = tensor
      }
      guard case .shape(_, name, let found, let expected) = error else {
        Issue.record("\(name): \(error)")
        continue
      }
      #expect(found.reduce(1, *) != expected.reduce(1, *))
    }
  }

  @Test("A transposed weight is not taken for the right one")
  func transposed() throws {
    let name = "text_model.encoder.layers.0.mlp.fc1.weight"
    let error = try refusal { $0.stages[.text]?[name]?.shape.reverse() }
    guard case .shape(_, name, [18, 30], [30, 18]) = error else { return fail("\(error)") }
  }

  @Test("A weight that the network does not use is named, not dropped")
  func unused() throws {
    let extra = PlainTensor(shape: [1], values: [1])
    for (stage, name) in [
      (Stage.unet, "down_blocks.0.resnets.1.conv1.weight"), (.unet, "time_embedding.cond_proj.weight"),
      (.unet, "conv_in.weight_scale"), (.vae, "decoder.up_blocks.0.resnets.2.conv1.weight"),
      (.text, "text_model.encoder.layers.2.mlp.fc1.weight"), (.beats, "encoder.layers.12.fc1.weight"),
      (.beats, "encoder.layers.1.self_attn.k_proj.lora.weight"), (.projector, "fga.pp_models.0.normalize_S.weight"),
    ] {
      let error = try refusal { $0.stages[stage]?[name] = extra }
      guard case .unusedTensor(let file, name) = error else {
        Issue.record("\(name): \(error)")
        continue
      }
      #expect(error.description.hasPrefix(file + ": " + name))
    }
  }

  @Test("A configuration with fewer layers than its weights is refused")
  func prunedConfiguration() throws {
    let fewer = try refusal { $0.text["num_hidden_layers"] = 1 }
    guard case .unusedTensor(_, let name) = fewer, name.hasPrefix("text_model.encoder.layers.1.") else {
      return fail("\(fewer)")
    }
    let headless = try refusal { $0.unet["mid_block_type"] = NSNull() }
    guard case .unusedTensor(_, let name) = headless, name.hasPrefix("mid_block.") else {
      return fail("\(headless)")
    }
    let bare = try refusal { $0.vae["use_post_quant_conv"] = false }
    guard case .unusedTensor(_, "post_quant_conv.bias") = bare else { return fail("\(bare)") }
  }

  @Test("A LoRA of another model, or half of one, is refused")
  func lora() throws {
    let other = "down_blocks.7.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight"
    let unused = try refusal(withLora: true) { $0.lora[other] = PlainTensor(shape: [1], values: [1]) }
    guard case .unusedLora(_, other) = unused else { return fail("\(unused)") }
    let name = "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.down.weight"
    let half = try refusal(withLora: true) { #expect($0.lora.removeValue(forKey: name) != nil) }
    guard case .missing("unet.mid_block.attentions.0.blocks.0.attn2.out", _, [name]) = half else {
      return fail("\(half)")
    }
    let misfit = try refusal(withLora: true) { $0.lora[name]?.shape.reverse() }
    guard case .shape = misfit else { return fail("\(misfit)") }
  }

  @Test("An embedder of another width is refused with advice")
  func embedder() throws {
    let error = try refusal { checkpoint in
      checkpoint.stages[.projector]?["fc2.weight"] = PlainTensor(
        shape: [20, 72], values: .init(repeating: 0, count: 1440))
    }
    #expect(error.description.contains("projector") && error.description.contains("20"))
    #expect(error.description.contains("18"))
  }

  @Test("Values that are no numbers are named before the file has its name", arguments: WeightType.allCases)
  func notFinite(_ type: WeightType) throws {
    let sound = try MicroCheckpoint(.oldest)
    for (stage, name) in [
      (Stage.unet, "up_blocks.2.resnets.1.conv2.weight"), (.unet, "conv_norm_out.bias"), (.unet, "conv_out.bias"),
      (.text, "text_model.embeddings.token_embedding.weight"),
    ] {
      for value in [Float.nan, .infinity] {
        let error = try refusal(of: sound, weights: type) { checkpoint in
          let count = checkpoint.stages[stage]?[name]?.values.count ?? 1
          checkpoint.stages[stage]?[name]?.values[count - 1] = value
        }
        guard case .notFinite(_, name) = error else {
          Issue.record("\(name): \(error)")
          continue
        }
      }
    }
  }

  @Test("Weights beyond the range of f16 are refused for f16 only")
  func tooLarge() throws {
    for (stage, name) in [
      (Stage.unet, "mid_block.resnets.0.conv1.weight"), (.text, "text_model.embeddings.token_embedding.weight"),
    ] {
      let error = try refusal(weights: .float16) { $0.stages[stage]?[name]?.values[3] = 65_520 }
      guard case .tooLarge(_, name) = error else { return fail("\(error)") }
      #expect(throws: Accepted.self) { try refusal(weights: .float16) { $0.stages[stage]?[name]?.values[3] = 65_504 } }
      #expect(throws: Accepted.self) { try refusal(weights: .int8) { $0.stages[stage]?[name]?.values[3] = 1e30 } }
    }
  }

  @Test("Hostile sizes in a configuration are refused, not fatal")
  func hostileConfigurations() throws {
    let sound = try MicroCheckpoint(.oldest)
    for value in [-1, 0, 1 << 20, Int.max] {
      let errors = [
        try refusal(of: sound) { $0.unet["block_out_channels"] = [8, value, 12] },
        try refusal(of: sound) { $0.unet["layers_per_block"] = value },
        try refusal(of: sound) { $0.unet["attention_head_dim"] = value },
        try refusal(of: sound) { $0.unet["transformer_layers_per_block"] = value },
        try refusal(of: sound) { $0.unet["sample_size"] = value == 0 ? -5 : value },
        try refusal(of: sound) { $0.vae["block_out_channels"] = [value, 12] },
        try refusal(of: sound) { $0.text["hidden_size"] = value },
        try refusal(of: sound) { $0.text["num_hidden_layers"] = value },
        try refusal(of: sound) { $0.beats["encoder_embed_dim"] = value % (1 << 31) },
        try refusal(of: sound) { $0.beats["encoder_layers"] = value % (1 << 31) },
        try refusal(of: sound) { $0.scheduler["num_train_timesteps"] = value },
      ]
      for error in errors {
        switch error {
        case .configuration, .mismatch, .schedule, .checkpoint(.setting): continue
        default: fail("\(value): \(error)")
        }
      }
    }
    for list in [[], [Int](repeating: 8, count: 9)] as [[Int]] {
      _ = try refusal(of: sound) { $0.unet["block_out_channels"] = list }
      _ = try refusal(of: sound) { $0.vae["block_out_channels"] = list }
    }
  }
}
