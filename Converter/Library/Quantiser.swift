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

  mutating func add(_ value: Float, stored: Float) {
    let difference = Double(value) - Double(stored)
    signal += Double(value) * Double(value)
    noise += difference * difference
  }

  mutating func add(_ other: QuantisationError) {
    signal += other.signal
    noise += other.noise
  }
}

/// Symmetric int8 with one scale for each row: w = scale * q, |q| <= 127.
package enum Quantiser {
  /// Which codes may lie side by side.
  package enum Form: String, CaseIterable, Sendable {
    /// Any.
    case full
    /// Neighbours 2i and 2i + 1 of one sign have magnitudes that add up to at most 128: times activations of 0...255,
    /// the sum of their products then fits 16 bits, which lets a processor multiply with one instruction for four.
    case pairs
  }

  static let limit: Float = 127
  static let pairLimit: Float = 128

  /// Scales that are tried, as multiples of the largest weight's. Weights like a bell curve are best with the first ones,
  /// so that a pair costs them next to nothing; at the last one every code is below 64 and every pair fits.
  private static let stretches: [Float] = [1, 1.08, 1.16, 1.25, 1.35, 1.45, 1.6, 1.8, limit / 63.99]

  /// Quantises `values` into `codes` with the scale of the least squared error, and returns it; nil where a value is not
  /// finite.
  static func quantise(
    _ values: UnsafeBufferPointer<Float>, into codes: UnsafeMutableBufferPointer<Int8>, as form: Form,
    _ error: inout QuantisationError
  ) -> Float? {
    var greatest: Float = 0
    for value in values {
      guard value.isFinite else { return nil }
      greatest = max(greatest, value.magnitude)
    }
    // Below this the scale itself is denormal; such a row is zero for every purpose.
    guard greatest / limit > .leastNormalMagnitude else {
      for i in codes.indices { codes[i] = 0 }
      return 0
    }
    let scale = form == .full ? greatest / limit : bestScale(of: values, greatest)
    for first in stride(from: 0, to: values.count, by: 2) {
      let isWhole = first + 1 < values.count
      let (a, b) = pair(values[first] / scale, isWhole ? values[first + 1] / scale : 0, form)
      codes[first] = Int8(a)
      error.add(values[first], stored: a * scale)
      if isWhole {
        codes[first + 1] = Int8(b)
        error.add(values[first + 1], stored: b * scale)
      }
    }
    return scale
  }

  private static func bestScale(of values: UnsafeBufferPointer<Float>, _ greatest: Float) -> Float {
    var best: (scale: Float, noise: Float) = (greatest / limit, .infinity)
    for stretch in stretches {
      let scale = greatest / limit * stretch
      var noise: Float = 0
      for first in stride(from: 0, to: values.count, by: 2) where noise < best.noise {
        let x = values[first] / scale
        let y = first + 1 < values.count ? values[first + 1] / scale : 0
        let (a, b) = pair(x, y, .pairs)
        noise += ((x - a) * (x - a) + (y - b) * (y - b)) * scale * scale
      }
      if noise < best.noise { best = (scale, noise) }
    }
    return best.scale
  }

  /// The nearest codes of two neighbours.
  private static func pair(_ x: Float, _ y: Float, _ form: Form) -> (Float, Float) {
    let a = min(max(x.rounded(.toNearestOrEven), -limit), limit)
    let b = min(max(y.rounded(.toNearestOrEven), -limit), limit)
    guard form == .pairs, a * b > 0, (a + b).magnitude > pairLimit else { return (a, b) }
    // The point nearest to (x, y) where |a| + |b| = 128.
    let first = ((pairLimit + x.magnitude - y.magnitude) / 2).rounded(.toNearestOrEven)
    let magnitude = min(max(first, pairLimit - limit), limit)
    return a < 0 ? (-magnitude, magnitude - pairLimit) : (magnitude, pairLimit - magnitude)
  }
}

/// One panel of eight outputs on its way into the file.
struct PanelPacker {
  let shape: MatrixShape
  let form: Quantiser.Form
  private var row: [Float]
  /// The row as the kernels read it, [taps, padded inputs]: what lies side by side here is a pair.
  private var ordered: [Float]
  private var codes: [Int8]
  /// What the weights of each tap are multiples of, besides their output's scale.
  let tapScale: [Float]

  init(_ shape: MatrixShape, _ form: Quantiser.Form = .full, tapScale: [Float]? = nil) {
    self.shape = shape
    self.tapScale = tapScale ?? Array(repeating: 1, count: shape.taps)
    self.form = form
    row = Array(repeating: 0, count: shape.inputs * shape.taps)
    ordered = Array(repeating: 0, count: shape.taps * shape.paddedInputs)
    codes = Array(repeating: 0, count: ordered.count)
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
      read(output, of: source)
      guard let scale = quantiseRow(&error) else { return false }
      scales[position] = scale
      for tap in 0..<shape.taps {
        var sum: Int32 = 0
        for input in 0..<shape.inputs {
          let code = codes[tap * shape.paddedInputs + input]
          sum += Int32(code)
          let quad = tap * shape.paddedInputs / MatrixShape.quad + input / MatrixShape.quad
          packed[(quad * MatrixShape.panel + lane) * MatrixShape.quad + input % MatrixShape.quad] = code
        }
        sums[tap * shape.paddedOutputs + position] = sum
      }
    }
    return true
  }

  /// Reads a row as it is in its source, [inputs, taps].
  private mutating func read(_ output: Int, of source: SourceMatrix) {
    row.withUnsafeMutableBufferPointer { if let base = $0.baseAddress { source.read(output, into: base) } }
  }

  /// Quantises the row into `codes` and returns its scale; nil where a value is not finite.
  private mutating func quantiseRow(_ error: inout QuantisationError) -> Float? {
    for tap in 0..<shape.taps {
      for input in 0..<shape.inputs {
        ordered[tap * shape.paddedInputs + input] = row[input * shape.taps + tap] / tapScale[tap]
      }
    }
    return ordered.withUnsafeBufferPointer { ordered in
      codes.withUnsafeMutableBufferPointer { Quantiser.quantise(ordered, into: $0, as: form, &error) }
    }
  }

  /// The greatest weight of each tap over some outputs, as a part of the greatest of all; 1 where all are zero.
  ///
  /// A kernel's corners are smaller than its middle, and the sums of an upsampler's phases differ by how many there are.
  mutating func tapScales(of source: SourceMatrix, samples: Int) -> [Float] {
    var greatest = [Float](repeating: 0, count: shape.taps)
    for sample in 0..<min(samples, shape.outputs) {
      read(sample * shape.outputs / min(samples, shape.outputs), of: source)
      for (index, value) in row.enumerated() where value.isFinite {
        greatest[index % shape.taps] = max(greatest[index % shape.taps], value.magnitude)
      }
    }
    let all = greatest.max() ?? 0
    // Below this the smallest taps would have scales that are denormal.
    return greatest.map { all > 0 && $0 > all * 0x1p-20 ? $0 / all : 1 }
  }

  /// The error of output `output` alone; nil where a value is not finite.
  mutating func error(_ output: Int, of source: SourceMatrix) -> QuantisationError? {
    var error = QuantisationError()
    read(output, of: source)
    return quantiseRow(&error).map { _ in error }
  }

  /// [taps, inputs, 8] into `packed`, which must be zero.
  mutating func float(_ panel: Int, of source: SourceMatrix, into packed: inout [Float]) -> Bool {
    for (lane, output) in outputs(panel).enumerated() {
      read(output, of: source)
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
