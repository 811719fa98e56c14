import Kernels
import Testing

@Suite struct CeilingTests {
  @Test("What kernels are compared with in benchmarks runs on every processor, and adds up twice as much when asked to")
  func ceilings() {
    for table in KernelTable.available {
      guard let ceilings = table.ceilings else { continue }
      for ceiling in [ceilings.int8, ceilings.int8Pairs, ceilings.int8Fours, ceilings.attention] {
        // It adds up the same product over and over, from zero; 96 iterations are whole rounds of every way.
        #expect(ceiling(0) == 0, "\(table.name)")
        #expect(ceiling(96) != 0, "\(table.name)")
        #expect(ceiling(192) == 2 &* ceiling(96), "\(table.name)")
      }
    }
  }
}
