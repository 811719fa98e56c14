import Foundation
import Testing

@testable import Checkpoints
@testable import Converter

/// SplitMix64: the same numbers on every run.
struct Generator: RandomNumberGenerator {
  var state: UInt64

  init(_ seed: Int) { state = UInt64(truncatingIfNeeded: seed) }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  mutating func floats(_ count: Int, _ range: ClosedRange<Float> = -1...1) -> [Float] {
    (0..<count).map { _ in Float.random(in: range, using: &self) }
  }
}

/// A folder that goes away with the value.
final class TemporaryFolder {
  let path: String

  init() throws {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("convert-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    path = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  @discardableResult
  func write(_ name: String, _ data: Data) throws -> String {
    let url = URL(fileURLWithPath: "\(path)/\(name)")
    try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
    try data.write(to: url)
    return url.path
  }

  @discardableResult
  func write(_ name: String, json: Any) throws -> String {
    try write(name, JSONSerialization.data(withJSONObject: json, options: .sortedKeys))
  }

  var contents: [String] { ((try? FileManager.default.subpathsOfDirectory(atPath: path)) ?? []).sorted() }
}

func fixture(_ name: String, file: String = #filePath) -> String {
  URL(fileURLWithPath: file).deletingLastPathComponent().appendingPathComponent("Fixtures/\(name)").path
}

/// A tensor of a checkpoint to be written.
struct PlainTensor {
  var shape: [Int]
  var values: [Float]
}

extension Data {
  mutating func append<Scalar: FixedWidthInteger>(little value: Scalar) {
    Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
  }

  /// IEEE binary32, little-endian.
  init(floats: [Float]) { self = floats.withUnsafeBytes { Data($0) } }
}

enum Safetensors {
  /// Names are letters, digits, dots and underscores.
  static func file(_ tensors: [String: PlainTensor]) -> Data {
    var header: [String] = []
    var body = Data()
    for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) {
      let start = body.count
      body += Data(floats: tensor.values)
      header.append(
        "\"\(name)\":{\"dtype\":\"F32\",\"shape\":\(tensor.shape),\"data_offsets\":[\(start),\(body.count)]}")
    }
    let text = Data(("{" + header.joined(separator: ",") + "}").utf8)
    var file = Data()
    file.append(little: UInt64(text.count))
    return file + text + body
  }
}

/// What `torch.save` writes for a dictionary of plain values and of state dictionaries: a zip archive, nothing compressed,
/// of a pickle and one entry for each tensor.
struct TorchFile {
  private var pickle = Data([0x80, 2])
  private var storages: [Data] = []

  /// - Parameter content: dictionaries, strings, whole numbers, floats, truth values and `PlainTensor`s.
  static func file(_ content: [String: Any]) -> Data {
    var file = TorchFile()
    file.write(content)
    file.pickle.append(UInt8(ascii: "."))
    var entries = [("archive/data.pkl", file.pickle)]
    for (index, storage) in file.storages.enumerated() { entries.append(("archive/data/\(index)", storage)) }
    return zip(entries + [("archive/version", Data("3\n".utf8))])
  }

  private mutating func write(_ value: Any) {
    switch value {
    case let value as [String: Any]:
      pickle += Data("}(".utf8)
      for (key, value) in value.sorted(by: { $0.key < $1.key }) {
        write(key)
        write(value)
      }
      pickle += Data("u".utf8)
    case let value as String:
      pickle += Data("X".utf8)
      pickle.append(little: UInt32(value.utf8.count))
      pickle += Data(value.utf8)
    case let value as Bool: pickle.append(value ? 0x88 : 0x89)
    case let value as Int:
      pickle += Data("J".utf8)
      pickle.append(little: Int32(value))
    case let value as Double:
      pickle += Data("G".utf8)
      pickle.append(little: value.bitPattern.byteSwapped)
    case let value as PlainTensor: write(value)
    default: preconditionFailure("no pickle for \(value)")
    }
  }

  /// torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)
  private mutating func write(_ tensor: PlainTensor) {
    pickle += Data("ctorch._utils\n_rebuild_tensor_v2\n((".utf8)
    write("storage")
    pickle += Data("ctorch\nFloatStorage\n".utf8)
    write(String(storages.count))
    write("cpu")
    write(tensor.values.count)
    pickle += Data("tQ".utf8)
    write(0)
    write(tuple: tensor.shape)
    write(tuple: tensor.shape.indices.map { tensor.shape[($0 + 1)...].reduce(1, *) })
    pickle.append(0x89)
    pickle += Data("ccollections\nOrderedDict\n)RtR".utf8)
    storages.append(Data(floats: tensor.values))
  }

  private mutating func write(tuple values: [Int]) {
    pickle += Data("(".utf8)
    for value in values { write(value) }
    pickle += Data("t".utf8)
  }

  private static func zip(_ entries: [(name: String, content: Data)]) -> Data {
    var file = Data()
    var directory = Data()
    for (name, content) in entries {
      var common = Data()
      for field in [20, 0, 0, 0, 0] { common.append(little: UInt16(field)) }
      for field in [0, content.count, content.count] { common.append(little: UInt32(field)) }
      common.append(little: UInt16(name.utf8.count))
      common.append(little: UInt16(0))
      directory.append(little: UInt32(0x0201_4B50))
      directory.append(little: UInt16(20))
      directory += common
      for field in [0, 0, 0] { directory.append(little: UInt16(field)) }
      directory.append(little: UInt32(0))
      directory.append(little: UInt32(file.count))
      directory += Data(name.utf8)
      file.append(little: UInt32(0x0403_4B50))
      file += common + Data(name.utf8) + content
    }
    let start = file.count
    file += directory
    file.append(little: UInt32(0x0605_4B50))
    for field in [0, 0, entries.count, entries.count] { file.append(little: UInt16(field)) }
    file.append(little: UInt32(directory.count))
    file.append(little: UInt32(start))
    file.append(little: UInt16(0))
    return file
  }
}

/// A parsed configuration.
func configuration(_ object: [String: Any]) throws -> JSONObject {
  let data = try JSONSerialization.data(withJSONObject: object)
  return try data.withUnsafeBytes { bytes in
    try JSONObject(file: "config.json", parsing: bytes, expected: "a JSON dictionary")
  }
}

/// The error that `body` throws; a failure where it throws none.
func refusal(_ what: String = "", _ body: () throws -> Any) throws -> ConvertError {
  var found: ConvertError?
  do { _ = try body() } catch let error as ConvertError { found = error }
  return try #require(found, "\(what) is taken")
}

/// Records a failure; returns nothing, so that it can end a function.
func fail(_ what: String, sourceLocation: SourceLocation = #_sourceLocation) {
  Issue.record("\(what)", sourceLocation: sourceLocation)
}
