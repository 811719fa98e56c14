import WeightFile

/// A file being written, which knows its length and CRC-32 so far.
final class FileSink {
  private let file: AtomicFile
  private var running = CRC32()

  init(path: String) throws(RandomCheckpointError) {
    do { file = try AtomicFile(path: path) } catch { throw .output(error) }
  }

  /// Bytes written so far.
  var count: Int { file.byteCount }
  var checksum: UInt32 { running.value }

  func write(_ bytes: [UInt8]) throws(RandomCheckpointError) {
    bytes.withUnsafeBytes { running.update($0) }
    do { try file.write(bytes) } catch { throw .output(error) }
  }

  /// Appends the elements of `tensor`, which must have the CRC-32 that the layout states; returns that.
  @discardableResult
  func write(_ tensor: Layout.Tensor, of path: String) throws(RandomCheckpointError) -> UInt32 {
    let found = try HashedTensor(tensor, file: path).stream { bytes throws(RandomCheckpointError) in try write(bytes) }
    guard found == tensor.crc32 else {
      throw .checksum(file: path, what: tensor.name, expected: tensor.crc32, found: found)
    }
    return found
  }

  func commit() throws(RandomCheckpointError) {
    do { try file.commit() } catch { throw .output(error) }
  }
}
