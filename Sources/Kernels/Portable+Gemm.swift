import CKernels

extension Portable {
  /// The panels that are asked for and hold outputs.
  private static func panels(_ a: at_gemm) -> Range<Int> {
    let end = min(a.panel_end, (a.outputs + 7) / 8)
    return a.panel_begin..<max(a.panel_begin, end)
  }

  /// What is added to the outputs of a panel, and where they go; returns them as they are without the residual. `carry` is
  /// what the row that this one is paired with came to.
  @inline(__always) @discardableResult
  static func store(_ total: Lanes, _ a: at_gemm, row: Int, panel: Int, carry: Lanes? = nil) -> Lanes {
    let first = panel * 8
    let count = a.outputs - first
    var y = total
    if let carry { y = y + carry } else if let bias = a.bias { y = y + load(bias + first) }
    let place = row * a.residual_stride + first
    let residual = (carry == nil ? a.residual : a.pair_residual).map {
      load($0, place, count: count, halves: a.halves)
    }
    let out = carry == nil ? a.out : a.pair_out!
    store(residual.map { y + $0 } ?? y, out, row * a.out_stride + first, count: count, halves: a.halves)
    return y
  }

  // MARK: int8

  /// Sums of pairs of products: one SSE2 instruction, pmaddwd, in this spelling.
  @inline(__always)
  private static func pairs(_ a: SIMD8<Int16>, _ b: SIMD8<Int16>) -> SIMD4<Int32> {
    let products = SIMD8<Int32>(truncatingIfNeeded: a) &* SIMD8<Int32>(truncatingIfNeeded: b)
    return products.evenHalf &+ products.oddHalf
  }

  /// A quad of inputs for the eight outputs of a panel: bytes 0, 2 and bytes 1, 3 of each quad as s16.
  private struct PanelQuad {
    let even: (SIMD8<Int16>, SIMD8<Int16>)
    let odd: (SIMD8<Int16>, SIMD8<Int16>)

    @inline(__always)
    init(_ weights: UnsafeRawPointer) {
      let low = weights.loadUnaligned(as: SIMD8<Int16>.self)
      let high = weights.loadUnaligned(fromByteOffset: 16, as: SIMD8<Int16>.self)
      even = ((low &<< 8) &>> 8, (high &<< 8) &>> 8)
      odd = (low &>> 8, high &>> 8)
    }
  }

  /// Integer sums for the eight outputs of a panel.
  private struct Sums {
    private var low = SIMD4<Int32>.zero
    private var high = SIMD4<Int32>.zero

    /// Adds the quad of codes at `x`.
    @inline(__always)
    mutating func add(_ w: PanelQuad, _ x: UnsafeRawPointer) {
      let codes = x.loadUnaligned(as: UInt32.self)
      let even = unsafeBitCast(SIMD4(repeating: codes & 0x00ff_00ff), to: SIMD8<Int16>.self)
      let odd = unsafeBitCast(SIMD4(repeating: codes &>> 8 & 0x00ff_00ff), to: SIMD8<Int16>.self)
      low = low &+ pairs(w.even.0, even) &+ pairs(w.odd.0, odd)
      high = high &+ pairs(w.even.1, even) &+ pairs(w.odd.1, odd)
    }

    var total: SIMD8<Int32> { SIMD8(lowHalf: low, highHalf: high) }
  }

  static func gemmInt8(_ a: at_gemm) {
    for panel in panels(a) {
      guard !a.paired else {
        for row in 0..<a.row_count / 2 { pairInt8(a, row: row, panel: panel) }
        continue
      }
      var row = 0
      while row + 4 <= a.row_count {
        fourInt8(a, row: row, panel: panel)
        row += 4
      }
      while row < a.row_count {
        oneInt8(a, row: row, panel: panel)
        row += 1
      }
    }
  }

  @inline(__always)
  private static func int8Weights(_ a: at_gemm, tap: Int, panel: Int) -> UnsafeRawPointer {
    a.weights + (panel * a.taps + tap) * a.inputs * 8
  }

