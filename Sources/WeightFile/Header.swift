/// Everything before the tensors' data, checked.
struct Header {
  let metadata: Metadata
  let tensors: [TensorInfo]
  /// Where the data of the first tensor starts: the size of the header with its padding.
  let dataStart: Int
  /// CRC-32 of each tensor, in file order.
  let checksums: MappedIntegers

  init(file: String, storage: ByteStorage) throws(WeightFileError) {
    var reader = HeaderReader(file: file, storage: storage)
    try Self.checkMagic(storage, file)
    _ = try reader.take(Format.magic.count)
    let version = try reader.scalar(UInt32.self)
    if version != Format.version { throw .wrongVersion(file: file, found: version) }
    let tensorCount = try reader.count("a tensor count of")
    let metadataCount = try reader.count("a metadata count of")
    metadata = try Self.readMetadata(&reader, count: metadataCount)
    try Self.checkIdentity(metadata, file)
    let alignment = try Self.alignment(metadata, file)
    let declarations = try Self.readDeclarations(&reader, count: tensorCount)
    guard let dataStart = Format.aligned(reader.position, to: alignment) else {
      throw reader.damaged("an alignment of \(alignment)", "a possible one")
    }
    self.dataStart = dataStart
    tensors = try Self.place(declarations, dataStart: dataStart, alignment: alignment, reader)
    checksums = try metadata.integers(Format.Key.checksums)
    guard checksums.type == .uint32, checksums.count == tensors.count else {
      throw reader.metadata(
        Format.Key.checksums, "an array of \(checksums.count) \(checksums.type) values",
        "an array of \(tensors.count) uint32 values, one for each tensor,")
    }
  }

  private static func checkMagic(_ storage: ByteStorage, _ file: String) throws(WeightFileError) {
    let start = Array(storage.bytes.prefix(512))
    if start.starts(with: Format.magic) { return }
    if !start.isEmpty, start.count < Format.magic.count, Format.magic.starts(with: start) {
      throw .truncated(file: file, foundBytes: start.count, expectedBytes: Format.fixedHeaderBytes)
    }
    throw .wrongKind(file: file, kind: .recognise(start: start, fileBytes: storage.bytes.count))
  }

  private static func readMetadata(_ reader: inout HeaderReader, count: Int) throws(WeightFileError) -> Metadata {
    var metadata = Metadata(file: reader.file)
    for _ in 0..<count {
      let key = try reader.name("metadata key", limit: Format.maximumKeyBytes)
      let value = try reader.value(key: key)
      if metadata[key] != nil { throw reader.metadata(key, "a second value", "one value") }
      metadata[key] = value
    }
    return metadata
  }

  /// Refuses other models before their tensors are looked at, which may be of types unknown here.
  private static func checkIdentity(_ metadata: Metadata, _ file: String) throws(WeightFileError) {
    let architecture = try metadata.string(Format.Key.architecture)
    if architecture != Format.architecture { throw .wrongArchitecture(file: file, found: architecture) }
    let version = try metadata.integer(Format.Key.formatVersion)
    if !Format.formatVersions.contains(version) { throw .wrongFormatVersion(file: file, found: version) }
  }

  private static func alignment(_ metadata: Metadata, _ file: String) throws(WeightFileError) -> Int {
    let alignment = try metadata.integer(ifPresent: Format.Key.alignment) ?? Format.defaultAlignment
    guard alignment >= 8, alignment.nonzeroBitCount == 1 else {
      throw .metadata(
        file: file, key: Format.Key.alignment, found: "\(alignment)", expected: "a power of two of 8 or more")
    }
    return alignment
  }

  /// A tensor as the header has it; the offset counts from the start of the data.
  private struct PlacedDeclaration {
    let tensor: TensorDeclaration
    let byteCount: Int
    let offset: UInt64
  }

  private static func readDeclarations(
    _ reader: inout HeaderReader, count: Int
  ) throws(WeightFileError) -> [PlacedDeclaration] {
    var declarations: [PlacedDeclaration] = []
    var names: Set<String> = []
    for _ in 0..<count {
      let declaration = try readDeclaration(&reader)
      guard names.insert(declaration.tensor.name).inserted else {
        throw reader.damaged("two tensors of the name \(declaration.tensor.name)", "one")
      }
      declarations.append(declaration)
    }
    return declarations
  }

  private static func readDeclaration(_ reader: inout HeaderReader) throws(WeightFileError) -> PlacedDeclaration {
    let file = reader.file
    let name = try reader.name("tensor name", limit: Format.maximumNameBytes)
    let rank = try reader.scalar(UInt32.self)
    guard (1...UInt32(Format.maximumDimensions)).contains(rank) else {
      throw .tensor(file: file, tensor: name, found: "\(rank) dimensions", expected: "1 to \(Format.maximumDimensions)")
    }
    var dimensions: [Int] = []
    for _ in 0..<rank {
      let dimension = try reader.count("a dimension of tensor \(name) of")
      if dimension == 0 { throw .tensor(file: file, tensor: name, found: "a dimension of 0", expected: "1 or more") }
      dimensions.insert(dimension, at: 0)
    }
    let number = try reader.scalar(UInt32.self)
    guard let type = TensorType(rawValue: number) else {
      let known = TensorType.allCases.map { "\($0.rawValue) (\($0))" }.joined(separator: ", ")
      throw .tensor(file: file, tensor: name, found: "element type \(number)", expected: "one of \(known)")
    }
    let tensor = TensorDeclaration(name: name, type: type, dimensions: dimensions)
    guard let byteCount = tensor.checkedByteCount else {
      throw .tensor(file: file, tensor: name, found: "dimensions \(dimensions)", expected: "a possible size")
    }
    return PlacedDeclaration(tensor: tensor, byteCount: byteCount, offset: try reader.scalar(UInt64.self))
  }

  /// Checks that every tensor starts at the first aligned byte after the one before it, so that none overlap and the
  /// checksums leave nothing out but padding, and that the file ends where the last one does.
  private static func place(
    _ declarations: [PlacedDeclaration], dataStart: Int, alignment: Int, _ reader: HeaderReader
  ) throws(WeightFileError) -> [TensorInfo] {
    let fileBytes = reader.storage.bytes.count
    var tensors: [TensorInfo] = []
    var end = dataStart
    for declaration in declarations {
      let tensor = declaration.tensor
      guard declaration.offset == UInt64(end - dataStart) else {
        throw .tensor(
          file: reader.file, tensor: tensor.name, found: "offset \(declaration.offset)",
          expected: "\(end - dataStart), right after the tensor before it,")
      }
      let (last, overflow) = end.addingReportingOverflow(declaration.byteCount)
      guard !overflow, let next = Format.aligned(last, to: alignment) else {
        throw .tensor(
          file: reader.file, tensor: tensor.name, found: "dimensions \(tensor.dimensions)", expected: "a possible size")
      }
      tensors.append(
        TensorInfo(
          name: tensor.name, type: tensor.type, dimensions: tensor.dimensions, offset: end,
          byteCount: declaration.byteCount))
      end = next
    }
    guard fileBytes >= end else {
      throw .truncated(file: reader.file, foundBytes: fileBytes, expectedBytes: end)
    }
    guard fileBytes == end else { throw reader.damaged("\(fileBytes) bytes", "a size of \(end) bytes") }
    return tensors
  }
}
