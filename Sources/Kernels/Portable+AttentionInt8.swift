import CKernels

extension Portable {
  private static let tile = Int(AT_CODED_TILE)
  private typealias Pairs = SIMD16<Int16>

  static func attentionPack(_ a: at_attention_pack) {
    let packed = Oracle.PackedTile(a.tile, width: a.head_width)
    a.tile.initializeMemory(as: UInt8.self, repeating: 0, count: at_attention_tile_bytes(a.head_width))
    for j in 0..<a.count {
      for d in 0..<a.head_width {
        let key = Oracle.element(a.k, j * a.k_stride + d, halves: a.halves) - a.key_centre[d]
        let value = Oracle.element(a.v, j * a.v_stride + d, halves: a.halves) - a.value_centre[d]
        packed.key(j, d).pointee = Oracle.code(key * a.key_factor[d])
        packed.value(j, d).pointee = Oracle.code(value * a.value_factor[d])
      }
    }
  }

  /// One call's memory, in its workspace.
  private struct State {
    let codes: UnsafeMutablePointer<Int16>  // [padded channels of a query], of the negative query
    let distances: UnsafeMutablePointer<Int32>  // [tile]
    let weights: UnsafeMutablePointer<Int16>  // [tile]
    let sums: UnsafeMutablePointer<Float>  // [head_width]
    let channels: Int

    init(_ a: at_attention_int8) {
      channels = 2 * at_attention_pairs(a.head_width)
      distances = a.workspace.assumingMemoryBound(to: Int32.self)
      weights = (a.workspace + tile * MemoryLayout<Int32>.stride).assumingMemoryBound(to: Int16.self)
      sums = UnsafeMutableRawPointer(weights + tile).assumingMemoryBound(to: Float.self)
      codes = UnsafeMutableRawPointer(sums + a.head_width).assumingMemoryBound(to: Int16.self)
    }
  }

  /// Query by query: no block shares a look at the keys, which keeps this readable on processors that have nothing better.
  static func attentionInt8(_ a: at_attention_int8) {
    let s = State(a)
    for i in 0..<a.queries {
      let coding = takeQuery(s, a, i)
      var nearest: Int32 = 1 << 30
      var normaliser: Float = 0
      for first in stride(from: 0, to: a.keys, by: tile) {
        let bytes = first / tile * at_attention_tile_bytes(a.head_width)
        let packed = Oracle.PackedTile(UnsafeMutableRawPointer(mutating: a.tiles + bytes), width: a.head_width)
        let count = min(tile, a.keys - first)
        measure(s, packed, count, coding.exponent)
        var least = s.distances[0]
        for j in 1..<count { least = min(least, s.distances[j]) }
        let newNearest = min(nearest, least)
        let reference = Oracle.reference(least, newNearest)
        let correction = ReferenceMath.powerOfTwo(Float(newNearest - nearest) * coding.step)
        let share = ReferenceMath.powerOfTwo(Float(newNearest - reference) * coding.step)
        normaliser = normaliser * correction + weigh(s, count, reference, coding) * share
        addValues(s, a, packed, count, correction, share, isFirst: first == 0)
        nearest = newNearest
      }
      let inverse = 1 / normaliser
      for d in stride(from: 0, to: a.head_width, by: 8) {
        let count = a.head_width - d
        let mean: Lanes = load(s.sums + d, count: count) * inverse
        let steps: Lanes = mean * load(a.value_step + d, count: count)
        let value: Lanes = steps + load(a.value_centre + d, count: count)
        store(value, a.out, i * a.out_stride + d, count: count, halves: a.halves)
      }
    }
  }

  /// The query's codes; returns how they are made.
  private static func takeQuery(_ s: State, _ a: at_attention_int8, _ query: Int) -> Oracle.QueryCoding {
    func scaled(_ d: Int) -> Lanes {
      let count = a.head_width - d
      return load(a.q, query * a.q_stride + d, count: count, halves: a.halves) * load(a.query_factor + d, count: count)
    }
    var greatest = Lanes.zero
    for d in stride(from: 0, to: a.head_width, by: 8) { greatest = greater(greatest, magnitude(scaled(d))) }
    let coding = Oracle.QueryCoding(Self.greatest(greatest))
    s.codes[s.channels - 1] = 0
    for d in stride(from: 0, to: a.head_width, by: 8) {
      let x = scaled(d) * -coding.ratio
      for lane in 0..<min(8, a.head_width - d) { s.codes[d + lane] = Oracle.code(x[lane]) }
    }
    return coding
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
      for lane in 0..<8 { s.distances[j + lane] = Oracle.distance(sum[lane], exponent) }
    }
  }

  /// The keys' weights, zero up to the end of the tile; returns their sum.
  private static func weigh(_ s: State, _ count: Int, _ reference: Int32, _ coding: Oracle.QueryCoding) -> Float {
    var sum: Int32 = 0
    for j in 0..<count {
      s.weights[j] = Oracle.attentionWeight(
        s.distances[j] - reference, half: coding.half, fraction: coding.fraction)
      sum += Int32(s.weights[j])
    }
    for j in count..<tile { s.weights[j] = 0 }
    return Float(sum)
  }

  private static func addValues(
    _ s: State, _ a: at_attention_int8, _ packed: Oracle.PackedTile, _ count: Int, _ correction: Float, _ share: Float,
    isFirst: Bool
  ) {
    for d in stride(from: 0, to: a.head_width, by: 8) {
      var sum = SIMD8<Int32>.zero
      for j in stride(from: 0, to: count, by: 2) { sum = addProducts(sum, packed.value(j, d), s.weights + j) }
      let before = isFirst ? Lanes.zero : load(s.sums + d, count: a.head_width - d)
      store(before * correction + Lanes(sum) * share, s.sums + d, count: a.head_width - d)
    }
  }
}
