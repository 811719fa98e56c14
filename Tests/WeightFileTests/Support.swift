import Glibc
import Testing

@testable import WeightFile

/// A folder of its own for one test, removed with everything in it at the end.
final class TemporaryFolder {
  let path: String

  init() {
    let parent = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(parent)/weightfile-tests-XXXXXX".utf8CString)
    path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
  }

  deinit {
    chmod(path, 0o700)
    for name in contents { unlink(self.file(name)) }
    rmdir(path)
  }

  func file(_ name: String) -> String { "\(path)/\(name)" }

  /// The names of all files, hidden ones too, sorted.
  var contents: [String] {
    guard let folder = opendir(path) else { return [] }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }
}

func readBytes(_ path: String) -> [UInt8] {
  guard let file = fopen(path, "rb") else { return [] }
  defer { fclose(file) }
  var bytes: [UInt8] = []
  var piece = [UInt8](repeating: 0, count: 1 << 16)
  while case let count = fread(&piece, 1, piece.count, file), count > 0 { bytes += piece[..<count] }
  return bytes
}

func writeBytes(_ bytes: [UInt8], to path: String) {
  let file = fopen(path, "wb")!
  fwrite(bytes, 1, bytes.count, file)
  fclose(file)
}

func fixture(_ name: String, file: String = #filePath) -> String {
  file.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 } + "/Fixtures/" + name
}

/// The error of opening `bytes` as a file called "m.gguf", or nil where it opens.
func openingError(_ bytes: [UInt8]) -> WeightFileError? {
  do throws(WeightFileError) {
    _ = try WeightFile(path: "m.gguf", storage: ByteStorage(copying: bytes))
    return nil
  } catch {
    return error
  }
}

/// A GGUF file built field by field, so that each can be wrong.
struct RawFile {
  struct Tensor {
    var name: [UInt8]
    var dimensions: [UInt64]
    var type: UInt32 = 0
    var offset: UInt64
    init(_ name: String, _ dimensions: [UInt64], type: UInt32 = 0, offset: UInt64) {
      self.name = Array(name.utf8)
      self.dimensions = dimensions
      self.type = type
      self.offset = offset
    }
  }

  var version: UInt32 = 3
  var tensors: [Tensor] = []
  var tensorCount: UInt64?
  var metadataCount: UInt64?
  var architecture = "audiotoken"
  var formatVersion: UInt32 = 1
  var alignment: UInt32? = 64
  var checksumCount: Int?
  /// Encoded entries to follow the usual ones.
  var extraEntries: [[UInt8]] = []
  var dataBytes = 0

  static func entry(_ key: String, type: UInt32, _ payload: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(text: key)
    bytes.append(scalar: type)
    return bytes + payload
  }

  var bytes: [UInt8] {
    func encoded(_ append: (inout [UInt8]) -> Void) -> [UInt8] {
      var bytes: [UInt8] = []
      append(&bytes)
      return bytes
    }
    var entries = [
      Self.entry("general.architecture", type: 8, encoded { $0.append(text: architecture) }),
      Self.entry("audiotoken.format_version", type: 4, encoded { $0.append(scalar: formatVersion) }),
    ]
    if let alignment {
      entries.append(Self.entry("general.alignment", type: 4, encoded { $0.append(scalar: alignment) }))
    }
    entries += extraEntries
    let checksumCount = self.checksumCount ?? tensors.count
    let checksums = encoded {
      $0.append(scalar: UInt32(4))
      $0.append(scalar: UInt64(checksumCount))
      $0 += [UInt8](repeating: 0, count: 4 * checksumCount)
    }
    entries.append(Self.entry("audiotoken.tensor.crc32", type: 9, checksums))

    var bytes = Array("GGUF".utf8)
    bytes.append(scalar: version)
    bytes.append(scalar: tensorCount ?? UInt64(tensors.count))
    bytes.append(scalar: metadataCount ?? UInt64(entries.count))
    bytes += entries.joined()
    for tensor in tensors {
      bytes.append(scalar: UInt64(tensor.name.count))
      bytes += tensor.name
      bytes.append(scalar: UInt32(tensor.dimensions.count))
      for dimension in tensor.dimensions { bytes.append(scalar: dimension) }
      bytes.append(scalar: tensor.type)
      bytes.append(scalar: tensor.offset)
    }
    while bytes.count % Int(max(alignment ?? 32, 1)) != 0 { bytes.append(0) }
    return bytes + [UInt8](repeating: 1, count: dataBytes)
  }
}
