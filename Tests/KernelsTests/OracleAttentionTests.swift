import CKernels
import Glibc
import Kernels
import Testing

private let unit = 0x1p-24
private let codedTile = Int(AT_CODED_TILE)

/// The oracle's attention, in floats and in integers, against its formula in double precision.
@Suite struct OracleAttentionTests {
  /// One head with rows of random numbers.
  private struct Head {
    let queries: Int
    let keys: Int
    let width: Int
    let isCausal: Bool
    let isBiased: Bool
    let first: Int
    let q, k, v, bias, gate: [Float]
    let scale: Float

    init(_ queries: Int, _ keys: Int, _ width: Int, causal: Bool, biased: Bool, spread: Float = 2) {
      var random = Generator(keys)
      (self.queries, self.keys, self.width, isCausal, isBiased) = (queries, keys, width, causal, biased)
      first = causal ? 3 : 0
      scale = 1 / Float(width).squareRoot()
      q = random.floats(queries * width, -spread...spread)
      k = random.floats(keys * width, -spread...spread)
      v = random.floats(keys * width)
      bias = random.floats(2 * keys, -3...3)
      gate = random.floats(queries)
    }

    /// One query that sees all keys.
    init(q: [Float], k: [Float], v: [Float], keys: Int, width: Int, scale: Float) {
      (queries, self.keys, self.width, isCausal, isBiased, first) = (1, keys, width, false, false, 0)
      (self.q, self.k, self.v, bias, gate, self.scale) = (q, k, v, [], [], scale)
    }

    func visible(_ query: Int) -> Int { isCausal ? min(keys, first + query + 1) : keys }

    /// The score of a query and a key, and the sum of its terms' magnitudes.
    func score(_ i: Int, _ j: Int) -> (value: Double, size: Double) {
      let products = (0..<width).map { Double(q[i * width + $0]) * Double(k[j * width + $0]) }
      let added = isBiased ? Double(gate[i]) * Double(bias[keys + j - first - i]) : 0
      return (
        products.reduce(0, +) * Double(scale) + added,
        products.reduce(0) { $0 + abs($1) } * Double(scale) + abs(added)
      )
    }

    /// Calls `body` with each output's place, its exact value, and the weights (the largest is 1) and values behind it.
    func visit(_ body: (_ query: Int, _ channel: Int, _ exact: Double, [Double], [Double]) -> Void) {
      for i in 0..<queries {
        let scores = (0..<visible(i)).map { score(i, $0).value }
        let greatest = scores.max() ?? 0
        let weights = scores.map { Glibc.exp($0 - greatest) }
        let total = weights.reduce(0, +)
        for d in 0..<width {
          let values = scores.indices.map { Double(v[$0 * width + d]) }
          body(i, d, zip(weights, values).reduce(0) { $0 + $1.0 * $1.1 } / total, weights, values)
        }
      }
    }

    func float(_ table: KernelTable) -> [Float] {
      let memory = (Guarded(q), Guarded(k), Guarded(v), Guarded(bias), Guarded(gate))
      let workspace = Guarded([Float](repeating: 0, count: at_attention_workspace(queries, width)))
      let out = Guarded([Float](repeating: .nan, count: queries * width))
      withExtendedLifetime((memory, workspace)) {
        call(
          table.attention,
          at_attention(
            q: memory.0.base, k: memory.1.base, v: memory.2.base, out: out.base, q_stride: width, k_stride: width,
            v_stride: width, out_stride: width, queries: queries, keys: keys, head_width: width, first_query: first,
            scale: scale, causal: isCausal, bias: isBiased ? memory.3.base + keys : nil,
            gate: isBiased ? memory.4.base : nil, workspace: workspace.base))
      }
      return out.elements
    }

