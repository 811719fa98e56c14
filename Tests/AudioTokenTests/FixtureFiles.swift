import Foundation
import Testing

enum Fixture {
  static func path(_ name: String, file: String = #filePath) -> String {
    URL(fileURLWithPath: file).deletingLastPathComponent().appendingPathComponent("Fixtures/\(name)").path
  }

  static func bytes(_ name: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: URL(fileURLWithPath: path(name))))
  }

  /// Little-endian f32.
  static func floats(_ name: String) throws -> [Float] {
    try bytes(name).withUnsafeBytes { raw in
      (0..<raw.count / 4).map { Float(bitPattern: raw.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)) }
    }
  }

  static func json<Value: Decodable>(_ name: String, as type: Value.Type = Value.self) throws -> Value {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(type, from: Data(contentsOf: URL(fileURLWithPath: path(name))))
  }
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

  func write(_ name: String, _ bytes: [UInt8]) throws -> String {
    try Data(bytes).write(to: URL(fileURLWithPath: "\(path)/\(name)"))
    return "\(path)/\(name)"
  }
}

/// Fails unless the arrays have one length and no element differs by more than `bound`; NaN never passes.
func expectClose(
  _ found: [Float], _ expected: [Float], within bound: Float, _ what: String = "",
  sourceLocation: SourceLocation = #_sourceLocation
) {
  guard found.count == expected.count else {
    Issue.record("\(what): \(found.count) elements, expected \(expected.count)", sourceLocation: sourceLocation)
    return
  }
  let worst = found.indices.max { difference(found[$0], expected[$0]) < difference(found[$1], expected[$1]) }
  guard let worst, !(difference(found[worst], expected[worst]) <= bound) else { return }
  Issue.record(
    "\(what): element \(worst) is \(found[worst]), expected \(expected[worst]) within \(bound)",
    sourceLocation: sourceLocation)
}

private func difference(_ a: Float, _ b: Float) -> Float { (a - b).isNaN ? .infinity : (a - b).magnitude }
