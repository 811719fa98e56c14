import CKernels

/// The definition of every kernel: one scalar loop each, slow and obvious. Float arithmetic is one rounding an operator,
/// from left to right; integer sums are exact. Tests hold every other variant to these bits.
package enum Oracle {
  package static let kernels = KernelTable(
    name: "oracle",
    quantizeRows: { quantizeRows($0.pointee) },
    gemmInt8: { gemmInt8($0.pointee) },
    gemmInt8Pairs: { gemmInt8($0.pointee) },
    gemmInt8Fours: { gemmInt8($0.pointee) },
    gemmFloat32: { args in gemmFloat(args.pointee) { $0.assumingMemoryBound(to: Float.self)[$1] } },
    gemmFloat16: { args in gemmFloat(args.pointee) { widen($0.assumingMemoryBound(to: UInt16.self)[$1]) } },
    winogradInputs: { winogradInputs($0.pointee) },
    winogradProducts: { winogradProducts($0.pointee) },
    layerNorm: { layerNorm($0.pointee) },
    widen: { widen($0.pointee) },
    channelSums: { channelSums($0.pointee) },
    channelRanges: { channelRanges($0.pointee) },
    affine: { affine($0.pointee) },
    map: { map($0.pointee) },
    add: { add($0.pointee) },
    gatedGELU: { gatedGELU($0.pointee) },
    attention: { attention($0.pointee) },
    attentionPack: { attentionPack($0.pointee) },
    attentionInt8: { attentionInt8($0.pointee) })

  /// The range of a row is widened to hold zero, so that zero is a code of its own and the zero point is in 0...255.
  static func quantizeRows(_ a: at_quantize) {
    for r in 0..<a.rows {
      let x = (0..<a.columns).map { c in
        let value = element(a.x, r * a.x_stride + c, halves: a.halves)
        return a.other.map { value - element($0, r * a.x_stride + c, halves: a.halves) } ?? value
      }
      let q = a.q + r * a.q_stride
      var low: Float = 0
      var high: Float = 0
      for c in 0..<a.columns {
        low = min(low, x[c])
        high = max(high, x[c])
      }
      let range = high - low
      let usable = range > 1e-30
      let inverse: Float = usable ? 255 / range : 0
      a.scale[r] = usable ? range / 255 : 0
      let zero = roundToInteger(-low * inverse)
      a.zero[r] = zero
      for c in 0..<a.columns { q[c] = UInt8(min(max(roundToInteger(x[c] * inverse) &+ zero, 0), 255)) }
      for c in a.columns..<max(a.columns, a.padded) { q[c] = 0 }
    }
  }

  /// Nearest integer, ties to even, for magnitudes below 2^22.
  static func roundToInteger(_ x: Float) -> Int32 {
    Int32(bitPattern: (x + ReferenceMath.roundingMagic).bitPattern)
      &- Int32(bitPattern: ReferenceMath.roundingMagic.bitPattern)
  }

  /// Per tap the integer sum is exact (modulo 2^32 where a file's sums or zero points are damaged: kernels that take zeros
  /// off codes instead do not read the sums). Taps are added in order, then the channel's scale, its bias, or what the row
  /// that it is paired with came to, and the residual.
  static func gemmInt8(_ a: at_gemm) {
    for o in columns(a) {
      var plain = [Float](repeating: 0, count: a.row_count)
      for r in 0..<a.row_count {
        let total = scaledProduct(a, r, o)
        let half = a.row_count / 2
        guard a.paired, r >= half else {
          plain[r] = a.bias.map { total + $0[o] } ?? total
          store(plain[r], a.residual, a.out, a, r, o)
          continue
        }
        store(total + plain[r - half], a.pair_residual, a.pair_out!, a, r - half, o)
      }
    }
  }

  private static func scaledProduct(_ a: at_gemm, _ r: Int, _ o: Int) -> Float {
    let panel = Int(AT_PANEL)
    let quad = Int(AT_QUAD)
    let weights = a.weights.assumingMemoryBound(to: Int8.self)
    var total: Float = 0
    for t in 0..<a.taps {
      let x = a.rows[t * a.row_count + r].assumingMemoryBound(to: UInt8.self)
      var dot: Int32 = 0
      for i in 0..<a.inputs {
        let block = ((o / panel) * a.taps + t) * (a.inputs / quad) + i / quad
        dot &+= Int32(x[i]) * Int32(weights[(block * panel + o % panel) * quad + i % quad])
      }
      dot &-= a.row_zero![t * a.row_count + r] &* a.sum![t * a.panels * panel + o]
      let term = Float(dot) * a.row_scale![t * a.row_count + r]
      total = t == 0 ? term : total + term
    }
    return total * a.scale![o]
  }

  /// Products are added one by one over taps, then inputs.
  static func gemmFloat(_ a: at_gemm, _ weight: (UnsafeRawPointer, Int) -> Float) {
    let panel = Int(AT_PANEL)
    for r in 0..<a.row_count {
      for o in columns(a) {
        var total: Float = 0
        for t in 0..<a.taps {
          let x = a.rows[t * a.row_count + r].assumingMemoryBound(to: Float.self)
          for i in 0..<a.inputs {
            total = total + x[i] * weight(a.weights, (((o / panel) * a.taps + t) * a.inputs + i) * panel + o % panel)
          }
        }
        store(a.bias.map { total + $0[o] } ?? total, a.residual, a.out, a, r, o)
      }
    }
  }

  private static func columns(_ a: at_gemm) -> Range<Int> {
    a.panel_begin * Int(AT_PANEL)..<max(a.panel_begin * Int(AT_PANEL), min(a.outputs, a.panel_end * Int(AT_PANEL)))
  }

  static func store(
    _ y: Float, _ residual: UnsafeRawPointer?, _ out: UnsafeMutableRawPointer, _ a: at_gemm, _ r: Int, _ o: Int
  ) {
    let sum = residual.map { y + element($0, r * a.residual_stride + o, halves: a.halves) } ?? y
    put(sum, out, r * a.out_stride + o, halves: a.halves)
  }

  /// Of a map of f32 or f16.
  static func element(_ x: UnsafeRawPointer, _ index: Int, halves: Bool) -> Float {
    halves ? widen(x.assumingMemoryBound(to: UInt16.self)[index]) : x.assumingMemoryBound(to: Float.self)[index]
  }

  static func put(_ value: Float, _ x: UnsafeMutableRawPointer, _ index: Int, halves: Bool) {
    if halves {
      x.assumingMemoryBound(to: UInt16.self)[index] = narrow(value)
    } else {
      x.assumingMemoryBound(to: Float.self)[index] = value
    }
  }

  /// The nearest IEEE binary16, ties to even; what is too large becomes the largest.
  package static func narrow(_ x: Float) -> UInt16 { Float16(min(max(x, -65504), 65504)).bitPattern }

  static func widen(_ a: at_widen) {
    for i in 0..<a.count { a.out[i] = widen(a.x[i]) }
  }

  /// IEEE binary16 to binary32, exact.
  static func widen(_ half: UInt16) -> Float { Float(Float16(bitPattern: half)) }

  /// Sums of eight lanes: lane j holds the elements 8i + j.
  private static func sum(_ count: Int, _ element: (Int) -> Float) -> Float {
    var lanes = [Float](repeating: 0, count: 8)
    for i in 0..<count { lanes[i % 8] = lanes[i % 8] + element(i) }
    return ReferenceMath.sum(lanes: lanes)
  }

  static func layerNorm(_ a: at_layer_norm) {
    for r in 0..<a.rows {
      let x = (0..<a.columns).map { element(a.x, r * a.columns + $0, halves: a.halves) }
      let mean = sum(a.columns) { x[$0] } / Float(a.columns)
      let variance = sum(a.columns) { (x[$0] - mean) * (x[$0] - mean) } / Float(a.columns)
      let inverse = 1 / (variance + a.epsilon).squareRoot()
      for c in 0..<a.columns { a.out[r * a.columns + c] = ((x[c] - mean) * inverse) * a.gamma[c] + a.beta[c] }
    }
  }

  static func channelSums(_ a: at_channel_sums) {
    for c in 0..<a.channels {
      var sum: Float = 0
      var square: Float = 0
      for r in 0..<a.rows {
        let x = element(a.x, r * a.channels + c, halves: a.halves)
        sum = sum + x
        square = square + x * x
      }
      a.sum[c] = sum
      a.square[c] = square
    }
  }

  static func apply(_ activation: at_activation, _ x: Float) -> Float {
    switch activation {
    case AT_SILU: ReferenceMath.silu(x)
    case AT_GELU: ReferenceMath.gelu(x)
    case AT_QUICK_GELU: ReferenceMath.quickGELU(x)
    case AT_RELU: max(x, 0)
    default: x
    }
  }

  static func affine(_ a: at_affine) {
    for r in 0..<a.rows {
      for c in 0..<a.channels {
        let i = r * a.channels + c
        a.out[i] = apply(a.activation, element(a.x, i, halves: a.halves) * a.factor[c] + a.offset[c])
      }
    }
  }

  static func map(_ a: at_map) {
    for i in 0..<a.count { a.out[i] = apply(a.activation, a.x[i]) }
  }

  static func add(_ a: at_add) {
    for i in 0..<a.count { a.out[i] = a.a[i] * a.alpha + a.b[i] }
  }

  static func gatedGELU(_ a: at_gated_gelu) {
    for r in 0..<a.rows {
      let x = a.x + r * 2 * a.columns
      for c in 0..<a.columns { a.out[r * a.out_stride + c] = x[c] * ReferenceMath.gelu(x[a.columns + c]) }
    }
  }

  /// Keys are taken in tiles of `AT_ATTENTION_TILE`; at each tile what has been summed is rescaled to the new maximum.
  static func attention(_ a: at_attention) {
    let tile = Int(AT_ATTENTION_TILE)
    for i in 0..<a.queries {
      let q = a.q + i * a.q_stride
      let out = a.out + i * a.out_stride
      let position = a.first_query + i
      let visible = a.causal ? min(a.keys, position + 1) : a.keys
      var maximum = -Float.infinity
      var normaliser: Float = 0
      for d in 0..<a.head_width { out[d] = 0 }
      for first in stride(from: 0, to: visible, by: tile) {
        let count = min(tile, visible - first)
        var p = [Float](repeating: 0, count: count)
        for j in 0..<count {
          let k = a.k + (first + j) * a.k_stride
          for d in 0..<a.head_width { p[j] = p[j] + q[d] * k[d] }
          p[j] = p[j] * a.scale
          if let bias = a.bias { p[j] = p[j] + a.gate![i] * bias[first + j - position] }
        }
        let newMaximum = p.reduce(maximum) { max($0, $1) }
        let correction = ReferenceMath.exp(maximum - newMaximum)
        for j in 0..<count { p[j] = ReferenceMath.exp(p[j] - newMaximum) }
        normaliser = normaliser * correction + sum(count) { p[$0] }
        for d in 0..<a.head_width {
          out[d] = out[d] * correction
          for j in 0..<count { out[d] = out[d] + p[j] * a.v[(first + j) * a.v_stride + d] }
        }
        maximum = newMaximum
      }
      let inverse = 1 / normaliser
      for d in 0..<a.head_width { out[d] = out[d] * inverse }
    }
  }
}
