import Foundation
import Testing

@testable import Checkpoints

/// A model folder must be found whole, in whichever form its weights are, or say what is missing.
struct DiffusersFolderTests {
  private func makeFolder() throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    for component in ["unet", "vae", "text_encoder"] {
      _ = try folder.write("{\"who\": \"\(component)\"}", as: "\(component)/config.json")
      let stem = component == "text_encoder" ? "model" : "diffusion_pytorch_model"
      _ = try folder.copy("plain.safetensors", as: "\(component)/\(stem).safetensors")
    }
    _ = try folder.write("{}", as: "tokenizer/vocab.json")
    _ = try folder.write("#version: 0.2\n", as: "tokenizer/merges.txt")
    _ = try folder.write("{\"pad_token\": \"<|endoftext|>\"}", as: "tokenizer/tokenizer_config.json")
    _ = try folder.write("{\"steps_offset\": 1}", as: "scheduler/scheduler_config.json")
    return folder
  }

  @Test func aWholeFolderGivesEveryPart() throws {
    let folder = try makeFolder()
    let model = try openStableDiffusion(path: folder.path)
    for component in StableDiffusionComponent.allCases {
      let source = try model.component(component)
      #expect(try source.config.string("who") == component.rawValue)
      #expect(source.checkpoint.tensors["float32"]?.count == 24)
    }
    #expect(try model.schedulerConfig.int("steps_offset") == 1)
    #expect(model.tokenizerFiles?.merges.hasSuffix("tokenizer/merges.txt") == true)
    #expect(model.paddingToken == "<|endoftext|>")
  }

  @Test(arguments: [
    "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json", "text_encoder/config.json",
    "text_encoder/model.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt",
    "scheduler/scheduler_config.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler",
  ])
  func aMissingPartIsNamedWithItsFolder(part: String) throws {
    let folder = try makeFolder()
    try folder.remove(part)
    do {
      _ = try DiffusersFolder(path: folder.path)
      Issue.record("\(part) is not missed")
    } catch {
      let names = part.split(separator: "/").map(String.init)
      #expect(error.description.contains(names[names.count - 1]))
      guard case .missingPart(let place, _) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(place == (names.count == 2 ? "\(folder.path)/\(names[0])" : folder.path))
    }
  }

  @Test(arguments: StableDiffusionComponent.allCases)
  func theMostPreciseWeightsAreTaken(component: StableDiffusionComponent) throws {
    let folder = try makeFolder()
    let place = component.rawValue
    let stem = component == .textEncoder ? "model" : "diffusion_pytorch_model"
    let binary = component == .textEncoder ? "pytorch_model" : "diffusion_pytorch_model"
    let order = [
      "\(stem).safetensors", "\(stem).safetensors.index.json", "\(stem).fp16.safetensors",
      "\(stem).safetensors.index.fp16.json", "\(stem).fp16.safetensors.index.json", "\(binary).bin",
      "\(binary).bin.index.json", "\(binary).fp16.bin", "\(binary).bin.index.fp16.json",
      "\(binary).fp16.bin.index.json",
    ]
    _ = try folder.copy("plain.safetensors", as: "\(place)/part.safetensors")
    for name in order {
      if name.hasSuffix(".json") {
        _ = try folder.write("{\"weight_map\":{\"float32\":\"part.safetensors\"}}", as: "\(place)/\(name)")
      } else {
        _ = try folder.copy(name.hasSuffix(".bin") ? "plain.pt" : "plain.safetensors", as: "\(place)/\(name)")
      }
    }
    for name in order {
      let source = try DiffusersFolder(path: folder.path).component(component)
      #expect(source.checkpoint.files.first?.path == "\(folder.path)/\(place)/\(name)")
      #expect(source.checkpoint.tensors["float32"]?.count == 24)
      try folder.remove("\(place)/\(name)")
    }
    #expect(throws: CheckpointError.self) { try DiffusersFolder(path: folder.path) }
  }

  @Test(arguments: [
    ("{\"pad_token\": \"<|endoftext|>\"}", "{\"pad_token\": \"!\"}", "!"),
    ("{\"pad_token\": \"!\", \"added_tokens_decoder\": {}}", "{\"pad_token\": \"x\"}", "!"),
    ("{\"pad_token\": {\"content\": \"!\"}}", "{}", "!"), ("{}", "{\"pad_token\": null}", "<|endoftext|>"),
  ])
  func thePaddingTokenIsTheOneThatTransformersUses(config: String, map: String, expected: String) throws {
    let folder = try makeFolder()
    _ = try folder.write(config, as: "tokenizer/tokenizer_config.json")
    _ = try folder.write(map, as: "tokenizer/special_tokens_map.json")
    #expect(try DiffusersFolder(path: folder.path).paddingToken == expected)
  }

  @Test func aConfigurationThatIsNoJSONIsNamed() throws {
    let folder = try makeFolder()
    let path = try folder.write("version https://git-lfs.github.com/spec/v1\n", as: "unet/config.json")
    #expect(throws: CheckpointError.wrongKind(file: path, found: .largeFilePointer, expected: "a JSON dictionary")) {
      try DiffusersFolder(path: folder.path)
    }
    _ = try folder.write("{\"a\": 1,}", as: "unet/config.json")
    #expect(throws: CheckpointError.self) { try DiffusersFolder(path: folder.path) }
    #expect(throws: CheckpointError.missing(file: "/nowhere")) { try openStableDiffusion(path: "/nowhere") }
    #expect(throws: CheckpointError.notFolder(path: path)) { try DiffusersFolder(path: path) }
  }
}

