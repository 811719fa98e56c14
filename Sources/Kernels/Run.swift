import Glibc
import Tensors

/// Keeps weights in memory that are needed soon and takes out those that were.
package protocol WeightResidency: AnyObject {
  /// Called on the thread that runs the network, before any thread reads `bytes`.
  func willUse(_ bytes: UnsafeRawBufferPointer)
}

/// What a layer needs to run: the kernels, the threads and the memory. Passed to every layer, never global.
///
/// While planning, nothing is computed: allocations are counted and `parallel` does not call its body, so running a
/// network on a planning run gives the peak of its arena. Layers therefore touch elements in `parallel` bodies only.
package final class Run {
  package let kernels: KernelTable
  package let pool: ThreadPool
  package let arena: Arena
  package let isPlanning: Bool
  /// Whether maps and matrices hold the two halves of classifier-free guidance, one after the other; products then
  /// quantise the second half as its difference to the first.
  package let isGuided: Bool
  /// What is made of a band of a map for a moment takes about this much at most. No result depends on it.
  package let bandBytes: Int
  private let profile: Profile?
  private let weights: (any WeightResidency)?
  /// Compares products with what they stand for, if anybody asks.
  let observer: (any ProductObserver)?

  package init(
    kernels: KernelTable, pool: ThreadPool, arena: Arena, weights: (any WeightResidency)? = nil, isGuided: Bool = false,
    bandBytes: Int = defaultBandBytes, profile: Profile? = nil, observer: (any ProductObserver)? = nil
  ) {
    self.observer = observer
    self.bandBytes = bandBytes
    self.profile = profile
    self.weights = weights
    self.kernels = kernels
    self.pool = pool
    self.arena = arena
    self.isGuided = isGuided
    isPlanning = false
  }

  package static let defaultBandBytes = 2 << 20

  /// The same for one image of a guided run by itself.
  package var unguided: Run { Run(unguided: self) }

  private init(unguided run: Run) {
    kernels = run.kernels
    pool = run.pool
    arena = run.arena
    isPlanning = run.isPlanning
    isGuided = false
    bandBytes = run.bandBytes
    profile = run.profile
    weights = run.weights
    observer = run.observer
  }

  private init(planningFor pool: ThreadPool, isGuided: Bool, bandBytes: Int) {
    self.bandBytes = bandBytes
    kernels = Oracle.kernels
    self.pool = pool
    self.isGuided = isGuided
    arena = .planning()
    isPlanning = true
    profile = nil
    weights = nil
    observer = nil
  }

  /// The bytes of arena that `body` needs, which depend on shapes and the number of threads.
  package static func peak(
    pool: ThreadPool, isGuided: Bool = false, bandBytes: Int = defaultBandBytes, _ body: (Run) -> Void
  ) -> Int {
    let run = Run(planningFor: pool, isGuided: isGuided, bandBytes: bandBytes)
    body(run)
    return run.arena.peak
  }

  package func floats(_ count: Int) -> UnsafeMutablePointer<Float> { arena.allocate(Float.self, count) }
  package func vector(_ count: Int) -> Vector { Vector(base: floats(count), count: count) }
  package func matrix(_ rows: Int, _ columns: Int) -> Matrix {
    Matrix(base: floats(rows * columns), rows: rows, columns: columns)
  }
  package func matrix(like other: Matrix) -> Matrix { matrix(other.rows, other.columns) }
  package func rows(_ rows: Int, _ columns: Int, _ storage: Storage) -> StoredRows {
    let base: UnsafeMutableRawPointer
    switch storage {
    case .float32: base = UnsafeMutableRawPointer(floats(rows * columns))
    case .float16: base = UnsafeMutableRawPointer(arena.allocate(UInt16.self, rows * columns))
    }
    return StoredRows(base: base, storage: storage, rows: rows, columns: columns)
  }
  package func featureMap(
    _ images: Int, _ height: Int, _ width: Int, _ channels: Int, _ storage: Storage = .float32
  ) -> FeatureMap {
    FeatureMap(
      base: rows(images * height * width, channels, storage).base, storage: storage, images: images, height: height,
      width: width, channels: channels)
  }
  /// A map of the same size and storage.
  package func featureMap(like other: FeatureMap, channels: Int? = nil) -> FeatureMap {
    featureMap(other.images, other.height, other.width, channels ?? other.channels, other.storage)
  }

  /// Makes all images of `map` what its first `count` are.
  package func repeatImages(_ map: FeatureMap, first count: Int) {
    repeatRows(map.rows, first: count * map.height * map.width)
  }

  /// Makes all rows of `x` what its first `count` are.
  package func repeatRows(_ x: StoredRows, first count: Int) {
    precondition(count > 0 && x.rows % count == 0)
    serial {
      for row in stride(from: count, to: x.rows, by: count) {
        x.row(row).copyMemory(from: x.row(0), byteCount: count * x.columns * x.storage.bytes)
      }
    }
  }

  /// Frees everything from `mark` on but `map`, which moves there.
  package func settle(_ map: FeatureMap, at mark: Int) -> FeatureMap {
    arena.release(to: mark)
    let place = featureMap(like: map)
    serial { if place.base != map.base { place.base.copyMemory(from: map.base, byteCount: map.bytes) } }
    return place
  }

  /// Frees at its end whatever `body` took of the arena.
  package func scratch<Result>(_ body: () -> Result) -> Result {
    let mark = arena.used
    defer { arena.release(to: mark) }
    return body()
  }

  /// Calls `body` with pieces of 0..<count, each of up to `grain`, on all threads; every piece must give the same result
  /// whatever the partition.
  /// - Parameter products: multiply-accumulates, for a profile.
  package func parallel(
    _ work: Work, _ count: Int, grain: Int = 1, products: Int = 0, _ body: (Range<Int>) -> Void
  ) {
    guard !isPlanning, count > 0 else { return }
    timed(work, products) { pool.parallel(count, grain: grain, body) }
  }

  /// The same with floats of the arena for each piece, [scratch], that no other piece has at the time.
  package func parallel(
    _ work: Work, _ count: Int, grain: Int = 1, scratch: Int, products: Int = 0,
    _ body: (Range<Int>, UnsafeMutablePointer<Float>) -> Void
  ) {
    self.scratch {
      let stride = scratch.roundedUp(to: 16)
      let floats = floats(pool.threads * stride)
      guard !isPlanning, count > 0 else { return }
      timed(work, products) {
        pool.parallelByWorker(count, grain: grain) { worker, range in body(range, floats + worker * stride) }
      }
    }
  }

  /// Says which weights the next pieces of work read.
  func willUse(_ matrix: PackedMatrix, panels: Range<Int>? = nil) {
    guard !isPlanning, let weights else { return }
    weights.willUse(panels.map { matrix.bytes(ofPanels: $0) } ?? matrix.bytes)
  }

  private func timed(_ work: Work, _ products: Int, _ body: () -> Void) {
    guard let profile else { return body() }
    let start = Self.seconds()
    body()
    profile.add(work, seconds: Self.seconds() - start, products: products)
  }

  private static func seconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }

  /// Runs of 0..<count, of which each makes `bytes` apiece.
  package func bands(of count: Int, bytes: Int) -> [Range<Int>] {
    let most = max(1, bandBytes / max(1, bytes))
    let bands = max(1, count.roundedUp(to: most) / most)
    let size = max(1, count.roundedUp(to: bands) / bands)
    return stride(from: 0, to: count, by: size).map { $0..<min($0 + size, count) }
  }

  /// Calls `body` once, on this thread, unless planning.
  package func serial(_ body: () -> Void) {
    if !isPlanning { body() }
  }
}