    func int8(_ table: KernelTable) -> [Float] {
      let memory = (Guarded(q), Guarded(k), Guarded(v))
      let ofKeys = ChannelCodings(k, count: keys, stride: width, width: width)
      let ofValues = ChannelCodings(v, count: keys, stride: width, width: width)
      let queryFactor = Guarded(ofKeys.step.elements.map { $0 * ReferenceMath.log2E * scale })
      let tileBytes = at_attention_tile_bytes(width)
      let tiles = Guarded([UInt8](repeating: 0xff, count: (keys + codedTile - 1) / codedTile * tileBytes))
      let bytes = at_attention_int8_workspace(queries, width)
      let workspace = Guarded([UInt8](repeating: 0xff, count: bytes))
      let out = Guarded([Float](repeating: .nan, count: queries * width))
      withExtendedLifetime((memory, ofKeys, ofValues, queryFactor, tiles, workspace)) {
        for j in stride(from: 0, to: keys, by: codedTile) {
          call(
            table.attentionPack,
            at_attention_pack(
              k: memory.1.base + j * width, v: memory.2.base + j * width, key_centre: ofKeys.centre.base,
              key_factor: ofKeys.factor.base, value_centre: ofValues.centre.base, value_factor: ofValues.factor.base,
              k_stride: width, v_stride: width, count: min(codedTile, keys - j), head_width: width,
              tile: tiles.base + j / codedTile * tileBytes, halves: false))
        }
        call(
          table.attentionInt8,
          at_attention_int8(
            q: memory.0.base, tiles: tiles.base, query_factor: queryFactor.base, value_centre: ofValues.centre.base,
            value_step: ofValues.step.base, out: out.base, q_stride: width, out_stride: width, queries: queries,
            keys: keys, head_width: width, workspace: workspace.base, halves: false))
      }
      return out.elements
    }

    /// How far a query's scores may be off, but for what is added to all: a channel of a key, without its centre, by half of
    /// a 127th of the channel's reach; a channel of a query by half of a 127th of the largest of what its channels are
    /// with the reaches of the keys'; then the roundings of a dozen operations. What makes a
    /// distance of a score rounds down by a step at most, a fraction of 2^-15 of it too, and to the nearest 2^-10.
    func codedScoreErrors() -> [Double] {
      let limit = Double(AT_CODE_LIMIT)
      let ofKeys = ChannelCodings(k, count: keys, stride: width, width: width)
      let (centre, reach) = (ofKeys.centre.elements, ofKeys.step.elements.map { Double($0) * limit })
      return (0..<queries).map { i in
        let query = q[i * width..<(i + 1) * width].map { Double($0.magnitude) }
        let ofQuery = 0.51 * ((0..<width).map { query[$0] * reach[$0] }.max() ?? 0) / limit
        return (0..<keys).reduce(0) { greatest, j in
          let coding = (0..<width).reduce(0) {
            let key = Double((k[j * width + $1] - centre[$1]).magnitude) / max(reach[$1], 1e-30)
            return $0 + 0.51 * query[$1] * reach[$1] / limit + key * ofQuery + ofQuery / limit
          }
          let rounding = (0..<width).reduce(0) { $0 + 12 * unit * query[$1] * Double(centre[$1].magnitude) }
          let step = 1.5 * Glibc.log(2) / Double(1 << AT_DISTANCE_BITS) + score(i, j).size * 0x1p-14
          return max(greatest, (coding + rounding) * Double(scale) + 12 * unit * score(i, j).size + step)
        }
      }
    }
  }

  private static let heads = [
    Head(5, 77, 64, causal: false, biased: false), Head(9, 130, 40, causal: false, biased: true),
    Head(20, 90, 16, causal: true, biased: false), Head(7, 200, 24, causal: true, biased: true),
  ]