/// A setting of the wrong type must be named with its file, what it is and what it should be.
struct JSONObjectTests {
  private let object = JSONObject(
    file: "c.json",
    values: [
      "int": .integer(3), "number": .number(0.5), "text": .string("a"), "flag": .bool(true), "null": .null,
      "list": .array([.integer(1), .integer(2)]), "words": .array([.string("x")]),
    ])

  @Test func valuesOfTheRightTypeAreReturned() throws {
    #expect(try object.int("int") == 3)
    #expect(try object.double("int") == 3)
    #expect(try object.double("number") == 0.5)
    #expect(try object.bool("flag"))
    #expect(try object.string("text") == "a")
    #expect(try object.ints("list") == [1, 2])
    #expect(try object.ints("list", count: 2) == [1, 2])
    #expect(try object.ints("int", count: 2) == [3, 3])
    #expect(try object.strings("words") == ["x"])
  }

  @Test func absentAndNullTakeTheDefaultAndWrongTypesDoNot() throws {
    for key in ["absent", "null"] {
      #expect(try object.int(key, default: 8) == 8)
      #expect(try object.double(key, default: 0.25) == 0.25)
      #expect(try object.bool(key, default: true))
      #expect(try object.string(key, default: "d") == "d")
      #expect(try object.ints(key, count: 2, default: 5) == [5, 5])
    }
    let wrong = CheckpointError.setting(file: "c.json", key: "text", found: "\"a\"", expected: "an integer")
    #expect(throws: wrong) { try object.int("text", default: 8) }
    #expect(throws: wrong) { try object.int("text") }
    let absent = CheckpointError.setting(file: "c.json", key: "absent", found: "absent", expected: "a string")
    #expect(throws: absent) { try object.string("absent") }
    #expect(throws: CheckpointError.self) { try object.bool("int") }
    #expect(throws: CheckpointError.self) { try object.double("flag") }
    #expect(throws: CheckpointError.self) { try object.ints("list", count: 3) }
    #expect(throws: CheckpointError.self) { try object.ints("words") }
    #expect(throws: CheckpointError.self) { try object.strings("list") }
  }

  @Test func textWithEscapesIsReadAsPythonWritesIt() throws {
    let folder = try TemporaryFolder()
    let text = #"{"a\u00e9\ud83d\ude00\n\"\\\/": [1e-05, -0.5, 12, 1e400, NaN, -Infinity], "é": {}}"#
    let parsed = try JSONObject(contentsOf: folder.write(text, as: "c.json"))
    guard case .array(let numbers) = parsed.values["aé😀\n\"\\/"] else {
      Issue.record("the key is \(parsed.values.keys)")
      return
    }
    #expect(numbers[..<4] == [.number(1e-05), .number(-0.5), .integer(12), .number(.infinity)])
    guard case .number(let value) = numbers[4] else {
      Issue.record("NaN is \(numbers[4])")
      return
    }
    #expect(value.isNaN)
    #expect(numbers[5] == .number(-.infinity))
    #expect(parsed.values["é"] == .object([:]))
  }
}
