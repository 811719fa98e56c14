import CKernels
import Foundation
import Kernels
import Testing

@Suite struct KernelChoiceTests {
  /// What the system says of the first processor, by the names of its fields; an emulator may show the one it runs on.
  private static let description: [String: Set<Substring>] = {
    guard ProcessInfo.processInfo.environment["AUDIOTOKEN_EMULATED"] == nil,
      let text = try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)
    else { return [:] }
    let fields = text.split(separator: "\n").map { line in
      line.split(separator: ":", maxSplits: 1).map { $0.split(whereSeparator: \.isWhitespace) }
    }
    return Dictionary(
      fields.filter { $0.count == 2 }.map { ($0[0].joined(separator: " "), Set($0[1])) },
      uniquingKeysWith: { first, _ in first })
  }()

  private static let flags = description["flags"] ?? description["Features"]

  @Test(
    "Without a wish this processor gets the kernels for what the system says of it",
    .enabled(if: flags != nil, "the system does not describe the processor"))
  func thisProcessor() throws {
    let flags = try #require(Self.flags)
    #if arch(arm64)
      let expected = !flags.contains("asimddp") ? "neon" : flags.contains("i8mm") ? "i8mm" : "dotprod"
    #else
      let isZen = Self.description["vendor_id"] == ["AuthenticAMD"] && Self.description["cpu family"] == ["23"]
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
