import Models
import Tensors

/// How weights are stored.
package enum WeightType: String, CaseIterable, Sendable {
  case int8
  case float16 = "f16"
  case float32 = "f32"
}

/// Energy of weights and of what quantisation changed in them.
package struct QuantisationError: Sendable {
  package var signal = 0.0
  package var noise = 0.0
  /// |W - Q(W)| / |W|
  package var relative: Double { signal > 0 ? (noise / signal).squareRoot() : 0 }

  mutating func add(_ other: QuantisationError) {
    signal += other.signal
    noise += other.noise
  }
}

/// Symmetric int8 with one scale for each row: w = scale * q, |q| <= 127.
enum Quantiser {
  static let limit: Float = 127

  /// Quantises `values` into `codes` and returns the scale; nil where a value is not finite.
  static func quantise(
    _ values: UnsafeBufferPointer<Float>, into codes: UnsafeMutableBufferPointer<Int8>, _ error: inout QuantisationError
  ) -> Float? {
    var greatest: Float = 0
    for value in values {
      guard value.isFinite else { return nil }
      greatest = max(greatest, value.magnitude)
    }
    let scale = greatest / limit
    // Below this the scale itself is denormal; such a row is zero for every purpose.
    guard scale > .leastNormalMagnitude else {
      for i in codes.indices { codes[i] = 0 }
      return 0
    }
    for i in values.indices {
      let code = min(max((values[i] / scale).rounded(.toNearestOrEven), -limit), limit)
      codes[i] = Int8(code)
      let difference = Double(values[i]) - Double(code * scale)
      error.signal += Double(values[i]) * Double(values[i])
      error.noise += difference * difference
    }
    return scale
  }
}

/// One panel of eight outputs on its way into the file.
struct PanelPacker {
  let shape: MatrixShape
  private var row: [Float]
  private var codes: [Int8]

  init(_ shape: MatrixShape) {
    self.shape = shape
    row = Array(repeating: 0, count: shape.inputs * shape.taps)
    codes = Array(repeating: 0, count: shape.inputs * shape.taps)
  }

  /// The outputs that panel `panel` holds.
  func outputs(_ panel: Int) -> Range<Int> {
    let perGroup = shape.outputs / shape.groups
    let (group, part) = panel.quotientAndRemainder(dividingBy: shape.panelsPerGroup)
    let first = part * MatrixShape.panel
    return group * perGroup + first..<group * perGroup + min(first + MatrixShape.panel, perGroup)
  }

  /// int8 [taps, inputs/4, 8, 4] into `packed`, which must be zero; scales and per-tap sums at padded output positions.
  mutating func int8(
    _ panel: Int, of source: SourceMatrix, into packed: inout [Int8], scales: inout [Float], sums: inout [Int32],
    _ error: inout QuantisationError
  ) -> Bool {
    for (lane, output) in outputs(panel).enumerated() {
      let position = panel * MatrixShape.panel + lane
      let scale = row.withUnsafeMutableBufferPointer { row -> Float? in
        guard let base = row.baseAddress else { return nil }
        source.read(output, into: base)
        return codes.withUnsafeMutableBufferPointer { Quantiser.quantise(UnsafeBufferPointer(row), into: $0, &error) }
      }
      guard let scale else { return false }
      scales[position] = scale
      for tap in 0..<shape.taps {
        var sum: Int32 = 0
        for input in 0..<shape.inputs {
          let code = codes[input * shape.taps + tap]
          sum += Int32(code)
          let quad = tap * shape.paddedInputs / MatrixShape.quad + input / MatrixShape.quad
          packed[(quad * MatrixShape.panel + lane) * MatrixShape.quad + input % MatrixShape.quad] = code
        }
        sums[tap * shape.paddedOutputs + position] = sum
      }
    }
    return true
  }

  /// [taps, inputs, 8] into `packed`, which must be zero.
  mutating func float(_ panel: Int, of source: SourceMatrix, into packed: inout [Float]) -> Bool {
    for (lane, output) in outputs(panel).enumerated() {
      row.withUnsafeMutableBufferPointer { row in
        if let base = row.baseAddress { source.read(output, into: base) }
      }
      for tap in 0..<shape.taps {
        for input in 0..<shape.inputs {
          let value = row[input * shape.taps + tap]
          guard value.isFinite else { return false }
          packed[(tap * shape.inputs + input) * MatrixShape.panel + lane] = value
        }
      }
    }
    return true
  }
}
