import CKernels
import Kernels
import Testing

@Suite struct KernelChoiceTests {
  @Test("Without a wish the fastest kernels of this processor are taken")
  func fastest() throws {
    #expect(try KernelTable.best().name == KernelTable.available.last?.name)
  }

  #if arch(arm64)
    static let choices = [
      ("neon", [AT_CPU_NEON]), ("dotprod", [AT_CPU_NEON, AT_CPU_DOTPROD]),
      ("i8mm", [AT_CPU_NEON, AT_CPU_DOTPROD, AT_CPU_I8MM]),
    ]
  #else
    static let choices = [
      ("sse41", [AT_CPU_SSE41]), ("avx2", [AT_CPU_SSE41, AT_CPU_AVX2]),
      ("avx2single", [AT_CPU_SSE41, AT_CPU_AVX2, AT_CPU_SINGLE_MULTIPLIER]),
      ("avxvnni", [AT_CPU_SSE41, AT_CPU_AVX2, AT_CPU_AVX_VNNI]),
      ("avx512vnni", [AT_CPU_SSE41, AT_CPU_AVX2, AT_CPU_AVX_VNNI, AT_CPU_AVX512_VNNI]),
    ]
  #endif

  @Test("Each generation of processors gets the kernels written for it", arguments: choices)
  func generation(_ name: String, _ features: [Int]) throws {
    #expect(try KernelTable.best(for: features.reduce(0) { $0 | UInt32($1) }).name == name)
  }

  #if arch(arm64)
    @Test("Matrix instructions are not used without the dot products that go with them")
    func matrixInstructionsAlone() throws {
      #expect(try KernelTable.best(for: UInt32(AT_CPU_NEON | AT_CPU_I8MM)).name == "neon")
    }
  #endif

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