  private static func fourInt8(_ a: at_gemm, row: Int, panel: Int) {
    var totals = (Lanes.zero, Lanes.zero, Lanes.zero, Lanes.zero)
    for tap in 0..<a.taps {
      let w = int8Weights(a, tap: tap, panel: panel)
      let entry = tap * a.row_count + row
      let x = (a.rows[entry], a.rows[entry + 1], a.rows[entry + 2], a.rows[entry + 3])
      var sums = (Sums(), Sums(), Sums(), Sums())
      for i in stride(from: 0, to: a.inputs, by: 4) {
        let quad = PanelQuad(w + i &* 8)
        sums.0.add(quad, x.0 + i)
        sums.1.add(quad, x.1 + i)
        sums.2.add(quad, x.2 + i)
        sums.3.add(quad, x.3 + i)
      }
      totals.0 = add(sums.0, a, entry, tap: tap, panel: panel, to: totals.0)
      totals.1 = add(sums.1, a, entry + 1, tap: tap, panel: panel, to: totals.1)
      totals.2 = add(sums.2, a, entry + 2, tap: tap, panel: panel, to: totals.2)
      totals.3 = add(sums.3, a, entry + 3, tap: tap, panel: panel, to: totals.3)
    }
    let scale = load(a.scale! + panel * 8)
    store(totals.0 * scale, a, row: row, panel: panel)
    store(totals.1 * scale, a, row: row + 1, panel: panel)
    store(totals.2 * scale, a, row: row + 2, panel: panel)
    store(totals.3 * scale, a, row: row + 3, panel: panel)
  }

  private static func oneInt8(_ a: at_gemm, row: Int, panel: Int) {
    store(product(a, row: row, panel: panel) * load(a.scale! + panel * 8), a, row: row, panel: panel)
  }

  private static func pairInt8(_ a: at_gemm, row: Int, panel: Int) {
    let scale = load(a.scale! + panel * 8)
    let plain = store(product(a, row: row, panel: panel) * scale, a, row: row, panel: panel)
    let difference = product(a, row: a.row_count / 2 + row, panel: panel) * scale
    store(difference, a, row: row, panel: panel, carry: plain)
  }

  /// One row's sum over the taps.
  @inline(__always)
  private static func product(_ a: at_gemm, row: Int, panel: Int) -> Lanes {
    var total = Lanes.zero
    for tap in 0..<a.taps {
      let w = int8Weights(a, tap: tap, panel: panel)
      let entry = tap * a.row_count + row
      let x = a.rows[entry]
      var sums = Sums()
      for i in stride(from: 0, to: a.inputs, by: 4) { sums.add(PanelQuad(w + i &* 8), x + i) }
      total = add(sums, a, entry, tap: tap, panel: panel, to: total)
    }
    return total
  }

  /// The float term of one tap, once its integer sum is complete.
  @inline(__always)
  private static func add(_ sums: Sums, _ a: at_gemm, _ entry: Int, tap: Int, panel: Int, to total: Lanes) -> Lanes {
    let weightSums = UnsafeRawPointer(a.sum! + (tap * a.panels + panel) * 8).loadUnaligned(as: SIMD8<Int32>.self)
    let dot = sums.total &- weightSums &* SIMD8(repeating: a.row_zero![entry])
    let term = Lanes(dot) * a.row_scale![entry]
    return tap == 0 ? term : total + term
  }

  // MARK: float

  static func gemmFloat32(_ a: at_gemm) {
    gemm(a) { load($0.assumingMemoryBound(to: Float.self) + $1 * 8) }
  }

  static func gemmFloat16(_ a: at_gemm) {
    gemm(a) { widen(($0 + $1 * 16).loadUnaligned(as: SIMD8<Int16>.self)) }
  }

  @inline(__always)
  private static func gemm(_ a: at_gemm, _ weight: (UnsafeRawPointer, Int) -> Lanes) {
    for panel in panels(a) {
      var row = 0
      while row + 4 <= a.row_count {
        fourFloat(a, row: row, panel: panel, weight)
        row += 4
      }
      while row < a.row_count {
        oneFloat(a, row: row, panel: panel, weight)
        row += 1
      }
    }
  }

  @inline(__always)
  private static func fourFloat(_ a: at_gemm, row: Int, panel: Int, _ weight: (UnsafeRawPointer, Int) -> Lanes) {
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
  private static func oneFloat(_ a: at_gemm, row: Int, panel: Int, _ weight: (UnsafeRawPointer, Int) -> Lanes) {
    var total = Lanes.zero
    for tap in 0..<a.taps {
      let x = a.rows[tap * a.row_count + row].assumingMemoryBound(to: Float.self)
      for i in 0..<a.inputs { total = total + weight(a.weights, (panel * a.taps + tap) * a.inputs + i) * x[i] }
    }
    store(total, a, row: row, panel: panel)
  }
}
