import Glibc
import Kernels
import Tensors
import Testing

@testable import Models

@Suite struct AttentionTests {
  enum Mask {
    case none
    case causal
    case gatedBias
  }

  private struct Problem {
    let images: Int
    let queries: Int
    let keys: Int
    let heads: Int
    let headWidth: Int
    let spread: Float

    func values(_ seed: Int, _ rows: Int) -> [Float] {
      var generator = Generator(seed)
      return generator.floats(images * rows * heads * headWidth, -spread...spread)
    }
  }

  /// softmax(q k^T / sqrt(width) + gate * bias) v in f64, one output at a time.
  private func expected(
    _ p: Problem, _ q: [Float], _ k: [Float], _ v: [Float], gate: [Float], bias: [Float], _ mask: Mask,
    isInteger: Bool
  ) -> [Bounded] {
    let width = p.heads * p.headWidth
    // In integers channels of keys reach from their centre up to `spread` at most and are off by half of a 127th of that;
    // those of queries, times that reach, by half of a 127th of the largest. A distance is rounded down by a step at
    // most, and to the nearest.
    let spread = Double(p.spread)
    let coding = isInteger ? 1.03 * spread * spread / 127 * Double(p.headWidth).squareRoot() : 0
    let distanceError = isInteger ? 1.5 * log(2) * 0x1p-10 + spread * spread * Double(p.headWidth) * 0x1p-14 : 0
    var result = [Bounded](repeating: Bounded(value: 0, error: 0), count: p.images * p.queries * width)
    for item in 0..<p.images * p.heads * p.queries {
      let (image, rest) = item.quotientAndRemainder(dividingBy: p.heads * p.queries)
      let (head, i) = rest.quotientAndRemainder(dividingBy: p.queries)
      var scores: [Double] = []
      var scoreError = 0.0
      for j in 0..<(mask == .causal ? min(p.keys, i + 1) : p.keys) {
        var score = 0.0
        var size = 0.0
        for d in 0..<p.headWidth {
          let product =
            Double(q[(image * p.queries + i) * width + head * p.headWidth + d])
            * Double(k[(image * p.keys + j) * width + head * p.headWidth + d])
          score += product
          size += product.magnitude
        }
        score /= Double(p.headWidth).squareRoot()
        size /= Double(p.headWidth).squareRoot()
        if mask == .gatedBias {
          let added = Double(gate[head * p.queries + i]) * Double(bias[head * (2 * p.keys - 1) + j - i + p.keys - 1])
          score += added
          size += added.magnitude
        }
        scores.append(score)
        scoreError = max(scoreError, coding + distanceError + Double(isInteger ? 12 : p.headWidth + 4) * 0x1p-24 * size)
      }
      let highest = scores.max() ?? 0
      let weights = scores.map { exp($0 - highest) }
      let total = weights.reduce(0, +)
      // A score that is off by e makes a weight, and so the sum of weights, off by a factor e; the exponential itself by
      // 2e-7 and the rounding of its argument; and both sums round once a key.
      let largest = scores.map { ($0 - highest).magnitude }.max() ?? 0
      let relative = 2 * (scoreError + 3e-7 + min(largest, 90) * 0x1p-23) + Double(2 * p.keys + 16) * 0x1p-24
      for d in 0..<p.headWidth {
        let values = weights.indices.map {
          Double(v[(image * p.keys + $0) * width + head * p.headWidth + d])
        }
        let sum = zip(weights, values).reduce(0) { $0 + $1.0 * $1.1 } / total
        let size = zip(weights, values).reduce(0) { $0 + $1.0 * $1.1.magnitude } / total
        let error =
          isInteger
          ? integerError(weights, values, sum, scoreError, spread: Double(p.spread)) : relative * size + 1e-30
        result[(image * p.queries + i) * width + head * p.headWidth + d] = Bounded(value: sum, error: error)
      }
    }
    return result
  }

  /// How far the mean of `values` may be off in integers. `weights` are those of the scores' softmax, the largest is 1.
  ///
  /// Each weight w is off by a factor, that of its score, of its polynomial (1.5e-4) and of a power of two (1.15e-4) for its
  /// tile and for each after it, and by half of what the largest of its tile has 255 of; with the sum D of the weights as
  /// computed, the mean m moves by sum |change of w| |v - m| / D. Each value is off by half of a 127th of its reach,
  /// which is `spread` at most.
  private func integerError(
    _ weights: [Double], _ values: [Double], _ mean: Double, _ scoreError: Double, spread: Double
  ) -> Double {
    let tiles = Double(weights.count / 128 + 2)
    let factor = exp(2 * scoreError + 1.5e-4 + 1.15e-4 * tiles) - 1
    let half = 0.51 / 255 * (1 + factor)
    let lost = Double(weights.count) * half
    let sum = max(0.99, weights.reduce(0, +) * (1 - factor) - lost)
    let change = zip(weights, values).reduce(0) { $0 + (factor * $1.0 + half) * ($1.1 - mean).magnitude }
    return change / sum + 0.51 * spread / 127 + 6 * tiles * 0x1p-24 * spread
  }

