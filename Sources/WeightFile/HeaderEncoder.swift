extension [UInt8] {
  /// Appends the memory of a scalar, which is its little-endian encoding.
  mutating func append(scalar: some BitwiseCopyable) {
    Swift.withUnsafeBytes(of: scalar) { append(contentsOf: $0) }
  }

  /// Appends a text as GGUF has it: the number of its bytes as 64 bits, and its bytes.
  mutating func append(text: String) {
    append(scalar: UInt64(text.utf8.count))
    append(contentsOf: text.utf8)
  }
}

/// The header of a new file: everything before the tensors' data.
struct HeaderEncoder {
  /// Padded to the alignment; the checksums are zero.
  private(set) var bytes: [UInt8] = []
  /// Where the first checksum is.
  private(set) var checksumsOffset = 0
  /// The size of the whole file.
  let fileByteCount: Int

  /// Checks the declarations and encodes them after the metadata.
  init(file: String, metadata: Metadata, tensors: [TensorDeclaration]) throws(WeightFileError) {
    let offsets = try Self.place(file, tensors)
    let owned: Metadata = Self.owned(metadata, tensorCount: tensors.count)
    let entries =
      owned.entries.dropLast() + metadata.entries.filter { owned[$0.key] == nil } + owned.entries.suffix(1)
    bytes += Format.magic
    bytes.append(scalar: Format.version)
    bytes.append(scalar: UInt64(tensors.count))
    bytes.append(scalar: UInt64(entries.count))
    for entry in entries {
      try Self.check(file, key: entry.key)
      bytes.append(text: entry.key)
      bytes.append(scalar: entry.value.type.rawValue)
      Self.append(entry.value, to: &bytes)
    }
    checksumsOffset = bytes.count - tensors.count * MemoryLayout<UInt32>.size
    for (tensor, offset) in zip(tensors, offsets) {
      bytes.append(text: tensor.name)
      bytes.append(scalar: UInt32(tensor.dimensions.count))
      for dimension in tensor.dimensions.reversed() { bytes.append(scalar: UInt64(dimension)) }
      bytes.append(scalar: tensor.type.rawValue)
      bytes.append(scalar: UInt64(offset))
    }
    bytes += [UInt8](repeating: 0, count: (Format.alignment - bytes.count % Format.alignment) % Format.alignment)
    let (total, overflow) = bytes.count.addingReportingOverflow(offsets[tensors.count])
    if overflow {
      throw .declaration(file: file, tensor: tensors[0].name, found: "a file beyond 64 bits", expected: "less")
    }
    fileByteCount = total
  }

  /// Puts the checksums, four bytes each, into their place.
  mutating func record(_ checksums: [UInt8]) {
    bytes.replaceSubrange(checksumsOffset..<checksumsOffset + checksums.count, with: checksums)
  }

  /// The values that the writer itself sets; the checksums are the last entry.
  private static func owned(_ given: Metadata, tensorCount: Int) -> Metadata {
    let versions = Format.formatVersions
    let version = given[Format.Key.convolutions] == nil ? versions.lowerBound : versions.upperBound
    var metadata = Metadata()
    metadata[Format.Key.architecture] = .string(Format.architecture)
    metadata[Format.Key.formatVersion] = .uint32(UInt32(version))
    metadata[Format.Key.alignment] = .uint32(UInt32(Format.alignment))
    metadata[Format.Key.checksums] = .array([UInt32](repeating: 0, count: tensorCount))
    return metadata
  }

  private static func check(_ file: String, key: String) throws(WeightFileError) {
    guard (1...Format.maximumKeyBytes).contains(key.utf8.count), Format.isPrintableName(key.utf8) else {
      throw .metadata(file: file, key: key, found: "a key of this name", expected: "printable ASCII without spaces")
    }
  }

  /// The offset of each tensor from the start of the data, and that of the end of the padding after the last one.
  private static func place(_ file: String, _ tensors: [TensorDeclaration]) throws(WeightFileError) -> [Int] {
    var offsets = [0]
    var names: Set<String> = []
    for tensor in tensors {
      func refuse(_ found: String, _ expected: String) -> WeightFileError {
        .declaration(file: file, tensor: tensor.name, found: found, expected: expected)
      }
      // One byte less than a reader takes: other programs keep a terminating zero in 64 bytes.
      guard (1..<Format.maximumNameBytes).contains(tensor.name.utf8.count), Format.isPrintableName(tensor.name.utf8)
      else { throw refuse("this name", "1 to \(Format.maximumNameBytes - 1) printable ASCII characters") }
      guard names.insert(tensor.name).inserted else { throw refuse("the name of another tensor", "one of its own") }
      guard (1...Format.maximumDimensions).contains(tensor.dimensions.count), tensor.dimensions.allSatisfy({ $0 > 0 })
      else { throw refuse("dimensions \(tensor.dimensions)", "1 to \(Format.maximumDimensions), each 1 or more") }
      guard let byteCount = tensor.checkedByteCount, let next = end(of: byteCount, from: offsets[offsets.count - 1])
      else { throw refuse("dimensions \(tensor.dimensions)", "a size that fits in 64 bits") }
      offsets.append(next)
    }
    return offsets
  }

  /// Where the padding after a tensor ends, or nil where that is no Int.
  private static func end(of byteCount: Int, from offset: Int) -> Int? {
    let (end, overflow) = offset.addingReportingOverflow(byteCount)
    return overflow ? nil : Format.aligned(end, to: Format.alignment)
  }

  private static func append(_ value: MetadataValue, to bytes: inout [UInt8]) {
    switch value {
    case .uint8(let value): bytes.append(scalar: value)
    case .int8(let value): bytes.append(scalar: value)
    case .uint16(let value): bytes.append(scalar: value)
    case .int16(let value): bytes.append(scalar: value)
    case .uint32(let value): bytes.append(scalar: value)
    case .int32(let value): bytes.append(scalar: value)
    case .uint64(let value): bytes.append(scalar: value)
    case .int64(let value): bytes.append(scalar: value)
    case .float32(let value): bytes.append(scalar: value)
    case .float64(let value): bytes.append(scalar: value)
    case .bool(let value): bytes.append(value ? 1 : 0)
    case .string(let value): bytes.append(text: value)
    case .array(let value):
      bytes.append(scalar: value.elementType.rawValue)
      bytes.append(scalar: UInt64(value.count))
      bytes.append(contentsOf: value.encoded)
    }
  }
}
