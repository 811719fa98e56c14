import CKernels

extension Portable {
  static func quantizeRows(_ a: at_quantize) {
    for r in 0..<a.rows {
      let isThere = !a.halves && a.other == nil
      let first = r * a.x_stride
      let x = isThere ? a.x.assumingMemoryBound(to: Float.self) + first : UnsafePointer(a.row!)
      let q = a.q + r * a.q_stride
      var low = Lanes.zero
      var high = Lanes.zero
      for c in stride(from: 0, to: a.columns, by: 8) {
        let count = a.columns - c
        var v = load(a.x, first + c, count: count, halves: a.halves)
        if let other = a.other { v = v - load(other, first + c, count: count, halves: a.halves) }
        if !isThere { store(v, a.row! + c, count: count) }
        low = lesser(low, v)
        high = greater(high, v)
      }
      let lowest = -greatest(negative(low))
      let range = greatest(high) - lowest
      let usable = range > 1e-30
      let inverse: Float = usable ? 255 / range : 0
      a.scale[r] = usable ? range / 255 : 0
      a.zero[r] = Oracle.roundToInteger(-lowest * inverse)
      quantize(x, a.columns, inverse: inverse, zero: a.zero[r], into: q)
      for c in a.columns..<max(a.columns, a.padded) { q[c] = 0 }
    }
  }

  private static func quantize(
    _ x: UnsafePointer<Float>, _ columns: Int, inverse: Float, zero: Int32, into q: UnsafeMutablePointer<UInt8>
  ) {
    let offset = SIMD8(repeating: zero &- Int32(bitPattern: ReferenceMath.roundingMagic.bitPattern))
    for c in stride(from: 0, to: columns, by: 8) {
      let count = min(8, columns - c)
      var code = bits(load(x + c, count: count) * inverse + ReferenceMath.roundingMagic) &+ offset
      // Clamped by sign bits: comparisons of integer vectors compile to loops.
      code = code & ~(code &>> 31)
      code = code | ((SIMD8(repeating: 255) &- code) &>> 31)
      if count == 8 {
        for i in 0..<8 { q[c + i] = UInt8(truncatingIfNeeded: code[i]) }
      } else {
        for i in 0..<count { q[c + i] = UInt8(truncatingIfNeeded: code[i]) }
      }
    }
  }

  static func layerNorm(_ a: at_layer_norm) {
    for r in 0..<a.rows {
      let out = a.out + r * a.columns
      let x = a.halves ? UnsafePointer(out) : a.x.assumingMemoryBound(to: Float.self) + r * a.columns
      var total = Lanes.zero
      for c in stride(from: 0, to: a.columns, by: 8) {
        let v = load(a.x, r * a.columns + c, count: a.columns - c, halves: a.halves)
        if a.halves { store(v, out + c, count: a.columns - c) }
        total = total + v
      }
      let mean = sum(total) / Float(a.columns)
      var squares = Lanes.zero
      for c in stride(from: 0, to: a.columns, by: 8) {
        var d = load(x + c, count: a.columns - c) - mean
        // Lanes past the end would add the mean's square.
        if a.columns - c < 8 { for i in a.columns - c..<8 { d[i] = 0 } }
        squares = squares + d * d
      }
      let inverse = 1 / (sum(squares) / Float(a.columns) + a.epsilon).squareRoot()
      for c in stride(from: 0, to: a.columns, by: 8) {
        let count = a.columns - c
        let y = (load(x + c, count: count) - mean) * inverse
        store(y * load(a.gamma + c, count: count) + load(a.beta + c, count: count), out + c, count: count)
      }
    }
  }

  static func widen(_ a: at_widen) {
    for i in stride(from: 0, to: a.count, by: 8) {
      store(load(a.x, i, count: a.count - i, halves: true), a.out + i, count: a.count - i)
    }
  }

  static func channelRanges(_ a: at_channel_ranges) {
    for c in stride(from: 0, to: a.channels, by: 8) {
      let count = a.channels - c
      var (least, greatest) = (Lanes(repeating: .infinity), Lanes(repeating: -.infinity))
      for r in 0..<a.rows {
        let x = load(a.x, r * a.channels + c, count: count, halves: a.halves)
        least = lesser(least, x)
        greatest = greater(greatest, x)
      }
      store(least, a.least + c, count: count)
      store(greatest, a.greatest + c, count: count)
    }
  }

  static func channelSums(_ a: at_channel_sums) {
    for c in stride(from: 0, to: a.channels, by: 8) {
      let count = min(8, a.channels - c)
      var total = Lanes.zero
      var square = Lanes.zero
      for r in 0..<a.rows {
        let x = load(a.x, r * a.channels + c, count: count, halves: a.halves)
        total = total + x
        square = square + x * x
      }
      store(total, a.sum + c, count: count)
      store(square, a.square + c, count: count)
    }
  }

  static func affine(_ a: at_affine) {
    for r in 0..<a.rows {
      for c in stride(from: 0, to: a.channels, by: 8) {
        let i = r * a.channels + c
        let count = a.channels - c
        let x = load(a.x, i, count: count, halves: a.halves)
        let y = x * load(a.factor + c, count: count) + load(a.offset + c, count: count)
        store(apply(a.activation, y), a.out + i, count: count)
      }
    }
  }

  static func map(_ a: at_map) {
    for i in stride(from: 0, to: a.count, by: 8) {
      store(apply(a.activation, load(a.x + i, count: a.count - i)), a.out + i, count: a.count - i)
    }
  }

  static func add(_ a: at_add) {
    for i in stride(from: 0, to: a.count, by: 8) {
      let count = a.count - i
      store(load(a.a + i, count: count) * a.alpha + load(a.b + i, count: count), a.out + i, count: count)
    }
  }

  static func gatedGELU(_ a: at_gated_gelu) {
    for r in 0..<a.rows {
      let x = a.x + r * 2 * a.columns
      for c in stride(from: 0, to: a.columns, by: 8) {
        let count = a.columns - c
        let y = load(x + c, count: count) * gelu(load(x + a.columns + c, count: count))
        store(y, a.out + r * a.out_stride + c, count: count)
      }
    }
  }
}