  private func check(_ p: Problem, _ mask: Mask, isInteger: Bool, seed: Int, threads: Int? = nil) throws {
    let run = try makeRun(pools[(threads ?? seed % 3 + 1) - 1])
    let width = p.heads * p.headWidth
    let (q, k, v) = (p.values(seed, p.queries), p.values(seed + 1, p.keys), p.values(seed + 2, p.keys))
    var generator = Generator(seed)
    let gate = generator.floats(p.heads * p.queries, 0...2)
    let bias = generator.floats(p.heads * (2 * p.keys - 1), -3...3)
    let attentionMask: AttentionMask =
      switch mask {
      case .none: .none
      case .causal: .causal
      case .gatedBias:
        .gatedBias(gate: run.matrix(p.heads, p.queries, gate), bias: run.matrix(p.heads, 2 * p.keys - 1, bias))
      }
    let out = run.blank(p.images * p.queries, width)
    run.attend(
      run.matrix(p.images * p.queries, width, q), run.matrix(p.images * p.keys, width, k),
      run.matrix(p.images * p.keys, width, v), into: out, images: p.images, heads: p.heads, mask: attentionMask,
      isInteger: isInteger)
    expectWithin(
      out.elements, expected(p, q, k, v, gate: gate, bias: bias, mask, isInteger: isInteger),
      "\(p) \(mask), integer \(isInteger)")
  }

  @Test(
    "Attention is the softmax over all keys of its own image",
    arguments: zip([Mask.none, .none, .causal, .gatedBias], [true, false, false, false]))
  func softmax(_ mask: Mask, isInteger: Bool) throws {
    for (seed, (tokens, heads, headWidth)) in [
      (1, 1, 1), (2, 3, 5), (63, 2, 8), (64, 1, 4), (65, 2, 12), (97, 2, 8), (127, 1, 8), (128, 2, 8), (129, 2, 8),
      (130, 1, 40),
    ].enumerated() {
      let images = mask == .gatedBias ? 1 : 2
      for spread in isInteger ? [Float(1), 1.5] : [Float(1), 12] {
        try check(
          Problem(
            images: images, queries: tokens, keys: tokens, heads: heads, headWidth: headWidth, spread: spread),
          mask, isInteger: isInteger, seed: seed)
      }
    }
  }

  @Test("Pictures attend to texts of another length", arguments: [false, true])
  func crossAttention(isInteger: Bool) throws {
    for (seed, (queries, keys)) in [(1, 77), (100, 1), (200, 77), (96, 64), (5, 129)].enumerated() {
      try check(
        Problem(images: 2, queries: queries, keys: keys, heads: 2, headWidth: 10, spread: 2), .none,
        isInteger: isInteger, seed: seed)
    }
    try check(
      Problem(images: 2, queries: 200, keys: 77, heads: 8, headWidth: 80, spread: 1), .none, isInteger: isInteger,
      seed: 5)
  }

  /// Some blocks of queries for each thread of two, as many as threads, and numbers that do not divide.
  @Test("Each query of each head finds its result, however many blocks there are", arguments: [256, 300, 130])
  func blocks(queries: Int) throws {
    let p = Problem(images: 2, queries: queries, keys: 140, heads: 3, headWidth: 40, spread: 1)
    for isInteger in [false, true] {
      for threads in 1...3 { try check(p, .none, isInteger: isInteger, seed: 1, threads: threads) }
    }
  }

  @Test("Scores that are all far below or above zero keep their softmax", arguments: [false, true])
  func shiftedScores(isInteger: Bool) throws {
    let run = try makeRun()
    // q k^T is -2000 or 2000 for every key, and exp of either alone is no number to divide by.
    for sign in [Float(-1), 1] {
      let v = (0..<100).map(Float.init)
      let out = run.blank(1, 1)
      run.attend(
        run.matrix(1, 1, [sign * 2000]), run.matrix(100, 1, [Float](repeating: 1, count: 100)),
        run.matrix(100, 1, v), into: out, images: 1, heads: 1, isInteger: isInteger)
      // Integers: half a step of the values' reach, and roundings.
      #expect((out.elements[0] - 49.5).magnitude < (isInteger ? 0.51 * 49.5 / 127 : 1e-4))
    }
  }
}