  @Test("Attention is softmax(scale q k + gate bias) v over the visible keys")
  func float() {
    for head in Self.heads {
      let out = head.float(Oracle.kernels)
      head.visit { i, d, exact, weights, values in
        let size = weights.indices.reduce(0) { max($0, head.score(i, $1).size) }
        // Each weight: the rounding of its score, of exp, and of at most one rescaling a tile; then sums over the keys.
        let score = Double(head.width + 4) * unit * size
        let tiles = Double((weights.count + 63) / 64)
        let (exponentials, sums) = ((tiles + 1) * (2e-7 + 4 * unit), Double(weights.count) * unit)
        let relative = 2 * (score + exponentials + sums)
        let total = weights.reduce(0, +)
        let sum = zip(weights, values).reduce(0) { $0 + $1.0 / total * abs($1.1) }
        #expect(abs(Double(out[i * head.width + d]) - exact) <= relative * sum)
      }
    }
  }

  @Test("Attention in integers is the same within the steps of its codes")
  func int8() {
    let shapes: [(queries: Int, keys: Int, width: Int, spread: Float)] = [
      (5, 77, 64, 1), (9, 130, 40, 1), (3, 1, 1, 2), (2, 64, 1, 2), (3, 65, 2, 2), (2, 128, 512, 1), (4, 496, 8, 0.5),
      (3, 300, 40, 0.7), (3, 4096, 4, 2),
    ]
    for shape in shapes {
      let head = Head(shape.queries, shape.keys, shape.width, causal: false, biased: false, spread: shape.spread)
      let out = head.int8(Oracle.kernels)
      let errors = head.codedScoreErrors()
      let ofValues = ChannelCodings(head.v, count: head.keys, stride: head.width, width: head.width)
      let (centre, step) = (ofValues.centre.elements, ofValues.step.elements)
      head.visit { i, d, exact, weights, values in
        // A weight w is off by a factor, that of its own score and of the largest, of its polynomial, and of a power of two
        // for its tile and one for each later tile; and by half a unit, of which the largest of its tile has 255, or one of
        // 2^-7 if all are smaller. With D, the sum of the weights as they are, which holds the largest, of 254 units at
        // least, the mean m moves by sum |change of w| |v - m| / D, because sum w (v - m) is zero.
        let tiles = Double((weights.count + codedTile - 1) / codedTile)
        let factor = Glibc.exp(2 * errors[i] + 1.5e-4 + 1.15e-4 * (tiles + 1)) - 1
        let halves = stride(from: 0, to: weights.count, by: codedTile).map { j in
          let top = weights[j..<min(j + codedTile, weights.count)].max() ?? 0
          return 0.51 / Double(AT_LARGEST_WEIGHT) * max(top * (1 + factor), 0x1p-7)
        }
        let changes = weights.indices.map { factor * weights[$0] + halves[$0 / codedTile] }
        let total = max(0.99, weights.reduce(0, +) - changes.reduce(0, +))
        let moved = zip(changes, values).reduce(0) { $0 + $1.0 * abs($1.1 - exact) } / total
        let size = Double(step[d]) * Double(AT_CODE_LIMIT) + Double(centre[d].magnitude)
        let bound = moved + 0.51 * Double(step[d]) + 12 * (tiles + 1) * unit * size
        let found = Double(out[i * head.width + d])
        #expect(abs(found - exact) <= bound, "\(found) for \(exact), width \(head.width), \(head.keys) keys")
        #expect(bound < 0.5, "that of any mean of values up to one is hardly more")
      }
    }
  }

