import CKernels

extension Portable {
  private static let tile = Int(AT_ATTENTION_TILE)
  private static let group = 4  // queries that share a look at the keys and values

  /// One call's memory, in its workspace: keys [headWidth, tile] transposed, values [tile, padded headWidth],
  /// scores [group, tile], then the queries' maxima and normalisers.
  private struct State {
    let keys, values, scores, maximum, normaliser: UnsafeMutablePointer<Float>
    let valueStride: Int
    var first = 0
    var count = 0

    init(_ a: at_attention) {
      valueStride = (a.head_width + 7) / 8 * 8
      keys = a.workspace
      values = keys + tile * a.head_width
      scores = values + tile * valueStride
      maximum = scores + tile * group
      normaliser = maximum + a.queries
    }
  }

  static func attention(_ a: at_attention) {
    var state = State(a)
    for i in 0..<a.queries {
      state.maximum[i] = -.infinity
      state.normaliser[i] = 0
      for d in 0..<a.head_width { a.out[i * a.out_stride + d] = 0 }
    }
    let end = a.causal ? min(a.keys, a.first_query + a.queries) : a.keys
    for first in stride(from: 0, to: end, by: tile) {
      state.first = first
      state.count = min(tile, end - first)
      pack(a, state)
      for query in stride(from: 0, to: a.queries, by: group) {
        let rows = min(group, a.queries - query)
        guard visible(a, state, query + rows - 1) > 0 else { continue }
        score(a, state, query, rows)
        for r in 0..<rows { weigh(a, state, query + r, state.scores + r * tile) }
      }
    }
    for i in 0..<a.queries {
      let inverse = 1 / state.normaliser[i]
      let out = a.out + i * a.out_stride
      for d in stride(from: 0, to: a.head_width, by: 8) {
        store(load(out + d, count: a.head_width - d) * inverse, out + d, count: a.head_width - d)
      }
    }
  }

  /// Keys of the tile that a query sees.
  @inline(__always)
  private static func visible(_ a: at_attention, _ s: State, _ query: Int) -> Int {
    a.causal ? min(s.count, max(0, a.first_query + query + 1 - s.first)) : s.count
  }

  private static func pack(_ a: at_attention, _ s: State) {
    for j in 0..<s.count {
      let k = a.k + (s.first + j) * a.k_stride
      let v = a.v + (s.first + j) * a.v_stride
      for d in 0..<a.head_width { s.keys[d * tile + j] = k[d] }
      for d in stride(from: 0, to: a.head_width, by: 8) {
        store(load(v + d, count: a.head_width - d), s.values + j * s.valueStride + d)
      }
    }
    let padded = (s.count + 7) / 8 * 8
    for d in 0..<a.head_width { for j in s.count..<padded { s.keys[d * tile + j] = 0 } }
  }

  /// Rows past the last one repeat it, and are not looked at.
  private static func score(_ a: at_attention, _ s: State, _ query: Int, _ rows: Int) {
    let q = (
      a.q + query * a.q_stride, a.q + (query + min(1, rows - 1)) * a.q_stride,
      a.q + (query + min(2, rows - 1)) * a.q_stride, a.q + (query + min(3, rows - 1)) * a.q_stride
    )
    for j in stride(from: 0, to: s.count, by: 8) {
      var sums = (Lanes.zero, Lanes.zero, Lanes.zero, Lanes.zero)
      for d in 0..<a.head_width {
        let k = load(s.keys + d * tile + j)
        sums.0 = sums.0 + k * q.0[d]
        sums.1 = sums.1 + k * q.1[d]
        sums.2 = sums.2 + k * q.2[d]
        sums.3 = sums.3 + k * q.3[d]
      }
      store(sums.0 * a.scale, s.scores + j)
      store(sums.1 * a.scale, s.scores + tile + j)
      store(sums.2 * a.scale, s.scores + 2 * tile + j)
      store(sums.3 * a.scale, s.scores + 3 * tile + j)
    }
  }

  /// One query's softmax over the tile and its weighted values.
  private static func weigh(_ a: at_attention, _ s: State, _ query: Int, _ p: UnsafeMutablePointer<Float>) {
    let count = visible(a, s, query)
    if count == 0 { return }
    var maximum = s.maximum[query]
    if let bias = a.bias, let gate = a.gate {
      let distance = s.first - (a.first_query + query)
      for j in 0..<count { p[j] = p[j] + gate[query] * bias[distance + j] }
    }
    for j in 0..<count { maximum = max(maximum, p[j]) }
    let correction = ReferenceMath.exp(s.maximum[query] - maximum)
    var total = Lanes.zero
    for j in stride(from: 0, to: count, by: 8) {
      var e = exp(load(p + j) - maximum)
      if count - j < 8 { for i in count - j..<8 { e[i] = 0 } }
      store(e, p + j)
      total = total + e
    }
    s.normaliser[query] = s.normaliser[query] * correction + sum(total)
    s.maximum[query] = maximum
    let out = a.out + query * a.out_stride
    for d in stride(from: 0, to: a.head_width, by: 8) {
      var y = load(out + d, count: a.head_width - d) * correction
      for j in 0..<count { y = y + load(s.values + j * s.valueStride + d) * p[j] }
      store(y, out + d, count: a.head_width - d)
    }
  }
}
