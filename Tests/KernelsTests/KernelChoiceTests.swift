import CKernels
import Kernels
import Testing

@Suite struct KernelChoiceTests {
  @Test("Without a wish the fastest kernels of this processor are taken")
  func fastest() throws {
    #expect(try KernelTable.best().name == KernelTable.available.last?.name)
    #if arch(arm64)
      #expect(try KernelTable.best().name == "neon")
    #else
      #expect(try KernelTable.best(for: UInt32(AT_CPU_AVX2)).name == "avx2")
    #endif
  }

  @Test("A processor without vector instructions still runs")
  func plainProcessor() throws {
    #expect(try KernelTable.best(for: 0).name == "portable")
    #expect(try KernelTable.best(for: 0, named: "oracle").name == "oracle")
  }

  @Test("Every available table can be asked for by name", arguments: KernelTable.available)
  func byName(_ table: KernelTable) throws {
    #expect(try KernelTable.best(named: table.name).name == table.name)
  }

  @Test("A misspelt name is reported with the names that there are")
  func unknownName() {
    let available = KernelTable.available.map(\.name)
    let error = KernelChoiceError.unknown(name: "AVX2", available: available)
    #expect(throws: error) { try KernelTable.best(named: "AVX2") }
    #expect(error.description.contains("\"AVX2\"") && available.allSatisfy(error.description.contains))
  }

  @Test("Kernels of another processor are refused, not run")
  func otherProcessor() {
    #if arch(arm64)
      let other = "avx2"
    #else
      let other = "neon"
    #endif
    #expect(throws: KernelChoiceError.cannotRun(name: other, available: KernelTable.available.map(\.name))) {
      try KernelTable.best(named: other)
    }
    let fast = KernelTable.available[KernelTable.available.count - 1].name
    #expect(throws: KernelChoiceError.cannotRun(name: fast, available: ["oracle", "portable"])) {
      try KernelTable.best(for: 0, named: fast)
    }
  }
}
