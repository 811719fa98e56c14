import CKernels

extension Portable {
  /// The panels that are asked for and hold outputs.
  private static func panels(_ a: at_gemm) -> Range<Int> {
    let end = min(a.panel_end, (a.outputs + 7) / 8)
    return a.panel_begin..<max(a.panel_begin, end)
  }

  @inline(__always)
  private static func store(_ total: Lanes, _ a: at_gemm, row: Int, panel: Int) {
    let first = panel * 8
    let count = a.outputs - first
    var y = total
    if let bias = a.bias { y = y + load(bias + first) }
    if let residual = a.residual { y = y + load(residual + row * a.residual_stride + first, count: count) }
    store(y, a.out + row * a.out_stride + first, count: count)
  }

  // MARK: int8

  /// Sums of u8 x u8 products for the eight outputs of a panel. Two products share a 32-bit lane as u16: the lanes'
  /// wrapping sum and the sum of the high products determine both sums, as long as each stays below 2^32.
  private struct Sums {
    var low = (SIMD4<UInt32>.zero, SIMD4<UInt32>.zero)
    var high = (SIMD4<UInt32>.zero, SIMD4<UInt32>.zero)

    /// `even` and `odd` hold bytes 0, 2 and 1, 3 of the quads of four outputs each; so does `x` of one quad of a row.
    @inline(__always)
    mutating func add(_ w: PanelQuad, _ x: UInt32) {
      let even = unsafeBitCast(SIMD4(repeating: x & 0x00ff_00ff), to: SIMD8<UInt16>.self)
      let odd = unsafeBitCast(SIMD4(repeating: x &>> 8 & 0x00ff_00ff), to: SIMD8<UInt16>.self)
      let products = (
        unsafeBitCast(w.even.0 &* even, to: SIMD4<UInt32>.self), unsafeBitCast(w.odd.0 &* odd, to: SIMD4<UInt32>.self),
        unsafeBitCast(w.even.1 &* even, to: SIMD4<UInt32>.self), unsafeBitCast(w.odd.1 &* odd, to: SIMD4<UInt32>.self)
      )
      low.0 = low.0 &+ products.0 &+ products.1
      low.1 = low.1 &+ products.2 &+ products.3
      high.0 = high.0 &+ (products.0 &>> 16) &+ (products.1 &>> 16)
      high.1 = high.1 &+ (products.2 &>> 16) &+ (products.3 &>> 16)
    }

    @inline(__always)
    var total: SIMD8<Int32> {
      let sums = (low.0 &- (high.0 &<< 16) &+ high.0, low.1 &- (high.1 &<< 16) &+ high.1)
      return unsafeBitCast(SIMD8(lowHalf: sums.0, highHalf: sums.1), to: SIMD8<Int32>.self)
    }
  }

  /// A quad of inputs for the eight outputs of a panel, plus 128, so that weights are 0...255.
  private struct PanelQuad {
    var even: (SIMD8<UInt16>, SIMD8<UInt16>)
    var odd: (SIMD8<UInt16>, SIMD8<UInt16>)

    @inline(__always)
    init(_ weights: UnsafeRawPointer) {
      let low = weights.loadUnaligned(as: SIMD8<UInt16>.self) ^ SIMD8(repeating: 0x8080)
      let high = weights.loadUnaligned(fromByteOffset: 16, as: SIMD8<UInt16>.self) ^ SIMD8(repeating: 0x8080)
      even = (low & SIMD8(repeating: 0xff), high & SIMD8(repeating: 0xff))
      odd = (low &>> 8, high &>> 8)
    }
  }

  static func gemmInt8(_ a: at_gemm) {
    withUnsafeTemporaryAllocation(of: Int32.self, capacity: a.taps * a.row_count) { codeSums in
      for entry in 0..<a.taps * a.row_count {
        let x = a.rows[entry].assumingMemoryBound(to: UInt8.self)
        var sum: Int32 = 0
        for i in 0..<a.inputs { sum = sum &+ Int32(x[i]) }
        codeSums[entry] = sum
      }
      for panel in panels(a) {
        for row in stride(from: 0, to: a.row_count &- 1, by: 2) { pair(a, codeSums, row: row, panel: panel) }
        if a.row_count % 2 == 1 { single(a, codeSums, row: a.row_count - 1, panel: panel) }
      }
    }
  }

  @inline(__always)
  private static func weights(_ a: at_gemm, tap: Int, panel: Int) -> UnsafeRawPointer {
    a.weights + (panel * a.taps + tap) * a.inputs * 8
  }

  private static func pair(_ a: at_gemm, _ codeSums: UnsafeMutableBufferPointer<Int32>, row: Int, panel: Int) {
    var totals = (Lanes.zero, Lanes.zero)
    for tap in 0..<a.taps {
      let w = weights(a, tap: tap, panel: panel)
      let entry = tap * a.row_count + row
      let x = (a.rows[entry], a.rows[entry + 1])
      var sums = (Sums(), Sums())
      for i in stride(from: 0, to: a.inputs, by: 4) {
        let quad = PanelQuad(w + i * 8)
        sums.0.add(quad, x.0.loadUnaligned(fromByteOffset: i, as: UInt32.self))
        sums.1.add(quad, x.1.loadUnaligned(fromByteOffset: i, as: UInt32.self))
      }
      totals.0 = add(sums.0, codeSums[entry], a, entry, tap: tap, panel: panel, to: totals.0)
      totals.1 = add(sums.1, codeSums[entry + 1], a, entry + 1, tap: tap, panel: panel, to: totals.1)
    }
    let scale = load(a.scale! + panel * 8)
    store(totals.0 * scale, a, row: row, panel: panel)
    store(totals.1 * scale, a, row: row + 1, panel: panel)
  }

