import CKernels

extension Oracle {
  /// Of a side of a tile of the input, and of one of the output.
  private static var side: Int { 6 }
  private static var core: Int { 4 }

  /// By Winograd's F(4, 3), the factors that its denominators leave to what is made of each place of a side.
  private static let sideFactor: [Float] = [0.25, -1.0 / 6, -1.0 / 6, 1.0 / 24, 1.0 / 24, 1]
  /// How many times larger than weights their transform is at most.
  private static let sideGrowth: [Float] = [1, 3, 3, 7, 7, 1]

  /// B^T d of six inputs in a row.
  static func winogradInput(_ d: [Float]) -> [Float] {
    let even = d[4] - 4 * d[2]
    let odd = d[3] - 4 * d[1]
    let nearEven = d[4] - d[2]
    let nearOdd = 2 * (d[3] - d[1])
    return [
      4 * (d[0] - d[2]) + nearEven, even + odd, even - odd, nearEven + nearOdd, nearEven - nearOdd,
      (d[5] - d[3]) - 2 * nearOdd,
    ]
  }

  /// G g of three weights in a row, each element without the denominator that `sideFactor` holds.
  static func winogradWeights(_ g: [Int16]) -> [Int16] {
    let ends = g[0] &+ g[2]
    let far = g[0] &+ 4 &* g[2]
    return [g[0], ends &+ g[1], ends &- g[1], far &+ 2 &* g[1], far &- 2 &* g[1], g[2]]
  }

  /// A^T m of six products in a row.
  static func winogradOutput(_ m: [Float]) -> [Float] {
    let nearSum = m[1] + m[2]
    let nearDifference = m[1] - m[2]
    let farSum = m[3] + m[4]
    let farDifference = m[3] - m[4]
    return [
      (m[0] + nearSum) + farSum, nearDifference + 2 * farDifference, nearSum + 4 * farSum,
      (nearDifference + 8 * farDifference) + m[5],
    ]
  }

  /// Down the columns, and then along the rows of what comes of that.
  static func onBothSides<Element>(_ x: [[Element]], _ transform: ([Element]) -> [Element]) -> [[Element]] {
    let columns = x[0].indices.map { column in transform(x.map { $0[column] }) }
    return columns[0].indices.map { row in transform(columns.map { $0[row] }) }
  }

  private static func chunks(_ a: at_winograd) -> [Range<Int>] {
    let width = Int(AT_WINOGRAD_CHANNELS)
    return stride(from: 0, to: a.product.inputs, by: width).map { $0..<min($0 + width, a.product.inputs) }
  }

  /// Sums of sixteen lanes: lane j holds the elements 16i + j. Lanes 8...15 are added to 0...7, which are then added up.
  private static func sumOfSixteen(_ values: [Float]) -> Float {
    var lanes = [Float](repeating: 0, count: 16)
    for (i, value) in values.enumerated() { lanes[i % 16] = lanes[i % 16] + value }
    return ReferenceMath.sum(lanes: (0..<8).map { lanes[$0] + lanes[$0 + 8] })
  }

  /// A place's step is nearly the least with which no sum of products by any weights leaves s32, nor a code s16: with codes
  /// that add up to 2^24 / growth, times weights of 127 * growth, sums stay 2^24 short of 2^31, more than rounding adds.
  static func winogradInputs(_ a: at_winograd) {
    let p = a.product
    let places = side * side
    for tile in a.tile_begin..<a.tile_end {
      for (index, chunk) in chunks(a).enumerated() {
        let transformed = chunk.map { channel in
          onBothSides(
            (0..<side).map { i in
              (0..<side).map { j in
                let entry = (i * side + j) * p.row_count + tile
                let code = p.rows[entry].assumingMemoryBound(to: UInt8.self)[channel]
                return Float(Int32(code) &- p.row_zero![entry]) * p.row_scale![entry]
              }
            }, winogradInput)
        }
        for i in 0..<side {
          for j in 0..<side {
            let values = transformed.map { $0[i][j] }
            let bySum = sumOfSixteen(values.map(\.magnitude)) * (sideGrowth[i] * sideGrowth[j] * 0x1p-24)
            let byGreatest = values.reduce(Float(0)) { $1.magnitude > $0 ? $1.magnitude : $0 } / 32767
            let step = bySum > byGreatest ? bySum : byGreatest
            let usable = step > 1e-30
            let inverse: Float = usable ? 1 / step : 0
            let place = i * side + j
            let codes = a.codes + at_winograd_place(p.row_count, p.inputs, chunk.lowerBound, place) + tile * chunk.count
            for (c, value) in values.enumerated() { codes[c] = Int16(clamping: roundToInteger(value * inverse)) }
            a.steps[(index * places + place) * p.row_count + tile] = (usable ? step : 0) * sideFactor[i] * sideFactor[j]
          }
        }
      }
    }
  }

  /// Integer sums over a chunk are exact, modulo 2^32 where weights are damaged; chunks are added in order.
  static func winogradProducts(_ a: at_winograd) {
    let p = a.product
    let half = p.row_count / 2
    let own = Array(a.tile_begin..<a.tile_end)
    let outputs = p.panel_begin * Int(AT_PANEL)..<min(p.outputs, p.panel_end * Int(AT_PANEL))
    for o in outputs {
      let weights = (0..<p.inputs).map { channel in
        onBothSides((0..<3).map { i in (0..<3).map { j in Int16(weight(p, o, i * 3 + j, channel)) } }, winogradWeights)
      }
      func pixels(_ tile: Int) -> [[Float]] {
        onBothSides(
          (0..<side).map { i in (0..<side).map { j in sum(a, tile, i * side + j) { weights[$0][i][j] } } },
          winogradOutput)
      }
      for tile in own {
        let first = pixels(tile)
        let second = p.paired ? pixels(half + tile) : nil
        for i in 0..<core {
          for j in 0..<core {
            let row = a.pixels[tile] + i * a.line + j
            let scaled = first[i][j] * p.scale![o]
            let plain = p.bias.map { scaled + $0[o] } ?? scaled
            store(plain, p.residual, p.out, p, row, o)
            if let second { store(second[i][j] * p.scale![o] + plain, p.pair_residual, p.pair_out!, p, row, o) }
          }
        }
      }
    }
  }

  private static func weight(_ p: at_gemm, _ output: Int, _ tap: Int, _ input: Int) -> Int8 {
    let (panel, quad) = (Int(AT_PANEL), Int(AT_QUAD))
    let block = (output / panel * p.taps + tap) * (p.inputs / quad) + input / quad
    return p.weights.assumingMemoryBound(to: Int8.self)[(block * panel + output % panel) * quad + input % quad]
  }

  private static func sum(_ a: at_winograd, _ tile: Int, _ place: Int, _ weight: (Int) -> Int16) -> Float {
    let tiles = a.product.row_count
    var total: Float = 0
    for (index, chunk) in chunks(a).enumerated() {
      let codes = a.codes + at_winograd_place(tiles, a.product.inputs, chunk.lowerBound, place) + tile * chunk.count
      var sum: Int32 = 0
      for channel in chunk { sum &+= Int32(codes[channel - chunk.lowerBound]) &* Int32(weight(channel)) }
      let term = Float(sum) * a.steps[(index * side * side + place) * tiles + tile]
      total = index == 0 ? term : total + term
    }
    return total
  }
}
