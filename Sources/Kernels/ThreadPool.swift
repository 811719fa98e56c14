import CKernels

/// The threads that kernels run on: the caller and `threads - 1` helpers that live as long as the pool.
///
/// Sound to share: the C pool keeps regions apart itself. A region started while another one runs, from inside it or
/// from another thread, is worked off by its caller alone.
package final class ThreadPool: @unchecked Sendable {
  /// The caller counts as one. One where the system refuses more threads.
  package let threads: Int
  private let pool: OpaquePointer?

  package init(threads: Int) {
    let wanted = min(max(threads, 1), 1024)
    pool = wanted > 1 ? at_pool_create(Int32(wanted)) : nil
    self.threads = pool == nil ? 1 : wanted
  }

  deinit {
    if let pool { at_pool_destroy(pool) }
  }

  /// Calls `body` with ranges of at most `grain` indices that cover `0..<count` once, from any thread, in any order.
  /// Returns when all are done.
  package func parallel(_ count: Int, grain: Int = 1, _ body: (Range<Int>) -> Void) {
    parallelByWorker(count, grain: grain) { _, range in body(range) }
  }

  /// The same with a number below `threads` that no two pieces have at the same time, unless a region is started while
  /// another one runs.
  package func parallelByWorker(_ count: Int, grain: Int, _ body: (_ worker: Int, Range<Int>) -> Void) {
    precondition(count >= 0 && grain > 0)
    guard let pool else {
      for begin in stride(from: 0, to: count, by: grain) { body(0, begin..<min(count, begin + grain)) }
      return
    }
    // The pointer to the region is good until at_pool_run returns, and no helper looks at it after that.
    withoutActuallyEscaping(body) { body in
      withUnsafePointer(to: Region(body: body)) { region in
        at_pool_run(
          pool, count, grain,
          { region, worker, begin, end in
            region!.assumingMemoryBound(to: Region.self).pointee.body(worker, begin..<end)
          },
          UnsafeMutableRawPointer(mutating: region))
      }
    }
  }

  private struct Region {
    let body: (Int, Range<Int>) -> Void
  }
}
