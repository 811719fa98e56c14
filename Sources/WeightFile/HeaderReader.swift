/// Reads a GGUF header from bytes of any content. Nothing is allocated by a number that was read: every count is walked
/// element by element, or checked against the bytes that are there.
struct HeaderReader {
  let file: String
  let storage: ByteStorage
  private(set) var position = 0

  init(file: String, storage: ByteStorage) {
    self.file = file
    self.storage = storage
  }

  /// Skips `count` bytes and returns their range.
  mutating func take(_ count: Int) throws(WeightFileError) -> Range<Int> {
    let (end, overflow) = position.addingReportingOverflow(count)
    guard count >= 0, !overflow, end <= storage.bytes.count else {
      throw .truncated(file: file, foundBytes: storage.bytes.count, expectedBytes: overflow ? .max : end)
    }
    defer { position = end }
    return position..<end
  }

  mutating func scalar<Scalar: BitwiseCopyable>(_ type: Scalar.Type) throws(WeightFileError) -> Scalar {
    let range = try take(MemoryLayout<Scalar>.size)
    return storage.bytes.loadUnaligned(fromByteOffset: range.lowerBound, as: type)
  }

  /// A 64-bit count or size.
  mutating func count(_ meaning: String) throws(WeightFileError) -> Int {
    let value = try scalar(UInt64.self)
    guard let count = Int(exactly: value) else { throw damaged("\(meaning) \(value)", "a possible one") }
    return count
  }

  /// A name or key: 1 to `limit` printable characters.
  mutating func name(_ meaning: String, limit: Int) throws(WeightFileError) -> String {
    let length = try count("a length of a \(meaning) of")
    guard (1...limit).contains(length) else { throw damaged("a \(meaning) of \(length) bytes", "1 to \(limit) bytes") }
    let bytes = storage.bytes[try take(length)]
    guard Format.isPrintableName(bytes) else {
      throw damaged("a \(meaning) with unprintable characters", "printable ASCII")
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  mutating func value(key: String) throws(WeightFileError) -> MetadataValue {
    switch try metadataType(key) {
    case .uint8: return .uint8(try scalar(UInt8.self))
    case .int8: return .int8(try scalar(Int8.self))
    case .uint16: return .uint16(try scalar(UInt16.self))
    case .int16: return .int16(try scalar(Int16.self))
    case .uint32: return .uint32(try scalar(UInt32.self))
    case .int32: return .int32(try scalar(Int32.self))
    case .uint64: return .uint64(try scalar(UInt64.self))
    case .int64: return .int64(try scalar(Int64.self))
    case .float32: return .float32(try scalar(Float.self))
    case .float64: return .float64(try scalar(Double.self))
    case .bool:
      let byte = try scalar(UInt8.self)
      guard byte < 2 else { throw metadata(key, "the byte \(byte)", "true (1) or false (0)") }
      return .bool(byte == 1)
    case .string:
      let length = try count("a length of a text of")
      guard let text = String(validating: storage.bytes[try take(length)], as: UTF8.self) else {
        throw metadata(key, "bytes that are no text", "a text in UTF-8")
      }
      return .string(text)
    case .array: return .array(try array(key: key))
    }
  }

  private mutating func array(key: String) throws(WeightFileError) -> MetadataArray {
    let type = try metadataType(key)
    let count = try count("an array of length")
    let start = position
    if let width = type.byteCount {
      let (size, overflow) = count.multipliedReportingOverflow(by: width)
      if overflow { throw metadata(key, "an array of \(count) \(type) values", "a possible length") }
      _ = try take(size)
    } else if type == .string {
      for _ in 0..<count { _ = try take(try self.count("a length of a text of")) }
    } else {
      throw metadata(key, "an array of arrays", "an array of scalars or texts")
    }
    return MetadataArray(elementType: type, count: count, storage: storage, range: start..<position)
  }

  private mutating func metadataType(_ key: String) throws(WeightFileError) -> MetadataType {
    let number = try scalar(UInt32.self)
    guard let type = MetadataType(rawValue: number) else {
      throw metadata(key, "the value type \(number)", "a type that GGUF version 3 has (0 to 12)")
    }
    return type
  }

  func damaged(_ found: String, _ expected: String) -> WeightFileError {
    .damaged(file: file, found: found, expected: expected)
  }

  func metadata(_ key: String, _ found: String, _ expected: String) -> WeightFileError {
    .metadata(file: file, key: key, found: found, expected: expected)
  }
}
