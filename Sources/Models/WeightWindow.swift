import Glibc
import Kernels
import WeightFile

/// The part of a stage's weights that is in memory: a window that slides over the file.
///
/// The file holds weights in the order in which they are read, so what lies before the window has been used and what lies
/// behind it comes next. Pages that are taken out stay in the system's cache where it has room, so that nothing is read
/// from the disk twice for want of a larger window alone.
package final class WeightWindow: WeightResidency {
  private let file: WeightFile
  private let stage: Range<Int>
  private let budget: Int
  /// Bytes that the system is asked to read ahead of the window; they are not yet this process's.
  private let ahead: Int
  private let page = Int(sysconf(Int32(_SC_PAGESIZE)))
  private var window: Range<Int>
  private var requested: Int
  /// Called at every use, on the thread of the network.
  package var onUse: (() -> Void)?

  /// - Parameters:
  ///   - stage: the part of the file that holds the stage.
  ///   - budget: bytes of weights that may be in memory; at least those of the largest matrix.
  package init(_ file: WeightFile, stage: Range<Int>, budget: Int) {
    self.file = file
    self.stage = stage
    self.budget = budget
    ahead = min(8 << 20, max(1 << 20, budget / 8))
    window = stage.lowerBound..<stage.lowerBound
    requested = stage.lowerBound
  }

  package func willUse(_ bytes: UnsafeRawBufferPointer) {
    guard let base = bytes.baseAddress else { return }
    let start = file.offset(of: base)
    let range = start..<start + bytes.count
    if range.lowerBound < window.lowerBound {
      // The next pass over the stage, or a tensor that is read out of order.
      file.release(window)
      window = range.lowerBound / page * page..<range.upperBound
      requested = range.lowerBound
    } else {
      window = window.lowerBound..<max(window.upperBound, range.upperBound)
      slide(past: range.lowerBound)
    }
    readAhead(from: range.lowerBound)
    onUse?()
  }

  /// Drops the oldest pages beyond the budget, and none from `limit` on.
  private func slide(past limit: Int) {
    let excess = window.count - budget
    guard excess > 0 else { return }
    let end = min(limit, window.lowerBound + excess) / page * page
    guard end > window.lowerBound else { return }
    file.release(window.lowerBound..<end)
    window = end..<window.upperBound
  }

  /// Asks for what is read now, in order, before threads ask for pieces of it at once, and for what comes next.
  private func readAhead(from start: Int) {
    let end = min(window.upperBound + ahead, stage.upperBound)
    guard end > requested else { return }
    file.prefetch(max(requested, start)..<end)
    requested = end
  }
}
