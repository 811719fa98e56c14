import Kernels
import Testing

@Suite struct CeilingTests {
  @Test("What kernels are compared with in benchmarks runs on every processor, and does as much work as it says")
  func ceilings() {
    for table in KernelTable.available {
      guard let ceilings = table.ceilings else { continue }
      for ceiling in [ceilings.int8, ceilings.int8Pairs, ceilings.int8Fours, ceilings.attention] {
        // A sum of the same product over and over, from zero.
        #expect(ceiling(0) == 0, "\(table.name)")
        #expect(ceiling(96) != 0, "\(table.name)")
        #expect(ceiling(96) == ceiling(96), "\(table.name)")
      }
    }
  }
}
