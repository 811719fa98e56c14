import Foundation
import Testing

/// What a user gets from a model and a sound.
@Suite struct PictureTests {
  private func generate(_ output: String, _ options: [String] = []) throws -> Outcome {
    try succeed(
      .audiotoken, ["generate", try TinyModel.shared.model, TinyModel.sound, "-o", output, "--steps", "2"] + options)
  }

  @Test func theSameCommandGivesTheSamePictureWithAnyNumberOfThreads() throws {
    let folder = try TemporaryFolder()
    _ = try generate(folder / "default.png")
    let expected = try bytes(folder / "default.png")
    for threads in [1, 2, 3] {
      let name = folder / "\(threads).png"
      _ = try generate(name, ["--threads", String(threads)])
      #expect(try bytes(name) == expected, "\(threads) threads")
    }
  }

  @Test func seedPromptSoundAndSamplerEachChangeThePicture() throws {
    let folder = try TemporaryFolder()
    let variants: [[String]] = [
      [], ["--seed", "1"], ["--prompt", "a drawing of <*>"], ["--negative", "dark"], ["--sampler", "ddim"],
      ["--guidance", "1"], ["--seconds", "0.3"], ["--start", "0.2"], ["--steps", "3"],
    ]
    var pictures: Set<Data> = []
    for (index, options) in variants.enumerated() {
      _ = try generate(folder / "\(index).png", options)
      pictures.insert(try pixels(folder / "\(index).png"))
    }
    #expect(pictures.count == variants.count)
  }

  @Test func theSizeIsTheOneAskedForAndTheModelsOwnByDefault() throws {
    let folder = try TemporaryFolder()
    _ = try generate(folder / "own.png")
    let own = try PNGContents(folder / "own.png")
    #expect((own.width, own.height) == (128, 128))
    _ = try generate(folder / "wide.png", ["--width", "136", "--height", "72"])
    let wide = try PNGContents(folder / "wide.png")
    #expect((wide.width, wide.height) == (136, 72))
  }

  @Test func thePictureSaysHowItWasMade() throws {
    let folder = try TemporaryFolder()
    let prompt = "ein Foto von <*>, \u{1F415} \"quoted\""
    _ = try generate(folder / "p.png", ["--prompt", prompt, "--negative", "dark", "--seed", "18446744073709551615"])
    let texts = try PNGContents(folder / "p.png").texts
    let model = try parseObject(succeed(.audiotoken, ["inspect", try TinyModel.shared.model, "--json"]).output)
    let soundHash = try RunningProgram("/usr/bin/sha256sum", [TinyModel.sound]).wait().output.prefix(64)
    let modelHash = try #require(model["hash"] as? String)
    #expect(
      texts == [
        "Software": "audiotoken", "audiotoken:prompt": prompt, "audiotoken:negative": "dark", "audiotoken:steps": "2",
        "audiotoken:guidance": "7.5", "audiotoken:sampler": "pndm", "audiotoken:seed": "18446744073709551615",
        "audiotoken:size": "128x128", "audiotoken:model": modelHash,
        "audiotoken:sound": String(soundHash),
      ])
  }

  @Test func jsonDescribesTheRunAndQuietSilencesProgress() throws {
    let folder = try TemporaryFolder()
    let outcome = try generate(folder / "p.png", ["--json", "--quiet", "--seed", "7"])
    #expect(outcome.errors.isEmpty)
    let report = try parseObject(outcome.output)
    #expect(
      Set(report.keys) == ["output", "width", "height", "seconds", "peak_resident_bytes", "settings", "stages"])
    #expect(report["output"] as? String == folder / "p.png")
    #expect(report["width"] as? Int == 128)
    let seconds = try #require(report["seconds"] as? Double)
    #expect(seconds > 0)
    let peak = try #require(report["peak_resident_bytes"] as? Int)
    #expect(peak > 1_000_000)
    let texts = try PNGContents(folder / "p.png").texts
    #expect(report["settings"] as? [String: String] == texts)
    let stages = try #require(report["stages"] as? [[String: Any]])
    #expect(stages.map { $0["stage"] as? String } == ["audio", "beats", "projector", "text", "unet", "vae"])
    for stage in stages {
      #expect(Set(stage.keys) == ["stage", "seconds", "resident_bytes", "peak_resident_bytes"])
    }
  }

  @Test func progressNamesEachStage() throws {
    let folder = try TemporaryFolder()
    let outcome = try generate(folder / "p.png")
    let words = outcome.errors.split(separator: "\n").compactMap { $0.split(separator: " ").first }
    #expect(words == ["sound", "BEATs", "token", "text", "UNet", "decoder", "\(folder / "p.png"):"])
    #expect(outcome.output.isEmpty)
  }

  @Test func tensorsAreDumpedUnderTheNamesOfTheReference() throws {
    let folder = try TemporaryFolder()
    _ = try generate(folder / "p.png", ["--dump-tensors", folder / "tensors"])
    let expected = [
      "waveform", "fbank", "audio_features", "audio_token", "token_ids", "prompt_embeddings", "noise", "eps_first",
      "latents_000", "latents_002", "image",
    ]
    let found = try names(folder / "tensors")
    for name in expected { #expect(found.contains(name + ".npy"), "\(name)") }
  }

  @Test func encodeWritesTheTokenThatGenerateUses() throws {
    let folder = try TemporaryFolder()
    let model = try TinyModel.shared.model
    try succeed(.audiotoken, ["encode", model, TinyModel.sound, "-o", folder / "token.npy", "--quiet"])
    let token = try readVector(folder / "token.npy")
    #expect(token.count == 64)
    #expect(token.allSatisfy { $0.isFinite })
    #expect(Set(token).count > 32)
    _ = try generate(folder / "p.png", ["--dump-tensors", folder / "tensors"])
    let used = try readVector(folder / "tensors/audio_token.npy")
    #expect(used == token)
  }
}
