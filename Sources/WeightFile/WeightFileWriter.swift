/// Writes a weight file, one tensor after the other in the declared order, in pieces of any size.
///
/// The file appears under its name at `finish`; without it nothing is left behind. The writer itself sets
/// `general.architecture`, `general.alignment`, `audiotoken.format_version` and `audiotoken.tensor.crc32`, whatever the
/// metadata has under these keys. Not for use from several threads at once.
package final class WeightFileWriter {
  package let tensors: [TensorDeclaration]
  /// The size of the whole file.
  package let byteCount: Int
  private let file: AtomicFile
  private var header: HeaderEncoder
  private var checksums: [UInt32] = []
  private var open: OpenTensor?

  private struct OpenTensor {
    let name: String
    let byteCount: Int
    var written = 0
    var checksum = CRC32()
  }

  /// Checks the declarations, the free space and writes the header.
  package init(path: String, metadata: Metadata, tensors: [TensorDeclaration]) throws(WeightFileError) {
    let header = try HeaderEncoder(file: path, metadata: metadata, tensors: tensors)
    self.header = header
    self.tensors = tensors
    byteCount = header.fileByteCount
    file = try Self.output { () throws(OutputFileError) in
      let file = try AtomicFile(path: path)
      try file.requireSpace(bytes: header.fileByteCount)
      try file.write(header.bytes)
      return file
    }
  }

  /// Starts the next declared tensor, which has to be the one of this name.
  package func beginTensor(_ name: String) throws(WeightFileError) {
    guard open == nil, checksums.count < tensors.count, tensors[checksums.count].name == name else {
      let next = open.map { "the end of \($0.name)" } ?? (tensors.dropFirst(checksums.count).first?.name ?? "no more")
      throw .declaration(file: file.path, tensor: name, found: "its turn now", expected: next)
    }
    open = OpenTensor(name: name, byteCount: tensors[checksums.count].checkedByteCount!)
  }

  /// Appends elements to the tensor that was begun, as they lie in memory.
  package func append(_ bytes: UnsafeRawBufferPointer) throws(WeightFileError) {
    guard var tensor = open else { preconditionFailure("append before beginTensor") }
    guard bytes.count <= tensor.byteCount - tensor.written else {
      throw .declaration(
        file: file.path, tensor: tensor.name, found: "\(tensor.written + bytes.count) bytes or more",
        expected: "\(tensor.byteCount)")
    }
    try Self.output { () throws(OutputFileError) in try file.write(bytes) }
    tensor.checksum.update(bytes)
    tensor.written += bytes.count
    open = tensor
  }

  /// Ends the tensor that was begun, which has to have all its bytes.
  package func endTensor() throws(WeightFileError) {
    guard let tensor = open else { preconditionFailure("endTensor before beginTensor") }
    guard tensor.written == tensor.byteCount else {
      throw .declaration(
        file: file.path, tensor: tensor.name, found: "\(tensor.written) bytes", expected: "\(tensor.byteCount)")
    }
    checksums.append(tensor.checksum.value)
    open = nil
    let padding = (Format.alignment - file.byteCount % Format.alignment) % Format.alignment
    try Self.output { () throws(OutputFileError) in try file.write([UInt8](repeating: 0, count: padding)) }
  }

  /// A whole tensor at once.
  package func write(_ name: String, _ bytes: UnsafeRawBufferPointer) throws(WeightFileError) {
    try beginTensor(name)
    try append(bytes)
    try endTensor()
  }

  /// Records the checksums, puts the file on disk and gives it its name.
  /// - Returns: the `contentHash` that a reader will find.
  @discardableResult
  package func finish() throws(WeightFileError) -> String {
    if checksums.count < tensors.count {
      throw .declaration(
        file: file.path, tensor: tensors[checksums.count].name, found: "no elements", expected: "all of them")
    }
    var encoded: [UInt8] = []
    for checksum in checksums { encoded.append(scalar: checksum) }
    header.record(encoded)
    try Self.output { () throws(OutputFileError) in
      try file.pwrite(encoded, at: header.checksumsOffset)
      try file.commit()
    }
    var hash = SHA256()
    hash.update(header.bytes)
    return hash.hexDigest()
  }

  /// Removes what was written. Does nothing after `finish`.
  package func cancel() { file.cancel() }

  private static func output<Value>(_ body: () throws(OutputFileError) -> Value) throws(WeightFileError) -> Value {
    do throws(OutputFileError) { return try body() } catch { throw .output(error) }
  }
}
