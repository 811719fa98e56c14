/// Reads little-endian values one after the other; every read checks that the bytes are there.
///
/// Unsafe code: the buffer's own subscript is unchecked in release builds, so only `take` touches it, after comparing
/// with what remains. The buffer must outlive the cursor; the readers keep the mapped file for that long.
struct ByteCursor {
  private let bytes: UnsafeRawBufferPointer
  private(set) var position = 0

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  var remaining: Int { bytes.count - position }

  /// The next `count` bytes, or nil when fewer remain.
  mutating func take(_ count: Int) -> UnsafeRawBufferPointer? {
    guard count >= 0, count <= remaining else { return nil }
    defer { position += count }
    return UnsafeRawBufferPointer(rebasing: bytes[position..<(position + count)])
  }

  mutating func integer<Value: FixedWidthInteger>(_ type: Value.Type = Value.self) -> Value? {
    guard let raw = take(MemoryLayout<Value>.size) else { return nil }
    return Value(littleEndian: raw.loadUnaligned(as: Value.self))
  }

  mutating func byte() -> UInt8? { integer(UInt8.self) }

  /// The next byte without moving.
  var peek: UInt8? { remaining > 0 ? bytes[position] : nil }

  /// An unsigned 32-bit or 64-bit count as an Int; nil when it does not fit or the bytes are missing.
  mutating func count64() -> Int? { integer(UInt64.self).flatMap { Int(exactly: $0) } }
  mutating func count32() -> Int? { integer(UInt32.self).map { Int($0) } }
  mutating func count16() -> Int? { integer(UInt16.self).map { Int($0) } }
  mutating func count8() -> Int? { integer(UInt8.self).map { Int($0) } }

  /// The next `count` bytes as UTF-8; nil when they are missing or malformed.
  mutating func string(_ count: Int) -> String? {
    take(count).flatMap { String(validating: $0, as: UTF8.self) }
  }

  /// The bytes up to and without the next newline, which is skipped.
  mutating func line() -> String? {
    guard let end = bytes[position...].firstIndex(of: 0x0A), let text = string(end - position) else { return nil }
    position += 1
    return text
  }
}