  @Test("Weights of attention are powers of two within half a unit and the rounding of their distances")
  func weightOfDistance() {
    let largest = 32_690.0 / 128
    for fraction: Int16 in [16_384, 23_000, .max] {
      let step = Double(fraction) / Double(1 << (15 + AT_DISTANCE_BITS))
      let half = Int32(1 << (AT_DISTANCE_BITS + 14)) / Int32(fraction)
      func weight(_ distance: Int32) -> Int16 { Oracle.attentionWeight(distance, half: half, fraction: fraction) }
      // A distance is off by less than the step that `half` may lack, and is rounded to 2^-10 of an exponent.
      let rounding = Glibc.log(2) * (step + 0.5 / Double(1 << AT_DISTANCE_BITS))
      var error = 0.0
      for distance in Int32(0)...33_000 {
        let exact = largest * Glibc.exp2(-Double(distance) * step)
        error = max(error, abs(Double(weight(distance)) - exact) - exact * (1.5e-4 + rounding))
        #expect(weight(distance) >= 0 && weight(distance) <= (distance == 0 ? 255 : weight(distance - 1)))
      }
      #expect(error <= 0.501, "half a unit, and what rounding a sum of sixteen bits adds to it")
      #expect(weight(0) == Int16(AT_LARGEST_WEIGHT) && weight(1 << 30) == 0)
    }
  }

  @Test("Attention in integers is off by less than two percent of its results, in the mean, however sharp it is")
  func int8Noise() {
    for (keys, spread) in [(300, 1), (300, 2), (300, 4), (2000, 3)] as [(Int, Float)] {
      let head = Head(20, keys, 40, causal: false, biased: false, spread: spread)
      let out = head.int8(Oracle.kernels)
      var (noise, size) = (0.0, 0.0)
      head.visit { i, d, exact, _, _ in
        let error = Double(out[i * head.width + d]) - exact
        noise += error * error
        size += exact * exact
      }
      #expect((noise / size).squareRoot() < 2e-2)
    }
  }

  @Test("Attention weights add up to one")
  func weights() {
    var random = Generator(33)
    let (queries, keys, width) = (4, 300, 8)
    let (q, k) = (Guarded(random.floats(queries * width, -6...6)), Guarded(random.floats(keys * width, -6...6)))
    let v = Guarded([Float](repeating: 1, count: keys * width))
    let out = Guarded([Float](repeating: 0, count: queries * width))
    let workspace = Guarded([Float](repeating: 0, count: at_attention_workspace(queries, width)))
    call(
      Oracle.kernels.attention,
      at_attention(
        q: q.base, k: k.base, v: v.base, out: out.base, q_stride: width, k_stride: width, v_stride: width,
        out_stride: width, queries: queries, keys: keys, head_width: width, first_query: 0, scale: 0.3, causal: false,
        bias: nil, gate: nil, workspace: workspace.base))
    // Numerator and denominator add the same weights, in different order.
    #expect(out.elements.allSatisfy { abs(Double($0) - 1) <= 2 * Double(keys) * unit })
  }

