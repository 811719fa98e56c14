import Glibc

/// A file that appears under its name only when it is complete. It is written beside its target under a temporary name,
/// and `commit` puts it on disk and renames it; until then an older file of the name stays as it is. Without `commit`
/// nothing is left behind.
///
/// Writes go through a buffer of 256 kB. Not for use from several threads at once.
package final class AtomicFile {
  package let path: String
  let temporaryPath: String
  /// The file that the rename replaces: what `path` leads to where it is a symbolic link.
  private let target: String
  private(set) var descriptor: Int32
  private let buffer: UnsafeMutableRawBufferPointer
  private var buffered = 0
  private var flushed = 0
  private var neededBytes: Int?

  private static let bufferBytes = 256 << 10

  /// Makes the temporary file, so that a folder that cannot be written to is found before any work.
  /// - Parameter inputs: files that are read for it, and that it may not replace.
  package init(path: String, keeping inputs: [String] = []) throws(OutputFileError) {
    let target = try Self.resolve(path)
    if inputs.contains(where: { Self.isSameFile(target, $0) }) { throw .replacesInput(file: path) }
    let (folder, name) = Self.split(target)
    (descriptor, temporaryPath) = try Self.create(folder: folder, name: name, for: path)
    self.path = path
    self.target = target
    Interruption.register(temporaryPath)
    buffer = .allocate(byteCount: Self.bufferBytes, alignment: 4096)
  }

  deinit {
    cancel()
    buffer.deallocate()
  }

  /// The bytes written so far.
  package var byteCount: Int { flushed + buffered }

  /// Asks whether a file of `bytes` fits on the disk, so that a full disk is found before any work.
  package func requireSpace(bytes: Int) throws(OutputFileError) {
    neededBytes = bytes
    var disk = statvfs()
    // File systems without a size of their own report no blocks.
    guard fstatvfs(descriptor, &disk) == 0, disk.f_blocks > 0 else { return }
    let (free, overflow) = UInt64(disk.f_bavail).multipliedReportingOverflow(by: UInt64(disk.f_frsize))
    if !overflow, UInt64(bytes) > free { throw .diskFull(file: path, neededBytes: bytes) }
  }

  /// Appends `bytes`.
  package func write(_ bytes: UnsafeRawBufferPointer) throws(OutputFileError) {
    precondition(descriptor >= 0, "written to after commit or cancel")
    if bytes.count > buffer.count - buffered { try flush() }
    if bytes.count >= buffer.count {
      try writeAll(bytes, at: flushed)
      flushed += bytes.count
    } else if let base = bytes.baseAddress {
      (buffer.baseAddress! + buffered).copyMemory(from: base, byteCount: bytes.count)
      buffered += bytes.count
    }
  }

  package func write(_ bytes: [UInt8]) throws(OutputFileError) {
    // The closure returns its outcome, because the standard library's rethrows forgets the type of the error.
    try bytes.withUnsafeBytes { pointer -> Result<Void, OutputFileError> in
      do throws(OutputFileError) { return .success(try write(pointer)) } catch { return .failure(error) }
    }.get()
  }

  /// Overwrites bytes that were written before.
  /// - Parameter offset: from the start of the file; `offset + bytes.count` is at most `byteCount`.
  package func pwrite(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(OutputFileError) {
    precondition(descriptor >= 0 && offset >= 0 && offset + bytes.count <= byteCount)
    try flush()
    try writeAll(bytes, at: offset)
  }

  package func pwrite(_ bytes: [UInt8], at offset: Int) throws(OutputFileError) {
    try bytes.withUnsafeBytes { pointer -> Result<Void, OutputFileError> in
      do throws(OutputFileError) { return .success(try pwrite(pointer, at: offset)) } catch { return .failure(error) }
    }.get()
  }

  /// Puts everything on disk and gives the file its name.
  package func commit() throws(OutputFileError) {
    try flush()
    if fsync(descriptor) != 0 { throw failure() }
    let closed = close(descriptor)
    descriptor = -1
    defer { Interruption.forget(temporaryPath) }
    if closed != 0 || rename(temporaryPath, target) != 0 {
      let error = failure()
      unlink(temporaryPath)
      throw error
    }
    // The file is complete whatever happens here, and some file systems cannot sync a folder.
    let folder = open(Self.split(target).folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    if folder >= 0 {
      fsync(folder)
      close(folder)
    }
  }

  /// Removes the temporary file. Does nothing after `commit`.
  package func cancel() {
    guard descriptor >= 0 else { return }
    close(descriptor)
    descriptor = -1
    unlink(temporaryPath)
    Interruption.forget(temporaryPath)
  }

  private func flush() throws(OutputFileError) {
    try writeAll(UnsafeRawBufferPointer(rebasing: buffer[..<buffered]), at: flushed)
    flushed += buffered
    buffered = 0
  }

  private func writeAll(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(OutputFileError) {
    var done = 0
    while done < bytes.count {
      // Sound: reads `bytes.count - done` bytes from `done` on, all inside `bytes`.
      let count = Glibc.pwrite(descriptor, bytes.baseAddress! + done, bytes.count - done, off_t(offset + done))
      if count > 0 {
        done += count
      } else if count == 0 || errno != EINTR {
        throw failure()
      }
    }
  }

  private func failure() -> OutputFileError {
    OutputFileError(file: path, code: errno, neededBytes: neededBytes)
  }
}

extension AtomicFile {
  /// The file to replace: an existing link is followed, and what is no ordinary file is refused.
  private static func resolve(_ path: String) throws(OutputFileError) -> String {
    var status = stat()
    guard stat(path, &status) == 0 else {
      if path.isEmpty { throw .noName }
      if path.hasSuffix("/") { throw .notAFile(file: path, found: "the name of a folder") }
      return path
    }
    switch status.st_mode & S_IFMT {
    case S_IFREG: break
    case S_IFDIR: throw .notAFile(file: path, found: "a folder")
    default: throw .notAFile(file: path, found: "a device or a pipe")
    }
    guard let resolved = realpath(path, nil) else { throw OutputFileError(file: path, code: errno) }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  private static func isSameFile(_ path: String, _ other: String) -> Bool {
    var (first, second) = (stat(), stat())
    return stat(path, &first) == 0 && stat(other, &second) == 0 && first.st_dev == second.st_dev
      && first.st_ino == second.st_ino
  }

  private static func split(_ path: String) -> (folder: String, name: String) {
    guard let slash = path.lastIndex(of: "/") else { return (".", path) }
    let folder = path[..<slash]
    return (folder.isEmpty ? "/" : String(folder), String(path[path.index(after: slash)...]))
  }

  /// Opens a new file `.NAME.partial-PROCESS-NUMBER`; a long NAME is cut, because the whole may have 255 bytes.
  private static func create(
    folder: String, name: String, for path: String
  ) throws(OutputFileError) -> (descriptor: Int32, path: String) {
    let start = String(String.UnicodeScalarView(name.unicodeScalars.prefix(50)))
    var attempt = 0
    while true {
      let temporary = "\(folder)/.\(start).partial-\(getpid())-\(attempt)"
      let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
      if descriptor >= 0 { return (descriptor, temporary) }
      let code = errno
      attempt += 1
      if code == EEXIST, attempt < 1000 { continue }
      if code == ENOSPC || code == EDQUOT { throw .diskFull(file: path, neededBytes: nil) }
      throw .folder(file: path, folder: folder, reason: systemErrorText(code))
    }
  }
}
