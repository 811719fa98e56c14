import Foundation

@testable import Checkpoints

let fixtures = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures")

func fixture(_ name: String) -> String { fixtures.appending(path: name).path() }

/// What PyTorch reads from the fixtures: file -> tensor -> shape and values.
struct ExpectedTensor: Decodable {
  let shape: [Int]
  let values: [Double]

  static let byFile: [String: [String: ExpectedTensor]] = {
    guard let data = try? Data(contentsOf: fixtures.appending(path: "expected.json")),
      let table = try? JSONDecoder().decode([String: [String: ExpectedTensor]].self, from: data)
    else { fatalError("expected.json is missing: run make_fixtures.py") }
    return table
  }()
}

/// A folder that is removed with the object.
final class TemporaryFolder {
  let path: String

  init() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "checkpoints-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    path = folder.path()
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func write(_ data: Data, as name: String) throws -> String {
    let file = URL(filePath: path).appending(path: name)
    try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try data.write(to: file)
    return file.path()
  }

  func write(_ text: String, as name: String) throws -> String { try write(Data(text.utf8), as: name) }

  func copy(_ fixtureName: String, as name: String) throws -> String {
    try write(Data(contentsOf: URL(filePath: fixture(fixtureName))), as: name)
  }

  func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: "\(path)/\(name)") }
}

/// Opens and reads everything, as the converter would; returns the error that stopped it.
func failure(of path: String) -> CheckpointError? {
  do {
    for tensor in try Checkpoint(path: path).tensors.values { _ = tensor.floats() }
    return nil
  } catch {
    return error
  }
}

/// The bytes of a safetensors file with this header and so many bytes of data.
func safetensors(header: String, dataBytes: Int) -> Data {
  var data = Data()
  data.appendLittleEndian(UInt64(header.utf8.count))
  data.append(Data(header.utf8))
  data.append(Data(count: dataBytes))
  return data
}

/// A torch archive around `pickle`, whose storages are `storages` by key.
func torchArchive(pickle: [UInt8], storages: [String: Data] = [:]) -> Data {
  var archive = Data()
  var directory = Data()
  let entries = [("archive/data.pkl", Data(pickle))] + storages.map { ("archive/data/\($0.key)", $0.value) }
  for (name, content) in entries {
    let offset = UInt32(archive.count)
    let common = zipFields(name: name, bytes: content.count)
    archive.appendLittleEndian(UInt32(0x0403_4B50))
    archive.append(common + Data(name.utf8) + content)
    directory.appendLittleEndian(UInt32(0x0201_4B50))
    directory.appendLittleEndian(UInt16(20))
    directory.append(common + Data(count: 10))
    directory.appendLittleEndian(offset)
    directory.append(Data(name.utf8))
  }
  let start = UInt32(archive.count)
  archive.append(directory)
  archive.appendLittleEndian(UInt32(0x0605_4B50))
  archive.append(Data(count: 4))
  archive.appendLittleEndian(UInt16(entries.count))
  archive.appendLittleEndian(UInt16(entries.count))
  archive.appendLittleEndian(UInt32(directory.count))
  archive.appendLittleEndian(start)
  archive.append(Data(count: 2))
  return archive
}

/// The fields that a zip's local header and directory entry share: version, flags, method, time, CRC, sizes, lengths.
private func zipFields(name: String, bytes: Int) -> Data {
  var fields = Data(count: 14)
  fields.appendLittleEndian(UInt32(bytes))
  fields.appendLittleEndian(UInt32(bytes))
  fields.appendLittleEndian(UInt16(name.utf8.count))
  fields.append(Data(count: 2))
  return fields
}

extension Data {
  mutating func appendLittleEndian<Value: FixedWidthInteger>(_ value: Value) {
    Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
  }
}

/// Pickle opcodes, so that tests can write pickles no library would.
enum Pickle {
  static let start: [UInt8] = [0x80, 2]
  static let stop: [UInt8] = [0x2E]
  static let mark: [UInt8] = [0x28]
  static let reduce: [UInt8] = [0x52]
  static let emptyTuple: [UInt8] = [0x29]

  static func string(_ text: String) -> [UInt8] { [0x8C, UInt8(text.utf8.count)] + Array(text.utf8) }
  static func global(_ module: String, _ name: String) -> [UInt8] { [0x63] + Array("\(module)\n\(name)\n".utf8) }
  static func integer(_ value: Int) -> [UInt8] {
    [0x8A, 8] + (0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
  }
  static func tuple(_ items: [[UInt8]]) -> [UInt8] { mark + items.flatMap { $0 } + [0x74] }
  static func dictionary(_ items: [(String, [UInt8])]) -> [UInt8] {
    var pickle: [UInt8] = [0x7D] + mark
    for (name, value) in items { pickle += string(name) + value }
    return pickle + [0x75]
  }
  static func storage(_ type: String = "FloatStorage", key: String = "0", count: Int) -> [UInt8] {
    tuple([string("storage"), global("torch", type), string(key), string("cpu"), integer(count)]) + [0x51]
  }
  static func tensor(_ storage: [UInt8], offset: Int = 0, shape: [Int], strides: [Int]) -> [UInt8] {
    global("torch._utils", "_rebuild_tensor_v2")
      + tuple([
        storage, integer(offset), tuple(shape.map(integer)), tuple(strides.map(integer)), [0x89],
        global("collections", "OrderedDict") + emptyTuple + reduce,
      ]) + reduce
  }
}
