import Glibc
import Tensors

/// One block of anonymous memory that a stage's activations are stacked in. Freed by falling back to a mark, so the peak
/// depends on shapes alone.
package final class Arena {
  private let base: UnsafeMutableRawPointer
  package let capacity: Int
  private let isMapped: Bool
  package private(set) var used = 0
  package private(set) var peak = 0
  private var earlierPeak = 0
  /// How often all was forgotten.
  package private(set) var restarts = 0
  /// The most that was ever taken: what it costs of memory, as long as nothing is given back.
  package var touched: Int { max(peak, earlierPeak) }

  private static let alignment = 64

  /// Maps `capacity` bytes; a page costs memory once it is touched. Nil where the system refuses.
  package init?(capacity: Int) {
    let bytes = max(capacity, 1)
    let map = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let map, map != MAP_FAILED else { return nil }
    // Rows lie far apart: large pages, where the system has them, save looking up where.
    if bytes >= 32 << 20 { madvise(map, bytes, MADV_HUGEPAGE) }
    base = map
    self.capacity = bytes
    isMapped = true
  }

  /// Counts and hands out addresses that nobody may touch: for planning.
  private init() {
    base = UnsafeMutableRawPointer(bitPattern: Self.alignment)!
    capacity = .max
    isMapped = false
  }

  /// Forgets everything that was taken.
  package func restart() {
    earlierPeak = touched
    restarts += 1
    used = 0
    peak = 0
  }

  package static func planning() -> Arena { Arena() }

  deinit {
    if isMapped { munmap(base, capacity) }
  }

  /// The bytes that `count` elements of `type` take of the arena.
  package static func bytes<Element>(_ type: Element.Type, _ count: Int) -> Int {
    (count * MemoryLayout<Element>.stride).roundedUp(to: alignment)
  }

  /// `count` uninitialised elements, 64-byte aligned, valid until the enclosing `scratch` ends.
  package func allocate<Element>(_ type: Element.Type, _ count: Int) -> UnsafeMutablePointer<Element> {
    precondition(count >= 0)
    let bytes = Self.bytes(type, count)
    precondition(bytes <= capacity - used, "the arena was planned for other shapes")
    let pointer = (base + used).bindMemory(to: type, capacity: count)
    used += bytes
    peak = max(peak, used)
    return pointer
  }

  /// Frees everything after the first `bytes` from `pointer` on, which was handed out before.
  package func shrink(_ pointer: UnsafeMutableRawPointer, to bytes: Int) {
    release(to: (pointer - base + bytes).roundedUp(to: Self.alignment))
  }

  /// Gives memory that is not in use back to the system, `bytes` of it at least, or all that there is.
  package func discardUnused(_ bytes: Int) {
    // Whole large pages: a part of one is given back late.
    let wanted = max(0, touched - bytes) - Int(bitPattern: base + max(0, touched - bytes)) % (2 << 20)
    let start = max(used.roundedUp(to: Int(sysconf(Int32(_SC_PAGESIZE)))), wanted)
    // Sound: the pages are the arena's own, and nobody holds a piece of them.
    if isMapped, start < capacity { madvise(base + start, capacity - start, MADV_DONTNEED) }
  }

  package func release(to mark: Int) {
    precondition(mark <= used)
    used = mark
  }
}
