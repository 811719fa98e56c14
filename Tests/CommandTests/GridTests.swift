import Foundation
import Testing

/// What a user gets from several sounds and seeds.
@Suite struct GridTests {
  private let folder: TemporaryFolder
  private let model: String
  private let other: String

  init() throws {
    folder = try TemporaryFolder()
    model = try TinyModel.shared.model
    // A sound of the same name in another folder.
    try FileManager.default.createDirectory(atPath: folder / "in", withIntermediateDirectories: true)
    other = folder / "in/chirp.wav"
    try FileManager.default.copyItem(atPath: TinyModel.sound, toPath: other)
  }

  private func generate(_ options: [String]) throws -> Outcome {
    try succeed(.audiotoken, ["generate", model, TinyModel.sound, other, "--steps", "2"] + options)
  }

  @Test func theSheetAndThePicturesAreThere() throws {
    let outcome = try generate(
      ["--seed", "4", "--seed=0", "-o", folder / "sheet.png", "--pictures", folder / "all", "--scale", "2", "--json"])
    let sheet = try PNGContents(folder / "sheet.png")
    #expect((sheet.width, sheet.height) == (2 * 256 + 8, 2 * 256 + 8))
    #expect(sheet.texts["audiotoken:seed"] == "4 0")
    #expect(sheet.texts["audiotoken:sheet"] == "2 rows, 2 columns, scale 2")
    let expected = ["chirp-seed4.png", "chirp-seed0.png", "chirp-2-seed4.png", "chirp-2-seed0.png"]
    #expect(Set(try names(folder / "all")) == Set(expected))
    for seed in [4, 0] {
      let alone = folder / "alone.png"
      try succeed(
        .audiotoken, ["generate", model, TinyModel.sound, "--steps", "2", "--seed", "\(seed)", "-o", alone, "--quiet"])
      #expect(try bytes(alone) == bytes(folder / "all/chirp-seed\(seed).png"), "seed \(seed)")
    }
    let report = try parseObject(outcome.output)
    #expect(report["output"] as? String == folder / "sheet.png")
    #expect(report["width"] as? Int == 520)
    #expect(report["scale"] as? Int == 2)
    let sounds = try #require(report["sounds"] as? [[String: Any]])
    #expect(sounds.map { $0["sound"] as? String } == [TinyModel.sound, other])
    let pictures = try #require(report["pictures"] as? [[String: Any]])
    #expect(pictures.map { $0["output"] as? String } == expected.map { folder / "all/\($0)" })
    #expect(pictures.map { $0["row"] as? Int } == [0, 0, 1, 1])
    #expect(pictures.map { $0["column"] as? Int } == [0, 1, 0, 1])
    for picture in pictures {
      let path = try #require(picture["output"] as? String)
      let texts = try PNGContents(path).texts
      #expect(picture["settings"] as? [String: String] == texts)
      let seconds = try #require(picture["seconds"] as? Double)
      #expect(seconds > 0)
      let stages = try #require(picture["stages"] as? [[String: Any]]).map { $0["stage"] as? String }
      #expect(stages == (picture["column"] as? Int == 0 ? ["text", "unet", "vae"] : ["unet", "vae"]))
    }
    #expect(outcome.errors.contains("picture 3 of 4: \(other), seed 4, about "))
  }

  @Test func oneSoundAndOneSeedMayBeEnlargedOrPutInAFolder() throws {
    let one = ["generate", model, TinyModel.sound, "--steps", "1", "--quiet"]
    try succeed(.audiotoken, one + ["-o", folder / "plain.png"])
    try succeed(.audiotoken, one + ["-o", folder / "large.png", "--scale", "3"])
    let large = try PNGContents(folder / "large.png")
    #expect((large.width, large.height) == (384, 384))
    try succeed(.audiotoken, one + ["--pictures", folder / "single"])
    #expect(try bytes(folder / "single/chirp-seed0.png") == bytes(folder / "plain.png"))
  }

