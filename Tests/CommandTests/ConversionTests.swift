import Foundation
import Testing

/// What a user gets from checkpoints.
@Suite struct ConversionTests {
  @Test func theSameCheckpointGivesTheSameModel() throws {
    let folder = try TemporaryFolder()
    let tiny = try TinyModel.shared
    try FileManager.default.createDirectory(atPath: folder / "again", withIntermediateDirectories: true)
    // The name of the model is that of its file.
    let again = folder / "again/tiny.gguf"
    try succeed(.convert, TinyModel.conversion(of: tiny.checkpoint, to: again))
    #expect(try bytes(again) == bytes(tiny.model))
  }

  @Test func aModelInOneFileFindsCLIPsMergesBesideTheConverter() {
    let places = ["audiotoken-edge_Converter.resources", "../share/audiotoken"]
    let found = places.filter { FileManager.default.fileExists(atPath: "\(Program.folder)/\($0)/clip_merges.txt") }
    #expect(!found.isEmpty)
  }

  @Test func theConverterPrintsSizeAndErrorOfEachStage() throws {
    let folder = try TemporaryFolder()
    let outcome = try succeed(
      .convert, TinyModel.conversion(of: try TinyModel.shared.checkpoint, to: folder / "m.gguf"))
    let lines = outcome.output.split(separator: "\n")
    #expect(
      lines.dropFirst().map { $0.split(separator: " ")[0] } == [
        "beats", "projector", "text", "unet", "vae", "\(folder / "m.gguf"):",
      ])
    for line in lines.dropFirst().dropLast() { #expect(line.hasSuffix(" %")) }
  }

  @Test func aLoRAChangesTheModelAndWeightTypesChangeItsSize() throws {
    let folder = try TemporaryFolder()
    let tiny = try TinyModel.shared
    func size(_ options: [String]) throws -> Int {
      try succeed(.convert, TinyModel.conversion(of: tiny.checkpoint, to: folder / "m.gguf") + options + ["--quiet"])
      return try bytes(folder / "m.gguf").count
    }
    let int8 = try bytes(tiny.model)
    _ = try size(["--lora", tiny.checkpoint + "/lora.bin"])
    for (model, picture) in [(tiny.model, "plain.png"), (folder / "m.gguf", "folded.png")] {
      try succeed(.audiotoken, ["generate", model, TinyModel.sound, "-o", folder / picture, "--steps", "1"])
    }
    #expect(try pixels(folder / "plain.png") != pixels(folder / "folded.png"))
    let half = try size(["--weights", "f16"])
    #expect(half > int8.count)
    #expect(try size(["--weights", "f32"]) > half)
  }

  @Test func theFileSaysWhetherItsCodesArePaired() throws {
    let folder = try TemporaryFolder()
    let checkpoint = try TinyModel.shared.checkpoint
    func limit(_ options: [String], _ name: String = "pair") throws -> Int? {
      try succeed(.convert, TinyModel.conversion(of: checkpoint, to: folder / "m.gguf") + options + ["--quiet"])
      let report = try parseObject(succeed(.audiotoken, ["inspect", folder / "m.gguf", "--json"]).output)
      return try #require(report["settings"] as? [String: Any])["audiotoken.weights.\(name)_limit"] as? Int
    }
    #expect(try limit(["--codes", "pairs"]) == 128)
    #expect(try limit(["--codes", "pairs"], "four") == nil)
    #expect(try limit(["--codes", "fours"], "four") == 128)
    #expect(try limit(["--codes", "full"]) == nil)
    // Nobody trained these weights: they are drawn evenly.
    #expect(try limit([]) == nil)
    let unknown = try run(.convert, TinyModel.conversion(of: checkpoint, to: folder / "n.gguf") + ["--codes", "even"])
    #expect(unknown.exitCode == 64 && unknown.errors.contains("full") && unknown.errors.contains("pairs"))
  }

  @Test func convolutionsAreConvertedAsAsked() throws {
    let folder = try TemporaryFolder()
    let checkpoint = try TinyModel.shared.checkpoint
    let key = "audiotoken.weights.convolutions"
    func convert(_ options: [String], to name: String) throws -> Any? {
      let output = folder / name
      try succeed(.convert, TinyModel.conversion(of: checkpoint, to: output) + options + ["--quiet"])
      try succeed(.audiotoken, ["inspect", output, "--verify"])
      let report = try parseObject(succeed(.audiotoken, ["inspect", output, "--json"]).output)
      return try #require(report["settings"] as? [String: Any])[key]
    }
    #expect(try convert([], to: "default.gguf") as? String == "winograd")
    #expect(try convert(["--codes", "fours"], to: "fours.gguf") as? String == "winograd")
    #expect(try convert(["--convolutions", "direct"], to: "direct.gguf") == nil)
    for name in ["fours", "direct"] {
      try succeed(
        .audiotoken,
        ["generate", folder / "\(name).gguf", TinyModel.sound, "--steps", "1", "-o", folder / "p.png", "--quiet"])
    }
    let unknown = try run(
      .convert, TinyModel.conversion(of: checkpoint, to: folder / "n.gguf") + ["--convolutions", "fast"])
    #expect(unknown.exitCode == 64 && unknown.errors.contains("winograd") && unknown.errors.contains("direct"))
  }

  @Test func inspectShowsSettingsAndSizes() throws {
    let model = try TinyModel.shared.model
    let text = try succeed(.audiotoken, ["inspect", model]).output
    #expect(text.hasPrefix(model + ": "))
    for word in ["general.architecture = ", "beats ", "projector ", "text ", "unet ", "vae "] {
      #expect(text.contains(word), "\(word)")
    }
    let report = try parseObject(succeed(.audiotoken, ["inspect", model, "--json", "--tensors"]).output)
    #expect(Set(report.keys) == ["file", "bytes", "hash", "settings", "stages", "tensors"])
    let size = try bytes(model).count
    #expect(report["bytes"] as? Int == size)
    #expect((report["hash"] as? String)?.count == 64)
    let settings = try #require(report["settings"] as? [String: Any])
    #expect(settings["general.architecture"] as? String == "audiotoken")
    #expect(settings["audiotoken.unet.block_channels"] as? [Int] == [32, 64, 64, 64])
    #expect((settings["audiotoken.source.sha256"] as? [String])?.count == 5)
    let stages = try #require(report["stages"] as? [String: [String: Int]])
    #expect(Set(stages.keys) == ["beats", "projector", "text", "unet", "vae"])
    let tensors = try #require(report["tensors"] as? [[String: Any]])
    let total = tensors.reduce(0) { $0 + ($1["bytes"] as? Int ?? 0) }
    #expect(stages.values.reduce(0) { $0 + ($1["bytes"] ?? 0) } == total)
    #expect(total > 0)
  }

  @Test func verifyFindsASingleChangedBit() throws {
    let folder = try TemporaryFolder()
    let model = try TinyModel.shared.model
    #expect(try succeed(.audiotoken, ["inspect", model, "--verify"]).output.contains("all checksums are right"))
    var damaged = try bytes(model)
    damaged[damaged.count / 2] ^= 1
    let path = try folder.write("damaged.gguf", damaged)
    let outcome = try run(.audiotoken, ["inspect", path, "--verify"])
    #expect(outcome.exitCode == 65)
    #expect(outcome.errors.contains("\(path) is damaged: tensor "))
  }
}
