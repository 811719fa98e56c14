import Glibc
import Kernels
import Tensors

/// The sizes of AudioToken's embedder; read off its tensors.
package struct ProjectorConfiguration: Equatable, Sendable {
  package var featureWidth: Int
  package var tokenWidth: Int
  package init(featureWidth: Int, tokenWidth: Int) {
    self.featureWidth = featureWidth
    self.tokenWidth = tokenWidth
  }
}

/// AudioToken's FGAEmbedder: audio features [tokens, features] -> one text token [1, width].
///
/// An MLP, then factor-graph attention pools over time: each position has a potential from itself (`unary`) and from its
/// mean cosine to all others (`pairwise`), and the softmax of the potentials weighs the positions. The published code
/// leaves a dropout on at inference; here it is off.
package struct TokenProjector {
  let configuration: ProjectorConfiguration
  let fc1: Linear
  let fc2: Linear
  let unaryEmbedding: Linear
  let unaryReduction: UnsafePointer<Float>
  let unaryBias: UnsafePointer<Float>
  let pairX: Linear
  let pairY: Linear
  let reduction: UnsafePointer<Float>

  package init(_ w: Weights, _ configuration: ProjectorConfiguration) throws(WeightError) {
    self.configuration = configuration
    let width = configuration.tokenWidth
    fc1 = try Linear(w / "fc1", configuration.featureWidth, configuration.featureWidth)
    fc2 = try Linear(w / "fc2", configuration.featureWidth, width)
    unaryEmbedding = try Linear(w / "unary" / "embed", width, width)
    unaryReduction = try (w / "unary" / "feature_reduce" / "weight").vector(width)
    unaryBias = try (w / "unary" / "feature_reduce" / "bias").vector(1)
    pairX = try Linear(w / "pairwise" / "embed_X", width, width)
    pairY = try Linear(w / "pairwise" / "embed_Y", width, width)
    reduction = try (w / "reduce_potentials" / "weight").vector(2)
  }

  package func callAsFunction(_ features: Matrix, into token: Matrix, _ run: Run) {
    run.scratch {
      let h = run.matrix(features.rows, configuration.tokenWidth)
      run.scratch {
        let hidden = run.matrix(like: features)
        fc1(features, into: hidden, run)
        run.apply(.gelu, to: hidden)
        fc2(hidden, into: h, run)
      }
      let input = run.activations(.matrix(h), for: unaryEmbedding.weights)
      let unary = run.matrix(like: h)
      let x = run.matrix(like: h)
      let y = run.matrix(like: h)
      unaryEmbedding(input, into: unary, run)
      run.apply(.relu, to: unary)
      pairX(input, into: x, run)
      pairY(input, into: y, run)
      let weights = run.vector(h.rows)
      let mean = run.vector(h.columns)
      run.serial {
        meanDirection(y, into: mean)
        potentials(unary: unary, x: x, mean: mean, into: weights)
        pool(h, weights, into: token)
      }
    }
  }

  /// The mean of the rows after each is scaled to length one (at least 1e-12, as torch normalize): [columns]
  private func meanDirection(_ y: Matrix, into mean: Vector) {
    for c in 0..<y.columns { mean.base[c] = 0 }
    for t in 0..<y.rows {
      let inverse = Float(1 / length(y.row(t), y.columns) / Double(y.rows))
      for c in 0..<y.columns { mean.base[c] = mean.base[c] + y.row(t)[c] * inverse }
    }
  }

  /// The mean over s of cos(x_t, y_s) is x_t's direction times the mean direction of y.
  private func potentials(unary: Matrix, x: Matrix, mean: Vector, into weights: Vector) {
    for t in 0..<x.rows {
      var own = Double(unaryBias[0])
      var pair = 0.0
      for c in 0..<x.columns {
        own += Double(unary.row(t)[c]) * Double(unaryReduction[c])
        pair += Double(x.row(t)[c]) * Double(mean.base[c])
      }
      pair /= length(x.row(t), x.columns)
      weights.base[t] = Float(own * Double(reduction[0]) + pair * Double(reduction[1]))
    }
  }

  /// token = sum over t of softmax(potentials)[t] h[t]
  private func pool(_ h: Matrix, _ potentials: Vector, into token: Matrix) {
    var highest = potentials.base[0]
    for t in 0..<h.rows { highest = max(highest, potentials.base[t]) }
    var total = 0.0
    for t in 0..<h.rows {
      potentials.base[t] = Float(exp(Double(potentials.base[t] - highest)))
      total += Double(potentials.base[t])
    }
    for c in 0..<h.columns {
      var sum = 0.0
      for t in 0..<h.rows { sum += Double(potentials.base[t]) * Double(h.row(t)[c]) }
      token.base[c] = Float(sum / total)
    }
  }

  private func length(_ row: UnsafeMutablePointer<Float>, _ count: Int) -> Double {
    var square = 0.0
    for c in 0..<count { square += Double(row[c]) * Double(row[c]) }
    return max(square.squareRoot(), 1e-12)
  }
}
