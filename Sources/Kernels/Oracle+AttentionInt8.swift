import CKernels

extension Oracle {
  private static let tile = Int(AT_CODED_TILE)

  /// Where things lie in a packed tile of `width` channels.
  struct PackedTile {
    let keys: UnsafeMutablePointer<Int16>
    let values: UnsafeMutablePointer<Int16>
    let valueWidth: Int

    init(_ base: UnsafeMutableRawPointer, width: Int) {
      keys = base.assumingMemoryBound(to: Int16.self)
      values = keys + at_attention_pairs(width) * tile * 2
      valueWidth = at_attention_values(width)
    }

    func key(_ j: Int, _ d: Int) -> UnsafeMutablePointer<Int16> { keys + ((d / 2 * tile) + j) * 2 + d % 2 }
    func value(_ j: Int, _ d: Int) -> UnsafeMutablePointer<Int16> { values + (j / 2 * valueWidth + d) * 2 + j % 2 }
  }

  /// How a channel from `least` to `greatest` is coded: x is about centre + step * code, and code = (x - centre) * factor
  /// rounded, of magnitude up to 127.
  package static func channelCoding(_ least: Float, _ greatest: Float) -> (centre: Float, factor: Float, step: Float) {
    // Zero is added, so that zeros of either sign give the same.
    let centre = (least + greatest) * 0.5 + 0
    // Rather than half of the difference, which the centre's rounding may take a code beyond.
    let reach = max(greatest - centre, centre - least)
    let limit = Float(AT_CODE_LIMIT)
    return reach > 1e-30 ? (centre, limit / reach, reach / limit) : (centre, 0, 0)
  }

  /// How a query is coded whose channels, times their factors, are up to `greatest`.
  struct QueryCoding {
    let ratio: Float  // of codes to what they are of
    let exponent: Int32  // of ratio
    let fraction: Int16  // a step is fraction / 2^15 of 2^-10 of an exponent: it is that of 2^exponent / ratio
    let half: Int32  // steps that are half of an exponent, or a little less
    var step: Float { Float(fraction) * (1 / Float(1 << (15 + AT_DISTANCE_BITS))) }  // in exponents

    init(_ greatest: Float) {
      ratio = greatest > 1e-30 ? Float(AT_CODE_LIMIT) / greatest : Float(1 << AT_DISTANCE_BITS)
      exponent = Int32(ratio.bitPattern >> 23) - 127
      let times = Float(bitPattern: ratio.bitPattern & 0x7f_ffff | 0x3f80_0000)
      fraction = Int16(clamping: Int32(32768 / times))
      half = Int32(1 << (AT_DISTANCE_BITS + 14)) / Int32(fraction)
    }
  }

  static func code(_ x: Float) -> Int16 {
    Int16(truncatingIfNeeded: min(max(roundToInteger(x), -32_768), 32_767))
  }

  static func attentionPack(_ a: at_attention_pack) {
    let packed = PackedTile(a.tile, width: a.head_width)
    a.tile.initializeMemory(as: UInt8.self, repeating: 0, count: at_attention_tile_bytes(a.head_width))
    for j in 0..<a.count {
      for d in 0..<a.head_width {
        let key = element(a.k, j * a.k_stride + d, halves: a.halves) - a.key_centre[d]
        let value = element(a.v, j * a.v_stride + d, halves: a.halves) - a.value_centre[d]
        packed.key(j, d).pointee = code(key * a.key_factor[d])
        packed.value(j, d).pointee = code(value * a.value_factor[d])
      }
    }
  }

  static func channelRanges(_ a: at_channel_ranges) {
    for c in 0..<a.channels {
      let column = (0..<a.rows).map { element(a.x, $0 * a.channels + c, halves: a.halves) }
      a.least[c] = column.reduce(.infinity, min)
      a.greatest[c] = column.reduce(-.infinity, max)
    }
  }

