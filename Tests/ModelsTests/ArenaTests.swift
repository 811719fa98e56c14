import Kernels
import Testing

@testable import Models

@Suite struct ArenaTests {
  @Test("Pieces of an arena are aligned, apart from each other, and reused after their scratch")
  func allocation() throws {
    let arena = try #require(Arena(capacity: 4096))
    let run = Run(kernels: Oracle.kernels, pool: pools[0], arena: arena)
    let first = arena.allocate(UInt8.self, 1)
    let (inner, after) = run.scratch {
      let second = arena.allocate(Float.self, 17)
      let third = run.scratch { arena.allocate(Int32.self, 16) }
      let fourth = arena.allocate(Int32.self, 16)
      #expect(UInt(bitPattern: third) == UInt(bitPattern: fourth))
      #expect(UInt(bitPattern: third) == UInt(bitPattern: second) + 128)
      return (UInt(bitPattern: second), arena.used)
    }
    #expect(inner == UInt(bitPattern: first) + 64 && inner % 64 == 0)
    #expect(after == 64 + 128 + 64 && arena.peak == after && arena.used == 64)
    #expect(UInt(bitPattern: arena.allocate(Float.self, 1)) == inner)
    _ = arena.allocate(UInt8.self, 4096 - 128)
    #expect(arena.used == 4096 && arena.peak == 4096)
    _ = arena.allocate(Float.self, 0)
    arena.release(to: 0)
    #expect(arena.used == 0 && arena.peak == 4096)
  }

  @Test("An arena that the system cannot give is refused, not fatal")
  func refusal() {
    #expect(Arena(capacity: 1 << 60) == nil)
  }

  @Test("Planning counts what a run takes and runs nothing")
  func planning() {
    let peak = Run.peak(pool: pools[2]) { run in
      #expect(run.isPlanning)
      run.parallel(.elementwise, 1 << 40) { _ in Issue.record("a piece was run") }
      run.serial { Issue.record("a serial part was run") }
      run.scratch { _ = run.featureMap(1, 1 << 10, 1 << 10, 1 << 10) }
      _ = run.matrix(3, 5)
    }
    #expect(peak == 4 << 30)
  }

  #if compiler(>=6.2)
    @Test("A piece that was not planned stops the program before it writes elsewhere")
    func overflow() async {
      await #expect(processExitsWith: .failure) {
        let arena = Arena(capacity: 128)!
        _ = arena.allocate(Float.self, 16)
        _ = arena.allocate(Float.self, 17)
      }
      await #expect(processExitsWith: .success) {
        let arena = Arena(capacity: 128)!
        _ = arena.allocate(Float.self, 16)
        _ = arena.allocate(Float.self, 16)
      }
    }

    @Test("Giving back what was never taken stops the program")
    func release() async {
      await #expect(processExitsWith: .failure) {
        let arena = Arena(capacity: 128)!
        _ = arena.allocate(Float.self, 1)
        arena.release(to: 65)
      }
    }
  #endif
}
