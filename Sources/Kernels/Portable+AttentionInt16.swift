import CKernels

extension Portable {
  private static let tile = Int(AT_ATTENTION_TILE)
  private typealias Pairs = SIMD16<Int16>

  static func attentionPack(_ a: at_attention_pack) {
    let packed = Oracle.PackedTile(a.tile, width: a.head_width)
    a.tile.initializeMemory(as: UInt8.self, repeating: 0, count: at_attention_tile_bytes(a.head_width))
    var greatest: Float = 0
    for j in 0..<a.count { greatest = max(greatest, greatestMagnitude(a.v + j * a.v_stride, a.head_width)) }
    let value = Oracle.coding(greatest, Int32(AT_VALUE_LIMIT))
    packed.valueScale[0] = value.scale
    for j in 0..<a.count {
      let k = a.k + j * a.k_stride
      let v = a.v + j * a.v_stride
      let key = Oracle.coding(greatestMagnitude(k, a.head_width), at_attention_limit(a.head_width))
      packed.keyScale[j] = key.scale
      for d in 0..<a.head_width {
        packed.key(j, d).pointee = code(k[d], key.inverse)
        packed.value(j, d).pointee = code(v[d], value.inverse)
      }
    }
  }

  private static func greatestMagnitude(_ x: UnsafePointer<Float>, _ count: Int) -> Float {
    var greatest = Lanes.zero
    for i in stride(from: 0, to: count, by: 8) {
      greatest = greater(greatest, magnitude(load(x + i, count: count - i)))
    }
    return Self.greatest(greatest)
  }

  @inline(__always)
  private static func code(_ x: Float, _ inverse: Float) -> Int16 {
    Int16(truncatingIfNeeded: min(max(Oracle.roundToInteger(x * inverse), -32_768), 32_767))
  }

  /// One call's memory, in its workspace.
  private struct State {
    let codes: UnsafeMutablePointer<Int16>  // [padded channels of a query]
    let scores: UnsafeMutablePointer<Float>  // [tile]
    let weights: UnsafeMutablePointer<Int16>  // [tile]
    let limit: Int32
    let channels: Int

    init(_ a: at_attention_int16) {
      limit = at_attention_limit(a.head_width)
      channels = 2 * at_attention_pairs(a.head_width)
      scores = a.workspace.assumingMemoryBound(to: Float.self)
      weights = (a.workspace + tile * MemoryLayout<Float>.stride).assumingMemoryBound(to: Int16.self)
      codes = weights + tile
    }
  }

  /// Query by query: no block shares a look at the keys, which keeps this readable on processors that have nothing better.
  static func attentionInt16(_ a: at_attention_int16) {
    let s = State(a)
    for i in 0..<a.queries {
      let q = a.q + i * a.q_stride
      let out = a.out + i * a.out_stride
      let query = Oracle.coding(greatestMagnitude(q, a.head_width), s.limit)
      s.codes[s.channels - 1] = 0
      for d in 0..<a.head_width { s.codes[d] = code(q[d], query.inverse) }
      let scale = query.scale * (a.scale * ReferenceMath.log2E)
      let visible = a.causal ? min(a.keys, a.first_query + i + 1) : a.keys
      var maximum = -Float.infinity
      var normaliser: Float = 0
      for first in stride(from: 0, to: visible, by: tile) {
        let bytes = first / tile * at_attention_tile_bytes(a.head_width)
        let packed = Oracle.PackedTile(UnsafeMutableRawPointer(mutating: a.tiles + bytes), width: a.head_width)
        let count = min(tile, visible - first)
        score(s, packed, count, scale)
        if let bias = a.bias, let gate = a.gate {
          let distance = first - (a.first_query + i)
          let g = gate[i] * ReferenceMath.log2E
          for j in 0..<count { s.scores[j] = s.scores[j] + g * bias[distance + j] }
        }
        var newMaximum = maximum
        for j in 0..<count { newMaximum = max(newMaximum, s.scores[j]) }
        let correction = ReferenceMath.powerOfTwo(maximum - newMaximum)
        normaliser = normaliser * correction + weigh(s, count, newMaximum)
        addValues(s, a, packed, count, correction, isFirst: first == 0, to: out)
        maximum = newMaximum
      }
      let inverse = 1 / normaliser
      for d in 0..<a.head_width { out[d] = out[d] * inverse }
    }
  }

  /// Eight pairs of s16 at `x` times the pair at `y`, added to `sum`.
  @inline(__always)
  private static func addProducts(
    _ sum: SIMD8<Int32>, _ x: UnsafePointer<Int16>, _ y: UnsafePointer<Int16>
  ) -> SIMD8<Int32> {
    let pairs = UnsafeRawPointer(x).loadUnaligned(as: Pairs.self)
    return sum &+ SIMD8<Int32>(truncatingIfNeeded: pairs.evenHalf) &* Int32(y[0])
      &+ SIMD8<Int32>(truncatingIfNeeded: pairs.oddHalf) &* Int32(y[1])
  }

  private static func score(_ s: State, _ packed: Oracle.PackedTile, _ count: Int, _ scale: Float) {
    for j in stride(from: 0, to: count, by: 8) {
      var sum = SIMD8<Int32>.zero
      for d in stride(from: 0, to: s.channels, by: 2) { sum = addProducts(sum, packed.key(j, d), s.codes + d) }
      let scaled: Lanes = Lanes(sum) * load(packed.keyScale + j)
      store(scaled * scale, s.scores + j)
    }
  }

  /// The keys' weights, zero up to the end of the tile; returns their sum.
  private static func weigh(_ s: State, _ count: Int, _ maximum: Float) -> Float {
    var sum: Int32 = 0
    for j in 0..<count {
      let weight = Oracle.roundToInteger(ReferenceMath.powerOfTwo((s.scores[j] - maximum) + Float(AT_PROBABILITY_BITS)))
      s.weights[j] = Int16(truncatingIfNeeded: weight)
      sum += weight
    }
    for j in count..<tile { s.weights[j] = 0 }
    return Float(sum)
  }

  private static func addValues(
    _ s: State, _ a: at_attention_int16, _ packed: Oracle.PackedTile, _ count: Int, _ correction: Float, isFirst: Bool,
    to out: UnsafeMutablePointer<Float>
  ) {
    for d in stride(from: 0, to: a.head_width, by: 8) {
      var sum = SIMD8<Int32>.zero
      for j in stride(from: 0, to: count, by: 2) { sum = addProducts(sum, packed.value(j, d), s.weights + j) }
      let before = isFirst ? Lanes.zero : load(out + d, count: a.head_width - d)
      store(before * correction + Lanes(sum) * packed.valueScale[0], out + d, count: a.head_width - d)
    }
  }
}
