import CKernels
import Kernels
import Synchronization
import Testing

/// How often each index was visited, from any thread.
private final class Visits: Sendable {
  private let counts: [Counter]

  private final class Counter: Sendable {
    let value = Atomic<Int>(0)
  }

  init(_ count: Int) { counts = (0..<count).map { _ in Counter() } }

  func add(_ range: Range<Int>) { for i in range { counts[i].value.wrappingAdd(1, ordering: .relaxed) } }
  var all: [Int] { counts.map { $0.value.load(ordering: .relaxed) } }
}

@Suite struct ThreadPoolTests {
  @Test("Every piece of work is done exactly once", arguments: 1...4)
  func everyIndexOnce(threads: Int) {
    let pool = ThreadPool(threads: threads)
    #expect(pool.threads == threads)
    for count in [0, 1, 2, 3, 7, 64, 1000] {
      for grain in [1, 2, 3, 16, 999, 1000, 5000] {
        let visits = Visits(count)
        let tooLarge = Atomic<Int>(0)
        pool.parallel(count, grain: grain) { range in
          if range.isEmpty || range.count > grain { tooLarge.wrappingAdd(1, ordering: .relaxed) }
          visits.add(range)
        }
        #expect(visits.all == [Int](repeating: 1, count: count), "count \(count), grain \(grain)")
        #expect(tooLarge.load(ordering: .relaxed) == 0, "count \(count), grain \(grain)")
      }
    }
  }

  @Test("Regions in a row see the results of the ones before", arguments: 1...4)
  func manyRegions(threads: Int) {
    let pool = ThreadPool(threads: threads)
    // Plain memory, so that a region that ends early or starts late loses an increment.
    let values = UnsafeMutablePointer<Int>.allocate(capacity: 37)
    defer { values.deallocate() }
    values.initialize(repeating: 0, count: 37)
    let address = UInt(bitPattern: values)
    for region in 0..<20_000 {
      pool.parallel(37, grain: 1 + region % 5) { range in
        let values = UnsafeMutablePointer<Int>(bitPattern: address)!
        for i in range { values[(i + region) % 37] += 1 }
      }
    }
    #expect((0..<37).allSatisfy { values[$0] == 20_000 })
  }

  @Test("A sleeping pool wakes up again")
  func regionsAfterSleep() async throws {
    let pool = ThreadPool(threads: 3)
    for _ in 0..<20 {
      let visits = Visits(50)
      pool.parallel(50) { visits.add($0) }
      #expect(visits.all == [Int](repeating: 1, count: 50))
      try await Task.sleep(for: .milliseconds(3))
    }
  }

  @Test("A region inside a region, and one from another thread, are done as well")
  func nestedAndConcurrentRegions() async {
    let pool = ThreadPool(threads: 3)
    let visits = Visits(30 * 40)
    pool.parallel(30) { outer in
      for i in outer { pool.parallel(40, grain: 3) { visits.add(i * 40 + $0.lowerBound..<i * 40 + $0.upperBound) } }
    }
    #expect(visits.all == [Int](repeating: 1, count: 30 * 40))
    await withTaskGroup(of: [Int].self) { group in
      for _ in 0..<4 {
        group.addTask {
          let visits = Visits(300)
          for _ in 0..<200 { pool.parallel(300, grain: 7) { visits.add($0) } }
          return visits.all
        }
      }
      for await counts in group { #expect(counts == [Int](repeating: 200, count: 300)) }
    }
  }

  @Test("Handing a line of the cache over ends, and takes some time")
  func handover() {
    let seconds = at_handover_seconds()
    #expect(seconds > 0 && seconds.isFinite)
  }

  @Test("Pools come and go without leaving threads behind")
  func creationAndDestruction() {
    for round in 0..<200 {
      let pool = ThreadPool(threads: 1 + round % 4)
      if round % 3 == 0 { continue }
      let visits = Visits(9)
      pool.parallel(9) { visits.add($0) }
      #expect(visits.all == [Int](repeating: 1, count: 9))
    }
  }
}
