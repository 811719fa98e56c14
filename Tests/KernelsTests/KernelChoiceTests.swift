import CKernels
import Foundation
import Kernels
import Testing

@Suite struct KernelChoiceTests {
  /// What an emulator shows is the processor that it runs on.
  private static let isEmulated = ProcessInfo.processInfo.environment["AUDIOTOKEN_EMULATED"] != nil

  @Test("Without a wish this processor gets the kernels for what the system says of it", .disabled(if: isEmulated))
  func thisProcessor() throws {
    var fields: [String: [Substring]] = [:]
    for line in try String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8).split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 1).map { $0.split(whereSeparator: \.isWhitespace) }
      if parts.count == 2 { fields[parts[0].joined(separator: " ")] = parts[1] }
    }
    #if arch(arm64)
      let flags = Set(try #require(fields["Features"]))
      let expected = !flags.contains("asimddp") ? "neon" : flags.contains("i8mm") ? "i8mm" : "dotprod"
    #else
      let flags = Set(try #require(fields["flags"]))
      let isZen = fields["vendor_id"] == ["AuthenticAMD"] && fields["cpu family"] == ["23"]
      let expected =
        if !flags.isSuperset(of: ["avx2", "f16c"]) {
          flags.contains("sse4_1") ? "sse41" : "portable"
        } else if flags.isSuperset(of: ["avx512bw", "avx512dq", "avx512vl", "avx512_vnni"]) {
          "avx512vnni"
        } else if flags.contains("avx_vnni") {
          "avxvnni"
        } else {
          isZen ? "avx2single" : "avx2"
        }
    #endif
    #expect(try KernelTable.best().name == expected)
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
