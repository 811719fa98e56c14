import Foundation
import Testing

/// What `audiotoken-convert` says when it cannot do what it is asked.
@Suite struct ConversionErrorTests {
  private let folder: TemporaryFolder
  private let outputs: TemporaryFolder
  /// Links to the files of a whole checkpoint, for the test to replace.
  private let checkpoint: String

  init() throws {
    folder = try TemporaryFolder()
    outputs = try TemporaryFolder()
    checkpoint = try TinyModel.shared.linkedCheckpoint(in: folder)
  }

  private func refuses(
    naming name: String, exitCode: Int32 = 65, output: String? = nil, _ options: [String] = [],
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    try expectRefusal(
      .convert, TinyModel.conversion(of: checkpoint, to: output ?? outputs / "model.gguf") + options,
      exitCode: exitCode, naming: name, leavingEmpty: outputs.path, sourceLocation: sourceLocation)
  }

  private func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: "\(checkpoint)/\(name)") }

  private func replace(_ name: String, _ content: some Sequence<UInt8>) throws {
    try remove(name)
    try Data(content).write(to: URL(fileURLWithPath: "\(checkpoint)/\(name)"))
  }

  private func set(_ key: String, to value: Any, in name: String) throws {
    var object = try parseObject(String(contentsOfFile: "\(checkpoint)/\(name)", encoding: .utf8))
    object[key] = value
    try replace(name, JSONSerialization.data(withJSONObject: object))
  }

  @Test func theLinksConvert() throws {
    try succeed(.convert, TinyModel.conversion(of: checkpoint, to: outputs / "tiny.gguf") + ["--quiet"])
    #expect(try bytes(outputs / "tiny.gguf") == bytes(TinyModel.shared.model))
  }

  // MARK: Missing and foreign files

  private static let files = [
    "beats.pt", "embedder.bin", "sd/unet/config.json", "sd/unet/diffusion_pytorch_model.safetensors",
    "sd/vae/config.json", "sd/vae/diffusion_pytorch_model.safetensors", "sd/text_encoder/config.json",
    "sd/text_encoder/model.safetensors", "sd/tokenizer/vocab.json", "sd/tokenizer/merges.txt",
    "sd/scheduler/scheduler_config.json",
  ]

  @Test(arguments: files) func aMissingFileIsNamed(name: String) throws {
    try remove(name)
    let isPart = name.hasPrefix("sd/")
    // Of weights in a folder it names all spellings, of other files the one there is.
    let part = name.hasSuffix("safetensors") ? "a weight file" : (name as NSString).lastPathComponent
    try refuses(naming: part, exitCode: isPart ? 65 : 66)
    try refuses(naming: ("\(checkpoint)/\(name)" as NSString).deletingLastPathComponent, exitCode: isPart ? 65 : 66)
  }

  @Test(arguments: ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
  func aMissingComponentIsNamed(name: String) throws {
    try remove("sd/" + name)
    try refuses(naming: "\(checkpoint)/sd: expected a folder \(name)")
  }

  @Test func aMissingCheckpointIsNamed() throws {
    try refuses(naming: folder / "lora.bin", exitCode: 66, ["--lora", folder / "lora.bin"])
    try remove("sd")
    try refuses(naming: checkpoint + "/sd", exitCode: 66)
  }

  @Test(arguments: files, ForeignFile.all) func aForeignFileIsNoCheckpoint(name: String, file: ForeignFile) throws {
    try replace(name, file.content.utf8)
    try refuses(naming: "\(checkpoint)/\(name)")
  }

  @Test(arguments: ForeignFile.all) func aForeignFileIsNoLoRAAndNoModelInOneFile(file: ForeignFile) throws {
    let path = try folder.write("file", file.content.utf8)
    try refuses(naming: path, ["--lora", path])
    try FileManager.default.removeItem(atPath: checkpoint + "/sd")
    try FileManager.default.createSymbolicLink(atPath: checkpoint + "/sd", withDestinationPath: path)
    try refuses(naming: checkpoint + "/sd")
  }

  @Test(arguments: files, [10, 300, -2]) func aCutFileIsRefused(name: String, bytes count: Int) throws {
    let whole = try bytes("\(checkpoint)/\(name)")
    try replace(name, whole.prefix(count > 0 ? count : whole.count + count))
    try refuses(naming: "\(checkpoint)/\(name)")
  }

  @Test func checkpointsInEachOthersPlacesAreToldApart() throws {
    let (beats, embedder) = (try bytes(checkpoint + "/beats.pt"), try bytes(checkpoint + "/embedder.bin"))
    try replace("beats.pt", embedder)
    try refuses(naming: checkpoint + "/beats.pt")
    try replace("beats.pt", beats)
    try replace("embedder.bin", beats)
    try refuses(naming: checkpoint + "/embedder.bin")
  }

  // MARK: Shapes and settings

  @Test func anEmbedderOfAnotherWidthIsNamed() throws {
    try replace(
      "embedder.bin",
      safetensors(["fc2.weight": [96, 192]]))
    try refuses(naming: "\(checkpoint)/embedder.bin: projector.token_width is 96, expected 64")
  }

  @Test func aLoRAOfAnotherModelIsNamed() throws {
    let attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora."
    let wide = try folder.write(
      "wide.safetensors", safetensors([attention + "down.weight": [4, 320], attention + "up.weight": [320, 4]]))
    try refuses(naming: wide, ["--lora", wide])
    let half = try folder.write("half.safetensors", safetensors([attention + "down.weight": [4, 32]]))
    try refuses(naming: half, ["--lora", half])
    let foreign = try folder.write("foreign.safetensors", safetensors(["lora_te_text_model.alpha": [1]]))
    try refuses(naming: foreign, ["--lora", foreign])
  }

  /// A file of the checkpoint, and a setting that does not fit the others or cannot be.
  struct Change: CustomTestStringConvertible, @unchecked Sendable {
    let file: String
    let key: String
    let value: Any
    /// The file that the sentence names, where it is not the changed one.
    var named: String?
    var testDescription: String { "\(file) \(key) \(value)" }

    static func unet(_ key: String, _ value: Any, named: String? = nil) -> Change {
      Change(file: "sd/unet/config.json", key: key, value: value, named: named)
    }
    static func vae(_ key: String, _ value: Any, named: String? = nil) -> Change {
      Change(file: "sd/vae/config.json", key: key, value: value, named: named)
    }
    static func text(_ key: String, _ value: Any, named: String? = nil) -> Change {
      Change(file: "sd/text_encoder/config.json", key: key, value: value, named: named)
    }
    static func scheduler(_ key: String, _ value: Any) -> Change {
      Change(file: "sd/scheduler/scheduler_config.json", key: key, value: value)
    }

    static let all: [Change] = [
      .unet("block_out_channels", [32, 64, 64, 96], named: "sd/unet/diffusion_pytorch_model.safetensors"),
      .unet("block_out_channels", [33, 64, 64, 64]), .unet("block_out_channels", [32, 64, 64]),
      .unet("block_out_channels", [-32, 64, 64, 64]), .unet("block_out_channels", [99_999_999_999, 64, 64, 64]),
      .unet("layers_per_block", 2, named: "sd/unet/diffusion_pytorch_model.safetensors"),
      .unet("cross_attention_dim", 96), .unet("norm_num_groups", 0), .unet("attention_head_dim", 0),
      .unet("attention_head_dim", 5), .unet("sample_size", -1), .unet("sample_size", Int.max), .unet("norm_eps", -1),
      .unet("down_block_types", ["A", "B"]), .unet("act_fn", "gelu"),
      .unet("in_channels", 5, named: "sd/vae/config.json"), .vae("latent_channels", 8),
      .vae("block_out_channels", [32, 32, 64, 65]), .vae("scaling_factor", 0), .vae("layers_per_block", -1),
      .text("hidden_size", 96, named: "embedder.bin"), .text("hidden_size", -1), .text("num_attention_heads", 0),
      .text("num_hidden_layers", 1_000_000_000), .text("vocab_size", 49407, named: "sd/text_encoder/model.safetensors"),
      .text("max_position_embeddings", 5, named: "sd/text_encoder/model.safetensors"),
      .scheduler("num_train_timesteps", 0), .scheduler("num_train_timesteps", -5), .scheduler("beta_start", 5),
      .scheduler("beta_schedule", "cosine"), .scheduler("steps_offset", 5000),
      .scheduler("prediction_type", "sample"),
    ]
  }

  @Test(arguments: Change.all) func aSettingThatDoesNotFitIsRefused(change: Change) throws {
    try set(change.key, to: change.value, in: change.file)
    try refuses(naming: "\(checkpoint)/\(change.named ?? change.file)")
  }

  @Test func optionsForModelsInOneFileAreRefusedForAFolder() throws {
    try refuses(naming: "--config", exitCode: 64, ["--config", checkpoint + "/sd"])
    try refuses(naming: "--prediction", exitCode: 64, ["--prediction", "epsilon"])
  }

  // MARK: Outputs

  @Test func anOutputThatCannotBeWrittenIsFoundBeforeTheWork() throws {
    let file = try folder.write("file", "".utf8)
    for output in [outputs / "no/such/model.gguf", file + "/model.gguf", "/proc/model.gguf", outputs.path, "/dev/full"]
    {
      try refuses(naming: output, exitCode: 73, output: output)
    }
  }

  @Test func aCheckpointIsNotOverwritten() throws {
    let before = try bytes(checkpoint + "/beats.pt")
    try refuses(naming: checkpoint + "/beats.pt", exitCode: 73, output: checkpoint + "/beats.pt")
    #expect(try bytes(checkpoint + "/beats.pt") == before)
  }
}
