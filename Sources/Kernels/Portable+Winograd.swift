import CKernels

/// Sides of tiles as vectors: what the oracle computes of one channel, of eight.
extension Portable {
  private typealias Side = (Lanes, Lanes, Lanes, Lanes, Lanes, Lanes)

  private static let sideFactor: [Float] = [0.25, -1.0 / 6, -1.0 / 6, 1.0 / 24, 1.0 / 24, 1]
  private static let sideGrowth: [Float] = [1, 3, 3, 7, 7, 1]
  private static var places: Int { Int(AT_WINOGRAD_PLACES) }
  private static var channels: Int { Int(AT_WINOGRAD_CHANNELS) }
  private static var outputs: Int { Int(AT_WINOGRAD_OUTPUTS) }

  @inline(__always)
  private static func transform(input d: Side) -> Side {
    let even = d.4 - d.2 * 4
    let odd = d.3 - d.1 * 4
    let nearEven = d.4 - d.2
    let nearOdd = (d.3 - d.1) * 2
    return (
      (d.0 - d.2) * 4 + nearEven, even + odd, even - odd, nearEven + nearOdd, nearEven - nearOdd,
      (d.5 - d.3) - nearOdd * 2
    )
  }

  @inline(__always)
  private static func transform(output m: Side) -> (Lanes, Lanes, Lanes, Lanes) {
    let nearSum = m.1 + m.2
    let nearDifference = m.1 - m.2
    let farSum = m.3 + m.4
    let farDifference = m.3 - m.4
    return (
      (m.0 + nearSum) + farSum, nearDifference + farDifference * 2, nearSum + farSum * 4,
      (nearDifference + farDifference * 8) + m.5
    )
  }

  /// Six vectors of `x`, from the `first` on and `stride` apart.
  @inline(__always)
  private static func side(_ x: UnsafePointer<Lanes>, _ first: Int, _ stride: Int) -> Side {
    (
      x[first], x[first + stride], x[first + 2 * stride], x[first + 3 * stride], x[first + 4 * stride],
      x[first + 5 * stride]
    )
  }

  @inline(__always)
  private static func put(_ side: Side, _ x: UnsafeMutablePointer<Lanes>, _ first: Int, _ stride: Int) {
    x[first] = side.0
    x[first + stride] = side.1
    x[first + 2 * stride] = side.2
    x[first + 3 * stride] = side.3
    x[first + 4 * stride] = side.4
    x[first + 5 * stride] = side.5
  }

  static func winogradInputs(_ a: at_winograd) {
    let p = a.product
    // [vectors of eight channels][place]
    withUnsafeTemporaryAllocation(of: Lanes.self, capacity: channels / 8 * places) { memory in
      guard let tile = memory.baseAddress else { return }
      for index in a.tile_begin..<a.tile_end {
        for first in stride(from: 0, to: p.inputs, by: channels) {
          let width = min(channels, p.inputs - first)
          for vector in 0..<width / 8 {
            let values = tile + vector * places
            for place in 0..<places {
              let entry = place * p.row_count + index
              let codes = (p.rows[entry] + first + vector * 8).loadUnaligned(as: SIMD8<UInt8>.self)
              values[place] =
                Lanes(SIMD8<Int32>(truncatingIfNeeded: codes) &- p.row_zero![entry]) * p.row_scale![entry]
            }
            for column in 0..<6 { put(transform(input: side(values, column, 6)), values, column, 6) }
            for row in 0..<6 { put(transform(input: side(values, 6 * row, 1)), values, 6 * row, 1) }
          }
          for place in 0..<places {
            let codes = a.codes + at_winograd_place(p.row_count, p.inputs, first, place) + index * width
            let growth = sideGrowth[place / 6] * sideGrowth[place % 6]
            let step = code(tile + place, width, growth, into: codes)
            a.steps[(first / channels * places + place) * p.row_count + index] =
              step * sideFactor[place / 6] * sideFactor[place % 6]
          }
        }
      }
    }
  }

  /// The codes of one place, whose vectors are `places` apart; returns their step.
  private static func code(
    _ values: UnsafePointer<Lanes>, _ width: Int, _ growth: Float, into codes: UnsafeMutablePointer<Int16>
  ) -> Float {
    var sums = (Lanes.zero, Lanes.zero)
    var greatest = Lanes.zero
    for vector in stride(from: 0, to: width / 8, by: 2) {
      let (low, high) = (magnitude(values[vector * places]), magnitude(values[(vector + 1) * places]))
      sums = (sums.0 + low, sums.1 + high)
      greatest = greater(high, greater(low, greatest))
    }
    let sum = sums.0 + sums.1
    let bySum = ReferenceMath.sum(lanes: (0..<8).map { sum[$0] }) * (growth * 0x1p-24)
    let byGreatest = (0..<8).reduce(Float(0)) { greatest[$1] > $0 ? greatest[$1] : $0 } / 32767
    let step = bySum > byGreatest ? bySum : byGreatest
    let usable = step > 1e-30
    let inverse: Float = usable ? 1 / step : 0
    for vector in 0..<width / 8 {
      let shifted = values[vector * places] * inverse + ReferenceMath.roundingMagic
      let rounded =
        SIMD8<Int32>(truncatingIfNeeded: unsafeBitCast(shifted, to: SIMD8<UInt32>.self))
        &- Int32(bitPattern: ReferenceMath.roundingMagic.bitPattern)
      let clamped = rounded.clamped(lowerBound: SIMD8(repeating: -32768), upperBound: SIMD8(repeating: 32767))
      UnsafeMutableRawPointer(codes + vector * 8).storeBytes(
        of: SIMD8<Int16>(truncatingIfNeeded: clamped), as: SIMD8<Int16>.self)
    }
    return usable ? step : 0
  }

