import CKernels

extension Oracle {
  private static let tile = Int(AT_ATTENTION_TILE)

  /// Where things lie in a packed tile of `width` channels.
  struct PackedTile {
    let valueScale: UnsafeMutablePointer<Float>
    let keyExponent: UnsafeMutablePointer<Int32>
    let keys: UnsafeMutablePointer<Int16>
    let values: UnsafeMutablePointer<Int16>
    let valueWidth: Int

    init(_ base: UnsafeMutableRawPointer, width: Int) {
      valueScale = base.assumingMemoryBound(to: Float.self)
      keyExponent = (base + 4).assumingMemoryBound(to: Int32.self)
      keys = (base + 64).assumingMemoryBound(to: Int16.self)
      values = keys + at_attention_pairs(width) * tile * 2
      valueWidth = at_attention_values(width)
    }

    func key(_ j: Int, _ d: Int) -> UnsafeMutablePointer<Int16> { keys + ((d / 2 * tile) + j) * 2 + d % 2 }
    func value(_ j: Int, _ d: Int) -> UnsafeMutablePointer<Int16> { values + (j / 2 * valueWidth + d) * 2 + j % 2 }
  }

  /// What turns floats into integers of magnitude up to `limit`, and back.
  static func coding(_ greatest: Float, _ limit: Int32) -> (inverse: Float, scale: Float) {
    greatest > 1e-30 ? (Float(limit) / greatest, greatest / Float(limit)) : (0, 0)
  }

  /// The largest n with which greatest * 2^n is at most `limit`, but for a rounding.
  static func exponent(_ greatest: Float, _ limit: Int32) -> Int32 {
    greatest > 1e-30 ? Int32(clamping: max((Float(limit) / greatest).exponent, -126)) : 0
  }

  static func powerOfTwo(_ exponent: Int32) -> Float { Float(sign: .plus, exponent: Int(exponent), significand: 1) }

  private static func greatestMagnitude(_ x: UnsafeRawPointer, _ first: Int, _ count: Int, halves: Bool) -> Float {
    (first..<first + count).reduce(0) { max($0, element(x, $1, halves: halves).magnitude) }
  }

  static func code(_ x: Float, _ factor: Float) -> Int16 {
    Int16(truncatingIfNeeded: min(max(roundToInteger(x * factor), -32_768), 32_767))
  }

  static func attentionPack(_ a: at_attention_pack) {
    let packed = PackedTile(a.tile, width: a.head_width)
    a.tile.initializeMemory(as: UInt8.self, repeating: 0, count: at_attention_tile_bytes(a.head_width))
    func greatest(_ x: UnsafeRawPointer, _ stride: Int) -> Float {
      (0..<a.count).reduce(0) { max($0, greatestMagnitude(x, $1 * stride, a.head_width, halves: a.halves)) }
    }
    let value = coding(greatest(a.v, a.v_stride), Int32(AT_VALUE_LIMIT))
    let exponent = exponent(greatest(a.k, a.k_stride), at_attention_limit(a.head_width))
    packed.valueScale[0] = value.scale
    packed.keyExponent[0] = exponent
    for j in 0..<a.count {
      for d in 0..<a.head_width {
        packed.key(j, d).pointee = code(element(a.k, j * a.k_stride + d, halves: a.halves), powerOfTwo(exponent))
        packed.value(j, d).pointee = code(element(a.v, j * a.v_stride + d, halves: a.halves), value.inverse)
      }
    }
  }

  /// How far a key lies below a query's score of zero, in steps of 2^-11 of an exponent of two: a product of codes with
  /// these exponents, of the negative query, shifted right; at most 2^29, which a score of 2^18 has.
  static func distance(_ product: Int32, _ queryExponent: Int32, _ keyExponent: Int32) -> Int32 {
    let shift = min(max(queryExponent + keyExponent - Int32(AT_DISTANCE_BITS), -29), 31)
    let shifted = shift < 0 ? Int64(product) << -shift : Int64(product) >> shift
    return Int32(min(max(shifted, -(1 << 29)), 1 << 29))
  }

