import Foundation

/// What a PNG file says about itself.
struct PNGContents {
  let width: Int
  let height: Int
  /// Keyword to text of the iTXt chunks.
  private(set) var texts: [String: String] = [:]

  init(_ path: String) throws {
    let data = [UInt8](try bytes(path))
    guard data.starts(with: [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]) else {
      throw TestError("\(path) is no PNG file")
    }
    func number(_ position: Int) -> Int { data[position..<position + 4].reduce(0) { $0 << 8 | Int($1) } }
    width = number(16)
    height = number(20)
    var position = 8
    while position + 12 <= data.count {
      let length = number(position)
      let type = String(decoding: data[position + 4..<position + 8], as: UTF8.self)
      let content = data[position + 8..<position + 8 + length]
      if type == "iTXt" {
        // keyword, 0, compression flag and method, language, 0, translated keyword, 0, text
        let parts = content.split(separator: 0, maxSplits: 1, omittingEmptySubsequences: false)
        let rest = parts[1].dropFirst(2).split(separator: 0, maxSplits: 2, omittingEmptySubsequences: false)
        texts[String(decoding: parts[0], as: UTF8.self)] = String(decoding: rest[2], as: UTF8.self)
      }
      position += 12 + length
    }
  }
}

/// The compressed pixels of a PNG file, without its texts.
func pixels(_ path: String) throws -> Data {
  let data = try bytes(path)
  guard let start = data.range(of: Data("IDAT".utf8))?.lowerBound else { throw TestError("\(path) has no pixels") }
  return data[start...]
}

/// A one-dimensional f32 .npy file.
func readVector(_ path: String) throws -> [Float] {
  let data = [UInt8](try bytes(path))
  guard data.starts(with: [0x93] + Array("NUMPY".utf8) + [1, 0]), data.count > 10 else {
    throw TestError("\(path) is no .npy file of version 1.0")
  }
  let start = 10 + Int(data[8]) + Int(data[9]) << 8
  let header = String(decoding: data[10..<start], as: UTF8.self)
  let count = (data.count - start) / 4
  guard header.contains("'descr': '<f4'"), header.contains("'fortran_order': False"),
    header.contains("'shape': (\(count),)"), data.count == start + 4 * count
  else { throw TestError("\(path) has the header \(header) and \(data.count - start) bytes after it") }
  return data[start...].withUnsafeBytes { raw in
    (0..<count).map { Float(bitPattern: raw.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)) }
  }
}

/// A JSON object that a program printed.
func parseObject(_ text: String) throws -> [String: Any] {
  guard let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any] else {
    throw TestError("no JSON object: \(text.prefix(100))")
  }
  return object
}

/// The bytes of a safetensors file of zeros.
func safetensors(_ shapes: [String: [Int]]) -> [UInt8] {
  var header: [String] = []
  var end = 0
  for (name, shape) in shapes.sorted(by: { $0.key < $1.key }) {
    let start = end
    end += 4 * shape.reduce(1, *)
    header.append("\"\(name)\":{\"dtype\":\"F32\",\"shape\":\(shape),\"data_offsets\":[\(start),\(end)]}")
  }
  let text = Array("{\(header.joined(separator: ","))}".utf8)
  return (0..<8).map { UInt8(truncatingIfNeeded: text.count >> (8 * $0)) } + text + [UInt8](repeating: 0, count: end)
}
