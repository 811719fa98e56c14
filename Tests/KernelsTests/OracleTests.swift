import CKernels
import Glibc
import Kernels
import Testing

/// Half the distance from 1 to the next float: the relative error of one rounding.
private let unit = 0x1p-24

/// The oracle against the mathematics, in double precision.
@Suite struct OracleTests {
  private func sweep(_ range: ClosedRange<Float>) -> [Float] {
    let step = (range.upperBound - range.lowerBound) / 200_000
    return (0...200_000).map { min(range.lowerBound + Float($0) * step, range.upperBound) }
  }

  private func worst(_ range: ClosedRange<Float>, _ excess: (Float) -> Double) -> Double {
    sweep(range).reduce(-.infinity) { max($0, excess($1)) }
  }

  @Test("exp is within 2e-7 of e^x")
  func exponential() {
    let error = worst(-87...88) { x in
      let exact = Glibc.exp(Double(x))
      return abs(Double(ReferenceMath.exp(x)) - exact) / exact
    }
    #expect(error < 2e-7)
    #expect(ReferenceMath.exp(0) == 1)
    #expect(ReferenceMath.exp(-.infinity) == ReferenceMath.exp(-87))
    #expect(ReferenceMath.exp(1e30) == ReferenceMath.exp(88))
  }

