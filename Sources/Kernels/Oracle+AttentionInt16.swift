import CKernels

extension Oracle {
  private static let tile = Int(AT_ATTENTION_TILE)

  /// Where things lie in a packed tile of `width` channels.
  struct PackedTile {
    let keyScale: UnsafeMutablePointer<Float>
    let keys: UnsafeMutablePointer<Int16>
    let values: UnsafeMutablePointer<Int16>
    let valueWidth: Int

    init(_ base: UnsafeMutableRawPointer, width: Int) {
      let floats = tile + 16
      keyScale = base.assumingMemoryBound(to: Float.self)
      keys = (base + floats * MemoryLayout<Float>.stride).assumingMemoryBound(to: Int16.self)
      values = keys + at_attention_pairs(width) * tile * 2
      valueWidth = at_attention_values(width)
    }

    var valueScale: UnsafeMutablePointer<Float> { keyScale + tile }
    func key(_ j: Int, _ d: Int) -> UnsafeMutablePointer<Int16> { keys + ((d / 2 * tile) + j) * 2 + d % 2 }
    func value(_ j: Int, _ d: Int) -> UnsafeMutablePointer<Int16> { values + (j / 2 * valueWidth + d) * 2 + j % 2 }
  }

  /// What turns floats into integers of magnitude up to `limit`, and back.
  static func coding(_ greatest: Float, _ limit: Int32) -> (inverse: Float, scale: Float) {
    greatest > 1e-30 ? (Float(limit) / greatest, greatest / Float(limit)) : (0, 0)
  }

  private static func greatestMagnitude(_ x: UnsafePointer<Float>, _ count: Int) -> Float {
    (0..<count).reduce(0) { max($0, x[$1].magnitude) }
  }

  private static func code(_ x: Float, _ inverse: Float) -> Int16 {
    Int16(truncatingIfNeeded: min(max(roundToInteger(x * inverse), -32_768), 32_767))
  }

  static func attentionPack(_ a: at_attention_pack) {
    let packed = PackedTile(a.tile, width: a.head_width)
    a.tile.initializeMemory(as: UInt8.self, repeating: 0, count: at_attention_tile_bytes(a.head_width))
    let greatest = (0..<a.count).reduce(0 as Float) { max($0, greatestMagnitude(a.v + $1 * a.v_stride, a.head_width)) }
    let value = coding(greatest, Int32(AT_VALUE_LIMIT))
    packed.valueScale[0] = value.scale
    for j in 0..<a.count {
      let k = a.k + j * a.k_stride
      let key = coding(greatestMagnitude(k, a.head_width), at_attention_limit(a.head_width))
      packed.keyScale[j] = key.scale
      for d in 0..<a.head_width {
        packed.key(j, d).pointee = code(k[d], key.inverse)
        packed.value(j, d).pointee = code(a.v[j * a.v_stride + d], value.inverse)
      }
    }
  }

  /// As `attention`, with integers where `CKernels.h` says so. Weights are rounded to whole numbers of 2^-14, and their sum
  /// is that of the rounded ones.
  static func attentionInt16(_ a: at_attention_int16) {
    for i in 0..<a.queries {
      let q = a.q + i * a.q_stride
      let out = a.out + i * a.out_stride
      let position = a.first_query + i
      let query = coding(greatestMagnitude(q, a.head_width), at_attention_limit(a.head_width))
      let scale = query.scale * (a.scale * ReferenceMath.log2E)
      let visible = a.causal ? min(a.keys, position + 1) : a.keys
      var maximum = -Float.infinity
      var normaliser: Float = 0
      for d in 0..<a.head_width { out[d] = 0 }
      for first in stride(from: 0, to: visible, by: tile) {
        let count = min(tile, visible - first)
        let bytes = first / tile * at_attention_tile_bytes(a.head_width)
        let packed = PackedTile(UnsafeMutableRawPointer(mutating: a.tiles + bytes), width: a.head_width)
        var scores = [Float](repeating: 0, count: count)
        for j in 0..<count {
          var dot: Int32 = 0
          for d in 0..<a.head_width { dot &+= Int32(code(q[d], query.inverse)) * Int32(packed.key(j, d).pointee) }
          scores[j] = (Float(dot) * packed.keyScale[j]) * scale
          if let bias = a.bias {
            scores[j] = scores[j] + (a.gate![i] * ReferenceMath.log2E) * bias[first + j - position]
          }
        }
        let newMaximum = scores.reduce(maximum) { max($0, $1) }
        let correction = ReferenceMath.powerOfTwo(maximum - newMaximum)
        let weights = scores.map {
          roundToInteger(ReferenceMath.powerOfTwo(($0 - newMaximum) + Float(AT_PROBABILITY_BITS)))
        }
        normaliser = normaliser * correction + Float(weights.reduce(0, +))
        for d in 0..<a.head_width {
          let sum = (0..<count).reduce(0 as Int32) { $0 &+ weights[$1] &* Int32(packed.value($1, d).pointee) }
          out[d] = out[d] * correction + Float(sum) * packed.valueScale[0]
        }
        maximum = newMaximum
      }
      let inverse = 1 / normaliser
      for d in 0..<a.head_width { out[d] = out[d] * inverse }
    }
  }
}
