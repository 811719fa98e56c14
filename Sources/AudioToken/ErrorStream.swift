import Glibc
import Synchronization

/// The standard error stream of the process.
package enum ErrorStream {
  private static let inUse = Mutex(())

  /// Runs `body` while whatever is written to standard error, or to `descriptor`, disappears.
  ///
  /// libsndfile's MPEG decoder prints warnings there and offers no switch through libsndfile. The stream belongs to the whole
  /// process, so this is used for the short time of reading an MP3 file and for nothing else. The lock keeps two readers from
  /// taking each other's silence for the stream to restore. Where the stream cannot be replaced, `body` runs all the same.
  package static func silenced<Result: Sendable, Failure: Error>(
    _ descriptor: Int32 = STDERR_FILENO, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try inUse.withLock { _ throws(Failure) -> Result in
      let saved = fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
      let nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC)
      if saved >= 0, nowhere >= 0 { dup2(nowhere, descriptor) }
      defer {
        if saved >= 0, nowhere >= 0 { dup2(saved, descriptor) }
        if saved >= 0 { close(saved) }
        if nowhere >= 0 { close(nowhere) }
      }
      return try body()
    }
  }
}
