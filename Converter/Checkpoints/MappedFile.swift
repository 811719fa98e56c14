import Glibc

/// A file behind a checkpoint, as the converter lists it.
package struct SourceFile: Sendable, Equatable {
  package let path: String
  package let bytes: Int
}

/// A file mapped read-only.
///
/// Unsafe code: pointers into the mapping leave this class only through `bytes(_:)`, which checks the range. They are
/// valid while the object lives and `unmap` has not been called; the tensors that use them hold the object, and
/// `Checkpoint.release` documents that nothing may be read after it. The mapping never changes in between, hence
/// `@unchecked Sendable`.
final class MappedFile: @unchecked Sendable {
  let path: String
  let size: Int
  private var base: UnsafeMutableRawPointer?

  /// The kernel maps up to this much around a page that is touched, so this much is given back around a tensor.
  private static let faultAroundBytes = 65_536

  /// Throws `missing`, `folder`, `unreadable`, or `wrongKind` for an empty file.
  init(path: String, expected: String) throws(CheckpointError) {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw errno == ENOENT || errno == ENOTDIR ? .missing(file: path) : .unreadable(file: path, reason: systemReason())
    }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw .unreadable(file: path, reason: systemReason()) }
    guard status.st_mode & S_IFMT != S_IFDIR else { throw .folder(file: path) }
    guard status.st_mode & S_IFMT == S_IFREG else { throw .unreadable(file: path, reason: "not a regular file") }
    self.path = path
    size = Int(status.st_size)
    guard size > 0 else { throw .wrongKind(file: path, found: .empty, expected: expected) }
    let mapping = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0)
    guard mapping != MAP_FAILED else { throw .unreadable(file: path, reason: systemReason()) }
    base = mapping
  }

  deinit { unmap() }

  var source: SourceFile { SourceFile(path: path, bytes: size) }

  /// What the first bytes say the file is.
  var kind: FileKind { FileKind(head: Array(bytes(0..<min(512, size))), size: size) }

  func bytes(_ range: Range<Int>) -> UnsafeRawBufferPointer {
    guard let base else { preconditionFailure("\(path) is read after it was released") }
    precondition(range.lowerBound >= 0 && range.upperBound <= size)
    return UnsafeRawBufferPointer(start: base + range.lowerBound, count: range.count)
  }

  /// Lets the kernel drop the pages around `range`; reading them again brings them back from the file.
  func discard(_ range: Range<Int>) {
    guard let base, !range.isEmpty else { return }
    let window = MappedFile.faultAroundBytes
    let start = range.lowerBound / window * window
    let end = min(size, (range.upperBound - 1) / window * window + window)
    madvise(base + start, end - start, MADV_DONTNEED)
  }

  func unmap() {
    guard let base else { return }
    munmap(base, size)
    self.base = nil
  }
}

private func systemReason() -> String { String(cString: strerror(errno)) }

/// Whether `path` names a folder (true), something else (false) or nothing (nil).
func isFolder(_ path: String) -> Bool? {
  var status = stat()
  guard stat(path, &status) == 0 else { return nil }
  return status.st_mode & S_IFMT == S_IFDIR
}
