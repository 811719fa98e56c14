/// CRC-32 as zlib, PNG and zip compute it: reflected polynomial 0xEDB88320, initial value and final exclusive-or all ones.
package struct CRC32: Sendable {
  private var state: UInt32 = 0xFFFF_FFFF

  package init() {}

  /// The checksum of everything given to `update` so far.
  package var value: UInt32 { ~state }

  package static func of(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var checksum = CRC32()
    checksum.update(bytes)
    return checksum.value
  }

  package mutating func update(_ bytes: UnsafeRawBufferPointer) {
    guard let base = bytes.baseAddress else { return }
    var crc = state
    // Sound: `tables` has 16 * 256 entries and every index is a byte plus a table number below 16 times 256;
    // each load of eight bytes starts at most sixteen bytes before the end of `bytes`.
    Self.tables.withUnsafeBufferPointer { tables in
      let table = tables.baseAddress!
      var offset = 0
      while bytes.count - offset >= 16 {
        let low = UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) ^ UInt64(crc)
        let high = UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self))
        crc = Self.eight(low, table + 8 * 256) ^ Self.eight(high, table)
        offset += 16
      }
      while offset < bytes.count {
        let byte = base.load(fromByteOffset: offset, as: UInt8.self)
        crc = table[Int(UInt8(truncatingIfNeeded: crc) ^ byte)] ^ (crc >> 8)
        offset += 1
      }
    }
    state = crc
  }

  /// The contribution of eight bytes; the first of them goes through the eighth table, the last through the first.
  @inline(__always)
  private static func eight(_ word: UInt64, _ table: UnsafePointer<UInt32>) -> UInt32 {
    @inline(__always) func entry(_ byte: UInt64) -> UInt32 {
      table[Int((7 - byte) * 256 + (word >> (8 * byte)) & 0xFF)]
    }
    return entry(0) ^ entry(1) ^ entry(2) ^ entry(3) ^ entry(4) ^ entry(5) ^ entry(6) ^ entry(7)
  }

  /// `tables[k * 256 + b]` is the checksum state after byte `b` and `k` zero bytes.
  private static let tables: [UInt32] = {
    var tables = (0..<256).map { byte -> UInt32 in
      (0..<8).reduce(UInt32(byte)) { crc, _ in (crc >> 1) ^ (crc & 1 == 0 ? 0 : 0xEDB8_8320) }
    }
    for index in 256..<16 * 256 {
      let previous = tables[index - 256]
      tables.append(tables[Int(previous & 0xFF)] ^ (previous >> 8))
    }
    return tables
  }()
}
