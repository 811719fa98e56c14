import Foundation
import Testing

/// What a user who converts or compares learns about the quality.
@Suite struct QualityTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func report(_ name: String) throws -> [String: Any] {
    try parseObject(String(contentsOfFile: folder / "\(name)/report.json", encoding: .utf8))
  }

  private func values(_ report: [String: Any], _ key: String) throws -> [[String: Any]] {
    try #require(report[key] as? [[String: Any]])
  }

  @Test func aConversionIsComparedWithItsFloats() throws {
    let tiny = try TinyModel.shared
    let outcome = try succeed(
      .convert,
      TinyModel.conversion(of: tiny.checkpoint, to: folder / "tiny.gguf")
        + ["--quality", folder / "quality", "--sound", TinyModel.sound, "--seed=0", "--seed=1", "--steps", "3"])
    #expect(Set(try names(folder.path)) == ["tiny.gguf", "quality"], "the floats are gone")
    #expect(try bytes(folder / "tiny.gguf") == bytes(tiny.model))
    #expect(Set(try names(folder / "quality")) == ["report.md", "report.json", "pictures.png"])
    let report = try report("quality")
    let pictures = try values(report, "pictures")
    #expect(pictures.map { $0["seed"] as? String } == ["0", "1"])
    for picture in pictures {
      let psnr = try #require(picture["psnr"] as? Double)
      #expect(psnr > 40 && psnr < 60, "\(psnr)")
      let ssim = try #require(picture["ssim"] as? Double)
      #expect(ssim > 0.99 && ssim < 1)
      let stages = try #require(picture["stages"] as? [String: Double])
      #expect(stages["filter bank"] == 0)
      #expect(stages.count == 7)
      for (stage, error) in stages where stage != "filter bank" {
        #expect(error > 1e-4 && error < 0.1, "\(stage): \(error)")
      }
    }
    // Every int8 matrix of the file is among the layers but the table of tokens, and upsamplers that are not used.
    let tensors = try values(
      parseObject(succeed(.audiotoken, ["inspect", tiny.model, "--json", "--tensors"]).output), "tensors")
    let matrices = tensors.compactMap { tensor -> String? in
      guard tensor["type"] as? String == "i8", let name = tensor["name"] as? String else { return nil }
      return String(name.dropLast(".weight".count))
    }.filter { !$0.hasSuffix("token_embedding") && !$0.hasSuffix("upsamplers.0.conv") }
    let layers = try values(report, "layers")
    #expect(layers.compactMap { $0["name"] as? String } == matrices)
    #expect(matrices.count > 300)
    for layer in layers {
      let error = try #require(layer["error"] as? Double)
      #expect(error > 1e-4 && error < 0.05, "\(layer)")
    }
    let sheet = try PNGContents(folder / "quality/pictures.png")
    #expect((sheet.width, sheet.height) == (3 * 256 + 16, 2 * 256 + 8))
    let text = try String(contentsOfFile: folder / "quality/report.md", encoding: .utf8)
    let worst = try #require(layers.max { ($0["error"] as? Double ?? 0) < ($1["error"] as? Double ?? 0) })
    for part in ["# tiny.gguf", "| chirp.wav", "| first prediction", "| \(worst["name"] ?? "")"] {
      #expect(text.contains(part), "\(part)")
    }
    #expect(outcome.output.contains("PSNR") && outcome.output.contains("Worst layers, 10 of "))
  }

  @Test func equalFilesAreEqual() throws {
    let (tiny, model) = (try TinyModel.shared, folder / "f.gguf")
    try succeed(.convert, TinyModel.conversion(of: tiny.checkpoint, to: model) + ["--weights", "f32", "--quiet"])
    let arguments = ["compare", model, model, "--sound", TinyModel.sound, "--steps", "2"]
    let outcome = try succeed(.convert, arguments + ["-o", folder / "same"])
    let picture = try values(report("same"), "pictures")[0]
    #expect(picture["psnr"] is NSNull && picture["ssim"] as? Double == 1)
    let stages = try #require(picture["stages"] as? [String: Double])
    #expect(stages.values.allSatisfy { $0 == 0 })
    #expect(try values(report("same"), "layers").isEmpty)
    #expect(outcome.output.contains("equal"))
    #expect(try succeed(.convert, arguments + ["--quiet"]).output.isEmpty)
  }

  @Test func twoFilesCompareAsTheConversionDoes() throws {
    let tiny = try TinyModel.shared
    let settings = ["--sound", TinyModel.sound, "--steps", "2", "--guidance", "3", "--sampler", "ddim", "--quiet"]
    try succeed(
      .convert, TinyModel.conversion(of: tiny.checkpoint, to: folder / "f.gguf") + ["--weights", "f32", "--quiet"])
    try succeed(.convert, ["compare", tiny.model, folder / "f.gguf", "-o", folder / "a"] + settings)
    try succeed(
      .convert,
      TinyModel.conversion(of: tiny.checkpoint, to: folder / "tiny.gguf") + ["--quality", folder / "b"] + settings)
    #expect(try bytes(folder / "a/pictures.png") == bytes(folder / "b/pictures.png"))
    let (first, second) = (try values(report("a"), "layers"), try values(report("b"), "layers"))
    #expect(first.count > 300)
    #expect(NSArray(array: first) == NSArray(array: second))
    let text = try String(contentsOfFile: folder / "a/report.md", encoding: .utf8)
    #expect(text.contains("2 steps of ddim with guidance 3"))
  }

  @Test func whatCannotBeComparedIsRefusedBeforeTheWork() throws {
    let outputs = try TemporaryFolder()
    let tiny = try TinyModel.shared
    let missing = folder / "missing"
    let sound = ["--sound", TinyModel.sound]
    let converting = TinyModel.conversion(of: tiny.checkpoint, to: outputs / "m.gguf")
    let floats = folder / "f.gguf"
    try succeed(.convert, TinyModel.conversion(of: tiny.checkpoint, to: floats) + ["--weights", "f32", "--quiet"])
    let comparing = ["compare", tiny.model, floats]
    func refuses(_ arguments: [String], _ exitCode: Int32, naming name: String) throws {
      try expectRefusal(.convert, arguments, exitCode: exitCode, naming: name, leavingEmpty: outputs.path)
    }
    for (base, folder) in [(converting, ["--quality", outputs / "q"]), (comparing, ["-o", outputs / "q"])] {
      try refuses(base + folder, 64, naming: "--sound")
      try refuses(base + folder + ["--sound", missing], 66, naming: missing)
      try refuses(base + folder + ["--sound", tiny.model], 65, naming: tiny.model)
      try refuses(base + folder + sound + ["--steps", "0"], 64, naming: "--steps")
      try refuses(base + folder + sound + ["--guidance=-1"], 64, naming: "--guidance")
      try refuses(base + folder + sound + ["--seed=3", "--seed=3"], 64, naming: "--seed 3")
      let unreadable = try run(.convert, base + folder + sound + ["--seed", "one"])
      #expect(unreadable.exitCode == 64 && unreadable.errors.hasPrefix("Error: "))
    }
    for (base, option) in [(converting, "--quality"), (comparing, "-o")] {
      for place in [tiny.model, "/proc/quality", missing + "/quality"] {
        try refuses(base + sound + [option, place], 73, naming: place)
      }
    }
    for option in [["--sound", missing], ["--seed", "1"], ["--steps", "3"], ["--sampler", "ddim"]] {
      try refuses(converting + option, 64, naming: option[0])
    }
    try refuses(["compare", tiny.model, missing] + sound, 66, naming: missing)
    try refuses(["compare", floats, tiny.model] + sound, 65, naming: tiny.model)
    try refuses(["compare", TinyModel.sound, tiny.model] + sound, 65, naming: TinyModel.sound)
  }

  @Test func anInterruptedComparisonLeavesTheModelAlone() throws {
    let running = try RunningProgram(
      Program.convert.path,
      TinyModel.conversion(of: try TinyModel.shared.checkpoint, to: folder / "m.gguf")
        + ["--quality", folder / "quality", "--sound", TinyModel.sound, "--steps", "900"])
    try running.wait(forError: "comparing 1 of 1")
    running.send(SIGINT)
    #expect(try running.wait().exitCode == 130)
    #expect(try names(folder.path) == ["m.gguf"])
  }
}
