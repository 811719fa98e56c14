import Foundation
import Testing

/// What `audiotoken` says when it cannot do what it is asked.
@Suite struct GenerateErrorTests {
  private let inputs: TemporaryFolder
  private let outputs: TemporaryFolder
  private let model: String

  init() throws {
    inputs = try TemporaryFolder()
    outputs = try TemporaryFolder()
    model = try TinyModel.shared.model
  }

  private func refuses(
    model: String? = nil, sound: String = TinyModel.sound, output: String? = nil, _ options: [String] = [],
    exitCode: Int32, naming name: String, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    try expectRefusal(
      .audiotoken,
      ["generate", model ?? self.model, sound, "-o", output ?? outputs / "picture.png"] + options, exitCode: exitCode,
      naming: name, leavingEmpty: outputs.path, sourceLocation: sourceLocation)
  }

  private func encodeRefuses(
    model: String? = nil, sound: String = TinyModel.sound, output: String? = nil, exitCode: Int32, naming name: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    try expectRefusal(
      .audiotoken, ["encode", model ?? self.model, sound, "-o", output ?? outputs / "token.npy"], exitCode: exitCode,
      naming: name, leavingEmpty: outputs.path, sourceLocation: sourceLocation)
  }

  private func inspectRefuses(
    _ model: String, exitCode: Int32, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    for options in [[], ["--json"], ["--verify"]] {
      try expectRefusal(
        .audiotoken, ["inspect", model] + options, exitCode: exitCode, naming: model, leavingEmpty: outputs.path,
        sourceLocation: sourceLocation)
    }
  }

  // MARK: Inputs

  @Test func aMissingFileIsNamed() throws {
    let missing = inputs / "missing"
    try refuses(model: missing, exitCode: 66, naming: missing)
    try refuses(sound: missing, exitCode: 66, naming: missing)
    try encodeRefuses(model: missing, exitCode: 66, naming: missing)
    try encodeRefuses(sound: missing, exitCode: 66, naming: missing)
    try inspectRefuses(missing, exitCode: 66)
  }

  @Test(arguments: ForeignFile.all) func aForeignFileIsNoModelAndNoSound(file: ForeignFile) throws {
    let path = try inputs.write("file", file.content.utf8)
    try refuses(model: path, exitCode: 65, naming: path)
    try refuses(sound: path, exitCode: 65, naming: path)
    try encodeRefuses(model: path, exitCode: 65, naming: path)
    try encodeRefuses(sound: path, exitCode: 65, naming: path)
    try inspectRefuses(path, exitCode: 65)
  }

  @Test func aFolderIsNoModelAndNoSound() throws {
    try refuses(model: inputs.path, exitCode: 65, naming: inputs.path)
    try refuses(sound: inputs.path, exitCode: 66, naming: inputs.path)
  }

  @Test func modelAndSoundInTheWrongOrderAreToldApart() throws {
    try refuses(model: TinyModel.sound, sound: model, exitCode: 65, naming: TinyModel.sound)
    try refuses(sound: model, exitCode: 65, naming: model)
  }

  @Test func aCheckpointIsNoModel() throws {
    let checkpoint = try TinyModel.shared.checkpoint
    for name in ["/beats.pt", "/sd/unet/diffusion_pytorch_model.safetensors", "/sd"] {
      try refuses(model: checkpoint + name, exitCode: 65, naming: checkpoint + name)
    }
  }

  @Test(arguments: [3, 40, 1000, 1_000_000, -1]) func aCutModelIsRefused(bytes count: Int) throws {
    let whole = try bytes(model)
    let path = try inputs.write("cut.gguf", whole.prefix(count > 0 ? count : whole.count + count))
    try refuses(model: path, exitCode: 65, naming: path)
    try inspectRefuses(path, exitCode: 65)
  }

  @Test(arguments: [20, 44, 1000]) func aCutSoundIsRefused(bytes count: Int) throws {
    let path = try inputs.write("cut.wav", bytes(TinyModel.sound).prefix(count))
    try refuses(sound: path, exitCode: 65, naming: path)
    try encodeRefuses(sound: path, exitCode: 65, naming: path)
  }

  // MARK: Settings

  @Test(
    arguments: [
      ["--steps", "0"], ["--steps=-3"], ["--steps", "1001"], ["--threads", "0"], ["--threads=-1"],
      ["--threads", "100000"], ["--width", "100"], ["--width", "0"], ["--width=-8"], ["--height", "70"],
      ["--height", "9223372036854775800"], ["--guidance", "nan"], ["--guidance=-1"], ["--start=-1"],
      ["--start", "1000000"], ["--seconds", "0"], ["--kernels", "abacus"],
    ])
  func aSettingThatCannotBeIsNamed(options: [String]) throws {
    let value = options.count == 2 ? options[1] : String(options[0].drop { $0 != "=" }.dropFirst())
    try refuses(options, exitCode: 64, naming: value)
  }

  @Test func aPromptWithoutThePlaceForTheSoundIsRefused() throws {
    try refuses(["--prompt", "a photo of a dog"], exitCode: 64, naming: "<*>")
    try refuses(["--prompt", ""], exitCode: 64, naming: "<*>")
    let long = String(repeating: "word ", count: 100) + "<*>"
    try refuses(["--prompt", long], exitCode: 64, naming: "<*>")
  }

  @Test(arguments: [["--steps", "many"], ["--sampler", "euler"], ["--seed=-1"], ["--no-such-option"]])
  func anOptionThatCannotBeReadIsAUsageError(options: [String]) throws {
    let outcome = try run(
      .audiotoken, ["generate", model, TinyModel.sound, "-o", outputs / "picture.png"] + options)
    #expect(outcome.exitCode == 64)
    #expect(outcome.errors.hasPrefix("Error: "))
    #expect(outcome.output.isEmpty)
  }

  // MARK: Outputs

  @Test func anOutputThatCannotBeWrittenIsFoundBeforeTheWork() throws {
    let file = try inputs.write("file", "".utf8)
    for output in [
      outputs / "no/such/folder/picture.png", file + "/picture.png", "/proc/picture.png", outputs.path, "/dev/full",
    ] {
      try refuses(output: output, exitCode: 73, naming: output)
      try encodeRefuses(output: output, exitCode: 73, naming: output)
    }
    try refuses(output: "", exitCode: 73, naming: "empty")
    try refuses(["--dump-tensors", file], exitCode: 73, naming: file)
  }

  @Test func theModelAndTheSoundAreNotOverwritten() throws {
    let sound = try inputs.write("sound.wav", bytes(TinyModel.sound))
    let link = inputs / "link.wav"
    try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: sound)
    for output in [sound, link] {
      try refuses(sound: sound, output: output, exitCode: 73, naming: output)
      try encodeRefuses(sound: sound, output: output, exitCode: 73, naming: output)
    }
    #expect(try bytes(sound) == bytes(TinyModel.sound))
  }

  @Test func anEarlyRefusalLeavesNoFolderForTensors() throws {
    try refuses(
      sound: inputs / "missing", ["--dump-tensors", outputs / "tensors"], exitCode: 66, naming: inputs / "missing")
  }

  @Test func anOlderPictureStaysWhenTheNewOneFails() throws {
    let older = try outputs.write("picture.png", "older".utf8)
    let outcome = try run(.audiotoken, ["generate", model, inputs / "missing", "-o", older])
    #expect(outcome.exitCode == 66)
    #expect(try bytes(older) == Data("older".utf8))
    #expect(try names(outputs.path) == ["picture.png"])
  }
}
