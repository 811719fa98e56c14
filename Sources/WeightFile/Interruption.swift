import Glibc

/// Removes the temporary files of this process, and new folders that are empty, when it is interrupted, so that Ctrl-C
/// leaves nothing behind.
///
/// Sound although a signal may come at any moment: the handler only reads slots that are a complete C string whenever
/// their first byte is not zero, and only calls functions that are safe in a handler (unlink, rmdir, write, _exit). Slots are
/// changed by threads that hold the lock and with the first byte written last.
package enum Interruption {
  private static let slotBytes = 4096
  private static let slotCount = 16
  nonisolated(unsafe) private static let slots: UnsafeMutablePointer<CChar> = {
    let slots = UnsafeMutablePointer<CChar>.allocate(capacity: slotBytes * slotCount)
    slots.initialize(repeating: 0, count: slotBytes * slotCount)
    return slots
  }()
  nonisolated(unsafe) private static let lock: UnsafeMutablePointer<pthread_mutex_t> = {
    let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    pthread_mutex_init(lock, nil)
    return lock
  }()

  /// Catches SIGINT, SIGTERM, SIGHUP and SIGPIPE: they then remove what is registered and end the process with
  /// 128 + signal. A file that grows over the limit of the process gives an error instead of a signal.
  package static func install() {
    _ = (slots, lock)
    signal(SIGXFSZ, SIG_IGN)
    for number in [SIGINT, SIGTERM, SIGHUP, SIGPIPE] {
      signal(number) { number in
        for slot in 0..<Interruption.slotCount where Interruption.slots[slot * Interruption.slotBytes] != 0 {
          unlink(Interruption.slots + slot * Interruption.slotBytes)
        }
        for slot in 0..<Interruption.slotCount where Interruption.slots[slot * Interruption.slotBytes] != 0 {
          rmdir(Interruption.slots + slot * Interruption.slotBytes)
        }
        _ = write(STDERR_FILENO, "\n", 1)
        _exit(128 + number)
      }
    }
  }

  /// - Parameter path: a file, or a folder that is removed if it is empty then.
  package static func register(_ path: String) {
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    let characters = path.utf8CString
    guard characters.count <= slotBytes, let first = characters.first,
      let slot = (0..<slotCount).first(where: { slots[$0 * slotBytes] == 0 })
    else { return }
    let base = slots + slot * slotBytes
    for index in characters.indices.dropFirst() { base[index] = characters[index] }
    base[0] = first
  }

  package static func forget(_ path: String) {
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    for slot in 0..<slotCount where strcmp(slots + slot * slotBytes, path) == 0 { slots[slot * slotBytes] = 0 }
  }
}