  private static func single(_ a: at_gemm, _ codeSums: UnsafeMutableBufferPointer<Int32>, row: Int, panel: Int) {
    var total = Lanes.zero
    for tap in 0..<a.taps {
      let w = weights(a, tap: tap, panel: panel)
      let entry = tap * a.row_count + row
      let x = a.rows[entry]
      var sums = Sums()
      for i in stride(from: 0, to: a.inputs, by: 4) {
        sums.add(PanelQuad(w + i * 8), x.loadUnaligned(fromByteOffset: i, as: UInt32.self))
      }
      total = add(sums, codeSums[entry], a, entry, tap: tap, panel: panel, to: total)
    }
    store(total * load(a.scale! + panel * 8), a, row: row, panel: panel)
  }

  /// The float term of one tap, once its integer sum is complete.
  @inline(__always)
  private static func add(
    _ sums: Sums, _ codeSum: Int32, _ a: at_gemm, _ entry: Int, tap: Int, panel: Int, to total: Lanes
  ) -> Lanes {
    let weightSums = UnsafeRawPointer(a.sum! + (tap * a.panels + panel) * 8).loadUnaligned(as: SIMD8<Int32>.self)
    let dot = sums.total &- SIMD8(repeating: codeSum &* 128) &- weightSums &* SIMD8(repeating: a.row_zero![entry])
    let term = Lanes(dot) * a.row_scale![entry]
    return tap == 0 ? term : total + term
  }

  // MARK: float

  static func gemmFloat32(_ a: at_gemm) {
    gemm(a) { load($0.assumingMemoryBound(to: Float.self) + $1 * 8) }
  }

  static func gemmFloat16(_ a: at_gemm) {
    gemm(a) { widen(($0 + $1 * 16).loadUnaligned(as: SIMD8<UInt16>.self)) }
  }

  /// IEEE binary16 to binary32, exact: the magnitude's bits are moved into place as a float 2^112 times too small,
  /// which also normalises the subnormal ones; infinities and NaN keep their largest exponent.
  @inline(__always)
  static func widen(_ half: SIMD8<UInt16>) -> Lanes {
    var wide = SIMD8<UInt32>.zero
    for i in 0..<8 { wide[i] = UInt32(half[i]) }
    let sign = (wide & SIMD8(repeating: 0x8000)) &<< 16
    let shifted = (wide & SIMD8(repeating: 0x7fff)) &<< 13
    let scaled = unsafeBitCast(shifted, to: Lanes.self) * Float(bitPattern: 0x7780_0000)
    var magnitude = unsafeBitCast(scaled, to: SIMD8<UInt32>.self)
    magnitude.replace(
      with: shifted | SIMD8(repeating: 0x7f80_0000), where: shifted .>= SIMD8(repeating: 0x0f80_0000))
    return unsafeBitCast(magnitude | sign, to: Lanes.self)
  }

  @inline(__always)
  private static func gemm(_ a: at_gemm, _ weight: (UnsafeRawPointer, Int) -> Lanes) {
    for panel in panels(a) {
      var row = 0
      while row + 4 <= a.row_count {
        four(a, row: row, panel: panel, weight)
        row += 4
      }
      while row < a.row_count {
        one(a, row: row, panel: panel, weight)
        row += 1
      }
    }
  }

  @inline(__always)
  private static func four(_ a: at_gemm, row: Int, panel: Int, _ weight: (UnsafeRawPointer, Int) -> Lanes) {
    var total = (Lanes.zero, Lanes.zero, Lanes.zero, Lanes.zero)
    for tap in 0..<a.taps {
      let x = (a.rows + tap * a.row_count + row).withMemoryRebound(to: UnsafePointer<Float>.self, capacity: 4) {
        ($0[0], $0[1], $0[2], $0[3])
      }
      for i in 0..<a.inputs {
        let w = weight(a.weights, (panel * a.taps + tap) * a.inputs + i)
        total.0 = total.0 + w * x.0[i]
        total.1 = total.1 + w * x.1[i]
        total.2 = total.2 + w * x.2[i]
        total.3 = total.3 + w * x.3[i]
      }
    }
    store(total.0, a, row: row, panel: panel)
    store(total.1, a, row: row + 1, panel: panel)
    store(total.2, a, row: row + 2, panel: panel)
    store(total.3, a, row: row + 3, panel: panel)
  }

  @inline(__always)
  private static func one(_ a: at_gemm, row: Int, panel: Int, _ weight: (UnsafeRawPointer, Int) -> Lanes) {
    var total = Lanes.zero
    for tap in 0..<a.taps {
      let x = a.rows[tap * a.row_count + row].assumingMemoryBound(to: Float.self)
      for i in 0..<a.inputs { total = total + weight(a.weights, (panel * a.taps + tap) * a.inputs + i) * x[i] }
    }
    store(total, a, row: row, panel: panel)
  }
}
