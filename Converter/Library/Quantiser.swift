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
  static let limit: Float = 127
  /// What codes of one sign add up to at most, in a pair and in a four (`CodeForm`).
  static let sumLimit: Float = 128

  /// Scales that are tried, as multiples of the largest weight's. Weights like a bell curve are best with the first ones,
  /// so that limits cost them little; at `limit / 64` every pair fits, and at `limit / 32` every four. The multiples for
  /// codes of seven and of six bits are there too, so that no row is worse than with those.
  private static func stretches(_ form: CodeForm) -> [Float] {
    switch form {
    case .full: [1]
    case .pairs: [1, 1.08, 1.16, 1.25, 1.35, 1.45, 1.6, 1.8, limit / 64, limit / 63]
    case .fours: [1, 1.08, 1.16, 1.25, 1.35, 1.45, 1.6, 1.8, 2, 2.3, 2.6, 3, 3.5, limit / 32, limit / 31]
    }
  }

  /// Quantises `values` into `codes` with the scale of the least squared error, and returns it; nil where a value is not
  /// finite. Fours are those of `values` from its start on.
  static func quantise(
    _ values: UnsafeBufferPointer<Float>, into codes: UnsafeMutableBufferPointer<Int8>, as form: CodeForm,
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
    let scale = greatest / limit * bestStretch(of: values, greatest / limit, form)
    var signal = SIMD8<Double>.zero
    var noise = SIMD8<Double>.zero
    for first in stride(from: 0, to: values.count, by: Block.scalarCount) {
      let block = load(values, first)
      let coded = nearest(block / scale, form)
      store(coded, codes, first)
      let exact = SIMD8<Double>(block)
      let difference = exact - SIMD8<Double>(coded) * Double(scale)
      signal += exact * exact
      noise += difference * difference
    }
    error.add(QuantisationError(signal: signal.sum(), noise: noise.sum()))
    return scale
  }

  private static func bestStretch(of values: UnsafeBufferPointer<Float>, _ scale: Float, _ form: CodeForm) -> Float {
    let stretches = stretches(form)
    guard stretches.count > 1 else { return stretches[0] }
    // Bell curves are best at about six times their deviation; what is tried after the best ends soon.
    let square = values.reduce(0) { $0 + Double($1) * Double($1) } / Double(values.count)
    let likely = 6.2 * Float(square.squareRoot()) / (scale * limit)
    let order = stretches.sorted { ($0 - likely).magnitude < ($1 - likely).magnitude }
    var best: (stretch: Float, noise: Float) = (1, .infinity)
    for stretch in order {
      let square = stretch * stretch
      let noise = square * noise(of: values, scale * stretch, form, enough: best.noise / square)
      if noise < best.noise { best = (stretch, noise) }
    }
    return best.stretch
  }

  /// The squared error in steps of the scale. All codes count, because one that does not fit may weigh as much as all
  /// others; once there is `enough`, the rest is not looked at.
  private static func noise(
    of values: UnsafeBufferPointer<Float>, _ scale: Float, _ form: CodeForm, enough: Float
  ) -> Float {
    let inverse = 1 / scale
    var noise = Block.zero
    for first in stride(from: 0, to: values.count, by: Block.scalarCount) {
      let block = load(values, first) * inverse
      let difference = block - nearest(block, form)
      noise += difference * difference
      if first % 256 == 256 - Block.scalarCount, noise.sum() >= enough { break }
    }
    return noise.sum()
  }

  // MARK: Blocks of eight inputs, which hold four pairs and two fours

  private typealias Block = SIMD8<Float>
  private typealias Half = SIMD4<Float>

  /// 1.5 * 2^23: adding it rounds a small float to an integer, ties to even, which its last bits then hold.
  private static let roundingMagic: Float = 12_582_912

  @inline(__always)
  private static func rounded(_ x: Block) -> Block { (x + roundingMagic) - roundingMagic }

  /// Elements from `first` on, and zeros after the last.
  @inline(__always)
  private static func load(_ values: UnsafeBufferPointer<Float>, _ first: Int) -> Block {
    if first + Block.scalarCount <= values.count {
      return UnsafeRawBufferPointer(values).loadUnaligned(fromByteOffset: 4 * first, as: Block.self)
    }
    var block = Block.zero
    for i in first..<values.count { block[i - first] = values[i] }
    return block
  }

  @inline(__always)
  private static func store(_ coded: Block, _ codes: UnsafeMutableBufferPointer<Int8>, _ first: Int) {
    let bits = unsafeBitCast(coded + roundingMagic, to: SIMD8<Int32>.self)
    let bytes = SIMD8<Int8>(truncatingIfNeeded: bits)
    if first + Block.scalarCount <= codes.count {
      return UnsafeMutableRawBufferPointer(codes).storeBytes(of: bytes, toByteOffset: first, as: SIMD8<Int8>.self)
    }
    for i in first..<codes.count { codes[i] = bytes[i - first] }
  }

  /// The nearest codes that the form allows.
  @inline(__always)
  private static func nearest(_ x: Block, _ form: CodeForm) -> Block {
    switch form {
    case .full: rounded(x)
    case .pairs: pairs(x)
    case .fours: fours(x)
    }
  }

  @inline(__always)
  private static func magnitude(_ x: Half) -> Half {
    unsafeBitCast(unsafeBitCast(x, to: SIMD4<UInt32>.self) & 0x7fff_ffff, to: Half.self)
  }

  /// Neighbours in each other's place.
  @inline(__always)
  private static func swapped(_ x: Half) -> Half {
    let pairs = unsafeBitCast(x, to: SIMD2<UInt64>.self)
    return unsafeBitCast(pairs &<< 32 | pairs &>> 32, to: Half.self)
  }

  /// Where those of one sign would add up to more than 128, the nearest that add up to 128.
  @inline(__always)
  private static func pairs(_ x: Block) -> Block {
    Block(lowHalf: pairs(x.lowHalf), highHalf: pairs(x.highHalf))
  }

  private static var isOdd: SIMDMask<SIMD4<Int32>> {
    @inline(__always) get { unsafeBitCast(SIMD4<Int32>(0, -1, 0, -1), to: SIMDMask<SIMD4<Int32>>.self) }
  }

  @inline(__always)
  private static func pairs(_ x: Half) -> Half {
    let signs = unsafeBitCast(x, to: SIMD4<UInt32>.self) & 0x8000_0000
    let own = magnitude(x)
    let other = swapped(own)
    let plain = (own + roundingMagic) - roundingMagic
    let isSameSign = ~(signs ^ unsafeBitCast(swapped(x), to: SIMD4<UInt32>.self))
    let room = unsafeBitCast(sumLimit - (plain + swapped(plain)), to: SIMD4<UInt32>.self)
    let isOver = unsafeBitCast(unsafeBitCast(room & isSameSign, to: SIMD4<Int32>.self) &>> 31, to: SIMD4<UInt32>.self)
    // One share is rounded, and the other is what it leaves.
    let share = ((sumLimit + own - other) * 0.5 + roundingMagic) - roundingMagic
    let shared = share.replacing(with: sumLimit - swapped(share), where: isOdd)
    let codes =
      unsafeBitCast(shared, to: SIMD4<UInt32>.self) & isOver | unsafeBitCast(plain, to: SIMD4<UInt32>.self) & ~isOver
    return unsafeBitCast(codes | signs, to: Half.self)
  }

  /// The codes where they fit, else those nearest to x that do, for each sign by itself. The first halves of both halves
  /// of a block are one four, the others the next.
  @inline(__always)
  private static func fours(_ x: Block) -> Block {
    let plain = rounded(x)
    let (low, high) = (plain.lowHalf, plain.highHalf)
    // The sums of those above zero and of those below are half the sum of magnitudes, more or less half the sum.
    let sums = low + high
    let magnitudes = magnitude(low) + magnitude(high)
    let room = 2 * sumLimit - (magnitudes + swapped(magnitudes)) - magnitude(sums + swapped(sums))
    let signs = unsafeBitCast(room, to: SIMD2<UInt64>.self) & 0x8000_0000_8000_0000
    return signs.x | signs.y == 0 ? plain : fittingFours(x)
  }

  /// Two fours' codes above zero, then below: [four above, four above, four below, four below] of each input.
  @inline(never)
  private static func fittingFours(_ x: Block) -> Block {
    let (up, down) = (positive(x), positive(0 - x))
    func input(_ i: Int, _ j: Int) -> Half { Half(up[i], up[j], down[i], down[j]) }
    let (a, b, c, d) = fitting(input(0, 2), input(1, 3), input(4, 6), input(5, 7))
    func code(_ x: Half) -> SIMD2<Float> { x.lowHalf - x.highHalf }
    let (e, f, g, h) = (code(a), code(b), code(c), code(d))
    return Block(e.x, f.x, e.y, f.y, g.x, h.x, g.y, h.y)
  }

  /// The greater of each and 0.
  @inline(__always)
  private static func positive<V: SIMD<Float>>(_ x: V) -> V { x.replacing(with: 0, where: x .< 0) }

  /// The nearest codes of fours of magnitudes: where they add up to more than 128, all that are not zero give way alike
  /// (projection onto a simplex; Michelot, "A finite algorithm for finding the projection of a point onto the canonical
  /// simplex of R^n", 1986), and what rounding takes from one goes to the next.
  @inline(__always)
  private static func fitting(_ a: Half, _ b: Half, _ c: Half, _ d: Half) -> (Half, Half, Half, Half) {
    func rounded(_ x: Half) -> Half { (x + roundingMagic) - roundingMagic }
    func kept(_ x: Half, _ step: Half) -> Half { x.replacing(with: 0, where: x .<= step) }
    func counted(_ x: Half, _ step: Half) -> Half { Half.zero.replacing(with: 1, where: x .> step) }
    let plain = (rounded(a), rounded(b), rounded(c), rounded(d))
    var step = Half.zero
    for _ in 0..<4 {
      let sum = (kept(a, step) + kept(b, step)) + (kept(c, step) + kept(d, step))
      let count = (counted(a, step) + counted(b, step)) + (counted(c, step) + counted(d, step))
      step = positive((sum - sumLimit) / count.replacing(with: 1, where: count .== 0))
    }
    let given = (positive(a - step), positive(b - step), positive(c - step), positive(d - step))
    let two = given.0 + given.1
    let ends = (rounded(given.0), rounded(two), rounded(two + given.2), rounded(two + (given.2 + given.3)))
    let fits = (plain.0 + plain.1) + (plain.2 + plain.3) .<= sumLimit
    func code(_ shared: Half, _ plain: Half) -> Half {
      shared.replacing(with: limit, where: shared .> limit).replacing(with: plain, where: fits)
    }
    return (
      code(ends.0, plain.0), code(ends.1 - ends.0, plain.1), code(ends.2 - ends.1, plain.2),
      code(ends.3 - ends.2, plain.3)
    )
  }
}

/// One panel of eight outputs on its way into the file.
struct PanelPacker {
  let shape: MatrixShape
  let form: CodeForm
  private var row: [Float]
  /// The row as the kernels read it, [taps, inputs up to a multiple of eight]: fours lie within eight.
  private var ordered: [Float]
  private let tapStride: Int
  private var codes: [Int8]
  /// What the weights of each tap are multiples of, besides their output's scale.
  let tapScale: [Float]

  init(_ shape: MatrixShape, _ form: CodeForm = .full, tapScale: [Float]? = nil) {
    self.shape = shape
    self.tapScale = tapScale ?? Array(repeating: 1, count: shape.taps)
    self.form = form
    row = Array(repeating: 0, count: shape.inputs * shape.taps)
    tapStride = shape.inputs.roundedUp(to: 2 * MatrixShape.quad)
    ordered = Array(repeating: 0, count: shape.taps * tapStride)
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
          let code = codes[tap * tapStride + input]
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
        ordered[tap * tapStride + input] = row[input * shape.taps + tap] / tapScale[tap]
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
