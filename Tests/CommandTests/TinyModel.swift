import Foundation
import Glibc

/// A checkpoint with random weights and the model that it is converted to, made once for all tests.
struct TinyModel: Sendable {
  /// With sd, beats.pt, embedder.bin and lora.bin.
  let checkpoint: String
  let model: String

  static let sound = fixture("chirp.wav")

  static var shared: TinyModel {
    get throws { try made.get() }
  }

  private static let made = Result { try TinyModel() }

  private static func fixture(_ name: String, file: String = #filePath) -> String {
    URL(fileURLWithPath: file).deletingLastPathComponent().deletingLastPathComponent()
      .appendingPathComponent("Fixtures/\(name)").path
  }

  private init() throws {
    let folder = "\(NSTemporaryDirectory())/audiotoken-commands-\(UUID().uuidString)"
    Leftovers.folder = strdup(folder)
    atexit { Leftovers.remove() }
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    checkpoint = folder + "/checkpoint"
    model = folder + "/tiny.gguf"
    try succeed(.randomCheckpoint, [Self.fixture("layouts/tiny.json"), checkpoint])
    try succeed(.convert, Self.conversion(of: checkpoint, to: model) + ["--quiet"])
  }

  /// The arguments that convert a whole checkpoint.
  static func conversion(of checkpoint: String, to output: String) -> [String] {
    [
      "--sd", checkpoint + "/sd", "--beats", checkpoint + "/beats.pt", "--embedder", checkpoint + "/embedder.bin",
      "-o", output,
    ]
  }

  /// The checkpoint as links in `folder`, which a test may replace.
  func linkedCheckpoint(in folder: TemporaryFolder) throws -> String {
    let copy = folder / "checkpoint"
    let files = FileManager.default
    for name in try files.subpathsOfDirectory(atPath: checkpoint) {
      var isFolder: ObjCBool = false
      _ = files.fileExists(atPath: "\(checkpoint)/\(name)", isDirectory: &isFolder)
      if isFolder.boolValue {
        try files.createDirectory(atPath: "\(copy)/\(name)", withIntermediateDirectories: true)
      } else {
        try files.createDirectory(
          atPath: ("\(copy)/\(name)" as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        try files.createSymbolicLink(atPath: "\(copy)/\(name)", withDestinationPath: "\(checkpoint)/\(name)")
      }
    }
    return copy
  }
}

/// What is removed when the tests end. Written once, before the function that reads it is registered.
private enum Leftovers {
  nonisolated(unsafe) static var folder: UnsafeMutablePointer<CChar>?

  static func remove() {
    if let folder { try? FileManager.default.removeItem(atPath: String(cString: folder)) }
  }
}
