import Foundation
import Testing

@testable import Checkpoints

/// A single file with the original names must give the tensors and configurations that diffusers makes of it.
struct LatentDiffusionTests {
  /// One row of a table of names: an original tensor and what diffusers' converter makes of it.
  private struct Row {
    let original: String
    let shape: [Int]
    let component: StableDiffusionComponent?
    let targets: [Target]
  }

  private struct Target {
    let name: String
    let first: Int
    let shape: [Int]
  }

  private struct Table {
    let rows: [Row]
    let configs: JSONObject

    init(_ name: String) throws {
      let object = try JSONObject(contentsOf: fixture(name))
      configs = JSONObject(file: name, values: try members(object.values["configs"]))
      rows = try elements(object.values["rows"]).map { row in
        let fields = try elements(row)
        let shape = try elements(fields[1]).map(integer)
        return Row(
          original: try text(fields[0]), shape: shape,
          component: StableDiffusionComponent(rawValue: try text(fields[2])),
          targets: try fields.dropFirst(3).map { target in
            let parts = try elements(target)
            return Target(
              name: try text(parts[0]), first: parts.count > 1 ? try integer(parts[1]) : 0,
              shape: parts.count > 2 ? try elements(parts[2]).map(integer) : shape)
          })
      }
    }
  }

  /// The value of element `index` of the tensor in row `row`: small integers, which float32 holds exactly.
  private static func value(_ row: Int, _ index: Int) -> Float { Float((row * 131 + index) % 65_521) }

  private func write(_ rows: [Row], to folder: TemporaryFolder) throws -> String {
    var entries: [String] = []
    var data = Data()
    for (number, row) in rows.enumerated() {
      let count = row.shape.reduce(1, *)
      let values = (0..<count).map { LatentDiffusionTests.value(number, $0) }
      entries.append(
        "\"\(row.original)\":{\"dtype\":\"F32\",\"shape\":\(row.shape),\"data_offsets\":[\(data.count),"
          + "\(data.count + count * 4)]}")
      values.withUnsafeBytes { data.append(contentsOf: $0) }
    }
    var file = safetensors(header: "{\(entries.joined(separator: ","))}", dataBytes: 0)
    file.append(data)
    return try folder.write(file, as: "model.safetensors")
  }

  @Test(arguments: ["ldm_sd1.json", "ldm_sd2.json"])
  func everyTensorGetsTheNameShapeAndValuesThatDiffusersGivesIt(name: String) throws {
    let folder = try TemporaryFolder()
    let table = try Table(name)
    let model = try openStableDiffusion(path: write(table.rows, to: folder))
    for component in StableDiffusionComponent.allCases {
      let tensors = try model.component(component).checkpoint.tensors
      var expectedNames: Set<String> = []
      for (number, row) in table.rows.enumerated() where row.component == component {
        for target in row.targets {
          expectedNames.insert(target.name)
          let tensor = try #require(tensors[target.name], "\(target.name)")
          #expect(tensor.name == target.name)
          #expect(tensor.shape == target.shape, "\(target.name)")
          let isRight = tensor.floats().enumerated().allSatisfy {
            $1 == LatentDiffusionTests.value(number, target.first + $0)
          }
          #expect(isRight, "\(target.name)")
        }
      }
      #expect(!expectedNames.isEmpty)
      #expect(Set(tensors.keys) == expectedNames)
    }
  }

