import Glibc
import Kernels
import Tensors

/// The shape of a BEATs encoder; the `cfg` dictionary of its checkpoint.
package struct BEATsConfiguration: Equatable, Sendable {
  package var patch: Int
  package var embedWidth: Int
  package var width: Int
  package var layers: Int
  package var heads: Int
  package var feedForward: Int
  package var positionKernel: Int
  package var positionGroups: Int
  package var buckets: Int
  package var maximumDistance: Int
  package var deepNorm: Bool
  package init(
    patch: Int, embedWidth: Int, width: Int, layers: Int, heads: Int, feedForward: Int, positionKernel: Int,
    positionGroups: Int, buckets: Int, maximumDistance: Int, deepNorm: Bool
  ) {
    self.patch = patch
    self.embedWidth = embedWidth
    self.width = width
    self.layers = layers
    self.heads = heads
    self.feedForward = feedForward
    self.positionKernel = positionKernel
    self.positionGroups = positionGroups
    self.buckets = buckets
    self.maximumDistance = maximumDistance
    self.deepNorm = deepNorm
  }

  /// The layers, counted from 1, whose outputs AudioToken joins.
  package static let featureLayers = [4, 8, 12]
  package var featureWidth: Int { Self.featureLayers.count * width }
  /// Tokens of a filter bank of `frames` by `bins`.
  package func tokens(frames: Int, bins: Int) -> Int { (frames / patch) * (bins / patch) }
}

