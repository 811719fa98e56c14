import CKernels
import Glibc
import Kernels
import Testing

private let unit = 0x1p-24

/// The oracle's matrix products and attention against their formulas in double precision.
@Suite struct OracleProductTests {
  @Test("An int8 convolution dequantises each tap with its own row's scale and zero point")
  func int8() {
    var random = Generator(31)
    let (rows, taps, inputs, outputs) = (3, 4, 8, 11)
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
    let (bias, residual) = (Guarded(random.floats(16)), Guarded(random.floats(rows * outputs)))
    let out = Guarded([Float](repeating: 0, count: rows * outputs))
    withExtendedLifetime(x) {
      call(
        Oracle.kernels.gemmInt8,
        at_gemm(
          rows: pointers.base, row_scale: rowScale.base, row_zero: rowZero.base, row_count: rows, taps: taps,
          inputs: inputs, weights: weights.base, scale: scale.base, sum: sum.base, bias: bias.base, panels: 2,
          panel_begin: 0, panel_end: 2, outputs: outputs, residual: residual.base, residual_stride: outputs,
          out: out.base, out_stride: outputs))
    }
    for r in 0..<rows {
      for o in 0..<outputs {
        var (exact, size) = (0.0, 0.0)
        for t in 0..<taps {
          var dot = 0
          for i in 0..<inputs {
            dot += (Int(codes[(t * rows + r) * inputs + i]) - Int(rowZero.base[t * rows + r])) * Int(weight(o, t, i))
          }
          let term = Double(rowScale.base[t * rows + r]) * Double(dot) * Double(scale.base[o])
          exact += term
          size += abs(term)
        }
        exact += Double(bias.base[o]) + Double(residual.base[r * outputs + o])
        let bound = Double(taps + 5) * unit * (size + 2)
        #expect(abs(Double(out.base[r * outputs + o]) - exact) <= bound)
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
        outputs: outputs, residual: nil, residual_stride: 0, out: out.base, out_stride: outputs)
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
          residual: nil, residual_stride: 0, out: out.base, out_stride: 65536))
    }
    for code in 0...65535 where code & 0x7c00 != 0x7c00 {
      let exponent = code >> 10 & 31
      let fraction = Double(code & 1023) / 1024
      let size = exponent == 0 ? scalbn(fraction, -14) : scalbn(1 + fraction, Int32(exponent) - 15)
      #expect(Double(out.base[code]) == (code < 0x8000 ? size : -size), "code \(code)")
    }
  }

  @Test("Attention is softmax(scale q k + gate bias) v over the visible keys")
  func attention() {
    for (queries, keys, width, causal, biased) in [
      (5, 77, 64, false, false), (9, 130, 40, false, true), (20, 90, 16, true, false), (7, 200, 24, true, true),
    ] {
      var random = Generator(keys)
      let first = causal ? 3 : 0
      let q = random.floats(queries * width, -2...2)
      let k = random.floats(keys * width, -2...2)
      let v = random.floats(keys * width)
      let bias = random.floats(2 * keys, -3...3)
      let gate = random.floats(queries)
      let memory = (Guarded(q), Guarded(k), Guarded(v), Guarded(bias), Guarded(gate))
      let workspace = Guarded([Float](repeating: 0, count: at_attention_workspace(queries, width)))
      let out = Guarded([Float](repeating: 0, count: queries * width))
      let scale = 1 / Float(width).squareRoot()
      withExtendedLifetime((memory, workspace)) {
        call(
          Oracle.kernels.attention,
          at_attention(
            q: memory.0.base, k: memory.1.base, v: memory.2.base, out: out.base, q_stride: width, k_stride: width,
            v_stride: width, out_stride: width, queries: queries, keys: keys, head_width: width, first_query: first,
            scale: scale, causal: causal, bias: biased ? memory.3.base + keys : nil,
            gate: biased ? memory.4.base : nil, workspace: workspace.base))
      }
      for i in 0..<queries {
        let visible = causal ? min(keys, first + i + 1) : keys
        var scores: [Double] = []
        var size = 0.0
        for j in 0..<visible {
          let products = (0..<width).map { Double(q[i * width + $0]) * Double(k[j * width + $0]) }
          let added = biased ? Double(gate[i]) * Double(bias[keys + j - first - i]) : 0
          scores.append(products.reduce(0, +) * Double(scale) + added)
          size = max(size, products.reduce(0) { $0 + abs($1) } * Double(scale) + abs(added))
        }
        let greatest = scores.max()!
        let weights = scores.map { Glibc.exp($0 - greatest) }
        let total = weights.reduce(0, +)
        // Each weight: the rounding of its score, of exp, and of at most one rescaling a tile; then sums over the keys.
        let score = Double(width + 4) * unit * size
        let tiles = Double((visible + 63) / 64)
        let relative = 2 * (score + (tiles + 1) * (2e-7 + 4 * unit) + Double(visible) * unit)
        for d in 0..<width {
          let exact = (0..<visible).reduce(0.0) { $0 + weights[$1] / total * Double(v[$1 * width + d]) }
          let sum = (0..<visible).reduce(0.0) { $0 + weights[$1] / total * abs(Double(v[$1 * width + d])) }
          #expect(abs(Double(out.base[i * width + d]) - exact) <= relative * sum)
        }
      }
    }
  }

  @Test("Attention weights add up to one")
  func attentionWeights() {
    var random = Generator(33)
    let (queries, keys, width) = (4, 300, 8)
    let (q, k) = (Guarded(random.floats(queries * width, -6...6)), Guarded(random.floats(keys * width, -6...6)))
    let v = Guarded([Float](repeating: 1, count: keys * width))
    let out = Guarded([Float](repeating: 0, count: queries * width))
    let workspace = Guarded([Float](repeating: 0, count: at_attention_workspace(queries, width)))
    call(
      Oracle.kernels.attention,
      at_attention(
        q: q.base, k: k.base, v: v.base, out: out.base, q_stride: width, k_stride: width, v_stride: width,
        out_stride: width, queries: queries, keys: keys, head_width: width, first_query: 0, scale: 0.3, causal: false,
        bias: nil, gate: nil, workspace: workspace.base))
    // Numerator and denominator add the same weights, in different order.
    #expect(out.elements.allSatisfy { abs(Double($0) - 1) <= 2 * Double(keys) * unit })
  }
}
