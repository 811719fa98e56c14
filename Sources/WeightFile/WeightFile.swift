/// An opened weight file: mapped, and its header checked, so that every tensor is wholly inside the file.
///
/// Opening reads the header alone. The tensors' elements are trusted only as far as `verifyChecksums` was called.
package final class WeightFile: Sendable {
  package let path: String
  package let metadata: Metadata
  /// In file order.
  package let tensors: [TensorInfo]
  private let storage: ByteStorage
  private let header: Header
  private let positions: [String: Int]

  /// Opens and maps the file at `path`.
  /// - Throws: what is wrong with the file, before any of its tensors is read.
  package convenience init(path: String) throws(WeightFileError) {
    try self.init(path: path, storage: try ByteStorage(mapping: path))
  }

  init(path: String, storage: ByteStorage) throws(WeightFileError) {
    let header = try Header(file: path, storage: storage)
    self.path = path
    self.storage = storage
    self.header = header
    metadata = header.metadata
    tensors = header.tensors
    positions = Dictionary(uniqueKeysWithValues: header.tensors.enumerated().map { ($1.name, $0) })
  }

  package subscript(name: String) -> TensorInfo? { positions[name].map { tensors[$0] } }

  /// The size of the whole file.
  package var byteCount: Int { storage.bytes.count }

  /// The first byte of a tensor of this file. The `tensor.byteCount` bytes there can be read as long as this object lives;
  /// they are aligned to the file's alignment.
  package func bytes(of tensor: TensorInfo) -> UnsafeRawPointer {
    precondition(tensor.offset >= 0 && tensor.end <= storage.bytes.count, "a tensor of this file")
    return storage.bytes.baseAddress! + tensor.offset
  }

  /// SHA-256 of the header, as 64 hexadecimal digits. The header holds the checksum of every tensor, so this identifies
  /// the model without reading all of it. Computed at each call.
  package var contentHash: String {
    var hash = SHA256()
    hash.update(UnsafeRawBufferPointer(rebasing: storage.bytes[..<header.dataStart]))
    return hash.hexDigest()
  }

  /// Where in the file an address of `bytes(of:)` is.
  package func offset(of address: UnsafeRawPointer) -> Int { address - storage.bytes.baseAddress! }

  /// Reads every tensor and compares its CRC-32 with the recorded one.
  /// - Parameter progress: called with the bytes checked so far and the bytes to check.
  package func verifyChecksums(
    progress: (_ checked: Int, _ total: Int) -> Void = { _, _ in }
  ) throws(WeightFileError) {
    let total = tensors.reduce(0) { $0 + $1.byteCount }
    let piece = 4 << 20
    var checked = 0
    for (tensor, recorded) in zip(tensors, header.checksums) {
      var checksum = CRC32()
      for start in stride(from: tensor.offset, to: tensor.end, by: piece) {
        let range = start..<min(start + piece, tensor.end)
        storage.prefetch(range.upperBound..<min(range.upperBound + piece, byteCount))
        checksum.update(UnsafeRawBufferPointer(rebasing: storage.bytes[range]))
        storage.release(range)
        checked += range.count
        progress(checked, total)
      }
      if checksum.value != UInt32(recorded) {
        throw .checksum(file: path, tensor: tensor.name, found: checksum.value, expected: UInt32(recorded))
      }
    }
  }

  /// Asks the system to read a range of the file ahead. Returns before it has.
  package func prefetch(_ range: Range<Int>) { storage.prefetch(range) }

  package func prefetch(_ tensors: some Sequence<TensorInfo>) {
    for range in Self.joined(tensors) { storage.prefetch(range) }
  }

  /// Takes a range of the file out of this process's memory. Its bytes stay readable, and are then read from the file again.
  package func release(_ range: Range<Int>) { storage.release(range) }

  /// The same for the header, which is not read again once its owner has what it needs.
  package func releaseHeader() { storage.release(0..<header.dataStart) }

  package func release(_ tensors: some Sequence<TensorInfo>) {
    for range in Self.joined(tensors) { storage.release(range) }
  }

  /// The ranges of the tensors in file order, neighbours joined across their padding.
  private static func joined(_ tensors: some Sequence<TensorInfo>) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    for tensor in tensors.sorted(by: { $0.offset < $1.offset }) {
      if let last = ranges.last, tensor.offset - last.upperBound < 4096 {
        ranges[ranges.count - 1] = last.lowerBound..<max(last.upperBound, tensor.end)
      } else {
        ranges.append(tensor.offset..<tensor.end)
      }
    }
    return ranges
  }
}
