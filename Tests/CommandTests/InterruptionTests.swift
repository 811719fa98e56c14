import Foundation
import Glibc
import Testing

/// What is left when a program cannot finish.
@Suite struct InterruptionTests {
  @Test(arguments: [SIGINT, SIGTERM]) func anInterruptedPictureLeavesNothing(signal: Int32) throws {
    let folder = try TemporaryFolder()
    let running = try RunningProgram(
      Program.audiotoken.path,
      ["generate", try TinyModel.shared.model, TinyModel.sound, "-o", folder / "p.png", "--steps", "500"])
    // After this line the UNet runs, for many seconds.
    try running.wait(forError: "\ntext ")
    #expect(try names(folder.path).count == 1, "the file to be is there")
    running.send(signal)
    #expect(try running.wait().exitCode == 128 + signal)
    #expect(try names(folder.path) == [])
  }

  @Test func anInterruptedConversionLeavesNothing() throws {
    let checkpoint = try TinyModel.shared.checkpoint
    for _ in 0..<20 {
      let folder = try TemporaryFolder()
      let running = try RunningProgram(
        Program.convert.path, TinyModel.conversion(of: checkpoint, to: folder / "m.gguf") + ["--weights", "f32"])
      try running.wait(forError: "writing beats")
      running.send(SIGINT)
      let outcome = try running.wait()
      // The signal came too late: once more.
      if outcome.exitCode == 0 { continue }
      #expect(outcome.exitCode == 130)
      #expect(try names(folder.path) == [])
      return
    }
    Issue.record("20 conversions ended before the signal came")
  }

  @Test(.disabled(if: Program.isEmulated, "the limit would hold for the emulator"))
  func aFileOverTheLimitOfTheProcessLeavesNothing() throws {
    let folder = try TemporaryFolder()
    let tiny = try TinyModel.shared
    func limited(_ program: Program, _ arguments: [String], blocks: Int) throws -> Outcome {
      try RunningProgram("/bin/sh", ["-c", "ulimit -f \(blocks); exec \"$0\" \"$@\"", program.path] + arguments).wait()
    }
    let picture = try limited(
      .audiotoken,
      ["generate", tiny.model, TinyModel.sound, "-o", folder / "p.png", "--steps", "1", "--quiet"], blocks: 16)
    let model = try limited(
      .convert, TinyModel.conversion(of: tiny.checkpoint, to: folder / "m.gguf") + ["--quiet"], blocks: 1000)
    for (outcome, name) in [(picture, "p.png"), (model, "m.gguf")] {
      #expect(outcome.exitCode == 73, "\(outcome.errors)")
      #expect(outcome.errors.contains(folder / name))
      #expect(outcome.errors.split(separator: "\n").count == 1)
    }
    #expect(try names(folder.path) == [])
  }

  /// Whether this process may mount a file system.
  static let mayMount: Bool = {
    guard let disk = try? SmallDisk(bytes: 4096) else { return false }
    return FileManager.default.fileExists(atPath: disk.path)
  }()

  @Test(.enabled(if: mayMount, "needs the right to mount a file system"))
  func aFullDiskIsFoundBeforeTheConversionAndLeavesNothing() throws {
    let disk = try SmallDisk(bytes: 1 << 20)
    try expectRefusal(
      .convert,
      TinyModel.conversion(of: try TinyModel.shared.checkpoint, to: disk.path + "/m.gguf") + ["--quiet"], exitCode: 73,
      naming: disk.path + "/m.gguf", leavingEmpty: disk.path)
  }

  @Test(.enabled(if: mayMount, "needs the right to mount a file system"))
  func aPictureThatDoesNotFitOnTheDiskLeavesNothing() throws {
    let disk = try SmallDisk(bytes: 8192)
    let outcome = try run(
      .audiotoken,
      [
        "generate", try TinyModel.shared.model, TinyModel.sound, "-o", disk.path + "/p.png", "--steps", "1", "--quiet",
      ])
    #expect(outcome.exitCode == 73)
    #expect(outcome.errors.contains("disk is full while writing \(disk.path)/p.png"))
    #expect(try names(disk.path) == [])
  }
}

/// A file system in memory, unmounted with the value.
private final class SmallDisk {
  private let folder: TemporaryFolder
  var path: String { folder.path }

  init(bytes: Int) throws {
    folder = try TemporaryFolder()
    guard mount("tmpfs", folder.path, "tmpfs", 0, "size=\(bytes)") == 0 else { throw TestError("no right to mount") }
  }

  deinit { umount2(folder.path, Int32(MNT_DETACH)) }
}