  @Test(arguments: ["ldm_sd1.json", "ldm_sd2.json"])
  func theInferredConfigurationIsTheOneDiffusersBuildsTheModelWith(name: String) throws {
    let folder = try TemporaryFolder()
    let table = try Table(name)
    let model = try openStableDiffusion(path: write(table.rows, to: folder))
    for component in StableDiffusionComponent.allCases {
      let expected = try members(table.configs.values[component.rawValue])
      for (key, value) in try model.component(component).config.values where key != "_class_name" {
        #expect(value == expected[key], "\(component) \(key)")
      }
    }
    #expect(
      try model.schedulerConfig.string("prediction_type") == (name == "ldm_sd1.json" ? "epsilon" : "v_prediction"))
    #expect(model.paddingToken == (name == "ldm_sd1.json" ? "<|endoftext|>" : "!"))
    #expect(model.tokenizerFiles == nil)
  }

  @Test func thePredictionTypeAndTheConfigurationsCanBeGiven() throws {
    let folder = try TemporaryFolder()
    let path = try write(Table("ldm_sd2.json").rows, to: folder)
    let base = try openStableDiffusion(path: path, predictionType: "epsilon")
    #expect(try base.schedulerConfig.string("prediction_type") == "epsilon")
    #expect(try base.component(.unet).config.int("sample_size") == 64)
    _ = try folder.write("{\"sample_size\": 7}", as: "configs/unet/config.json")
    _ = try folder.write("{\"steps_offset\": 0}", as: "configs/scheduler/scheduler_config.json")
    let given = try openStableDiffusion(path: path, configFolder: "\(folder.path)/configs")
    #expect(try given.component(.unet).config.int("sample_size") == 7)
    #expect(try given.schedulerConfig.int("steps_offset") == 0)
    #expect(try given.component(.vae).config.int("latent_channels") == 4)
    #expect(throws: CheckpointError.missing(file: "/nowhere")) {
      try openStableDiffusion(path: path, configFolder: "/nowhere")
    }
  }

  @Test(arguments: [
    "model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.2.weight",
    "model.diffusion_model.input_blocks.1.0.in_layers.2.weight",
    "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
    "first_stage_model.decoder.conv_in.weight", "first_stage_model.decoder.up.0.block.0.conv1.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
  ])
  func aFileWithoutOneOfTheNetworksIsRefused(missing: String) throws {
    let folder = try TemporaryFolder()
    let path = try write(Table("ldm_sd1.json").rows.filter { $0.original != missing }, to: folder)
    #expect(throws: CheckpointError.self) { try openStableDiffusion(path: path) }
  }

  @Test(arguments: [
    "model.diffusion_model.label_emb.0.0.weight",
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.1.norm1.weight",
    "model.diffusion_model.input_blocks.99999999999999999999.0.op.weight",
    "model.diffusion_model.output_blocks.-1.0.op.weight", "model.diffusion_model.input_blocks..0.op.weight",
    "model.diffusion_model.weight", "model.diffusion_model.",
  ])
  func aUNetWithPartsThatWeDoNotHaveIsRefusedByName(extra: String) throws {
    let folder = try TemporaryFolder()
    let path = try write(
      Table("ldm_sd1.json").rows + [Row(original: extra, shape: [1], component: nil, targets: [])], to: folder)
    #expect(
      throws: CheckpointError.unknownTensor(
        file: path, tensor: extra, purpose: "the UNet of Stable Diffusion 1.x or 2.x")
    ) { try openStableDiffusion(path: path) }
  }

  @Test(arguments: ["model.diffusion_model.", "first_stage_model.", "cond_stage_model."])
  func tensorsOfAnyOtherShapeAreReadOrRefused(prefix: String) throws {
    let folder = try TemporaryFolder()
    let rows = try Table("ldm_sd2.json").rows
    for shape in [[], [0], [1], [3], [0, 0, 0, 0], [1, 0], [2, 1, 1, 1]] {
      let altered = rows.map { row in
        Row(
          original: row.original, shape: row.original.hasPrefix(prefix) ? shape : [1, 1], component: nil, targets: [])
      }
      #expect(throws: CheckpointError.self) { try openStableDiffusion(path: write(altered, to: folder)) }
    }
  }
}

private func elements(_ value: JSONValue?) throws -> [JSONValue] {
  guard case .array(let elements) = value else { throw TableError() }
  return elements
}

private func members(_ value: JSONValue?) throws -> [String: JSONValue] {
  guard case .object(let members) = value else { throw TableError() }
  return members
}

private func text(_ value: JSONValue) throws -> String {
  guard case .string(let text) = value else { throw TableError() }
  return text
}

private func integer(_ value: JSONValue) throws -> Int {
  guard case .integer(let number) = value else { throw TableError() }
  return number
}

private struct TableError: Error {}