  static func winogradProducts(_ a: at_winograd) {
    let p = a.product
    // [place][channel of a chunk][outputs], and [place][tile][outputs].
    let weights = a.workspace!.assumingMemoryBound(to: Int16.self)
    let sums = (a.workspace! + 2 * places * channels * outputs).assumingMemoryBound(to: Float.self)
    for panel in stride(from: p.panel_begin, to: min(p.panel_end, p.outputs / 8), by: outputs / 8) {
      for first in stride(from: 0, to: p.inputs, by: channels) {
        let width = min(channels, p.inputs - first)
        transformWeights(p, panel, first, width, into: weights)
        for place in 0..<places {
          let codes = a.codes + at_winograd_place(p.row_count, p.inputs, first, place)
          let steps = a.steps + (first / channels * places + place) * p.row_count
          let half = p.row_count / 2
          let own = a.tile_begin..<a.tile_end
          for tile in p.paired ? Array(own) + own.map({ half + $0 }) : Array(own) {
            let x = codes + tile * width
            let out = sums + (place * p.row_count + tile) * outputs
            for vector in stride(from: 0, to: outputs, by: 8) {
              var sum = SIMD8<Int32>.zero
              for channel in 0..<width {
                let w = UnsafeRawPointer(weights + (place * channels + channel) * outputs + vector)
                sum &+= SIMD8(truncatingIfNeeded: w.loadUnaligned(as: SIMD8<Int16>.self)) &* Int32(x[channel])
              }
              let term = Lanes(sum) * steps[tile]
              store(first == 0 ? term : load(out + vector) + term, out + vector)
            }
          }
        }
      }
      for vector in 0..<outputs / 8 { draw(a, panel + vector, sums + vector * 8) }
    }
  }

  private static func transformWeights(
    _ p: at_gemm, _ panel: Int, _ first: Int, _ width: Int, into weights: UnsafeMutablePointer<Int16>
  ) {
    let codes = p.weights.assumingMemoryBound(to: Int8.self)
    func transform(_ g: (SIMD8<Int16>, SIMD8<Int16>, SIMD8<Int16>), _ put: (Int, SIMD8<Int16>) -> Void) {
      let ends = g.0 &+ g.2
      let far = g.0 &+ g.2 &* 4
      let middle = g.1 &* 2
      put(0, g.0)
      put(1, ends &+ g.1)
      put(2, ends &- g.1)
      put(3, far &+ middle)
      put(4, far &- middle)
      put(5, g.2)
    }
    for vector in 0..<outputs / 8 {
      for channel in 0..<width {
        let (quad, byte) = ((first + channel) / 4, (first + channel) % 4)
        let taps = (0..<9).map { tap in
          let block = ((panel + vector) * 9 + tap) * (p.inputs / 4) + quad
          var lanes = SIMD8<Int16>.zero
          for lane in 0..<8 { lanes[lane] = Int16(codes[(block * 8 + lane) * 4 + byte]) }
          return lanes
        }
        var columns = [SIMD8<Int16>](repeating: .zero, count: 18)
        for column in 0..<3 {
          transform((taps[column], taps[3 + column], taps[6 + column])) { columns[$0 * 3 + column] = $1 }
        }
        for row in 0..<6 {
          transform((columns[3 * row], columns[3 * row + 1], columns[3 * row + 2])) { column, value in
            let out = weights + ((row * 6 + column) * channels + channel) * outputs + vector * 8
            UnsafeMutableRawPointer(out).storeBytes(of: value, as: SIMD8<Int16>.self)
          }
        }
      }
    }
  }

  /// The pixels of all tiles for the eight outputs of a panel.
  private static func draw(_ a: at_winograd, _ panel: Int, _ sums: UnsafePointer<Float>) {
    let p = a.product
    let scale = load(p.scale! + panel * 8)
    let (half, ways) = (p.row_count / 2, p.paired ? 2 : 1)
    withUnsafeTemporaryAllocation(of: Lanes.self, capacity: 2 * 36) { memory in
      guard let pixels = memory.baseAddress else { return }
      for tile in a.tile_begin..<a.tile_end {
        for way in 0..<ways {
          let values = pixels + way * 36
          for place in 0..<36 { values[place] = load(sums + (place * p.row_count + tile + way * half) * outputs) }
          for column in 0..<6 {
            let y = transform(output: side(values, column, 6))
            (values[column], values[6 + column], values[12 + column], values[18 + column]) = y
          }
          for row in 0..<4 {
            let y = transform(output: side(values, 6 * row, 1))
            (values[6 * row], values[6 * row + 1], values[6 * row + 2], values[6 * row + 3]) = y
          }
        }
        for i in 0..<4 {
          for j in 0..<4 {
            let row = a.pixels[tile] + i * a.line + j
            let plain = store(pixels[6 * i + j] * scale, p, row: row, panel: panel)
            if p.paired { store(pixels[36 + 6 * i + j] * scale, p, row: row, panel: panel, carry: plain) }
          }
        }
      }
    }
  }
}
