import CKernels
import Glibc
import Kernels
import Testing

/// Every table of this processor that must agree with the oracle.
let variants = KernelTable.available.filter { $0.name != "oracle" }

extension KernelTable: CustomTestStringConvertible {
  public var testDescription: String { name }
}

/// SplitMix64: the same numbers on every run.
struct Generator: RandomNumberGenerator {
  var state: UInt64

  init(_ seed: Int) { state = UInt64(truncatingIfNeeded: seed) }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  mutating func float(_ range: ClosedRange<Float> = -1...1) -> Float { Float.random(in: range, using: &self) }
  mutating func floats(_ count: Int, _ range: ClosedRange<Float> = -1...1) -> [Float] {
    (0..<count).map { _ in float(range) }
  }
  mutating func integer<T: FixedWidthInteger>(_ range: ClosedRange<T>) -> T { T.random(in: range, using: &self) }
  mutating func pick<T>(_ choices: [T]) -> T { choices[integer(0...choices.count - 1)] }
}

/// Elements between two pages that cannot be touched: the last element ends at the second one, so an access past the
/// end, or a page before the beginning, kills the process.
final class Guarded<Element: BitwiseCopyable> {
  let base: UnsafeMutablePointer<Element>
  let count: Int
  private let mapping: UnsafeMutableRawPointer
  private let mappedBytes: Int

  init(_ elements: [Element]) {
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let bytes = elements.count * MemoryLayout<Element>.stride
    let inner = max(1, (bytes + page - 1) / page) * page
    mappedBytes = inner + 2 * page
    mapping = mmap(nil, mappedBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    precondition(mapping != MAP_FAILED && mprotect(mapping + page, inner, PROT_READ | PROT_WRITE) == 0)
    count = elements.count
    base = (mapping + page + inner - bytes).bindMemory(to: Element.self, capacity: count)
    base.initialize(from: elements, count: count)
  }

  deinit { munmap(mapping, mappedBytes) }

  var elements: [Element] { Array(UnsafeBufferPointer(start: base, count: count)) }
}

/// Elements of a map, f32 or rounded to f16, guarded.
final class Elements {
  private let floats: Guarded<Float>
  private let halves: Guarded<UInt16>
  private let isHalf: Bool

  init(_ values: [Float], halves isHalf: Bool) {
    floats = Guarded(isHalf ? [] : values)
    halves = Guarded(isHalf ? values.map { Float16($0).bitPattern } : [])
    self.isHalf = isHalf
  }

  var base: UnsafeMutableRawPointer {
    isHalf ? UnsafeMutableRawPointer(halves.base) : UnsafeMutableRawPointer(floats.base)
  }
  var elements: [Float] { isHalf ? halves.elements.map { Float(Float16(bitPattern: $0)) } : floats.elements }
}

func call<Arguments>(_ kernel: (UnsafePointer<Arguments>) -> Void, _ arguments: Arguments) {
  withUnsafePointer(to: arguments) { kernel($0) }
}

/// Reports the first element whose bits differ.
func expectSameBits(
  _ found: [Float], _ expected: [Float], _ what: @autoclosure () -> String,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  guard found.count == expected.count else {
    Issue.record("\(what()): \(found.count) elements, expected \(expected.count)", sourceLocation: sourceLocation)
    return
  }
  if let i = found.indices.first(where: { found[$0].bitPattern != expected[$0].bitPattern }) {
    Issue.record("\(what()): [\(i)] is \(found[i]), expected \(expected[i])", sourceLocation: sourceLocation)
  }
}