  /// What the gated bias adds to a distance, of at most 2^28 in magnitude.
  static func distance(gate: Float, bias: Float) -> Int32 {
    let added = (gate * gateSteps) * bias
    return Int32(min(max(added, -0x1p28), 0x1p28).rounded(.toNearestOrEven))
  }

  private static let gateSteps = -ReferenceMath.log2E * Float(1 << AT_DISTANCE_BITS)

  /// 16370 * 2^-d, rounded, for how far in steps of 2^-11 a key is beyond the nearest one; 0 from 15 on. With d - 1/2 =
  /// n + f, |f| <= 1/2: a polynomial in 2f, a fraction of 15 bits, then half of it n times; relative error of the
  /// polynomial below 1.8e-4. Every product is rounded to sixteen bits.
  package static func attentionWeight(_ distance: Int32) -> Int16 {
    func multiply(_ a: Int16, _ b: Int16) -> Int16 { Int16((Int32(a) * Int32(b) + (1 << 14)) >> 15) }
    let lessHalf = Int16(clamping: distance - Int32(1 << (AT_DISTANCE_BITS - 1)))
    let n = multiply(lessHalf, 16)
    let f = lessHalf << 5
    var p = multiply(f, -159) + 1404
    p = multiply(f, p) - 8026
    p = multiply(f, p) + 23_151
    return multiply(p, (1 << 14) >> n)
  }

  /// As `attention`, with integers where `CKernels.h` says so. The weights' sum is that of the rounded ones.
  static func attentionInt16(_ a: at_attention_int16) {
    let limit = at_attention_limit(a.head_width)
    let scale = a.scale * ReferenceMath.log2E
    for i in 0..<a.queries {
      let q = i * a.q_stride
      let position = a.first_query + i
      let queryExponent = exponent(greatestMagnitude(a.q, q, a.head_width, halves: a.halves) * scale, limit)
      let factor = -(scale * powerOfTwo(queryExponent))
      let codes = (q..<q + a.head_width).map { Int32(code(element(a.q, $0, halves: a.halves), factor)) }
      let visible = a.causal ? min(a.keys, position + 1) : a.keys
      var nearest: Int32 = 1 << 30
      var normaliser: Float = 0
      var sums = [Float](repeating: 0, count: a.head_width)
      for first in stride(from: 0, to: visible, by: tile) {
        let bytes = first / tile * at_attention_tile_bytes(a.head_width)
        let packed = PackedTile(UnsafeMutableRawPointer(mutating: a.tiles + bytes), width: a.head_width)
        let distances = (0..<min(tile, visible - first)).map { j in
          var product: Int32 = 0
          for d in 0..<a.head_width { product += codes[d] * Int32(packed.key(j, d).pointee) }
          var found = distance(product, queryExponent, packed.keyExponent[0])
          if let bias = a.bias { found += distance(gate: a.gate![i], bias: bias[first + j - position]) }
          return found
        }
        let newNearest = distances.reduce(nearest, min)
        let correction = ReferenceMath.powerOfTwo(Float(newNearest - nearest) * (1 / Float(1 << AT_DISTANCE_BITS)))
        let weights = distances.map { attentionWeight($0 - newNearest) }
        normaliser = normaliser * correction + Float(weights.reduce(0 as Int32) { $0 + Int32($1) })
        for d in 0..<a.head_width {
          let sum = weights.indices.reduce(0 as Int32) { $0 + Int32(weights[$1]) * Int32(packed.value($1, d).pointee) }
          sums[d] = sums[d] * correction + Float(sum) * packed.valueScale[0]
        }
        nearest = newNearest
      }
      let inverse = 1 / normaliser
      for d in 0..<a.head_width { put(sums[d] * inverse, a.out, i * a.out_stride + d, halves: a.halves) }
    }
  }
}