/// BEATs (arXiv 2212.09058) as AudioToken uses it: filter bank [frames, 128] -> features [tokens, 3 * width]
package struct BEATs {
  let configuration: BEATsConfiguration
  let patchEmbedding: Linear
  let embeddingNorm: LayerNorm
  let projection: Linear?
  let position: PositionConvolution
  let norm: LayerNorm
  let bias: UnsafePointer<Float>
  let layers: [Layer]

  package init(_ w: Weights, _ configuration: BEATsConfiguration) throws(WeightError) {
    self.configuration = configuration
    let c = configuration
    patchEmbedding = try Linear(w / "patch_embedding", c.patch * c.patch, c.embedWidth, bias: false)
    embeddingNorm = try LayerNorm(w / "layer_norm", c.embedWidth)
    projection = c.embedWidth == c.width ? nil : try Linear(w / "post_extract_proj", c.embedWidth, c.width)
    position = try PositionConvolution(w / "encoder" / "pos_conv", c)
    norm = try LayerNorm(w / "encoder" / "layer_norm", c.width)
    bias = try (w / "encoder" / "relative_attention_bias" / "weight").vector(c.buckets, c.heads)
    var layers: [Layer] = []
    for index in 0..<c.layers { layers.append(try Layer(w / "encoder" / "layers" / index, c)) }
    self.layers = layers
  }

  /// - Parameters:
  ///   - filterBank: normalised, [frames, 128].
  ///   - features: [tokens, 3 * width], tokens time-major.
  package func callAsFunction(_ filterBank: Matrix, into features: Matrix, _ run: Run) {
    let c = configuration
    let tokens = c.tokens(frames: filterBank.rows, bins: filterBank.columns)
    precondition(features.rows == tokens && features.columns == c.featureWidth)
    run.scratch {
      let x = run.matrix(tokens, c.width)
      embed(filterBank, into: x, run)
      position(x, run)
      norm(x, into: x, run)
      let table = run.matrix(c.heads, 2 * tokens - 1)
      run.serial { fillBias(table, tokens: tokens) }
      for (index, layer) in layers.enumerated() {
        layer(x, bias: table, run)
        guard let slot = BEATsConfiguration.featureLayers.firstIndex(of: index + 1) else { continue }
        run.serial {
          for token in 0..<tokens { (features.row(token) + slot * c.width).update(from: x.row(token), count: c.width) }
        }
      }
    }
  }

  /// Cuts the filter bank into patches, time-major, and embeds them: -> [tokens, width]
  private func embed(_ filterBank: Matrix, into x: Matrix, _ run: Run) {
    let size = configuration.patch
    let across = filterBank.columns / size
    run.scratch {
      let patches = run.matrix(x.rows, size * size)
      run.parallel(.elementwise, x.rows, grain: 64) { range in
        for token in range {
          let (t, f) = token.quotientAndRemainder(dividingBy: across)
          for row in 0..<size {
            (patches.row(token) + row * size).update(from: filterBank.row(t * size + row) + f * size, count: size)
          }
        }
      }
      guard let projection else {
        patchEmbedding(patches, into: x, run)
        embeddingNorm(x, into: x, run)
        return
      }
      let embedded = run.matrix(x.rows, configuration.embedWidth)
      patchEmbedding(patches, into: embedded, run)
      embeddingNorm(embedded, into: embedded, run)
      projection(embedded, into: x, run)
    }
  }

  /// table[head][j - i + tokens - 1]: the bias of the bucket that the distance from query i to key j falls in.
  private func fillBias(_ table: Matrix, tokens: Int) {
    for distance in 1 - tokens..<tokens {
      let bucket = Self.bucket(distance, configuration.buckets, configuration.maximumDistance)
      for head in 0..<table.rows {
        table.row(head)[distance + tokens - 1] = bias[bucket * configuration.heads + head]
      }
    }
  }

  /// T5's bidirectional buckets: exact for near keys, logarithmic for far ones.
  static func bucket(_ distance: Int, _ buckets: Int, _ maximumDistance: Int) -> Int {
    let half = buckets / 2
    let exact = half / 2
    let side = distance > 0 ? half : 0
    let magnitude = abs(distance)
    if magnitude < exact { return side + magnitude }
    let position = Float(log(Double(Float(magnitude) / Float(exact))))
    let scale = Float(log(Double(maximumDistance) / Double(exact)))
    return side + min(half - 1, exact + Int(position / scale * Float(half - exact)))
  }

  /// The convolutional position embedding: x += gelu(Conv1d(x)), 16 groups, the last output frame dropped.
  struct PositionConvolution {
    let weights: PackedMatrix
    let taps: Int

    init(_ w: Weights, _ c: BEATsConfiguration) throws(WeightError) {
      taps = c.positionKernel
      weights = try w.matrix(
        MatrixShape(outputs: c.width, inputs: c.width / c.positionGroups, taps: taps, groups: c.positionGroups))
    }

    func callAsFunction(_ x: Matrix, _ run: Run) {
      run.scratch {
        let y = run.matrix(like: x)
        let input = run.activations(.matrix(x), for: weights)
        let window = Window(kernel: .init(1, taps), stride: 1, input: .init(1, x.rows), output: .init(1, x.rows))
        run.multiply(input, by: weights, through: window, into: y)
        run.apply(.gelu, to: y)
        run.add(y, to: x)
      }
    }
  }

  /// A post-norm layer: x = LN(alpha x + attention(x)); x = LN(alpha x + feedForward(x)); [tokens, width], in place.
  struct Layer {
    let attention: Attention
    let gateProjection: Linear
    let gateScale: UnsafePointer<Float>
    let attentionNorm: LayerNorm
    let feedIn: Linear
    let feedOut: Linear
    let finalNorm: LayerNorm
    let alpha: Float

    init(_ w: Weights, _ c: BEATsConfiguration) throws(WeightError) {
      attention = try Attention(w / "self_attn", c.width, context: c.width, heads: c.heads, projectionBias: true)
      gateProjection = try Linear(w / "self_attn" / "grep_linear", c.width / c.heads, 8)
      gateScale = try (w / "self_attn" / "grep_a").vector(c.heads)
      attentionNorm = try LayerNorm(w / "self_attn_layer_norm", c.width)
      feedIn = try Linear(w / "fc1", c.width, c.feedForward)
      feedOut = try Linear(w / "fc2", c.feedForward, c.width)
      finalNorm = try LayerNorm(w / "final_layer_norm", c.width)
      alpha = c.deepNorm ? Float(pow(2 * Double(c.layers), 0.25)) : 1
    }

    /// - Parameter bias: [heads, 2 * tokens - 1], by distance.
    func callAsFunction(_ x: Matrix, bias: Matrix, _ run: Run) {
      run.scratch {
        let y = run.matrix(like: x)
        attend(x, bias: bias, into: y, run)
        run.add(y, to: x, scaledBy: alpha)
        attentionNorm(x, into: x, run)
        let hidden = run.matrix(x.rows, feedIn.weights.shape.outputs)
        feedIn(x, into: hidden, run)
        run.apply(.gelu, to: hidden)
        feedOut(hidden, into: y, run)
        run.add(y, to: x, scaledBy: alpha)
        finalNorm(x, into: x, run)
      }
    }

    private func attend(_ x: Matrix, bias: Matrix, into y: Matrix, _ run: Run) {
      run.scratch {
        let q = run.matrix(like: x)
        let k = run.matrix(like: x)
        let v = run.matrix(like: x)
        let gate = run.matrix(attention.heads, x.rows)
        run.scratch {
          let input = run.activations(.matrix(x), for: attention.query.weights)
          attention.query(input, into: q, run)
          attention.key(input, into: k, run)
          attention.value(input, into: v, run)
        }
        fillGate(gate, from: q, run)
        let mixed = run.matrix(like: x)
        run.attend(
          q, k, v, into: mixed, images: 1, heads: attention.heads, mask: .gatedBias(gate: gate, bias: bias),
          isInteger: false)
        attention.output(mixed, into: y, run)
      }
    }

    /// gate[head][token] = a (b grep_a[head] - 1) + 2, [a, b] = sigmoid of the halves of grep_linear(q), each summed.
    private func fillGate(_ gate: Matrix, from q: Matrix, _ run: Run) {
      run.scratch {
        let heads = gate.rows
        let logits = run.matrix(q.rows * heads, 8)
        gateProjection(Matrix(base: q.base, rows: q.rows * heads, columns: q.columns / heads), into: logits, run)
        run.parallel(.elementwise, q.rows, grain: 64) { range in
          for token in range {
            for head in 0..<heads {
              let l = logits.row(token * heads + head)
              let a = Self.sigmoid(((l[0] + l[1]) + l[2]) + l[3])
              let b = Self.sigmoid(((l[4] + l[5]) + l[6]) + l[7])
              gate.row(head)[token] = a * (b * gateScale[head] - 1) + 2
            }
          }
        }
      }
    }

    private static func sigmoid(_ x: Float) -> Float { 1 / (1 + ReferenceMath.exp(-x)) }
  }
}