  @Test("The largest codes of queries, keys, weights and values do not overflow", arguments: KernelTable.available)
  func largestCodes(_ table: KernelTable) {
    // All of one magnitude: each code is at its limit, and sums are the largest there are. The last key has the other sign
    // and value, and either it or all others are so far that nothing is left of them.
    for width in [1, 2, 3, 8, 9, 40, 64, 160, 512] {
      for (sign, power) in [(1, -9), (-1, -9), (1, -4), (1, 0), (-1, 0), (1, 3), (-1, 3), (1, 40)] as [(Float, Float)] {
        let (count, size) = (260, Float(AT_CODE_LIMIT) * Float(Glibc.exp2(Double(power))))
        let q = [Float](repeating: size, count: width)
        func rows(_ x: Float) -> [Float] { (0..<count * width).map { $0 < (count - 1) * width ? x : -x } }
        let memory = (Guarded(q), Guarded(rows(sign * 127)), Guarded(rows(sign * 7)))
        let (zeros, ones) = (Guarded([Float](repeating: 0, count: width)), Guarded([Float](repeating: 1, count: width)))
        let (factor, step) = (Float(AT_CODE_LIMIT) / 7, 7 / Float(AT_CODE_LIMIT))
        let ofValues = (
          factor: Guarded([Float](repeating: factor, count: width)),
          step: Guarded([Float](repeating: step, count: width))
        )
        let tileBytes = at_attention_tile_bytes(width)
        let tiles = Guarded([UInt8](repeating: 0xff, count: 3 * tileBytes))
        let workspace = Guarded([UInt8](repeating: 0xff, count: at_attention_int8_workspace(1, width)))
        let out = Guarded([Float](repeating: .nan, count: width))
        withExtendedLifetime((memory, zeros, ones, ofValues, tiles, workspace)) {
          for j in stride(from: 0, to: count, by: codedTile) {
            call(
              table.attentionPack,
              at_attention_pack(
                k: memory.1.base + j * width, v: memory.2.base + j * width, key_centre: zeros.base,
                key_factor: ones.base, value_centre: zeros.base, value_factor: ofValues.factor.base, k_stride: width,
                v_stride: width, count: min(codedTile, count - j), head_width: width,
                tile: tiles.base + j / codedTile * tileBytes, halves: false))
          }
          call(
            table.attentionInt8,
            at_attention_int8(
              q: memory.0.base, tiles: tiles.base, query_factor: ones.base, value_centre: zeros.base,
              value_step: ofValues.step.base, out: out.base, q_stride: width, out_stride: width, queries: 1,
              keys: count, head_width: width, workspace: workspace.base, halves: false))
        }
        // The values of keys with positive scores are 7; each is at its limit, so no code is rounded.
        #expect(
          out.elements.allSatisfy { abs(Double($0) - 7) <= 7 * 20 * unit },
          "width \(width), size \(size)")
      }
    }
  }

  @Test("A channel that is large in all keys leaves scores alone", arguments: KernelTable.available)
  func outlyingChannels(_ table: KernelTable) {
    // With a scale that is next to one in powers of two, the score of key j is j % 7, and what the outlier adds to all.
    let (width, keys, outlier) = (512, 100, Float(2047))
    var q = [Float](repeating: 0, count: width)
    var k = [Float](repeating: 0, count: keys * width)
    (q[1], q[2]) = (8, 1)
    for j in 0..<keys { (k[j * width + 1], k[j * width + 2]) = (outlier, Float(j % 7)) }
    let v = (0..<keys * width).map { Float($0 / width % 7) }
    let head = Head(q: q, k: k, v: v, keys: keys, width: width, scale: 0.69314)
    let exact = (0..<7).map { Glibc.exp2(Double($0)) }
    let counts = (0..<7).map { rest in Double((0..<keys).filter { $0 % 7 == rest }.count) }
    let total = zip(exact, counts).reduce(0) { $0 + $1.0 * $1.1 }
    let mean = (0..<7).reduce(0) { $0 + Double($1) * exact[$1] * counts[$1] } / total
    // Without their centre keys are up to 3 in a channel of its own codes, off by half of 3 / 127; a query's only factor that
    // counts is its largest, which no code rounds. A weight is off by a factor, that of its distance and of the least, each
    // off by the rounding of its key, a step and a half, or a fraction of 2^-14 and the scale's 1e-5 of six; and by those of
    // its polynomial and of two tiles, and by half a unit. With D, the sum of the weights, of which the largest is one, the
    // mean m moves by sum |change of w| |v - m| / D; values are off by half a step of 3 / 127.
    let ofDistance: Double = 1.5 * 0x1p-10 + 1.5 / 127 + 6 * (0x1p-14 + 1e-5)
    let ofDistances: Double = 2 * Glibc.log(2) * ofDistance
    let factor: Double = Glibc.exp(ofDistances + 1.5e-4 + 3 * 1.15e-4) - 1
    let half = 0.501 / Double(AT_LARGEST_WEIGHT)
    var moved = 0.0
    for score in 0..<7 {
      let change = factor * exact[score] / 64 + half
      moved += counts[score] * change * abs(Double(score) - mean)
    }
    let bound = moved / (total / 64) + 0.51 * 3 / Double(AT_CODE_LIMIT)
    #expect(head.int8(table).allSatisfy { abs(Double($0) - mean) <= bound })
  }
}
