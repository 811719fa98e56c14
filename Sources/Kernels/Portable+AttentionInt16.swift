import CKernels

extension Portable {
  private static let tile = Int(AT_ATTENTION_TILE)
  private typealias Pairs = SIMD16<Int16>

  static func attentionPack(_ a: at_attention_pack) {
    let packed = Oracle.PackedTile(a.tile, width: a.head_width)
    a.tile.initializeMemory(as: UInt8.self, repeating: 0, count: at_attention_tile_bytes(a.head_width))
    var (ofKeys, ofValues) = (0 as Float, 0 as Float)
    for j in 0..<a.count {
      ofKeys = max(ofKeys, greatestMagnitude(a.k, j * a.k_stride, a.head_width, halves: a.halves))
      ofValues = max(ofValues, greatestMagnitude(a.v, j * a.v_stride, a.head_width, halves: a.halves))
    }
    let value = Oracle.coding(ofValues, Int32(AT_VALUE_LIMIT))
    let exponent = Oracle.exponent(ofKeys, at_attention_limit(a.head_width))
    let factor = Oracle.powerOfTwo(exponent)
    packed.valueScale[0] = value.scale
    packed.keyExponent[0] = exponent
    for j in 0..<a.count {
      for d in 0..<a.head_width {
        packed.key(j, d).pointee = Oracle.code(Oracle.element(a.k, j * a.k_stride + d, halves: a.halves), factor)
        packed.value(j, d).pointee = Oracle.code(
          Oracle.element(a.v, j * a.v_stride + d, halves: a.halves), value.inverse)
      }
    }
  }

  private static func greatestMagnitude(_ x: UnsafeRawPointer, _ first: Int, _ count: Int, halves: Bool) -> Float {
    var greatest = Lanes.zero
    for i in stride(from: 0, to: count, by: 8) {
      greatest = greater(greatest, magnitude(load(x, first + i, count: count - i, halves: halves)))
    }
    return Self.greatest(greatest)
  }

  /// One call's memory, in its workspace.
  private struct State {
    let codes: UnsafeMutablePointer<Int16>  // [padded channels of a query], of the negative query
    let distances: UnsafeMutablePointer<Int32>  // [tile]
    let weights: UnsafeMutablePointer<Int16>  // [tile]
    let sums: UnsafeMutablePointer<Float>  // [head_width]
    let limit: Int32
    let channels: Int

    init(_ a: at_attention_int16) {
      limit = at_attention_limit(a.head_width)
      channels = 2 * at_attention_pairs(a.head_width)
      distances = a.workspace.assumingMemoryBound(to: Int32.self)
      weights = (a.workspace + tile * MemoryLayout<Int32>.stride).assumingMemoryBound(to: Int16.self)
      sums = UnsafeMutableRawPointer(weights + tile).assumingMemoryBound(to: Float.self)
      codes = UnsafeMutableRawPointer(sums + a.head_width).assumingMemoryBound(to: Int16.self)
    }
  }

  /// Query by query: no block shares a look at the keys, which keeps this readable on processors that have nothing better.
  static func attentionInt16(_ a: at_attention_int16) {
    let s = State(a)
    let scale = a.scale * ReferenceMath.log2E
    for i in 0..<a.queries {
      let q = i * a.q_stride
      let exponent = Oracle.exponent(greatestMagnitude(a.q, q, a.head_width, halves: a.halves) * scale, s.limit)
      let factor = -(scale * Oracle.powerOfTwo(exponent))
      s.codes[s.channels - 1] = 0
      for d in 0..<a.head_width { s.codes[d] = Oracle.code(Oracle.element(a.q, q + d, halves: a.halves), factor) }
      let visible = a.causal ? min(a.keys, a.first_query + i + 1) : a.keys
      var nearest: Int32 = 1 << 30
      var normaliser: Float = 0
      for first in stride(from: 0, to: visible, by: tile) {
        let bytes = first / tile * at_attention_tile_bytes(a.head_width)
        let packed = Oracle.PackedTile(UnsafeMutableRawPointer(mutating: a.tiles + bytes), width: a.head_width)
        let count = min(tile, visible - first)
        measure(s, packed, count, exponent)
        if let bias = a.bias, let gate = a.gate {
          let offset = first - (a.first_query + i)
          for j in 0..<count { s.distances[j] &+= Oracle.distance(gate: gate[i], bias: bias[offset + j]) }
        }
        var newNearest = nearest
        for j in 0..<count { newNearest = min(newNearest, s.distances[j]) }
        let correction = ReferenceMath.powerOfTwo(Float(newNearest - nearest) * (1 / Float(1 << AT_DISTANCE_BITS)))
        normaliser = normaliser * correction + weigh(s, count, newNearest)
        addValues(s, a, packed, count, correction, isFirst: first == 0)
        nearest = newNearest
      }
      let inverse = 1 / normaliser
      for d in stride(from: 0, to: a.head_width, by: 8) {
        let count = a.head_width - d
        store(load(s.sums + d, count: count) * inverse, a.out, i * a.out_stride + d, count: count, halves: a.halves)
      }
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

  private static func measure(_ s: State, _ packed: Oracle.PackedTile, _ count: Int, _ exponent: Int32) {
    for j in stride(from: 0, to: count, by: 8) {
      var sum = SIMD8<Int32>.zero
      for d in stride(from: 0, to: s.channels, by: 2) { sum = addProducts(sum, packed.key(j, d), s.codes + d) }
      for lane in 0..<8 { s.distances[j + lane] = Oracle.distance(sum[lane], exponent, packed.keyExponent[0]) }
    }
  }

  /// The keys' weights, zero up to the end of the tile; returns their sum.
  private static func weigh(_ s: State, _ count: Int, _ nearest: Int32) -> Float {
    var sum: Int32 = 0
    for j in 0..<count {
      s.weights[j] = Oracle.attentionWeight(s.distances[j] - nearest)
      sum += Int32(s.weights[j])
    }
    for j in count..<tile { s.weights[j] = 0 }
    return Float(sum)
  }

  private static func addValues(
    _ s: State, _ a: at_attention_int16, _ packed: Oracle.PackedTile, _ count: Int, _ correction: Float, isFirst: Bool
  ) {
    for d in stride(from: 0, to: a.head_width, by: 8) {
      var sum = SIMD8<Int32>.zero
      for j in stride(from: 0, to: count, by: 2) { sum = addProducts(sum, packed.value(j, d), s.weights + j) }
      let before = isFirst ? Lanes.zero : load(s.sums + d, count: a.head_width - d)
      store(before * correction + Lanes(sum) * packed.valueScale[0], s.sums + d, count: a.head_width - d)
    }
  }
}
