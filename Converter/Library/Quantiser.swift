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
  /// so that a pair costs them next to nothing; at the last two every pair fits, and the very last one is that of codes of
  /// seven bits, so that no row is worse.
  private static let stretches: [Float] = [1, 1.08, 1.16, 1.25, 1.35, 1.45, 1.6, 1.8, limit / 64, limit / 63]

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
    let scale = greatest / limit * (form == .full ? 1 : bestStretch(of: values, greatest / limit))
    var signal = SIMD8<Double>.zero
    var noise = SIMD8<Double>.zero
    for first in stride(from: 0, to: values.count, by: 16) {
      let block = load(values, first)
      var coded = (block / scale + roundingMagic) - roundingMagic
      if form == .pairs { (coded.evenHalf, coded.oddHalf) = limited(block.evenHalf / scale, block.oddHalf / scale) }
      store(coded, codes, first)
      for (x, code) in [(block.lowHalf, coded.lowHalf), (block.highHalf, coded.highHalf)] {
        let exact = SIMD8<Double>(x)
        let difference = exact - SIMD8<Double>(code) * Double(scale)
        signal += exact * exact
        noise += difference * difference
      }
    }
    error.add(QuantisationError(signal: signal.sum(), noise: noise.sum()))
    return scale
  }

  private static func bestStretch(of values: UnsafeBufferPointer<Float>, _ scale: Float) -> Float {
    var best: (stretch: Float, noise: Float) = (1, .infinity)
    for stretch in stretches {
      let square = stretch * stretch
      let noise = square * noise(of: values, scale * stretch, enough: best.noise / square)
      if noise < best.noise { best = (stretch, noise) }
    }
    return best.stretch
  }

  /// The squared error of pairs in steps of the scale. All of them count, because one that does not fit may weigh as much
  /// as all others; once there is `enough`, the rest is not looked at.
  private static func noise(of values: UnsafeBufferPointer<Float>, _ scale: Float, enough: Float) -> Float {
    let inverse = 1 / scale
    var noise = Lanes.zero
    for first in stride(from: 0, to: values.count, by: 16) {
      let block = load(values, first) * inverse
      let (x, y) = (block.evenHalf, block.oddHalf)
      let (a, b) = limited(x, y)
      noise += (x - a) * (x - a) + (y - b) * (y - b)
      if first % 1024 == 1008, noise.sum() >= enough { break }
    }
    return noise.sum()
  }

  // MARK: Eight pairs at once, without branches

  private typealias Lanes = SIMD8<Float>
  private typealias Bits = SIMD8<Int32>

  /// 1.5 * 2^23: adding it rounds a small float to an integer, ties to even, which its last bits then hold.
  private static let roundingMagic: Float = 12_582_912

  /// Elements from `first` on, and zeros after the last.
  @inline(__always)
  private static func load(_ values: UnsafeBufferPointer<Float>, _ first: Int) -> SIMD16<Float> {
    if first + 16 <= values.count {
      return UnsafeRawBufferPointer(values).loadUnaligned(fromByteOffset: 4 * first, as: SIMD16<Float>.self)
    }
    var block = SIMD16<Float>.zero
    for i in first..<values.count { block[i - first] = values[i] }
    return block
  }

  @inline(__always)
  private static func store(_ coded: SIMD16<Float>, _ codes: UnsafeMutableBufferPointer<Int8>, _ first: Int) {
    let bits = unsafeBitCast(coded + roundingMagic, to: SIMD16<Int32>.self)
    let bytes = SIMD16<Int8>(truncatingIfNeeded: bits)
    if first + 16 <= codes.count {
      return UnsafeMutableRawBufferPointer(codes).storeBytes(of: bytes, toByteOffset: first, as: SIMD16<Int8>.self)
    }
    for i in first..<codes.count { codes[i] = bytes[i - first] }
  }

  /// The nearest codes of neighbours x and y: where those of one sign would add up to more than 128, the nearest that add
  /// up to 128.
  @inline(__always)
  private static func limited(_ x: Lanes, _ y: Lanes) -> (Lanes, Lanes) {
    let signs = (unsafeBitCast(x, to: Bits.self) & .min, unsafeBitCast(y, to: Bits.self) & .min)
    let u = unsafeBitCast(unsafeBitCast(x, to: Bits.self) ^ signs.0, to: Lanes.self)
    let v = unsafeBitCast(unsafeBitCast(y, to: Bits.self) ^ signs.1, to: Lanes.self)
    let a = (u + roundingMagic) - roundingMagic
    let b = (v + roundingMagic) - roundingMagic
    // All ones where the sum is above 128 and the signs are the same.
    let room = unsafeBitCast(pairLimit - (a + b), to: Bits.self)
    let isOver = (room & ~(signs.0 ^ signs.1)) &>> 31
    let first = ((pairLimit + u - v) * 0.5 + roundingMagic) - roundingMagic
    let shift = (first - a, (pairLimit - first) - b)
    let c = a + unsafeBitCast(unsafeBitCast(shift.0, to: Bits.self) & isOver, to: Lanes.self)
    let d = b + unsafeBitCast(unsafeBitCast(shift.1, to: Bits.self) & isOver, to: Lanes.self)
    return (
      unsafeBitCast(unsafeBitCast(c, to: Bits.self) | signs.0, to: Lanes.self),
      unsafeBitCast(unsafeBitCast(d, to: Bits.self) | signs.1, to: Lanes.self)
    )
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
