/// The directory of a zip archive (PKWARE APPNOTE 6.3, zip64 included): where each stored entry's bytes are in the
/// file. Nothing is decompressed, so no entry can be larger than the file.
struct ZipDirectory {
  /// Byte ranges of the file, by entry name.
  let entries: [String: Range<Int>]

  init(_ file: MappedFile) throws(CheckpointError) {
    let end = try EndRecord(file)
    var cursor = ByteCursor(file.bytes(end.directory))
    var entries: [String: Range<Int>] = [:]
    for _ in 0..<end.entryCount {
      guard let entry = DirectoryEntry(&cursor) else {
        throw .damaged(file: file.path, what: "its archive directory is inconsistent")
      }
      if entry.name.hasSuffix("/") { continue }
      guard !entry.isCompressed else { throw .compressed(file: file.path, entry: entry.name) }
      guard let range = entry.dataRange(in: file, before: end.directory.lowerBound) else {
        throw .damaged(file: file.path, what: "the archive entry \(entry.name) points outside the archive")
      }
      guard entries.updateValue(range, forKey: entry.name) == nil else {
        throw .damaged(file: file.path, what: "the archive holds \(entry.name) twice")
      }
    }
    self.entries = entries
  }
}

/// The end record, which says where the directory is.
private struct EndRecord {
  let entryCount: Int
  let directory: Range<Int>

  private static let size = 22
  private static let longestComment = 65_535

  init(_ file: MappedFile) throws(CheckpointError) {
    guard let position = EndRecord.find(file) else { throw .archiveCut(file: file.path) }
    var cursor = ByteCursor(file.bytes(position..<file.size))
    _ = cursor.take(10)
    guard let count = cursor.count16(), let bytes = cursor.count32(), let offset = cursor.count32() else {
      throw .archiveCut(file: file.path)
    }
    var fields = (count: count, bytes: bytes, offset: offset)
    if count == 0xFFFF || bytes == 0xFFFF_FFFF || offset == 0xFFFF_FFFF {
      guard let wide = EndRecord.wideFields(file, before: position) else {
        throw .damaged(file: file.path, what: "its zip64 end record is missing")
      }
      fields = wide
    }
    let (end, overflow) = fields.offset.addingReportingOverflow(fields.bytes)
    guard !overflow, end <= position, fields.count <= fields.bytes / DirectoryEntry.fixedSize else {
      throw .damaged(file: file.path, what: "its archive directory lies outside the file")
    }
    entryCount = fields.count
    directory = fields.offset..<end
  }

  /// The last position whose record's comment reaches exactly to the end of the file.
  private static func find(_ file: MappedFile) -> Int? {
    guard file.size >= size else { return nil }
    let earliest = max(0, file.size - size - longestComment)
    for position in stride(from: file.size - size, through: earliest, by: -1) {
      var cursor = ByteCursor(file.bytes(position..<file.size))
      guard cursor.integer(UInt32.self) == 0x0605_4B50, cursor.take(16) != nil else { continue }
      if cursor.count16() == cursor.remaining { return position }
    }
    return nil
  }

  private static func wideFields(_ file: MappedFile, before position: Int) -> (count: Int, bytes: Int, offset: Int)? {
    guard position >= 20 else { return nil }
    var locator = ByteCursor(file.bytes((position - 20)..<position))
    guard locator.integer(UInt32.self) == 0x0706_4B50, locator.take(4) != nil, let start = locator.count64(),
      start < position
    else { return nil }
    var record = ByteCursor(file.bytes(start..<position))
    guard record.integer(UInt32.self) == 0x0606_4B50, record.take(28) != nil, let count = record.count64(),
      let bytes = record.count64(), let offset = record.count64()
    else { return nil }
    return (count, bytes, offset)
  }
}

private struct DirectoryEntry {
  let name: String
  let isCompressed: Bool
  private let size: Int
  private let headerOffset: Int

  static let fixedSize = 46

  /// Reads one entry; nil when it is malformed.
  init?(_ cursor: inout ByteCursor) {
    guard cursor.integer(UInt32.self) == 0x0201_4B50, cursor.take(4) != nil, let flags = cursor.integer(UInt16.self),
      let method = cursor.integer(UInt16.self), cursor.take(8) != nil, let compressed = cursor.count32(),
      let size = cursor.count32(), let nameBytes = cursor.count16(), let extraBytes = cursor.count16(),
      let commentBytes = cursor.count16(), cursor.take(8) != nil, let offset = cursor.count32(),
      let name = cursor.string(nameBytes), let extra = cursor.take(extraBytes), cursor.take(commentBytes) != nil
    else { return nil }
    var fields = [size, compressed, offset]
    guard DirectoryEntry.widen(&fields, from: extra) else { return nil }
    self.name = name
    isCompressed = method != 0 || flags & 1 != 0 || fields[0] != fields[1]
    self.size = fields[0]
    headerOffset = fields[2]
  }

  /// Replaces the fields that are all ones by the zip64 extra field's values, which come in the same order.
  private static func widen(_ fields: inout [Int], from extra: UnsafeRawBufferPointer) -> Bool {
    guard fields.contains(0xFFFF_FFFF) else { return true }
    var cursor = ByteCursor(extra)
    while let tag = cursor.integer(UInt16.self), let bytes = cursor.count16(), let body = cursor.take(bytes) {
      guard tag == 1 else { continue }
      var values = ByteCursor(body)
      for index in fields.indices where fields[index] == 0xFFFF_FFFF {
        guard let wide = values.count64() else { return false }
        fields[index] = wide
      }
      return true
    }
    return false
  }

  /// The entry's bytes, which follow its local header and end before the directory.
  func dataRange(in file: MappedFile, before directory: Int) -> Range<Int>? {
    guard headerOffset <= directory else { return nil }
    var cursor = ByteCursor(file.bytes(headerOffset..<directory))
    guard cursor.integer(UInt32.self) == 0x0403_4B50, cursor.take(22) != nil, let nameBytes = cursor.count16(),
      let extraBytes = cursor.count16(), cursor.take(nameBytes) != nil, cursor.take(extraBytes) != nil,
      size <= cursor.remaining
    else { return nil }
    let start = headerOffset + cursor.position
    return start..<(start + size)
  }
}