  @Test func theSheetFitsTheMemoryThatIsPromised() throws {
    let options = ["--seed=0", "--seed=1", "--scale", "8", "-o", folder / "sheet.png", "--quiet", "--json"]
    _ = try generate(options)
    let expected = try bytes(folder / "sheet.png")
    let arguments = ["generate", model, TinyModel.sound, other, "--steps", "2"] + options
    let refusal = try run(.audiotoken, arguments + ["--max-ram", "5M"])
    #expect(refusal.exitCode == 64)
    let words = refusal.errors.split(separator: " ")
    let least = try #require(words.firstIndex(of: "needs").flatMap { Int(words[$0 + 1]) })
    let report = try parseObject(try generate(options + ["--max-ram", "\(least)M"]).output)
    #expect(try bytes(folder / "sheet.png") == expected)
    let peak = try #require(report["peak_resident_bytes"] as? Int)
    // The sheet alone has 2056 x 2056 pixels.
    #expect(least > 12)
    let most = 1_050_000 * least
    #expect(Program.isEmulated || peak < most, "\(peak) bytes in \(least) MB")
  }

  @Test func whatCannotBeIsRefusedAtOnceAndLeavesNothing() throws {
    let outputs = try TemporaryFolder()
    let place = ["-o", outputs / "p.png"]
    let missing = folder / "missing.wav"
    func refuses(_ sounds: [String], _ options: [String], _ exitCode: Int32, naming name: String) throws {
      try expectRefusal(
        .audiotoken, ["generate", model] + sounds + options, exitCode: exitCode, naming: name,
        leavingEmpty: outputs.path)
    }
    let both = [TinyModel.sound, other]
    try refuses(both, [], 64, naming: "--pictures")
    try refuses(both + [missing], place, 66, naming: missing)
    try refuses(both + [missing], ["--pictures", outputs / "all"], 66, naming: missing)
    try refuses(both, place + ["--seed=2", "--seed=2"], 64, naming: "--seed 2")
    for scale in ["0", "33"] { try refuses(both, place + ["--scale", scale], 64, naming: scale) }
    try refuses(both, place + ["--scale=-1"], 64, naming: "-1")
    try refuses(both, ["--pictures", outputs / "all", "--scale", "2"], 64, naming: "--scale")
    try refuses(both, place + ["--dump-tensors", outputs / "t"], 64, naming: "--dump-tensors")
    try refuses(both, place + ["--steps", "0"], 64, naming: "steps")
    try refuses(both, place + (0..<17).map { "--seed=\($0)" } + ["--scale", "32"], 64, naming: "65536")
    try refuses(both, ["--pictures", model], 73, naming: model)
    try refuses(both, ["-o", outputs / "no/p.png"], 73, naming: outputs / "no/p.png")
    try refuses(both, ["-o", other], 73, naming: other)
    let single = outputs / "all/chirp-seed0.png"
    try refuses(both, ["--pictures", outputs / "all", "-o", single], 64, naming: single)
    try refuses(
      both, ["--pictures", outputs / "all", "-o", outputs / "all/no/p.png"], 73, naming: outputs / "all/no/p.png")
  }

  @Test func aPictureOfTheFolderDoesNotReplaceASound() throws {
    let sound = folder / "in/chirp-seed0.png"
    try FileManager.default.copyItem(atPath: TinyModel.sound, toPath: sound)
    let outcome = try run(
      .audiotoken, ["generate", model, TinyModel.sound, sound, "--steps", "1", "--pictures", folder / "in"])
    #expect(outcome.exitCode == 73)
    #expect(try bytes(sound) == bytes(TinyModel.sound))
    #expect(Set(try names(folder / "in")) == ["chirp.wav", "chirp-seed0.png"])
  }

  @Test func anInterruptedSheetLeavesTheFinishedPicturesAlone() throws {
    let running = try RunningProgram(
      Program.audiotoken.path,
      ["generate", model, TinyModel.sound, "--seed=0", "--seed=1", "--steps", "100"]
        + ["-o", folder / "sheet.png", "--pictures", folder / "all"])
    try running.wait(forError: "picture 2 of 2")
    running.send(SIGINT)
    #expect(try running.wait().exitCode == 130)
    #expect(Set(try names(folder.path)) == ["in", "all"])
    #expect(try names(folder / "all") == ["chirp-seed0.png"])
  }
}
