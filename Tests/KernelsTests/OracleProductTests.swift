import CKernels
import Glibc
import Kernels
import Testing

private let unit = 0x1p-24

/// The oracle's matrix products against their formulas in double precision.
@Suite struct OracleProductTests {
  @Test(
    "An int8 convolution dequantises each tap with its own row's scale and zero point", arguments: [false, true],
    [false, true])
  func int8(paired: Bool, adding: Bool) {
    var random = Generator(31)
    let (rows, taps, inputs, outputs) = (6, 4, 8, 11)
    let outRows = paired ? rows / 2 : rows
    let codes = (0..<taps * rows * inputs).map { _ in random.integer(0...255) as UInt8 }
    let plain = (0..<outputs * taps * inputs).map { _ in random.integer(-127...127) as Int8 }
    func weight(_ o: Int, _ t: Int, _ i: Int) -> Int8 { o < outputs ? plain[(o * taps + t) * inputs + i] : 0 }
    var packed: [Int8] = []
    for panel in 0..<2 {
      for t in 0..<taps {
        for quad in 0..<inputs / 4 {
          for lane in 0..<8 { packed += (0..<4).map { weight(panel * 8 + lane, t, quad * 4 + $0) } }
        }
      }
    }
    let sums = (0..<taps).flatMap { t in
      (0..<16).map { o in (0..<inputs).reduce(Int32(0)) { $0 + Int32(weight(o, t, $1)) } }
    }
    let x = Guarded(codes)
    let pointers = Guarded((0..<taps * rows).map { UnsafeRawPointer(x.base + $0 * inputs) })
    let rowScale = Guarded(random.floats(taps * rows, 0...0.1))
    let rowZero = Guarded((0..<taps * rows).map { _ in random.integer(0...255) as Int32 })
    let (weights, scale, sum) = (Guarded(packed), Guarded(random.floats(16, 0...0.1)), Guarded(sums))
    let bias = Guarded(random.floats(16))
    // Of the rows that stand for themselves, and of those that are differences to them.
    let residual = (Guarded(random.floats(outRows * outputs)), Guarded(random.floats(outRows * outputs)))
    let out = (0..<2).map { _ in Guarded([Float](repeating: .nan, count: outRows * outputs)) }
    withExtendedLifetime((x, residual)) {
      call(
        Oracle.kernels.gemmInt8,
        at_gemm(
          rows: pointers.base, row_scale: rowScale.base, row_zero: rowZero.base, row_count: rows, taps: taps,
          inputs: inputs, weights: weights.base, scale: scale.base, sum: sum.base, bias: bias.base, panels: 2,
          panel_begin: 0, panel_end: 2, outputs: outputs, residual: adding ? residual.0.base : nil,
          residual_stride: outputs, out: out[0].base, out_stride: outputs, paired: paired,
          pair_residual: paired && adding ? residual.1.base : nil, pair_out: paired ? out[1].base : nil, halves: false))
    }
    /// The product of row `r`, and the sum of its terms' magnitudes.
    func product(_ r: Int, _ o: Int) -> (exact: Double, size: Double) {
      (0..<taps).reduce((0.0, 0.0)) { sum, t in
        let dot = (0..<inputs).reduce(0) {
          $0 + (Int(codes[(t * rows + r) * inputs + $1]) - Int(rowZero.base[t * rows + r])) * Int(weight(o, t, $1))
        }
        let term = Double(rowScale.base[t * rows + r]) * Double(dot) * Double(scale.base[o])
        return (sum.0 + term, sum.1 + abs(term))
      }
    }
    for r in 0..<rows {
      for o in 0..<outputs {
        let isSecond = r >= outRows
        let (row, buffer) = isSecond ? (r - outRows, 1) : (r, 0)
        let own = product(r, o)
        let first = isSecond ? product(row, o) : (exact: 0, size: 0)
        let added = adding ? Double((isSecond ? residual.1 : residual.0).base[row * outputs + o]) : 0
        let exact = own.exact + first.exact + Double(bias.base[o]) + added
        let bound = Double(taps + 6) * unit * (own.size + first.size + 2)
        #expect(abs(Double(out[buffer].base[row * outputs + o]) - exact) <= bound)
      }
    }
  }

  @Test("A float product is the sum of its products", arguments: [GemmProblem.Weights.float32, .float16])
  func float(_ kind: GemmProblem.Weights) {
    var random = Generator(32)
    let (rows, taps, inputs, outputs) = (3, 2, 37, 11)
    let values = random.floats(taps * rows * inputs)
    let plain = (0..<16 * taps * inputs).map { _ in Float(Float16(random.float())) }
    let x = Guarded(values)
    let pointers = Guarded((0..<taps * rows).map { UnsafeRawPointer(x.base + $0 * inputs) })
    let wide = Guarded(plain)
    let half = Guarded(plain.map { Float16($0).bitPattern })
    let out = Guarded([Float](repeating: 0, count: rows * outputs))
    withExtendedLifetime((x, wide, half)) {
      var arguments = at_gemm(
        rows: pointers.base, row_scale: nil, row_zero: nil, row_count: rows, taps: taps, inputs: inputs,
        weights: wide.base, scale: nil, sum: nil, bias: nil, panels: 2, panel_begin: 0, panel_end: 2,
        outputs: outputs, residual: nil, residual_stride: 0, out: out.base, out_stride: outputs, paired: false,
        pair_residual: nil, pair_out: nil, halves: false)
      if kind == .float16 {
        arguments.weights = UnsafeRawPointer(half.base)
        call(Oracle.kernels.gemmFloat16, arguments)
      } else {
        call(Oracle.kernels.gemmFloat32, arguments)
      }
    }
    for r in 0..<rows {
      for o in 0..<outputs {
        var (exact, size) = (0.0, 0.0)
        for t in 0..<taps {
          for i in 0..<inputs {
            let weight = plain[((o / 8 * taps + t) * inputs + i) * 8 + o % 8]
            let product = Double(values[(t * rows + r) * inputs + i]) * Double(weight)
            exact += product
            size += abs(product)
          }
        }
        #expect(abs(Double(out.base[r * outputs + o]) - exact) <= Double(taps * inputs + 1) * unit * size)
      }
    }
  }

  @Test("Every half-precision weight has its IEEE value", arguments: KernelTable.available)
  func halves(_ table: KernelTable) {
    let weights = Guarded((0...UInt16.max).map { $0 })
    let one = Guarded<Float>([1])
    let pointer = Guarded([UnsafeRawPointer(one.base)])
    let out = Guarded([Float](repeating: 0, count: 65536))
    withExtendedLifetime((one, weights)) {
      call(
        table.gemmFloat16,
        at_gemm(
          rows: pointer.base, row_scale: nil, row_zero: nil, row_count: 1, taps: 1, inputs: 1, weights: weights.base,
          scale: nil, sum: nil, bias: nil, panels: 8192, panel_begin: 0, panel_end: 8192, outputs: 65536,
          residual: nil, residual_stride: 0, out: out.base, out_stride: 65536, paired: false, pair_residual: nil,
          pair_out: nil, halves: false))
    }
    for code in 0...65535 where code & 0x7c00 != 0x7c00 {
      let exponent = code >> 10 & 31
      let fraction = Double(code & 1023) / 1024
      let size = exponent == 0 ? scalbn(fraction, -14) : scalbn(1 + fraction, Int32(exponent) - 15)
      #expect(Double(out.base[code]) == (code < 0x8000 ? size : -size), "code \(code)")
    }
  }
}