  /// How far a key lies below a query's score of zero, in steps of the query: a product of codes, of the negative query with
  /// this exponent, shifted right; at most 2^29, which a score of 2^18 has.
  static func distance(_ product: Int32, _ queryExponent: Int32) -> Int32 {
    let shift = min(max(queryExponent - Int32(AT_DISTANCE_BITS), -29), 31)
    let shifted = shift < 0 ? Int64(product) << -shift : Int64(product) >> shift
    return Int32(min(max(shifted, -(1 << 29)), 1 << 29))
  }

  /// 255 * 2^-d, rounded, for how far in steps of a query a key is beyond what its tile is counted from, each
  /// `fraction` / 2^15 of 2^-10 of an exponent; 0 from 9 exponents on. With d - 1/2 = n + f, |f| <= 1/2: a polynomial in 2f, a
  /// fraction of 15 bits, then 2^8 >> n times; relative error of the polynomial below 1.5e-4. Every product is rounded to
  /// sixteen bits.
  package static func attentionWeight(_ steps: Int32, half: Int32, fraction: Int16) -> Int16 {
    func multiply(_ a: Int16, _ b: Int16) -> Int16 { Int16((Int32(a) * Int32(b) + (1 << 14)) >> 15) }
    let lessHalf = multiply(Int16(clamping: steps - half), fraction)
    let n = multiply(lessHalf, 32)
    let f = lessHalf << 6
    var p = multiply(f, -157) + 1402
    p = multiply(f, p) - 8014
    p = multiply(f, p) + 23_114
    return multiply(p, (1 << 8) >> n)
  }

  /// What a tile's distances are counted from, when `nearest` is the least of all so far.
  static func reference(_ least: Int32, _ nearest: Int32) -> Int32 { min(least, nearest + Int32(AT_REACH)) }

  /// As `attention`, with integers where `CKernels.h` says so. The weights' sum is that of the rounded ones.
  static func attentionInt8(_ a: at_attention_int8) {
    for i in 0..<a.queries {
      let q = i * a.q_stride
      let scaled = (0..<a.head_width).map { element(a.q, q + $0, halves: a.halves) * a.query_factor[$0] }
      let coding = QueryCoding(scaled.reduce(0) { max($0, $1.magnitude) })
      let codes = scaled.map { Int32(code($0 * -coding.ratio)) }
      var nearest: Int32 = 1 << 30
      var normaliser: Float = 0
      var sums = [Float](repeating: 0, count: a.head_width)
      for first in stride(from: 0, to: a.keys, by: tile) {
        let bytes = first / tile * at_attention_tile_bytes(a.head_width)
        let packed = PackedTile(UnsafeMutableRawPointer(mutating: a.tiles + bytes), width: a.head_width)
        let distances = (0..<min(tile, a.keys - first)).map { j in
          var product: Int32 = 0
          for d in 0..<a.head_width { product &+= codes[d] &* Int32(packed.key(j, d).pointee) }
          return distance(product, coding.exponent)
        }
        let least = distances.reduce(1 << 30, min)
        let newNearest = min(nearest, least)
        let reference = reference(least, newNearest)
        let correction = ReferenceMath.powerOfTwo(Float(newNearest - nearest) * coding.step)
        let share = ReferenceMath.powerOfTwo(Float(newNearest - reference) * coding.step)
        let weights = distances.map { attentionWeight($0 - reference, half: coding.half, fraction: coding.fraction) }
        normaliser = normaliser * correction + Float(weights.reduce(0 as Int32) { $0 + Int32($1) }) * share
        for d in 0..<a.head_width {
          let sum = weights.indices.reduce(0 as Int32) {
            $0 &+ Int32(weights[$1]) &* Int32(packed.value($1, d).pointee)
          }
          sums[d] = sums[d] * correction + Float(sum) * share
        }
        nearest = newNearest
      }
      let inverse = 1 / normaliser
      for d in 0..<a.head_width {
        let value = sums[d] * inverse * a.value_step[d] + a.value_centre[d]
        put(value, a.out, i * a.out_stride + d, halves: a.halves)
      }
    }
  }
}
