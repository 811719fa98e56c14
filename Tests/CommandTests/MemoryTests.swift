import Foundation
import Testing

/// What a user who measures memory sees.
@Suite(.disabled(if: Program.isEmulated, "the emulator's own memory would count")) struct MemoryTests {
  private func plan(_ options: [String] = []) throws -> [String: Any] {
    try parseObject(try succeed(.audiotoken, ["memory", try TinyModel.shared.model, "--json"] + options).output)
  }

  private func stages(_ object: [String: Any], _ key: String) throws -> [[String: Any]] {
    try #require(object[key] as? [[String: Any]])
  }

  /// How far a reading of resident memory may be off where Linux (from 6.2 on, for some years) counts pages processor by
  /// processor and adds them up in batches: the kernel's batch is 32, or twice the processors if that is more.
  private static let uncounted: Int = {
    let processors = sysconf(Int32(_SC_NPROCESSORS_CONF))
    return processors * max(32, 2 * processors) * sysconf(Int32(_SC_PAGESIZE))
  }()

  private func integer(_ object: [String: Any], _ key: String) throws -> Int { try #require(object[key] as? Int) }

  @Test func thePlanNamesAllStagesAndItsPeakIsTheirLargest() throws {
    let plan = try plan()
    let stages = try stages(plan, "planned")
    #expect(stages.compactMap { $0["stage"] as? String } == ["beats", "projector", "text", "unet", "vae"])
    #expect(try stages.map { try integer($0, "peak_resident_bytes") }.max() == integer(plan, "planned_peak_bytes"))
    #expect(try integer(plan, "least_bytes") <= integer(plan, "planned_peak_bytes"))
    #expect(plan["keeps_text"] as? Bool == true, "each step computes the same keys and values of the text again")
    let text = try succeed(.audiotoken, ["memory", try TinyModel.shared.model]).output
    #expect(text.contains("planned peak: ") && text.contains("vae"))
  }

  @Test func aRunTakesTheArenasThatWerePlannedAndNoMoreThanThePeak() throws {
    let object = try plan(["--run", TinyModel.sound])
    let planned = try stages(object, "planned")
    let measured = try stages(object, "measured").filter { $0["stage"] as? String != "audio" }
    #expect(planned.count == measured.count)
    for (plan, run) in zip(planned, measured) {
      #expect(try integer(plan, "arena_bytes") == integer(run, "arena_bytes"), "\(plan["stage"] ?? "")")
    }
    let (peak, expected) = (try integer(object, "measured_peak_bytes"), try integer(object, "planned_peak_bytes"))
    #expect(peak <= expected + 2 * Self.uncounted, "\(peak) bytes, planned \(expected)")
    #expect(try stages(object, "samples").count > 10)
  }

  @Test("The least memory that is named is enough for the same picture, and is not exceeded", arguments: [1, 2, 16])
  func leastMemory(threads: Int) throws {
    let folder = try TemporaryFolder()
    let ofThreads = ["--threads", "\(threads)"]
    func generate(_ name: String, _ options: [String]) throws -> Int {
      let arguments = ["generate", try TinyModel.shared.model, TinyModel.sound, "-o", folder / name, "--steps", "2"]
      return try integer(
        try parseObject(try succeed(.audiotoken, arguments + ["--json"] + options).output), "peak_resident_bytes")
    }
    // What another run begins with differs by some pages.
    let least = try integer(try plan(ofThreads), "least_bytes") + 1_000_000 + Self.uncounted
    _ = try generate("free.png", [])
    let peak = try generate("least.png", ofThreads + ["--max-ram", "\(least)"])
    #expect(try bytes(folder / "least.png") == bytes(folder / "free.png"))
    #expect(peak <= least + Self.uncounted, "\(peak) bytes, promised \(least)")
  }

  @Test func tooLittleMemoryIsRefusedAtOnceWithWhatWouldDo() throws {
    let folder = try TemporaryFolder()
    let model = try TinyModel.shared.model
    for limit in ["1M", "3000Ki", "2"] {
      try expectRefusal(
        .audiotoken, ["generate", model, TinyModel.sound, "-o", folder / "p.png", "--max-ram", limit], exitCode: 64,
        naming: "--max-ram", leavingEmpty: folder.path)
    }
    for limit in ["192X", "-5M", "0", "", "99999999999999999999", "9999999999G", "M"] {
      let outcome = try run(
        .audiotoken, ["generate", model, TinyModel.sound, "-o", folder / "p.png", "--max-ram=" + limit])
      #expect(outcome.exitCode == 64, "\(limit)")
      #expect(try names(folder.path) == [])
    }
  }

  private static let confinement = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Toolchain/with-memory").path

  private static let canConfine = (try? RunningProgram(confinement, ["16M", "/bin/true"]).wait().exitCode) == 0

  @Test(.enabled(if: canConfine, "no control group can be made here: see Toolchain/with-memory"))
  func aPictureIsMadeWhereTheKernelAllowsLittleMoreThanThePromise() throws {
    let folder = try TemporaryFolder()
    let arguments = ["generate", try TinyModel.shared.model, TinyModel.sound, "--steps", "2", "-o"]
    _ = try succeed(.audiotoken, arguments + [folder / "free.png"])
    let outcome = try RunningProgram(
      Self.confinement, ["64M", Program.audiotoken.path] + arguments + [folder / "held.png", "--max-ram", "40M"]
    ).wait()
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    #expect(try bytes(folder / "held.png") == bytes(folder / "free.png"))
  }
}
