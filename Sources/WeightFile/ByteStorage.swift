import Glibc

/// Read-only bytes that live as long as this object: a mapped file, or memory of our own.
///
/// Sound to share between threads: nothing writes to the bytes after `init`. A mapped file that another process shortens
/// while it is open ends this process with SIGBUS, as every reader of mapped files does.
final class ByteStorage: @unchecked Sendable {
  let bytes: UnsafeRawBufferPointer
  private let isMapped: Bool

  init(copying source: some Collection<UInt8>) {
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: source.count, alignment: 64)
    copy.copyBytes(from: source)
    bytes = UnsafeRawBufferPointer(copy)
    isMapped = false
  }

  /// Maps the whole of an ordinary file that is not empty.
  init(mapping path: String) throws(WeightFileError) {
    let (descriptor, size) = try openForReading(path)
    defer { close(descriptor) }
    if size == 0 { throw .wrongKind(file: path, kind: .empty) }
    guard let base = mmap(nil, size, PROT_READ, MAP_SHARED, descriptor, 0), base != MAP_FAILED else {
      throw .unreadable(file: path, reason: systemErrorText(errno))
    }
    bytes = UnsafeRawBufferPointer(start: base, count: size)
    isMapped = true
  }

  deinit {
    if isMapped {
      munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress!), bytes.count)
    } else {
      bytes.deallocate()
    }
  }

  /// Asks the system to read `range` ahead.
  func prefetch(_ range: Range<Int>) {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    advise(range.lowerBound / page * page..<range.upperBound, Int32(MADV_WILLNEED))
  }

  /// Takes the pages that lie wholly inside `range` out of this process's memory; they come back from the file when used.
  func release(_ range: Range<Int>) {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let start = (range.lowerBound + page - 1) / page * page
    let end = range.upperBound == bytes.count ? bytes.count : range.upperBound / page * page
    if start < end { advise(start..<end, Int32(MADV_DONTNEED)) }
  }

  /// Calls madvise in pieces, because one call over gigabytes would block and read-ahead is cut at a limit.
  private func advise(_ range: Range<Int>, _ advice: Int32) {
    precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count)
    guard isMapped else { return }
    let piece = 2 << 20
    // Sound: the range is inside the mapping, and neither advice changes what a shared file mapping contains.
    let base = UnsafeMutableRawPointer(mutating: bytes.baseAddress!)
    for start in stride(from: range.lowerBound, to: range.upperBound, by: piece) {
      madvise(base + start, min(piece, range.upperBound - start), advice)
    }
  }
}

/// Opens an ordinary file. The caller closes the descriptor.
func openForReading(_ path: String) throws(WeightFileError) -> (descriptor: Int32, size: Int) {
  // O_NONBLOCK, so that a pipe is refused and not waited for.
  let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
  if descriptor < 0 { throw .unreadable(file: path, reason: systemErrorText(errno)) }
  var status = stat()
  if fstat(descriptor, &status) != 0 {
    let reason = systemErrorText(errno)
    close(descriptor)
    throw .unreadable(file: path, reason: reason)
  }
  switch status.st_mode & S_IFMT {
  case S_IFREG: return (descriptor, Int(status.st_size))
  case S_IFDIR:
    close(descriptor)
    throw .wrongKind(file: path, kind: .folder)
  default:
    close(descriptor)
    throw .wrongKind(file: path, kind: .special)
  }
}