  @Test("A power of two is within 1.1e-4 of 2^x, and no less than 2^-126")
  func powerOfTwo() {
    let steps = 3_000_000
    var error = 0.0
    for i in 0...steps {
      let x = 15 - 141 * Float(i) / Float(steps)
      let exact = Glibc.exp2(Double(x))
      error = max(error, abs(Double(ReferenceMath.powerOfTwo(x)) - exact) / exact)
    }
    #expect(error < 1.1e-4)
    for x in -126...15 { #expect(Double(ReferenceMath.powerOfTwo(Float(x))) == Glibc.exp2(Double(x))) }
    for x in [-126.5, -127, -1e30, -.infinity] as [Float] { #expect(ReferenceMath.powerOfTwo(x) == 0x1p-126) }
  }

  @Test("SiLU is within a few roundings of x / (1 + e^-x)")
  func silu() {
    // exp 2e-7, one addition, one division.
    let excess = worst(-80...80) { x in
      let exact = Double(x) / (1 + Glibc.exp(-Double(x)))
      return abs(Double(ReferenceMath.silu(x)) - exact) - abs(exact) * (2e-7 + 3 * unit)
    }
    #expect(excess <= 0)
    #expect(ReferenceMath.silu(-1e4).magnitude < 1e-30)
    #expect(ReferenceMath.silu(1e4) == 1e4)
  }

  @Test("Quick GELU is within a few roundings of x / (1 + e^(-1.702 x))")
  func quickGELU() {
    // The exponent is rounded twice, which exp magnifies by its size.
    let excess = worst(-40...40) { x in
      let exact = Double(x) / (1 + Glibc.exp(-1.702 * Double(x)))
      let bound = 2e-7 + 3 * unit + 2 * unit * abs(1.702 * Double(x))
      return abs(Double(ReferenceMath.quickGELU(x)) - exact) - abs(exact) * 1.01 * bound
    }
    #expect(excess <= 0)
  }

  @Test("GELU is within 2.4e-7 |x| of x/2 (1 + erf(x / sqrt 2))")
  func gelu() {
    // With t = erfc, (1 + u)^-8, what the roundings of u and of its powers add to t is at most, each times as many of them:
    // 3 * 8 t (1 - t^(1/8)), 2 * 4 t (1 - t^(1/4)), 2 * 2 t (1 - t^(1/2)), 2 t (1 - t); the sum and the division add 2 t.
    // All but the last, of the difference, is halved by |x|/2.
    let excess = worst(-12...12) { x in
      let exact = 0.5 * Double(x) * erfc(-Double(x) / 2.0.squareRoot())
      return abs(Double(ReferenceMath.gelu(x)) - exact) - abs(Double(x)) * (5.1e-8 / 2 + (1.5 + 1 + 1) * unit)
    }
    #expect(excess <= 0)
    #expect(ReferenceMath.gelu(0) == 0)
    #expect(ReferenceMath.gelu(20) == 20)
    #expect(abs(ReferenceMath.gelu(-20)) < 1e-25)
    for x in [-1e3, -1e30, -.greatestFiniteMagnitude] as [Float] { #expect(ReferenceMath.gelu(x) == 0) }
    #expect(ReferenceMath.gelu(.greatestFiniteMagnitude) == .greatestFiniteMagnitude)
  }

  @Test("ReLU keeps what is positive")
  func relu() {
    let x = Guarded<Float>([-1, 2, 0, -1e30, 1e30])
    let out = Guarded([Float](repeating: 9, count: 5))
    call(Oracle.kernels.map, at_map(x: x.base, out: out.base, count: 5, activation: AT_RELU))
    #expect(out.elements == [0, 2, 0, 0, 1e30])
  }

  @Test("A quantised value is at most half a step away, and zero is exact")
  func quantization() {
    var random = Generator(21)
    for columns in [1, 2, 5, 64, 333] {
      for _ in 0..<50 {
        let offset = random.float(-3...3)
        var values = (0..<columns).map { _ in random.float(-2...2) + offset }
        values[columns / 2] = 0
        let x = Guarded(values)
        let q = Guarded([UInt8](repeating: 0, count: columns))
        let scale = Guarded<Float>([0])
        let zero = Guarded<Int32>([0])
        call(
          Oracle.kernels.quantizeRows,
          at_quantize(
            x: x.base, other: nil, halves: false, row: nil, x_stride: columns, q: q.base, q_stride: columns,
            scale: scale.base, zero: zero.base, rows: 1, columns: columns, padded: columns))
        // 255 steps, each with the roundings of the factor, its inverse and the product.
        let step = Double(scale.base[0])
        let bound = step * (0.5 + 255 * 5 * unit)
        for (value, code) in zip(values, q.elements) {
          #expect(abs(Double(value) - step * Double(Int32(code) - zero.base[0])) <= bound)
          if value == 0 { #expect(Int32(code) == zero.base[0]) }
        }
        #expect((0...255).contains(zero.base[0]))
      }
    }
  }

  @Test("A row of zeros has scale 0, and a row that is too small to tell apart as well")
  func quantizationOfNothing() {
    for value in [0, 1e-31, -1e-35] as [Float] {
      let x = Guarded([Float](repeating: value, count: 6))
      let q = Guarded([UInt8](repeating: 9, count: 8))
      let scale = Guarded<Float>([9])
      let zero = Guarded<Int32>([9])
      call(
        Oracle.kernels.quantizeRows,
        at_quantize(
          x: x.base, other: nil, halves: false, row: nil, x_stride: 6, q: q.base, q_stride: 8, scale: scale.base,
          zero: zero.base, rows: 1, columns: 6, padded: 8))
      #expect(scale.elements == [0] && zero.elements == [0] && q.elements == [UInt8](repeating: 0, count: 8))
    }
  }

  @Test("Layer norm is (x - mean) / sqrt(variance + epsilon) * gamma + beta")
  func layerNorm() {
    var random = Generator(22)
    for columns in [1, 5, 8, 320, 768] {
      let x = random.floats(columns, -2...4)
      let (gamma, beta) = (random.floats(columns, -2...2), random.floats(columns))
      let (input, factors, offsets) = (Guarded(x), Guarded(gamma), Guarded(beta))
      let out = Guarded([Float](repeating: 0, count: columns))
      call(
        Oracle.kernels.layerNorm,
        at_layer_norm(
          x: input.base, halves: false, out: out.base, rows: 1, columns: columns, gamma: factors.base,
          beta: offsets.base, epsilon: 1e-5))
      let exact = x.map(Double.init)
      let mean = exact.reduce(0, +) / Double(columns)
      let variance = exact.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(columns)
      let inverse = 1 / (variance + 1e-5).squareRoot()
      // A sum of n elements in eight lanes has n / 8 + 3 roundings; elements are below 4.
      let sumError = (Double(columns) / 8 + 5) * unit
      for c in 0..<columns {
        let y = (exact[c] - mean) * inverse
        let expected = y * Double(gamma[c]) + Double(beta[c])
        let bound = (4 * inverse * (sumError + unit) + abs(y) * (sumError + 8 * unit)) * abs(Double(gamma[c]))
        #expect(abs(Double(out.base[c]) - expected) <= bound + 2 * unit * (1 + abs(expected)))
      }
    }
  }

  @Test("Sums over rows are the sums of elements and of squares")
  func channelSums() {
    var random = Generator(23)
    let (rows, channels) = (129, 5)
    let x = random.floats(rows * channels, -2...3)
    let input = Guarded(x)
    let sum = Guarded([Float](repeating: 9, count: channels))
    let square = Guarded([Float](repeating: 9, count: channels))
    call(
      Oracle.kernels.channelSums,
      at_channel_sums(
        x: input.base, rows: rows, channels: channels, sum: sum.base, square: square.base, halves: false))
    for c in 0..<channels {
      let column = (0..<rows).map { Double(x[$0 * channels + c]) }
      let bound = Double(rows + 1) * unit
      #expect(abs(Double(sum.base[c]) - column.reduce(0, +)) <= bound * column.reduce(0) { $0 + abs($1) })
      let squares = column.reduce(0) { $0 + $1 * $1 }
      #expect(abs(Double(square.base[c]) - squares) <= bound * squares)
    }
  }

  @Test("Affine, add and gated GELU do what their names say")
  func elementwise() {
    let x = Guarded<Float>([1, -2, 3, 4])
    let (factor, offset) = (Guarded<Float>([2, -1]), Guarded<Float>([0.5, 10]))
    let out = Guarded<Float>([0, 0, 0, 0])
    call(
      Oracle.kernels.affine,
      at_affine(
        x: x.base, out: out.base, rows: 2, channels: 2, factor: factor.base, offset: offset.base,
        activation: AT_IDENTITY, halves: false))
    #expect(out.elements == [2.5, 12, 6.5, 6])
    call(Oracle.kernels.add, at_add(a: x.base, b: out.base, out: out.base, count: 4, alpha: -2))
    #expect(out.elements == [0.5, 16, 0.5, -2])
    let gated = Guarded<Float>([0, 0])
    call(Oracle.kernels.gatedGELU, at_gated_gelu(x: x.base, out: gated.base, rows: 1, columns: 2, out_stride: 2))
    #expect(gated.elements == [1 * ReferenceMath.gelu(3), -2 * ReferenceMath.gelu(4)])
  }
}
