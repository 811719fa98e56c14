import CKernels
import Glibc
import Kernels
import Testing

private let unit = 0x1p-24

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

    func int16(_ table: KernelTable) -> [Float] {
      let memory = (Guarded(q), Guarded(k), Guarded(v), Guarded(bias), Guarded(gate))
      let tileBytes = at_attention_tile_bytes(width)
      let tiles = Guarded([UInt8](repeating: 0xff, count: (keys + 63) / 64 * tileBytes))
      let bytes = (at_attention_int16_workspace(queries, width) + 31) / 32 * 32
      let workspace = Guarded([UInt8](repeating: 0xff, count: bytes))
      let out = Guarded([Float](repeating: .nan, count: queries * width))
      withExtendedLifetime((memory, tiles, workspace)) {
        for j in stride(from: 0, to: keys, by: 64) {
          call(
            table.attentionPack,
            at_attention_pack(
              k: memory.1.base + j * width, v: memory.2.base + j * width, k_stride: width, v_stride: width,
              count: min(64, keys - j), head_width: width, tile: tiles.base + j / 64 * tileBytes, halves: false))
        }
        call(
          table.attentionInt16,
          at_attention_int16(
            q: memory.0.base, tiles: tiles.base, out: out.base, q_stride: width, out_stride: width, queries: queries,
            keys: keys, head_width: width, first_query: first, scale: scale, causal: isCausal,
            bias: isBiased ? memory.3.base + keys : nil, gate: isBiased ? memory.4.base : nil,
            workspace: workspace.base, halves: false))
      }
      return out.elements
    }

    /// How far a score may be off where its factors are coded: each by half of a step, which is at most two of its row's,
    /// or its tile's, largest by the limit; then the roundings of a dozen operations. What makes a distance of it
    /// rounds down by a step at most, and its bias by half a step.
    func codedScoreError(_ i: Int, _ j: Int) -> Double {
      let steps = Double(at_attention_limit(width))
      let query = q[i * width..<(i + 1) * width].map { Double($0.magnitude) }
      let key = k[j * width..<(j + 1) * width].map { Double($0.magnitude) }
      let tile = k[j / 64 * 64 * width..<min(j / 64 * 64 + 64, keys) * width].map { Double($0.magnitude) }
      let errors = (1.01 * (query.max() ?? 0) / steps, 1.01 * (tile.max() ?? 0) / steps)
      let coding = (0..<width).reduce(0) { $0 + query[$1] * errors.1 + key[$1] * errors.0 + errors.0 * errors.1 }
      return coding * Double(scale) + 12 * unit * score(i, j).size + (isBiased ? 1.5 : 1) * Glibc.log(2) * 0x1p-11
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
  func int16() {
    let more = [
      Head(3, 1, 1, causal: false, biased: false), Head(2, 64, 1, causal: false, biased: false),
      Head(3, 65, 2, causal: false, biased: true), Head(2, 128, 512, causal: false, biased: false, spread: 1),
      Head(4, 496, 8, causal: false, biased: false, spread: 0.5),
      Head(3, 300, 40, causal: false, biased: true, spread: 9),
    ]
    for head in Self.heads + more {
      let out = head.int16(Oracle.kernels)
      let errors = (0..<head.queries).map { i in
        (0..<head.visible(i)).reduce(0) { max($0, head.codedScoreError(i, $1)) }
      }
      let tileLimits = stride(from: 0, to: head.keys, by: 64).map { j in
        head.v[j * head.width..<min(j + 64, head.keys) * head.width].reduce(0) { max($0, Double($1.magnitude)) }
      }
      head.visit { i, d, exact, weights, values in
        // A weight w is off by a factor, that of its own score and of the largest, of a power of two for itself and one
        // for each later tile; and by half a unit, of which the largest has 16370. With D, the sum of the weights as they
        // are, which holds the largest, one, the mean m moves by sum |change of w| |v - m| / D, because sum w (v - m) is
        // zero.
        let tiles = Double((weights.count + 63) / 64)
        let factor = Glibc.exp(2 * errors[i] + 1.85e-4 + 1.15e-4 * tiles) - 1
        let half = 0.501 / Double(AT_LARGEST_WEIGHT)
        let total = max(1, weights.reduce(0, +) * (1 - factor) - Double(weights.count) * half)
        let moved = zip(weights, values).reduce(0) { $0 + (factor * $1.0 + half) * abs($1.1 - exact) } / total
        let limit = tileLimits.max() ?? 0
        let bound = moved + 0.51 * limit / Double(AT_VALUE_LIMIT) + 6 * (tiles + 1) * unit * limit
        let found = Double(out[i * head.width + d])
        #expect(abs(found - exact) <= bound, "\(found) for \(exact), width \(head.width), \(head.keys) keys")
      }
    }
  }

  @Test("Weights of attention are powers of two within 0.02 % and half a unit, and their sums fit")
  func weightOfDistance() {
    let largest = 23_151.0 * 0.5.squareRoot()
    var error = 0.0
    for distance in Int32(0)...33_791 {
      let weight = Oracle.attentionWeight(distance)
      let exact = largest * Glibc.exp2(-Double(distance) / 2048)
      error = max(error, abs(Double(weight) - exact) - exact * 1.85e-4)
      #expect(weight >= 0 && weight <= (distance == 0 ? Int16.max : Oracle.attentionWeight(distance - 1)))
    }
    #expect(error <= 0.501, "half a unit, and what rounding a sum of sixteen bits adds to it")
    #expect(Oracle.attentionWeight(0) == Int16(AT_LARGEST_WEIGHT) && Oracle.attentionWeight(1 << 30) == 0)
    #expect(Int(AT_ATTENTION_TILE) * Int(AT_LARGEST_WEIGHT) * Int(AT_VALUE_LIMIT) <= Int(Int32.max))
  }

  @Test("Attention in integers is not off by more than a thousandth of the values where scores are of ordinary size")
  func int16Noise() {
    let head = Head(40, 300, 40, causal: false, biased: false)
    let out = head.int16(Oracle.kernels)
    var noise = 0.0
    head.visit { i, d, exact, _, _ in
      let error = Double(out[i * head.width + d]) - exact
      noise += error * error
    }
    #expect((noise / Double(out.count)).squareRoot() < 1e-3)
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
    // All of one sign and magnitude: each code is at its limit, each weight the largest, and sums are the largest there
    // are. Scores grow until those of all other sizes are nothing beside them.
    for width in [1, 2, 3, 8, 9, 40, 64, 160, 512] {
      let limit = at_attention_limit(width)
      for (sign, power) in [(1, -9), (-1, -9), (1, -4), (1, 0), (-1, 0), (1, 3), (-1, 3), (1, 40)] as [(Float, Float)] {
        let (count, size) = (130, Float(limit) * Float(Glibc.exp2(Double(power))))
        let (q, k) = ([Float](repeating: size, count: width), [Float](repeating: sign * size, count: count * width))
        let memory = (Guarded(q), Guarded(k), Guarded([Float](repeating: sign * 7, count: count * width)))
        let tileBytes = at_attention_tile_bytes(width)
        let tiles = Guarded([UInt8](repeating: 0, count: 3 * tileBytes))
        let workspace = Guarded([UInt8](repeating: 0, count: (at_attention_int16_workspace(1, width) + 31) / 32 * 32))
        let out = Guarded([Float](repeating: .nan, count: width))
        withExtendedLifetime((memory, tiles, workspace)) {
          for j in stride(from: 0, to: count, by: 64) {
            call(
              table.attentionPack,
              at_attention_pack(
                k: memory.1.base + j * width, v: memory.2.base + j * width, k_stride: width, v_stride: width,
                count: min(64, count - j), head_width: width, tile: tiles.base + j / 64 * tileBytes, halves: false))
          }
          call(
            table.attentionInt16,
            at_attention_int16(
              q: memory.0.base, tiles: tiles.base, out: out.base, q_stride: width, out_stride: width, queries: 1,
              keys: count, head_width: width, first_query: 0, scale: 0.69314, causal: false, bias: nil, gate: nil,
              workspace: workspace.base, halves: false))
        }
        // Log2(e) times the scale is just below one, so that a query's code is rounded to its limit.
        let code = tiles.elements.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 64, as: Int16.self) }
        #expect(Float(code) == sign * Float(limit), "width \(width)")
        // All values are equal, and so is their mean; each is at its limit, so no code is rounded.
        #expect(
          out.elements.allSatisfy { abs(Double($0) - Double(sign) * 7) <= 7 * 20 * unit },
          "width \(width), size \(size)")
      }
    }
  }

  @Test("Outliers of queries and keys in channels of their own leave scores alone", arguments: KernelTable.available)
  func outlyingChannels(_ table: KernelTable) {
    // Whole numbers, which are their own codes: with a scale that is next to one in powers of two, the score of key j is
    // j % 7.
    let (width, keys, outlier) = (512, 100, Float(2047))
    var q = [Float](repeating: 0, count: width)
    var k = [Float](repeating: 0, count: keys * width)
    (q[0], q[2]) = (outlier, 1)
    for j in 0..<keys { (k[j * width + 1], k[j * width + 2]) = (outlier, Float(j % 7)) }
    let v = (0..<keys * width).map { Float($0 / width % 7) }
    let head = Head(q: q, k: k, v: v, keys: keys, width: width, scale: 0.69314)
    let exact = (0..<7).map { Glibc.exp2(Double($0)) }
    let counts = (0..<7).map { rest in Double((0..<keys).filter { $0 % 7 == rest }.count) }
    let total = zip(exact, counts).reduce(0) { $0 + $1.0 * $1.1 }
    let mean = (0..<7).reduce(0) { $0 + Double($1) * exact[$1] * counts[$1] } / total
    // A weight is off by a factor, that of its distance and of the least, each rounded by a step or off by the scale's 1e-5
    // of six, and of two tiles; and by half a unit. With D, the sum of the weights, of which the largest is one, the mean m
    // moves by sum |change of w| |v - m| / D; values are off by half a step of 6 / 2047.
    let ofDistances: Double = 2 * Glibc.log(2) * (0x1p-11 + 6e-5)
    let factor: Double = Glibc.exp(ofDistances + 1.85e-4 + 2.3e-4) - 1
    let half = 0.501 / Double(AT_LARGEST_WEIGHT)
    var moved = 0.0
    for score in 0..<7 {
      let change = factor * exact[score] / 64 + half
      moved += counts[score] * change * abs(Double(score) - mean)
    }
    let bound = moved / (total / 64) + 0.51 * 6 / Double(AT_VALUE_LIMIT)
    #expect(head.int16(table).allSatisfy { abs(Double($0) - mean) <= bound })
  }
}
