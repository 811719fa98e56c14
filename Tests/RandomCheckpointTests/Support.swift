import Foundation
import WeightFile

@testable import RandomCheckpoint

enum Repository {
  static func path(_ relative: String, file: String = #filePath) -> String {
    var url = URL(fileURLWithPath: file)
    for _ in 0..<3 { url.deleteLastPathComponent() }
    return url.appendingPathComponent(relative).path
  }

  static func layout(_ name: String) -> String { path("Tests/Fixtures/layouts/\(name).json") }
}

/// A folder that goes away with the value.
final class TemporaryFolder {
  let path: String

  init() throws {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("audiotoken-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    path = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func write(_ text: String, _ name: String = "layout.json") throws -> String {
    try text.write(toFile: "\(path)/\(name)", atomically: false, encoding: .utf8)
    return "\(path)/\(name)"
  }
}

func sha256(_ bytes: some Collection<UInt8>) -> String {
  var digest = SHA256()
  digest.update(Array(bytes))
  return digest.hexDigest()
}

func littleEndian(_ values: [Float]) -> [UInt8] {
  values.flatMap { withUnsafeBytes(of: $0.bitPattern.littleEndian, Array.init) }
}

/// A layout with one file of one small tensor, some part of which a test replaces.
func smallLayout(
  format: String = Layout.format, path: String = "model.safetensors", kind: String = "safetensors",
  shape: String = "[2,3]", range: String = "\"mean\":0.5,\"bound\":0.25,", crc32: UInt32 = 0
) -> String {
  """
  {"format":"\(format)","name":"small","files":[{"path":"\(path)","kind":"\(kind)","tensors":[
  {"name":"weight","shape":\(shape),\(range)"crc32":\(crc32)}]}]}
  """
}

func error(_ body: () throws -> Void) -> RandomCheckpointError? {
  do { try body() } catch { return error as? RandomCheckpointError }
  return nil
}
