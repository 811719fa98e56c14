import Foundation
import Models
import Testing

@testable import Checkpoints
@testable import Converter

/// The names and shapes that published models have, made by Fixtures/make_fixtures.py.
private struct Published {
  struct Part {
    let config: JSONObject
    let shapes: [String: [Int]]
  }
  let name: String
  var parts: [Stage: Part] = [:]

  static func all() throws -> [Published] {
    let data = try Data(contentsOf: URL(fileURLWithPath: fixture("names.json")))
    let models = try #require(try JSONSerialization.jsonObject(with: data) as? [[String: Any]])
    var result = try models.map { model in
      var published = Published(name: try #require(model["name"] as? String))
      for stage in Stage.allCases {
        guard let part = model[stage.rawValue] as? [String: Any] else { continue }
        let rows = try #require(part["tensors"] as? [String])
        var shapes: [String: [Int]] = [:]
        for row in rows {
          let parts = row.split(separator: " ")
          shapes[String(parts[0])] = parts.count < 2 ? [] : parts[1].split(separator: "x").compactMap { Int($0) }
        }
        published.parts[stage] = Part(
          config: try configuration(try #require(part["config"] as? [String: Any])), shapes: shapes)
      }
      return published
    }
    // Pruned models are UNets that stand in for the first model's.
    for index in result.indices {
      for stage in Stage.allCases where result[index].parts[stage] == nil {
        result[index].parts[stage] = result[0].parts[stage]
      }
    }
    return result
  }

  private func settings(_ stage: Stage) throws -> JSONObject { try #require(parts[stage]).config }

  func modelConfiguration() throws -> ModelConfiguration {
    let shape = try #require(parts[.projector]?.shapes["fc2.weight"])
    return ModelConfiguration(
      beats: try ConfigurationReader.beats(settings(.beats)),
      projector: ProjectorConfiguration(featureWidth: shape[1], tokenWidth: shape[0]),
      text: try ConfigurationReader.text(settings(.text)), unet: try ConfigurationReader.unet(settings(.unet)),
      vae: try ConfigurationReader.vae(settings(.vae)))
  }
}

@Suite struct NameTests {
  /// What is in released files and has no part in making a picture of a sound.
  private static let ignored: [Stage: [String]] = [
    .vae: ["encoder.", "quant_conv."], .text: ["text_model.embeddings.position_ids", "embeddings.position_ids"],
    .beats: ["predictor."] + (1..<12).map { "encoder.layers.\($0).self_attn.relative_attention_bias.weight" },
  ]

  @Test("Every tensor of published models is asked for, by the name and in the size it has")
  func published() throws {
    let models = try Published.all()
    #expect(models.map(\.name) == ["Stable Diffusion 1.4", "Stable Diffusion 2.1", "BK-SDM-Small", "BK-SDM-Tiny"])
    for model in models {
      let configuration = try model.modelConfiguration()
      #expect(configuration.mismatches.isEmpty)
      var left = model.parts.mapValues { $0.shapes }
      /// Takes the tensor that `canonical` stands for and returns its size.
      func take(_ canonical: String, _ stage: Stage) -> Int? {
        let names = NameMap.candidates(canonical)
        guard let name = names.first(where: { left[stage]?[$0] != nil }) else { return nil }
        return left[stage]?.removeValue(forKey: name)?.reduce(1, *)
      }
      for request in try Manifest(configuration).requests {
        let stage = request.stage
        switch request {
        case .matrix("beats.encoder.pos_conv", let shape, _, _):
          let stem = "encoder.pos_conv.0."
          for (magnitude, direction) in [
            ("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"),
          ] where left[.beats]?[stem + direction] != nil {
            #expect(left[.beats]?.removeValue(forKey: stem + magnitude) == [1, 1, shape.taps])
            #expect(left[.beats]?.removeValue(forKey: stem + direction) == [shape.outputs, shape.inputs, shape.taps])
          }
          #expect(take(request.name + ".bias", stage) == shape.outputs)
        case .matrix(let name, let shape, _, _) where NameMap.phase(name) != nil:
          // All phases are of one tensor, which the UNet asks for by itself as well.
          guard stage == .vae, NameMap.phase(name) == 0 else { continue }
          #expect(take(name + ".weight", stage) == shape.outputs * shape.inputs * 9, "\(model.name): \(name)")
          #expect(take(name + ".bias", stage) == shape.outputs, "\(model.name): \(name)")
        case .matrix(let name, let shape, _, let bias):
          #expect(take(name + ".weight", stage) == shape.outputs * shape.inputs * shape.taps, "\(model.name): \(name)")
          if bias { #expect(take(name + ".bias", stage) == shape.outputs, "\(model.name): \(name)") }
        case .vector(let name, let dimensions):
          #expect(take(name, stage) == dimensions.reduce(1, *), "\(model.name): \(name)")
        case .table(let name, let rows, let columns):
          #expect(take(name + ".weight", stage) == rows * columns, "\(model.name): \(name)")
        }
      }
      for (stage, tensors) in left {
        for name in tensors.keys {
          let isIgnored = Self.ignored[stage, default: []].contains(where: name.hasPrefix)
          #expect(isIgnored, "\(model.name): \(name) is dropped")
          #expect(UnusedTensors.isExpected(name, in: stage) == isIgnored, "\(model.name): \(name)")
        }
      }
    }
  }

  @Test("No tensor that a network reads counts as expected but unused")
  func ignoredNames() throws {
    for model in try Published.all() {
      for request in try Manifest(try model.modelConfiguration()).requests {
        for name in NameMap.candidates(request.name + ".weight") {
          #expect(!UnusedTensors.isExpected(name, in: request.stage), "\(name)")
        }
      }
    }
    for (stage, name) in [
      (Stage.vae, "decoder.encoder.weight"), (.vae, "quant_conv2.weight"), (.text, "text_model.vision_model.weight"),
      (.beats, "encoder.layers.0.self_attn.k_proj.weight"), (.beats, "encoder.predictor.weight"), (.unet, "encoder.x"),
      (.beats, "encoder.layers.1.self_attn.relative_attention_bias"), (.projector, "predictor.weight"),
    ] { #expect(!UnusedTensors.isExpected(name, in: stage), "\(name)") }
    for (stage, name) in [
      (Stage.text, "vision_model.encoder.layers.0.mlp.fc1.weight"), (.text, "visual_projection.weight"),
      (.text, "logit_scale"), (.text, "text_projection.weight"), (.beats, "mask_emb"),
    ] { #expect(UnusedTensors.isExpected(name, in: stage), "\(name)") }
  }

  @Test("LoRA names are those that diffusers' attention processors write, for attention projections alone")
  func lora() {
    let found = NameMap.lora("unet.up_blocks.1.attentions.2.blocks.0.attn2.out")
    let stem = "up_blocks.1.attentions.2.transformer_blocks.0.attn2.processor.to_out_lora."
    #expect(found?.down == stem + "down.weight" && found?.up == stem + "up.weight")
    for name in [
      "unet.up_blocks.1.attentions.2.blocks.0.ff.out", "unet.conv_out", "vae.decoder.mid_block.attentions.0.q",
      "text.encoder.layers.0.self_attn.q", "unet.attn1",
    ] { #expect(NameMap.lora(name) == nil, "\(name)") }
  }

  @Test("Names that merely look like ours are left alone")
  func wholeComponents() {
    #expect(NameMap.candidates("unet.conv_out.weight") == ["conv_out.weight"])
    #expect(NameMap.candidates("unet.down_blocks.0.resnets.0.conv1.weight") == ["down_blocks.0.resnets.0.conv1.weight"])
    #expect(NameMap.candidates("nowhere.conv.weight").isEmpty)
  }
}
