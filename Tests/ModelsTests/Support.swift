import Glibc
import Kernels
import Tensors
import Testing

@testable import Models

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
}

/// Pools of the sizes that boards have, and one that divides nothing evenly.
let pools = [1, 2, 3].map { ThreadPool(threads: $0) }

/// A run with room for a layer and its input and output.
func makeRun(
  _ pool: ThreadPool = pools[1], kernels: KernelTable? = nil, isGuided: Bool = false,
  bandBytes: Int = Run.defaultBandBytes
) throws -> Run {
  let arena = try #require(Arena(capacity: 64 << 20))
  return Run(
    kernels: try kernels ?? KernelTable.best(), pool: pool, arena: arena, isGuided: isGuided, bandBytes: bandBytes)
}

extension Run {
  func matrix(_ rows: Int, _ columns: Int, _ values: [Float]) -> Matrix {
    precondition(values.count == rows * columns)
    let result = matrix(rows, columns)
    result.base.update(from: values, count: values.count)
    return result
  }

  func map(_ images: Int, _ height: Int, _ width: Int, _ channels: Int, _ values: [Float]) -> FeatureMap {
    precondition(values.count == images * height * width * channels)
    let result = featureMap(images, height, width, channels)
    result.tokens.base.update(from: values, count: values.count)
    return result
  }

  /// Not a number everywhere, so that an element that is not written is seen.
  func blank(_ rows: Int, _ columns: Int) -> Matrix {
    matrix(rows, columns, [Float](repeating: .nan, count: rows * columns))
  }
}

extension Matrix {
  var elements: [Float] { Array(UnsafeBufferPointer(start: base, count: count)) }
}

/// An exact result with what bounds the error of computing it.
struct Bounded {
  var value: Double
  var error: Double
}

/// Fails where an element is farther from the exact one than its bound; NaN never passes.
func expectWithin(
  _ found: [Float], _ expected: [Bounded], _ what: String = "", sourceLocation: SourceLocation = #_sourceLocation
) {
  guard found.count == expected.count else {
    Issue.record("\(what): \(found.count) elements, expected \(expected.count)", sourceLocation: sourceLocation)
    return
  }
  for (index, (found, expected)) in zip(found, expected).enumerated()
  where !((Double(found) - expected.value).magnitude <= expected.error) {
    Issue.record(
      "\(what): element \(index) is \(found), expected \(expected.value) within \(expected.error)",
      sourceLocation: sourceLocation)
    return
  }
}

/// Fails where two results differ in a bit.
func expectSameBits(
  _ found: [Float], _ expected: [Float], _ what: String = "", sourceLocation: SourceLocation = #_sourceLocation
) {
  guard found.count == expected.count else {
    Issue.record("\(what): \(found.count) elements, expected \(expected.count)", sourceLocation: sourceLocation)
    return
  }
  if let i = found.indices.first(where: { found[$0].bitPattern != expected[$0].bitPattern }) {
    Issue.record("\(what): [\(i)] is \(found[i]), expected \(expected[i])", sourceLocation: sourceLocation)
  }
}

func fixture(_ name: String, file: String = #filePath) -> String {
  file.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 } + "/Fixtures/" + name
}

/// Records a failure; returns nothing, so that it can end a function.
func fail(_ what: String, sourceLocation: SourceLocation = #_sourceLocation) {
  Issue.record("\(what)", sourceLocation: sourceLocation)
}
